"""Published checkpoints as models of ours; read without running what a pickle may hold."""

from __future__ import annotations

import pickle
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from sepfast.errors import InputError
from sepfast.files import PathLike
from sepfast.models import create_model
from sepfast.reference import DeepConvSep

#: Names in B's published `state_dict` -> ours; the channels of its output are in this order too.
_PUBLISHED_SOURCES = {"voice": "vocals", "drums": "drums", "bass": "bass", "other": "other"}


def import_pytorchconvsep(checkpoint: PathLike, statistics: PathLike) -> DeepConvSep:
    """B's published weights and statistics as a `deepconvsep-stereo`.

    Args:
        checkpoint: a `state_dict` written by `torch.save`, with `encoder.{0,1}`,
            `layer_first.0`, `layer_{voice,drums,bass,other}.0` and
            `decode_{voice,drums,bass,other}.{0,1}`, each with weight and bias.
        statistics: an HDF5 file with `feats_maximus` and `feats_minimus`, each (10, 513).

    Returns:
        The model, in evaluation mode.

    Raises:
        InputError: for a file that is missing, broken or of another layout.
    """
    path = Path(checkpoint)
    published = _read_state_dict(path)
    names = _names()
    for name in names:
        if name not in published:
            raise InputError(f"{path}: is of another model, it lacks {name}")
    for name in published:
        if name not in names:
            raise InputError(f"{path}: is of another model, it has {name} besides")
    model = create_model("deepconvsep-stereo", **_options(path, published))
    assert isinstance(model, DeepConvSep)
    weights = {ours: published[name].float() for name, ours in names.items()}
    try:
        model.load_state_dict(weights | dict(model.named_buffers()))
    except RuntimeError as error:
        reason = str(error).splitlines()[-1].strip()
        raise InputError(f"{path}: its layers do not fit each other ({reason})") from error
    minimum, maximum = _read_statistics(Path(statistics), tuple(model.minimum.shape))
    model.set_statistics(minimum, maximum)
    return model.eval()


def _names() -> dict[str, str]:
    """Published parameter names -> ours."""
    layers = {"encoder.0": "encoder.0", "encoder.1": "encoder.1", "layer_first.0": "bottleneck.0"}
    for theirs, ours in _PUBLISHED_SOURCES.items():
        layers[f"layer_{theirs}.0"] = f"expand.{ours}.0"
        layers |= {f"decode_{theirs}.{i}": f"decoder.{ours}.{i}" for i in (0, 1)}
    return {
        f"{theirs}.{kind}": f"{ours}.{kind}"
        for theirs, ours in layers.items()
        for kind in ("weight", "bias")
    }


def _read_state_dict(path: Path) -> Mapping[str, Tensor]:
    if not path.is_file():
        raise InputError(f"{path}: there is no such file; takes a published checkpoint")
    try:
        loaded = torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        raise InputError(
            f"{path}: is no plain state_dict; what else it holds is not read, as it could run code"
        ) from error
    except (RuntimeError, EOFError, OSError, ValueError, KeyError) as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise InputError(f"{path}: is broken or truncated ({reason})") from error
    if not isinstance(loaded, Mapping) or not all(isinstance(v, Tensor) for v in loaded.values()):
        raise InputError(f"{path}: holds a {type(loaded).__name__}, takes a state_dict of tensors")
    return loaded


def _options(path: Path, published: Mapping[str, Tensor]) -> dict[str, int]:
    """The sizes of the published network, where they differ from the paper's."""
    vertical, horizontal = published["encoder.0.weight"], published["encoder.1.weight"]
    first = published["layer_first.0.weight"]
    if vertical.ndim != 4 or horizontal.ndim != 4 or first.ndim != 2:
        raise InputError(f"{path}: is of another model, its first layers are no convolutions")
    n2, t2 = horizontal.shape[0], horizontal.shape[2]
    context = first.shape[1] // n2 + t2 - 1
    sizes = {"n1": vertical.shape[0], "n2": n2, "t2": t2, "units": len(first), "context": context}
    paper = {"n1": 50, "n2": 30, "t2": 15, "units": 128, "context": 30}
    return {name: size for name, size in sizes.items() if size != paper[name]}


def _read_statistics(path: Path, shape: tuple[int, ...]) -> tuple[Tensor, Tensor]:
    """Minimum and maximum, each of `shape`."""
    import h5py

    if not path.is_file():
        raise InputError(f"{path}: there is no such file; takes the HDF5 file of statistics")
    try:
        with h5py.File(path, "r") as file:
            extrema = [
                np.asarray(file[f"feats_{end}"], np.float32) for end in ("minimus", "maximus")
            ]
    except (OSError, KeyError, ValueError, TypeError) as error:
        raise InputError(
            f"{path}: is broken or lacks feats_minimus or feats_maximus ({error})"
        ) from error
    for values in extrema:
        if values.shape != shape:
            raise InputError(f"{path}: holds extrema of shape {values.shape}, takes {shape}")
    minimum, maximum = (torch.from_numpy(values) for values in extrema)
    return minimum, maximum
