"""Models as files: safetensors, with the model's name and options in the header.

Nothing is ever unpickled: a file can hold numbers and the words that `create_model` takes.
"""

from __future__ import annotations

import json
from pathlib import Path

from torch import Tensor

from sepfast.errors import InputError
from sepfast.files import PathLike, atomic
from sepfast.models import create_model
from sepfast.reference import Model

_FORMAT = "sepfast"


def save(model: Model, path: PathLike) -> None:
    """Write a model: its weights, statistics, name and options.

    Args:
        model: made by `create_model` or `load`.
        path: the file, by custom `*.safetensors`; replaced in one step.

    Raises:
        InputError: for a model of unknown making, or a path that cannot be written.
    """
    import safetensors.torch

    if not isinstance(model, Model) or not model.model_name:
        raise InputError(
            f"model: got a {type(model).__name__} without a name, takes one of create_model's"
        )
    header = {
        "format": _FORMAT,
        "model": model.model_name,
        "options": json.dumps(model.model_options),
    }
    tensors = {key: value.detach().contiguous() for key, value in model.state_dict().items()}
    with atomic(path) as temporary:
        # `save_file` would make a file that only its owner can read.
        temporary.write_bytes(safetensors.torch.save(tensors, header))


def load(path: PathLike) -> Model:
    """Read a model that `save` wrote.

    Args:
        path: the file.

    Returns:
        The model on the CPU, in evaluation mode.

    Raises:
        InputError: for a file that is missing, broken, a pickle, or of something else.
    """
    from safetensors import SafetensorError, safe_open

    path = Path(path)
    _check_readable(path)
    try:
        with safe_open(path, framework="pt") as file:
            header = file.metadata() or {}
            tensors = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118
    except (SafetensorError, OSError) as error:
        raise InputError(f"{path}: is broken or no safetensors file ({error})") from error
    if header.get("format") != _FORMAT:
        raise InputError(f"{path}: holds weights but no sepfast model; `sepfast import` makes one")
    model = _rebuild(path, header)
    _fill(path, model, tensors)
    return model.eval()


def _check_readable(path: Path) -> None:
    if not path.is_file():
        raise InputError(f"{path}: there is no such file; takes a model that sepfast saved")
    try:
        with path.open("rb") as file:
            start = file.read(9)
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror})") from error
    # A header of safetensors lies behind its length, which can begin as a pickle does.
    if start[:2] == b"PK" or (start[:1] == b"\x80" and start[8:] != b"{"):
        raise InputError(
            f"{path}: is a pickle, which could run code when read; `sepfast import` reads the "
            "published ones safely"
        )


def _rebuild(path: Path, header: dict[str, str]) -> Model:
    try:
        return create_model(header["model"], **json.loads(header["options"]))
    except (ArithmeticError, KeyError, RuntimeError, TypeError, ValueError) as error:
        raise InputError(f"{path}: its header names no model of this version ({error})") from error


def _fill(path: Path, model: Model, tensors: dict[str, Tensor]) -> None:
    try:
        model.load_state_dict(tensors)
    except RuntimeError as error:
        reason = str(error).splitlines()[-1].strip()
        raise InputError(f"{path}: its weights are of another model ({reason})") from error
