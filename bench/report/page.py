"""Results files as one page that needs nothing else: tables, pictures, losses, how to repeat it."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from pathlib import Path

from sepfast.bench.report import tables, wording
from sepfast.bench.report.figures import draw, read_all
from sepfast.bench.report.standing import device
from sepfast.bench.results import Report
from sepfast.evaluation import page as pages
from sepfast.evaluation.page import Code, Listing, Section, Table

_TITLE = "sepfast: how fast, how exact, how lean"


def write_page(results: Sequence[Path], page: Path) -> None:
    """Write the report of one or several results files.

    Args:
        results: files of `sepfast bench`, each with a name of its own.
        page: the HTML file; it asks for nothing from elsewhere and can be sent as it is.

    Raises:
        InputError: for no file, one that is not of results or without any case that was timed, two
            of the same name, or a page that cannot be written.
    """
    reports = read_all(results)
    labels = _labels(reports)
    with tempfile.TemporaryDirectory() as folder:
        sections = [
            Section(heading + labels[path], parts)
            for step in (_glance, _pictures, _cases, _losses, _missing, _repeat)
            for path, report in reports.items()
            for heading, parts in step(report, path, Path(folder))
        ]
        summary = " ".join(wording.summary(report) for report in reports.values())
        how = Section("How to read it", [Listing(wording.reading(list(reports.values())))])
        pages.write_page(page, _TITLE, summary, [*sections, how])


def _labels(reports: dict[Path, Report]) -> dict[Path, str]:
    """What headings end in: nothing for one report, else the device, and the file where needed."""
    if len(reports) == 1:
        return dict.fromkeys(reports, "")
    devices = [device(report) for report in reports.values()]
    return {
        path: ": " + (name if devices.count(name) == 1 else f"{name} ({path.stem})")
        for path, name in zip(reports, devices, strict=True)
    }


_Parts = list[tuple[str, Sequence[pages.Part]]]


def _glance(report: Report, path: Path, folder: Path) -> _Parts:
    return [("At a glance", [tables.glance(report), wording.GLANCE])]


def _pictures(report: Report, path: Path, folder: Path) -> _Parts:
    none = "There is nothing to draw: no case was timed beside eager."
    return [("Pictures", draw(report, folder, path.stem) or [none])]


def _cases(report: Report, path: Path, folder: Path) -> _Parts:
    each = [tables.cases(report, system) for system in (False, True)]
    return [("Every case", [table for table in each if table.rows])]


def _losses(report: Report, path: Path, folder: Path) -> _Parts:
    beyond, within = wording.losses(report)
    parts: list[pages.Part] = (
        ["Beyond the spread of both sides:", Listing(beyond)] if beyond else []
    )
    parts += ["Within the spread of both sides:", Listing(within)] if within else []
    return [("Where ours loses", parts or ["In this run no other side is faster than ours."])]


def _missing(report: Report, path: Path, folder: Path) -> _Parts:
    told = wording.missing(report)
    return [("What is not here, and why", [Listing(told) if told else "Nothing was left out."])]


def _repeat(report: Report, path: Path, folder: Path) -> _Parts:
    about = Table(("machine and versions", ""), wording.environment(report))
    return [("How to repeat it", [Code(wording.command(report)), about])]
