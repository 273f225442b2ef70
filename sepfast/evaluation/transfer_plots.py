"""Targets taken out of mixtures, as box plots: experiments beside each other, or one of them.

Source: E (Venkataramani et al. 2019), figure 3.
"""

from __future__ import annotations

import textwrap
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from sepfast.errors import InputError
from sepfast.evaluation.report import ScoreTable
from sepfast.evaluation.style import INK, box, picture
from sepfast.evaluation.transfer_scores import (
    AUDIBLE,
    TRANSFER_METRICS,
    TransferReport,
    count_mixtures,
)
from sepfast.files import PathLike

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_HEIGHT = 2.9  # inches
# Okabe and Ito's palette, which stays apart under every common kind of colour blindness.
_TINTS = ("#0072B2", "#56B4E9", "#D55E00", "#009E73", "#CC79A7", "#E69F00")
_GREY = "#777777"
_PALE = 0.3  # opacity of a box
_FEW = 4  # boxes of a panel that have room beside them, and below for names that lie flat
_LETTERS = {7: 34, 6: 36}  # points -> letters side by side below a panel
_COUNT: Any = {"fontsize": 6, "color": INK, "ha": "center", "va": "bottom"}

# A row's scores, a mixture each; rows by their names.
Rows = Mapping[str, Sequence[Mapping[str, float]]]


def transfer_plots(reports: Mapping[str, TransferReport], path: PathLike) -> None:
    """Draw SI-SDR, SIR and SAR of estimated targets, a box for each experiment.

    A point is a mixture. A box spans the quartiles with a line at the median, which stands beside
    it in numbers; the whiskers reach over all mixtures. Mixtures that have no such score, or one
    beyond ±100 dB, are left out and counted below their box. The experiments may be of different
    mixtures, such as those of training and of test.

    Args:
        reports: experiment -> its scores, in the order of the boxes.
        path: the PNG file, 1400 x 580 pixels.

    Raises:
        InputError: where there is no report, one has no mixtures, or for a file that cannot be
            written.
    """
    rows = _estimates(reports)
    tints = [_TINTS[i % len(_TINTS)] for i in range(len(rows))]
    _draw(rows, tints, _heading(rows), path)


def report_plot(report: TransferReport, path: PathLike) -> None:
    """Draw the mixtures as they are beside their estimates, as `transfer_plots` does.

    Args:
        report: of at least one mixture.
        path: the PNG file, 1400 x 580 pixels.

    Raises:
        InputError: for a report of no mixtures, or a file that cannot be written.
    """
    _estimates({report.label: report})
    _draw(report.rows, [_GREY, _TINTS[0]], _heading(report.rows), path)


def transfer_medians(reports: Mapping[str, TransferReport]) -> ScoreTable:
    """A row for each experiment: the medians that `transfer_plots` draws, in dB.

    Args and errors are those of `transfer_plots`.
    """
    rows = _estimates(reports)
    header = ("experiment", *(f"{name} (dB)" for name in TRANSFER_METRICS.values()))
    cells = [
        (name, *(_median(scores, metric) for metric in TRANSFER_METRICS))
        for name, scores in rows.items()
    ]
    counts = ", ".join(f"{name} {len(scores)}" for name, scores in rows.items())
    notes = [
        f"Mixtures: {counts}. Median over mixtures, in brackets the quartiles, and how many have "
        f"such a score within ±{AUDIBLE:.0f} dB, where not all do. More is better."
    ]
    return ScoreTable(header, cells, notes)


def _estimates(reports: Mapping[str, TransferReport]) -> Rows:
    """Experiment -> the scores of its estimates."""
    if not reports:
        raise InputError("reports: got none, takes at least one")
    for name, report in reports.items():
        if not report.mixtures:
            raise InputError(f"{name}: holds no mixtures, takes at least one")
    return {name: report.rows[report.label] for name, report in reports.items()}


def _drawn(scores: Sequence[Mapping[str, float]], metric: str) -> np.ndarray:
    """The values that have a place in a figure."""
    values = np.array([one[metric] for one in scores], np.float64)
    return values[np.abs(values) <= AUDIBLE]  # not NaN either


def _median(scores: Sequence[Mapping[str, float]], metric: str) -> str:
    values = _drawn(scores, metric)
    if not values.size:
        return "-"
    lower, median, upper = np.quantile(values, (0.25, 0.5, 0.75))
    some = f", {values.size} of {len(scores)}" * (values.size < len(scores))
    return f"{median:.2f} ({lower:.1f}, {upper:.1f}){some}"


