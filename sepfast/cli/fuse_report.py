"""`sepfast fuse-report`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from sepfast.cli.console import say, show
from sepfast.errors import InputError

if TYPE_CHECKING:
    from sepfast.reference import Model


def fuse_report(
    model: Annotated[
        str, typer.Argument(metavar="MODEL", help="A model that sepfast saved, or a name.")
    ],
) -> None:
    """Show which layers of a model sepfast.fuse replaces, and why it leaves the others.

    Nothing is written. `sepfast models` lists the names.

    [bold]Example[/bold]: sepfast fuse-report deepconvsep-stereo
    """
    from sepfast.fusion import fuse, shown

    report = fuse(_model(model))
    rows = [(shown(done.name), done.layer, "yes", done.operator) for done in report.replaced]
    rows += [(shown(left.name), left.layer, "no", left.reason) for left in report.skipped]
    if rows:
        show(("layer", "class", "fused", "by operator, or why not"), rows)
    say(f"{len(report.replaced)} replaced, {len(report.skipped)} skipped")


def _model(given: str) -> Model:
    """A model by its name, or else by its file."""
    from sepfast.checkpoint import load
    from sepfast.models import create_model, list_models

    if given in list_models():
        return create_model(given)
    if not Path(given).exists():
        raise InputError(
            f"model: got {given!r}, takes a file that sepfast saved or one of "
            f"{', '.join(list_models())}"
        )
    return load(given)
