"""The pictures of results files: rooflines, speed, memory and sizes, as PNG files.

    roofline  how near each operator comes to what the device does at best
    speed     each case beside eager PyTorch and all other sides
    memory    peak memory of each case beside eager PyTorch, where it was measured
    sizes     how that goes with the size, where cases were timed in several

All is drawn from results files alone, so that a picture shows what was measured or is not there.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from sepfast.bench.report.memory_bars import memory_bars
from sepfast.bench.report.roofline import roofline
from sepfast.bench.report.speed_bars import speed_bars
from sepfast.bench.report.standing import precisions, standings
from sepfast.bench.report.sweep_plots import sweep_plots
from sepfast.bench.results import Report, read_report
from sepfast.errors import InputError
from sepfast.evaluation.page import Picture

_BY_PRECISION = {"speed": speed_bars, "memory": memory_bars, "sizes": sweep_plots}


def write_pictures(results: Sequence[Path], folder: Path) -> list[Path]:
    """Draw results files.

    Args:
        results: files of `sepfast bench`, each with a name of its own.
        folder: gets `NAME-roofline.png`, `NAME-speed.png`, `NAME-memory.png` and `NAME-sizes.png`,
            NAME a results file's own; where it has several precisions, that behind the latter
            three. All are 1400 pixels wide.

    Returns:
        The pictures' files, in this order. There is none of what was not measured.

    Raises:
        InputError: for no file, one that is not of results or without any case that was timed, two
            of the same name, or a folder that cannot be written.
    """
    reports = read_all(results)
    return [
        picture.path
        for path, report in reports.items()
        for picture in draw(report, folder, path.stem)
    ]


def read_all(results: Sequence[Path]) -> dict[Path, Report]:
    """Read results files, each with a name of its own and a case that was timed.

    Raises:
        InputError: as `write_pictures` has it.
    """
    if not results:
        raise InputError("results: got no file, takes at least one of sepfast bench")
    names = [path.stem for path in results]
    twice = next((name for name in names if names.count(name) > 1), None)
    if twice is not None:
        raise InputError(f"results: got two files named {twice}, takes different names")
    reports = {path: read_report(path) for path in results}
    for path, report in reports.items():
        if not standings(report):
            raise InputError(f"{path}: holds no case in which ours was timed, takes at least one")
    return reports


def draw(report: Report, folder: Path, name: str) -> list[Picture]:
    """Draw a report; the files' names begin with `name`.

    Raises:
        InputError: for a folder that cannot be written.
    """
    several = len(precisions(report)) > 1
    drawn = [roofline(report, folder / f"{name}-roofline.png")]
    for kind, make in _BY_PRECISION.items():
        for precision in precisions(report):
            file = f"{name}-{kind}" + f"-{precision}" * several + ".png"
            drawn.append(make(report, folder / file, precision))
    return [picture for picture in drawn if picture is not None]
