"""`sepfast compare`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from sepfast.cli.console import say, show
from sepfast.errors import InputError

if TYPE_CHECKING:
    from sepfast.evaluation import ScoreTable


def compare(
    reports: Annotated[
        list[str],
        typer.Argument(
            metavar="NAME=SCORES…",
            help="Experiments: what each is called, and the scores.json that evaluate wrote.",
        ),
    ],
    output: Annotated[Path, typer.Option("-o", "--output", help="The figure, a .png file.")],
    source: Annotated[
        str | None, typer.Option(help="Whose scores; of songs only, and needed there.")
    ] = None,
) -> None:
    """Draw the scores of experiments beside each other, and print their medians.

    Box plots over songs of SDR, SAR, SIR, PES and EPS: the box spans the quartiles, its line is
    the median, the whiskers reach over all songs, and a point is a song.

    [bold]Example[/bold]: sepfast compare BL2=bl2/scores.json A1=a1/scores.json --source vocals
    -o figure.png

    Of targets taken out of mixtures, system E's, the boxes are of SI-SDR, SIR and SAR, and a
    point is a mixture; the experiments may be of different mixtures, and there is no --source.

    [bold]Example[/bold]: sepfast compare "UDT train=a/scores.json" "UDT test=b/scores.json"
    supervised=c/scores.json -o figure.png
    """
    paths = _paths(reports)
    if _are_transfers(paths):
        if source is not None:
            raise InputError(
                f"--source: got {source}, takes none: these scores are all of one target"
            )
        found = _compare_transfers(paths, output)
    else:
        found = _compare_songs(paths, source, output)
    show(found.header, found.rows)
    for text in (*found.notes, f"figure: {output}"):
        say(text)


def _paths(arguments: list[str]) -> dict[str, Path]:
    paths: dict[str, Path] = {}
    for argument in arguments:
        name, equals, path = argument.partition("=")
        if not (name and equals and path):
            raise InputError(f"compare: got {argument!r}, takes NAME=SCORES.json")
        if name in paths:
            raise InputError(f"compare: got {name} twice, takes each name once")
        paths[name] = Path(path)
    return paths


def _are_transfers(paths: dict[str, Path]) -> bool:
    """Whether these are scores of mixtures with a clean target, rather than of songs."""
    from sepfast.evaluation import Report
    from sepfast.evaluation.transfer_scores import is_transfer_report

    transfers = [name for name, path in paths.items() if is_transfer_report(path)]
    others = [name for name in paths if name not in transfers]
    if transfers and others:
        Report.from_json(paths[others[0]])  # which says so where it is neither
        raise InputError(
            f"compare: got scores of targets in {transfers[0]} and of songs in {others[0]}, takes "
            "one kind"
        )
    return bool(transfers)


def _compare_songs(paths: dict[str, Path], source: str | None, output: Path) -> ScoreTable:
    from sepfast.evaluation import Report, compare_plots, medians_table

    given = {name: Report.from_json(path) for name, path in paths.items()}
    if source is None:
        raise InputError("--source: got none, takes a source of the songs, such as vocals")
    found = medians_table(given, source)
    compare_plots(given, source, output)
    return found


def _compare_transfers(paths: dict[str, Path], output: Path) -> ScoreTable:
    from sepfast.evaluation.transfer_plots import transfer_medians, transfer_plots
    from sepfast.evaluation.transfer_scores import TransferReport

    given = {name: TransferReport.from_json(path) for name, path in paths.items()}
    found = transfer_medians(given)
    transfer_plots(given, output)
    return found
