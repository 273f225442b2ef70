"""`sepfast compare`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.table import Table

from sepfast.cli.console import console
from sepfast.errors import InputError

if TYPE_CHECKING:
    from sepfast.evaluation import Report


def compare(
    reports: Annotated[
        list[str],
        typer.Argument(
            metavar="NAME=SCORES…",
            help="Experiments: what each is called, and the scores.json that evaluate wrote.",
        ),
    ],
    source: Annotated[str, typer.Option(help="Whose scores.")],
    output: Annotated[Path, typer.Option("-o", "--output", help="The figure, a .png file.")],
) -> None:
    """Draw the scores of experiments beside each other, and print their medians.

    Box plots of SDR, SAR, SIR, PES and EPS over songs: the box spans the quartiles, its line is
    the median, the whiskers reach over all songs, and a point is a song.

    [bold]Example[/bold]: sepfast compare BL2=bl2/scores.json A1=a1/scores.json --source vocals
    -o figure.png
    """
    from sepfast.evaluation import compare_plots, medians_table

    given = _reports(reports)
    found = medians_table(given, source)
    compare_plots(given, source, output)
    shown = Table(*found.header)
    for row in found.rows:
        shown.add_row(*row)
    console.print(shown)
    for text in (*found.notes, f"figure: {output}"):
        console.print(text, markup=False, highlight=False)


def _reports(arguments: list[str]) -> dict[str, Report]:
    from sepfast.evaluation import Report

    reports: dict[str, Report] = {}
    for argument in arguments:
        name, equals, path = argument.partition("=")
        if not (name and equals and path):
            raise InputError(f"compare: got {argument!r}, takes NAME=SCORES.json")
        if name in reports:
            raise InputError(f"compare: got {name} twice, takes each name once")
        reports[name] = Report.from_json(path)
    return reports
