"""A model as a file that is known to give the model's numbers."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.export import ExportedProgram

from sepfast.errors import InputError
from sepfast.export import onnx
from sepfast.export.networks import Network, Port, network_of
from sepfast.export.program import example_of, free_axes, known_warnings, prepared, traced
from sepfast.files import PathLike, atomic
from sepfast.ops.accuracy import largest, relative_error
from sepfast.reference import Model

#: Format -> the suffix of its files.
FORMATS = {"export": ".pt2", "aoti": ".pt2", "onnx": ".onnx"}

#: What ‖file - model‖ / ‖model‖ stays below, or there is no file: sums in another order over
#: hundreds of steps, and nothing that is heard.
BOUND = 1e-4

_KEY = "sepfast"


@dataclass(frozen=True)
class Written:
    """A file that was written and checked.

    Attributes:
        path: the file.
        format: one of `FORMATS`.
        description: what it also holds: model, options, framing, sample rate, inputs, outputs.
        error: the largest ‖file - model‖ / ‖model‖ of an output.
        checked: the shapes of the inputs it was checked with.
    """

    path: Path
    format: str
    description: dict[str, Any]
    error: float
    checked: tuple[tuple[tuple[int, ...], ...], ...]


def write_export(
    model: nn.Module,
    path: PathLike,
    *,
    format: str | None = None,
    fused: bool = False,
    frames: int | None = None,
) -> Written:
    """Write the network of a model, and check the file against the model.

    Args:
        model: made by `create_model` or `load`, on the device that the file is for.
        path: the file; replaced in one step, and only by one that gives the model's numbers.
        format: "export" for `torch.export.load`, "aoti" for AOTInductor's compiled package, "onnx";
            None for what the suffix says, "export" for .pt2.
        fused: whether layers run `torch.ops.sepfast`; see `export_program`.
        frames: see `export_program`.

    Raises:
        InputError: for a model, format, name or frames that do not go together, for packages or a
            compiler that are missing, and where the file gives other numbers than the model.
    """
    path = Path(path)
    format = _format_of(path, format, fused)
    # ONNX has a node for a recurrent layer, so that files of it take any number of frames.
    network = prepared(model, fused=fused, one_node=fused or format == "onnx")
    program = traced(network, frames)
    description = describe(network, format, fused)
    text = json.dumps(description)
    with atomic(path) as temporary, known_warnings():
        if format == "export":
            torch.export.save(program, temporary, extra_files={_KEY: text})
        elif format == "aoti":
            _compile(program, temporary, text)
        else:
            onnx.write(program, network, temporary, text)
        eager = network_of(model)
        checks = _check_sizes(network, example_of(network, frames))
        inputs = [eager.example(**sizes) for sizes in checks]
        error = largest(_error(eager, run(temporary, format, x), x) for x in inputs)
        if not error <= BOUND:
            raise InputError(
                f"{path}: was not written, as it gives other numbers than the model (relative "
                f"error {error:.1e}, at most {BOUND:.0e} is taken)"
            )
    shapes = tuple(tuple(tuple(x.shape) for x in example) for example in inputs)
    return Written(path, format, description, error, shapes)


def describe(network: Network, format: str, fused: bool) -> dict[str, Any]:
    """What a file says of itself, in words that JSON has.

    Sizes are numbers where they are fixed, and None where any will do.
    """
    model, free = network.model, free_axes(network)
    sizes: dict[str, int | None] = dict(network.sizes)
    sizes |= dict.fromkeys(free)
    return {
        "model": model.model_name,
        "options": model.model_options if model.model_name else {},
        "format": format,
        "fused": fused,
        "sample_rate": getattr(model, "sample_rate", None),
        "sources": list(getattr(model, "sources", ())),
        "framing": _framing(model),
        "inputs": [_port(port, sizes) for port in network.inputs],
        "outputs": [_port(port, sizes) for port in network.outputs],
    }


def run(path: Path, format: str, inputs: Sequence[Tensor]) -> tuple[Tensor, ...]:
    """Run a file with what reads its format, as whoever deploys it does."""
    if format == "onnx":
        return onnx.run(path, inputs)
    if format == "aoti":
        result = torch._inductor.aoti_load_package(str(path))(*inputs)
    else:
        result = torch.export.load(path).module()(*inputs)
    return result if isinstance(result, tuple) else (result,)


def _format_of(path: Path, format: str | None, fused: bool) -> str:
    """The format that is meant.

    Raises:
        InputError: for what does not go together, and for packages or a compiler that are missing.
    """
    if format is None:
        format = "onnx" if path.suffix == FORMATS["onnx"] else "export"
    if format not in FORMATS:
        raise InputError(f"format: got {format!r}, takes one of {', '.join(FORMATS)}")
    if path.suffix != FORMATS[format]:
        raise InputError(f"{path}: takes a name that ends in {FORMATS[format]}, for {format}")
    if format == "onnx":
        if fused:
            raise InputError(
                "fused: got it with onnx, takes False, as ONNX has no operators of sepfast"
            )
        onnx.check_packages()
    if format == "aoti":
        _check_compiler()
    return format


def _check_compiler() -> None:
    from torch._inductor.cpp_builder import get_cpp_compiler
    from torch._inductor.exc import InvalidCxxCompiler

    try:
        get_cpp_compiler()
    except (InvalidCxxCompiler, RuntimeError) as error:
        raise InputError(
            "format: aoti takes a C++ compiler, such as g++, and none was found; the environment "
            "variable CXX names another"
        ) from error


def _compile(program: ExportedProgram, path: Path, description: str) -> None:
    torch._inductor.aoti_compile_and_package(
        program,
        package_path=str(path),
        inductor_configs={"aot_inductor.metadata": {_KEY: description}},
    )


def _check_sizes(network: Network, traced_with: dict[str, int]) -> list[dict[str, int]]:
    """Sizes to check a file with: those of the trace, and others wherever they are free."""
    others = {axis: 1 if axis == "batch" else traced_with[axis] + 3 for axis in free_axes(network)}
    return [traced_with, traced_with | others]


def _error(eager: Network, out: Sequence[Tensor], inputs: Sequence[Tensor]) -> float:
    """The largest relative error of an output; NaN for NaN, and infinite for another shape."""
    with torch.no_grad():
        true = eager(*inputs)
    expected = true if isinstance(true, tuple) else (true,)
    return largest(relative_error(x, y) for x, y in zip(out, expected, strict=True))


def _framing(model: Model) -> dict[str, Any] | None:
    framing = getattr(model, "framing", None)
    if framing is None:
        return None
    values = {each.name: getattr(framing, each.name) for each in fields(framing) if each.init}
    return values | {"bins": framing.bins}


def _port(port: Port, sizes: dict[str, int | None]) -> dict[str, Any]:
    return {
        "name": port.name,
        "axes": {axis: sizes[axis] for axis in port.axes},
        "meaning": port.meaning,
    }
