"""How speed goes with the size: a small panel for each case that was timed in several sizes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sepfast.bench.report.drawing import (
    GREY,
    SMALL,
    TIMES,
    drawing,
    heading,
    in_order,
    log_ticks,
    look,
    marker_style,
    multiples,
    shown,
)
from sepfast.bench.report.standing import LESS, Standing, ratio, swept
from sepfast.bench.results import Report, Row
from sepfast.evaluation.page import Picture
from sepfast.evaluation.style import INK

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_PANEL, _ACROSS = 1.55, 3  # inches of a panel, panels of a line


def sweep_plots(report: Report, path: Path, precision: str) -> Picture | None:
    """Draw the sizes of each case: on a CPU speed beside eager's, on a GPU milliseconds.

    Args:
        report: that the sweeps are from.
        path: the PNG file, 1400 pixels wide.
        precision: of the cases.

    Returns:
        The picture; None where nothing was timed in several sizes at that precision.
    """
    drawn = {case: sizes for (case, of), sizes in swept(report).items() if of == precision}
    if not report.on_gpu:
        drawn = {case: sizes for case, sizes in drawn.items() if _beside_eager(sizes)}
    if not drawn:
        return None
    what = "Time" if report.on_gpu else "Speed beside eager PyTorch"
    title = heading(report, f"{what} over size", precision)
    lines = -(-len(drawn) // _ACROSS)
    sides = _sides(drawn, report.on_gpu)
    height = _PANEL * lines + 0.3
    with drawing(report, path, height, title, _handles(sides), 5) as figure:
        grid = figure.subplots(lines, min(_ACROSS, len(drawn)), squeeze=False).ravel()
        for ax, (case, sizes) in zip(grid, drawn.items(), strict=False):
            (_times if report.on_gpu else _ratios)(ax, sizes, sides)
            _dress(ax, case, sizes, report.on_gpu)
        for ax in grid[len(drawn) :]:
            ax.set_axis_off()
        for ax in grid[: len(drawn)][-min(_ACROSS, len(drawn)) :]:  # the lowest of each column
            ax.set_xlabel("size / workload's own", fontsize=SMALL)
        unit = "milliseconds" if report.on_gpu else "times as fast as eager PyTorch"
        figure.supylabel(f"{unit} (log scale)", fontsize=8)
    return Picture(path, _caption(report), _words(drawn, report.on_gpu))


def _beside_eager(sizes: Sequence[Standing]) -> bool:
    return sum("eager" in each.sides for each in sizes) > 1


def _sides(drawn: Mapping[str, Sequence[Standing]], gpu: bool) -> list[str]:
    """What has a line, in the order of the legend: ours on top, so last."""
    there = {side for sizes in drawn.values() for each in sizes for side in each.sides}
    return in_order(there if gpu else there - {"eager"})


def _times(ax: Axes, sizes: Sequence[Standing], sides: Sequence[str]) -> None:
    """Milliseconds of each side."""
    for side in sides:
        rows = [each.sides[side] for each in sizes if side in each.sides]
        bands = [(row.p20_ms, row.p50_ms, row.p80_ms) for row in rows]
        _line(ax, side, rows, bands)


def _ratios(ax: Axes, sizes: Sequence[Standing], sides: Sequence[str]) -> None:
    """Speed of each side as a multiple of eager's."""
    ax.axhline(1, color=INK, linewidth=0.9, zorder=1.5)
    for side in sides:
        both = [each.sides for each in sizes if side in each.sides and "eager" in each.sides]
        bands = [tuple(ratio(pair[side], pair["eager"])) for pair in both]
        _line(ax, side, [pair[side] for pair in both], bands)


def _line(ax: Axes, side: str, rows: Sequence[Row], bands: Sequence[tuple[float, ...]]) -> None:
    """A side's medians over its sizes, and the band that its spread leaves."""
    if not rows:
        return
    low, middle, high = zip(*bands, strict=True)
    scales, front = [row.scale for row in rows], side == "ours"
    colour = look(side).colour
    ax.fill_between(scales, low, high, color=colour, alpha=0.16, linewidth=0, zorder=1)
    style: Any = marker_style(side) | {
        "markersize": 3.5,
        "linestyle": "--" if LESS in side else "-",
        "linewidth": 1.5 if front else 0.9,
        "color": colour,
    }
    ax.plot(scales, middle, zorder=4 if front else 3, **style)


def _dress(ax: Axes, case: str, sizes: Sequence[Standing], gpu: bool) -> None:
    """Log axes, and the case's name in two lines: the operator, and what it is done in."""
    from matplotlib.ticker import FixedLocator, FuncFormatter, NullLocator

    workload, _, what = case.partition("/")
    ax.set_title(f"{what}\n", loc="left", fontsize=SMALL, weight="bold", linespacing=1.25)
    ax.annotate(workload, (0, 1), (0, 4), xycoords="axes fraction", textcoords="offset points",
                fontsize=SMALL, color="#595959")  # fmt: skip
    scales = [each.ours.scale for each in sizes]
    ax.set(xscale="log", yscale="log")
    ax.xaxis.set_major_locator(FixedLocator(_spread(scales)))
    ax.xaxis.set_minor_locator(NullLocator())
    ax.xaxis.set_major_formatter(FuncFormatter(lambda scale, _: _fraction(scale)))
    low, high = ax.get_ylim()
    if not gpu:  # at least from half to twice, so that noise does not look like a finding
        low, high = min(low, 0.45), max(high, 2.2)
    ax.set_ylim(low, high)
    log_ticks(ax.yaxis, low, high, "" if gpu else TIMES)
    ax.tick_params(labelsize=SMALL)
    ax.grid()


def _spread(scales: Sequence[float]) -> list[float]:
    """Five of the sizes at most, the largest one among them."""
    step = -(-len(scales) // 5)
    return sorted(scales, reverse=True)[::step]


def _fraction(scale: float) -> str:
    """A size as it is said.

    >>> [_fraction(x) for x in (0.0625, 0.3, 1.0, 4.0)]
    ['1/16', '0.3', '1', '4']
    """
    below = 1 / scale
    whole = scale < 1 and abs(below - round(below)) < 1e-3 * below
    return f"1/{round(below):,}" if whole else f"{scale:,.3g}"


def _handles(sides: Sequence[str]) -> list[Any]:
    from matplotlib.lines import Line2D
    from matplotlib.patches import Patch

    lines: list[Any] = [
        Line2D([], [], label=shown(side), **marker_style(side) | {
            "linestyle": "--" if LESS in side else "-", "color": look(side).colour})
        for side in sides
    ]  # fmt: skip
    return [*lines, Patch(facecolor=GREY, alpha=0.3, label="p20 to p80")]


def _caption(report: Report) -> str:
    what = (
        "Milliseconds of a call, the median with a band from p20 to p80"
        if report.on_gpu
        else "Speed as a multiple of eager PyTorch's at the same size, of medians, with a band "
        "over p20 to p80 of both sides"
    )
    return f"{what}. From left to right the same case grows; 1 is the workload's own size."


def _words(drawn: Mapping[str, Sequence[Standing]], gpu: bool) -> str:
    told = []
    for case, sizes in drawn.items():
        beside = [(each.ours.scale, each.against("eager")) for each in sizes]
        points = [f"{multiples(r.middle)} at size {_fraction(x)}" for x, r in beside if r]
        told.append(f"{case} {', '.join(points) or 'not beside eager'}")
    return "Speed of ours as a multiple of eager PyTorch's over size; " + "; ".join(told) + "."
