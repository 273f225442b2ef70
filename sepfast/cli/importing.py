"""`sepfast import`."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Annotated

import typer

from sepfast.cli.console import say


def importing(reported: Callable[[Callable[..., None]], Callable[..., None]]) -> typer.Typer:
    """The commands below `sepfast import`, one for each published layout."""
    app = typer.Typer(help="Make a model file of published weights.", no_args_is_help=True)
    app.callback()(lambda: None)
    app.command("pytorchconvsep")(reported(pytorchconvsep))
    return app


def pytorchconvsep(
    checkpoint: Annotated[Path, typer.Argument(help="The state_dict, a .pt file.")],
    stats: Annotated[Path, typer.Argument(help="The statistics, an HDF5 file.")],
    output: Annotated[Path, typer.Argument(metavar="OUT", help="The model file to write.")],
) -> None:
    """Import the stereo system's published state_dict and statistics.

    Only tensors are read: a checkpoint that holds anything else is refused.

    [bold]Example[/bold]: sepfast import pytorchconvsep model.pt stats.hdf5 model.safetensors
    """
    from sepfast.checkpoint import save
    from sepfast.importers import import_pytorchconvsep

    save(import_pytorchconvsep(checkpoint, stats), output)
    say(f"{output}: deepconvsep-stereo")
