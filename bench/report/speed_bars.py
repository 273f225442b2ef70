"""How fast ours is beside eager and the others: a bar for each case, losing ones by name."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sepfast.bench.report.bars import (
    Panels,
    axes_of,
    height_of,
    listed,
    panels_of,
    write_beside,
)
from sepfast.bench.report.drawing import (
    GREY,
    TIMES,
    VERDICT_WORDS,
    VERDICTS,
    drawing,
    heading,
    in_order,
    log_ticks,
    marker_style,
    multiples,
    short,
    shown,
)
from sepfast.bench.report.standing import LESS, Standing, ratio, standings
from sepfast.bench.results import OURS, Report
from sepfast.evaluation.page import Picture
from sepfast.evaluation.style import INK

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_PALE = 0.55  # opacity of a bar of graphs


def speed_bars(report: Report, path: Path, precision: str) -> Picture | None:
    """Draw the speed of ours as a multiple of eager's, a bar for each case, the fastest on top.

    Args:
        report: that the cases are from.
        path: the PNG file, 1400 pixels wide.
        precision: of the cases.

    Returns:
        The picture; None where no case was timed beside eager at that precision.
    """
    drawn = [s for s in standings(report) if s.precision == precision and "eager" in s.sides]
    if not drawn:
        return None
    panels = panels_of(drawn, _speed)
    title = heading(report, "Speed beside eager PyTorch", precision)
    with drawing(report, path, height_of(panels), title, _handles(drawn), 3) as figure:
        axes = axes_of(figure, panels)
        for ax, group in zip(axes, panels.values(), strict=True):
            _panel(ax, group)
        _dress(axes, drawn)
    return Picture(path, _CAPTION, _words(panels))


def _speed(standing: Standing) -> float:
    return ratio(standing.ours, standing.sides["eager"]).middle


def _panel(ax: Axes, group: Sequence[Standing]) -> None:
    for y, standing in enumerate(group):
        sides = [side for side in OURS if side in standing.sides]
        for place, side in enumerate(sides):
            height = 0.72 / len(sides)
            up = y + height * ((len(sides) - 1) / 2 - place)
            _bar(ax, standing, side, up, height)
        _markers(ax, standing, y)
        _figure(ax, standing, y)


def _figure(ax: Axes, standing: Standing, y: float) -> None:
    """A case's ratio in numbers and, where it loses, to whom."""
    text = f"{multiples(_speed(standing))}{TIMES}"
    lost = standing.verdict() == "loses"
    if lost:
        assert standing.best is not None
        text += f"  loses to {short(standing.best.side)}"
    write_beside(ax, y, text, lost)


def _bar(ax: Axes, standing: Standing, side: str, y: float, height: float) -> None:
    """From 1 to a side's ratio, with a whisker over what both spreads allow."""
    beside = standing.against("eager", side)
    assert beside is not None
    ax.barh(
        y, beside.middle - 1, height, left=1, color=VERDICTS[standing.verdict(side)],
        alpha=_PALE if side == "graph" else 1, linewidth=0, zorder=2,
    )  # fmt: skip
    ax.plot([beside.low, beside.high], [y, y], color=INK, linewidth=0.8, zorder=3)


def _markers(ax: Axes, standing: Standing, y: float) -> None:
    """The others beside eager."""
    eager = standing.sides["eager"]
    for side, row in standing.sides.items():
        if side not in (*OURS, "eager"):
            ax.plot(ratio(row, eager).middle, y, zorder=4, **marker_style(side))


def _dress(axes: Sequence[Axes], drawn: Sequence[Standing]) -> None:
    """One log axis for all panels, with a line at eager's own speed."""
    reached = [1.0]
    for standing in drawn:
        for side, row in standing.sides.items():
            beside = ratio(row, standing.sides["eager"])
            spread = side in OURS
            reached += [beside.low, beside.high] if spread else [beside.middle]
    low, high = min(reached) / 1.15, max(reached) * 1.15
    for ax in axes:
        ax.set(xscale="log", xlim=(low, high))
        log_ticks(ax.xaxis, low, high, TIMES)
        ax.axvline(1, color=INK, linewidth=0.9, zorder=1.5)
    axes[-1].set_xlabel("times as fast as eager PyTorch (log scale)")


def _handles(drawn: Sequence[Standing]) -> list[Any]:
    from matplotlib.lines import Line2D
    from matplotlib.patches import Patch

    verdicts = {s.verdict(side) for s in drawn for side in OURS if side in s.sides}
    there = {side for s in drawn for side in s.sides}
    handles: list[Any] = [
        Patch(facecolor=VERDICTS[v], label=f"ours, {words}")
        for v, words in VERDICT_WORDS.items()
        if v in verdicts
    ]
    if "graph" in there:
        handles.append(
            Patch(facecolor=GREY, alpha=_PALE, label="paler: ours in a CUDA graph, below ours")
        )
    handles.append(Line2D([], [], color=INK, linewidth=0.8, label="p20 to p80 of both sides"))
    handles += [
        Line2D([], [], label=shown(side) + " (*)" * (LESS in side), **marker_style(side))
        for side in in_order(there - {*OURS, "eager"})
    ]
    return handles


_CAPTION = (
    "Speed as a multiple of eager PyTorch's, of medians, on a log scale. A bar to the right of the "
    "line is faster than eager; its colour tells how ours stands against the fastest of all other "
    "sides, whose markers are drawn on top. Whiskers: p20 to p80 of both sides at their most "
    "unfavourable and most favourable. At the right is the number of the faster one of ours. A "
    "hollow marker computes less than the others do."
)


def _words(panels: Panels) -> str:
    def words(s: Standing) -> str:
        return f"{s.case} {multiples(_speed(s))} times" + " (loses)" * (s.verdict() == "loses")

    return f"Speed of ours as a multiple of eager PyTorch's; {listed(panels, words)}."
