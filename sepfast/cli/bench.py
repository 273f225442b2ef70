"""`sepfast bench`."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from sepfast.cli.console import say, show_columns
from sepfast.errors import InputError

if TYPE_CHECKING:
    from sepfast.bench.compare import Change, Comparison

_MINUTES = 10.0
_HEADER = ("case", "precision", "side", "scale", "before", "after", "verdict", "grew")
#: What a column is in, by what is compared.
_UNITS = {"times": "{:.4g} ms", "ratios": "{:.2f}x eager"}
_WORDS = {"times": "time", "ratios": "ratio to eager"}


def bench(
    results: Annotated[
        list[Path] | None,
        typer.Argument(
            metavar="RESULTS…", help="Of --compare: before and after. Of --report: one or more."
        ),
    ] = None,
    only: Annotated[str, typer.Option(help="What has a name that contains this.")] = "",
    minutes: Annotated[float, typer.Option(help="Time limit.")] = _MINUTES,
    quick: Annotated[
        bool,
        typer.Option("--quick", help="Few rounds, no tuning or compiling; on a CPU smaller sizes."),
    ] = False,
    sweep: Annotated[
        bool,
        typer.Option("--sweep", help="At several scales, too; a GPU does where time is left."),
    ] = False,
    device: Annotated[
        str, typer.Option(metavar="cpu|cuda", help="(default: a GPU where there is one)")
    ] = "",
    out: Annotated[
        Path | None,
        typer.Option(
            "-o", "--out", help="Results, sepfast-bench.json by default; of --report the page."
        ),
    ] = None,
    compare: Annotated[
        bool, typer.Option("--compare", help="Compare two results instead of measuring.")
    ] = False,
    across: Annotated[
        bool, typer.Option("--across", help="Of two devices, by ratios to eager alone.")
    ] = False,
    report: Annotated[
        bool, typer.Option("--report", help="Write a page of results instead of measuring.")
    ] = False,
    pictures: Annotated[
        Path | None, typer.Option(metavar="FOLDER", help="Draw results as PNG into a folder.")
    ] = None,
) -> None:
    """Verify every operator here, then measure how fast, how exact and how lean it is.

    Ours, the reference as it is and compiled, and PyTorch's own where there is one take turns; on
    a GPU ours in a CUDA graph, too. What is wrong is not timed, and what loses is listed.

    [bold]Example[/bold]: sepfast bench --only masked_istft --minutes 3 -o results.json

    Exit code 1 where something computes wrong numbers, or where ours got slower by more than the
    noise since an earlier run:

    [bold]Example[/bold]: sepfast bench --compare before.json after.json

    [bold]Example[/bold]: sepfast bench --report results.json -o page.html --pictures figures
    """
    begin, given = time.monotonic(), results or []
    _refuse_mixtures(given, out, compare, across, report, pictures is not None)
    if compare or report or pictures is not None:
        _refuse_unused({"--only": only, "--minutes": minutes != _MINUTES, "--quick": quick,
                        "--sweep": sweep, "--device": device})  # fmt: skip
    if compare:
        _compare(given, across)
    elif report or pictures is not None:
        _draw(given, out, pictures)
    else:
        from sepfast.bench.run import Run
        from sepfast.bench.settings import OUT, settings

        chosen = settings(
            begin, out=out or OUT, minutes=minutes, quick=quick, only=only, device=device,
            sweep=sweep,
        )  # fmt: skip
        code = Run(chosen).all()
        if code:
            raise typer.Exit(code)


def _refuse_mixtures(
    results: Sequence[Path],
    out: Path | None,
    compare: bool,
    across: bool,
    report: bool,
    pictures: bool,
) -> None:
    """Say which options do not go together."""
    draw = report or pictures
    if compare and draw:
        raise InputError("--compare: got --report or --pictures besides, takes one of them")
    if across and not compare:
        raise InputError("--across: got no --compare, takes it")
    if compare and len(results) != 2:
        raise InputError(f"--compare: got {len(results)} results, takes two, before and after")
    if draw and not results:
        raise InputError("--report, --pictures: got no results, takes a file or more")
    if results and not (compare or draw):
        raise InputError(f"RESULTS: got {results[0]}, takes --compare, --report or --pictures")
    if report and out is None:
        raise InputError("--report: got no --out, takes the page's name, such as -o page.html")
    if out is not None and (compare or (pictures and not report)):
        flag = "--compare" if compare else "--pictures"
        raise InputError(f"--out: got {out} beside {flag}, takes --report or a run that measures")


def _refuse_unused(options: Mapping[str, object]) -> None:
    """Say which option of a run was given where nothing is measured."""
    for flag, given in options.items():
        if given:
            raise InputError(f"{flag}: takes a run that measures, got --compare, --report or such")


def _draw(results: Sequence[Path], page: Path | None, pictures: Path | None) -> None:
    if page is not None:
        from sepfast.bench.report.page import write_page

        write_page(results, page)
        say(f"page: {page}")
    if pictures is not None:
        from sepfast.bench.report.figures import write_pictures

        for path in write_pictures(results, pictures):
            say(f"picture: {path}")


def _compare(results: Sequence[Path], across: bool) -> None:
    from sepfast.bench.compare import compare_reports
    from sepfast.bench.results import read_report

    before, after = map(read_report, results)
    found = compare_reports(before, after, across)
    rows = [_cells(each, found) for each in found.changes if each.verdict != "same" or each.grew]
    if rows:
        show_columns(_HEADER, rows, _style)
    _tell(found)
    if found.slower:
        raise typer.Exit(1)


def _cells(change: Change, found: Comparison) -> tuple[str, ...]:
    row, unit = change.row, _UNITS[found.by]
    factor = max(change.factor, 1 / change.factor)
    verdict = "same" if change.verdict == "same" else f"{factor:.2f} times {change.verdict}"
    return (
        row.case, row.precision, row.side, f"{row.scale:.3g}", unit.format(change.before),
        unit.format(change.after), verdict, ", ".join(change.grew),
    )  # fmt: skip


def _style(row: Sequence[str]) -> str:
    verdict = row[_HEADER.index("verdict")]
    return "red" if "slower" in verdict else "green" if "faster" in verdict else "yellow"


def _tell(found: Comparison) -> None:
    """What was compared, and what was not."""
    from sepfast.bench.compare import THRESHOLDS

    for name, texts in {
        "only before": found.only_before,
        "only after": found.only_after,
        "not compared": found.apart,
        "note": found.notes,
    }.items():
        for text in texts:
            say(f"{name}: {text}")
    verdicts = [each.verdict for each in found.changes]
    counted = ", ".join(f"{verdicts.count(v)} {v}" for v in ("slower", "faster", "same"))
    say(
        f"{len(verdicts)} compared by {_WORDS[found.by]}: {counted}; the same is what is within "
        f"the spreads or {THRESHOLDS[found.by]:.0%}; of ours {len(found.slower)} got slower"
    )
