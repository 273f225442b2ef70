"""ONNX: what writes a file of it, and what runs one."""

from __future__ import annotations

import importlib.util
import logging
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import torch
from torch import Tensor
from torch.export import ExportedProgram

from sepfast.errors import InputError
from sepfast.export.networks import Network
from sepfast.export.recurrent import onnx_translations

_PACKAGES = ("onnx", "onnxscript", "onnxruntime")
_EXPORTER = "torch.onnx"


def check_packages() -> None:
    """Raise `InputError` where something is missing to write a file and to check it."""
    missing = [name for name in _PACKAGES if importlib.util.find_spec(name) is None]
    if missing:
        raise InputError(
            f"format: onnx takes the packages {', '.join(_PACKAGES)}, {', '.join(missing)} is not "
            "installed; pip install 'sepfast[export]'"
        )


def write(program: ExportedProgram, network: Network, path: Path, description: str) -> None:
    """Write a program as one ONNX file, the description in its metadata under "sepfast"."""
    with _quiet():
        made = torch.onnx.export(
            program,
            dynamo=True,
            input_names=[port.name for port in network.inputs],
            output_names=[port.name for port in network.outputs],
            custom_translation_table=onnx_translations(),
            verbose=False,
        )
        assert made is not None
        made.model.metadata_props["sepfast"] = description
        made.save(path, external_data=False)


def run(path: Path, inputs: Sequence[Tensor]) -> tuple[Tensor, ...]:
    """Run a file by ONNX Runtime, on the CPU."""
    import onnxruntime

    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    names = [each.name for each in session.get_inputs()]
    given = {name: x.numpy(force=True) for name, x in zip(names, inputs, strict=True)}
    return tuple(torch.from_numpy(x) for x in session.run(None, given))


@contextmanager
def _quiet() -> Iterator[None]:
    """Without the exporter's lines about packages that nothing here needs."""
    logger = logging.getLogger(_EXPORTER)
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        yield
    finally:
        logger.setLevel(level)