def _heading(rows: Rows) -> str:
    counts = [len(scores) for scores in rows.values()]
    if len(set(counts)) == 1:
        heading = f"a point is one of {count_mixtures(counts[0])}"
    else:
        heading = f"a point is a mixture; from left to right {', '.join(map(str, counts))} of them"
    drawn = [(_drawn(s, metric).size, len(s)) for s in rows.values() for metric in TRANSFER_METRICS]
    if any(0 < shown < all_of_them for shown, all_of_them in drawn):
        heading += f"; \N{MINUS SIGN}n below a box: n have no such score within ±{AUDIBLE:.0f} dB"
    if any(min(one[m] for one in s) > AUDIBLE for s in rows.values() for m in TRANSFER_METRICS):
        heading += f"; > {AUDIBLE:.0f} dB: nothing but rounding"
    return heading


def _draw(rows: Rows, tints: Sequence[str], heading: str, path: PathLike) -> None:
    with picture(path, _HEIGHT) as figure:
        for metric, ax in zip(
            TRANSFER_METRICS, figure.subplots(1, len(TRANSFER_METRICS)), strict=True
        ):
            _panel(ax, metric, rows, tints)
        figure.suptitle(heading, fontsize=8)


def _panel(ax: Axes, metric: str, rows: Rows, tints: Sequence[str]) -> None:
    """One score: a box and its points at 0, 1, … for the rows."""
    from matplotlib.ticker import MaxNLocator

    few = len(rows) <= _FEW
    for position, (scores, tint) in enumerate(zip(rows.values(), tints, strict=True)):
        values = _drawn(scores, metric)
        if values.size:
            _box(ax, position, values, tint)
            _write_median(ax, position, values, few)
        if values.size < len(scores):
            text = _missing([one[metric] for one in scores], values.size)
            turn = 0 if few or len(text) < 3 else 90
            across = ax.get_xaxis_transform()
            ax.text(position, 0.012, text, rotation=turn, **_COUNT, transform=across)
    ax.set_title(f"{TRANSFER_METRICS[metric]} (dB)")
    _name_boxes(ax, list(rows), few)
    ax.margins(y=0.05)
    low, high = ax.get_ylim()
    counted = any(_drawn(scores, metric).size < len(scores) for scores in rows.values())
    room = 0.12 * (high - low)  # for counts below, and for medians above
    ax.set_ylim(low - room * counted, high + room * (not few))
    ax.yaxis.set_major_locator(MaxNLocator(nbins=7, steps=[1, 2, 4, 5, 10]))
    ax.grid(axis="y")


def _name_boxes(ax: Axes, names: Sequence[str], few: bool) -> None:
    ax.set_xlim(-0.6, len(names) - 0.4 + 0.15 * few)  # room for the last median
    # Names lie flat, in 7 points or in 6, where their longest words have room side by side.
    longest, size = max(len(word) for name in names for word in name.split() or [""]), 7
    if few and longest > _LETTERS[size] // len(names):
        size = 6
    if few and longest <= _LETTERS[size] // len(names):
        room = _LETTERS[size] // len(names)
        ax.set_xticks(range(len(names)), [textwrap.fill(name, room) for name in names])
    else:
        size = 7 if len(names) <= 8 else 5
        ax.set_xticks(range(len(names)), names, rotation=45, ha="right", rotation_mode="anchor")
    ax.tick_params(axis="x", length=0, labelsize=size)


def _missing(scores: Sequence[float], drawn: int) -> str:
    """What stands below the box of scores of which not all are drawn."""
    if min(scores) > AUDIBLE:
        return f"> {AUDIBLE:.0f} dB"
    return f"\N{MINUS SIGN}{len(scores) - drawn}" if drawn else "none"


def _box(ax: Axes, position: int, values: np.ndarray, tint: str) -> None:
    ax.plot(
        box(ax, position, values, (tint, _PALE), 0.5),
        values,
        ".",
        color=tint,
        markersize=3.5,
        markeredgewidth=0,
        zorder=3,
    )


def _write_median(ax: Axes, position: int, values: np.ndarray, few: bool) -> None:
    """The median in numbers: right of its line, or above the whisker where there is no room."""
    median = float(np.median(values))
    beside: Any = {"xytext": (2, 0), "ha": "left", "va": "center", "fontsize": 7}
    above: Any = {"xytext": (0, 3), "ha": "center", "va": "bottom", "fontsize": 5, "rotation": 90}
    ax.annotate(
        f"{median:.1f}",
        (position + 0.25, median) if few else (position, values.max()),
        textcoords="offset points",
        color=INK,
        **(beside if few else above),
    )
