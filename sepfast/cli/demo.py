"""`sepfast demo`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from sepfast.cli.console import say, show
from sepfast.cli.options import Device


def demo(
    output: Annotated[
        Path, typer.Option("-o", "--output", help="Folder of the stems, plots and report.")
    ] = Path("demo"),
    device: Device = None,
) -> None:
    """Train on four seconds of a real song, separate all six, score the two it never saw.

    Takes one to two minutes on two cores, and leaves stems and a report that plays them.

    [bold]Example[/bold]: sepfast demo -o demo
    """
    from sepfast.cli.training_report import shown
    from sepfast.demo import OPTIONS, run

    with shown() as report:
        outcome = run(output, options=OPTIONS, device=device, report=report)
    show(
        ("SDR of the unseen seconds, dB", "mixture as estimate", "separated"),
        [
            (source, *(f"{sdr:.1f}" for sdr in outcome.sdr(source)))
            for source in outcome.scores.sources
        ],
    )
    training, separation, scoring = outcome.seconds
    say(
        f"training {training:.0f} s, separation {separation:.1f} s, scoring {scoring:.0f} s; "
        f"listen: {outcome.page}"
    )
