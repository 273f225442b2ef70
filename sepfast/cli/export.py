"""`sepfast export`."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from sepfast.cli.console import bar, say

if TYPE_CHECKING:
    from sepfast.export import Written


class Format(StrEnum):
    """What reads the file."""

    export = "export"
    aoti = "aoti"
    onnx = "onnx"


def export(
    model: Annotated[Path, typer.Argument(metavar="MODEL", help="A model that sepfast saved.")],
    output: Annotated[
        Path, typer.Option("-o", "--output", help="The file to write, .pt2 or .onnx.")
    ],
    format: Annotated[
        Format | None,
        typer.Option(
            help="export: torch.export.load reads it. aoti: compiled code for this machine. onnx: "
            "ONNX. (default: by the file's name, export for .pt2)"
        ),
    ] = None,
    fused: Annotated[
        bool,
        typer.Option(
            "--fused",
            help="Run sepfast's operators, kernels on a GPU; who loads the file imports sepfast.",
        ),
    ] = False,
    frames: Annotated[
        int | None,
        typer.Option(help="Frames of a plain .pt2 of a recurrent model; other files take any."),
    ] = None,
    device: Annotated[
        str, typer.Option(help="What a .pt2 is to run on: cpu, cuda, cuda:1 …")
    ] = "cpu",
) -> None:
    """Write the network of a model as a file that runs without the model's code.

    It takes magnitudes and gives those of the sources, or masks; transforms stay outside. What goes
    in and out, the framing and the sample rate are in the file too. It is run and held to the model
    before it takes its name.

    [bold]Example[/bold]: sepfast export model.safetensors -o model.onnx
    """
    from sepfast.checkpoint import load
    from sepfast.device import pick_device
    from sepfast.export import write_export

    made = load(model).to(pick_device(device))
    with bar(f"{model}: tracing, writing, checking"):
        written = write_export(
            made, output, format=format and format.value, fused=fused, frames=frames
        )
    _tell(written)


def _tell(written: Written) -> None:
    """What the file holds, takes and gives, and how near it is to the model."""
    told = written.description
    say(f"{written.path}: {told['model']}, {_reader(written)}")
    for word, ports in (("takes", told["inputs"]), ("gives", told["outputs"])):
        for port in ports:
            say(f"  {word} {port['name']} ({_axes(port)}): {port['meaning']}")
    shapes = "; ".join(", ".join(map(str, each)) for each in written.checked)
    say(f"  differs from the model by {written.error:.1e} of its norm at most, at {shapes}")


def _axes(port: dict[str, Any]) -> str:
    return ", ".join(
        name if size is None else f"{size} {name}" for name, size in port["axes"].items()
    )


def _reader(written: Written) -> str:
    reader = {
        "export": "for torch.export.load",
        "aoti": "for torch._inductor.aoti_load_package on a machine like this",
        "onnx": "for ONNX Runtime",
    }[written.format]
    return f"{reader}, behind import sepfast" if written.description["fused"] else reader
