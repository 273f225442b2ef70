"""How lean ours is: a bar for each case, its peak memory as a share of eager's."""

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
    TIMES,
    VERDICTS,
    drawing,
    heading,
    marker_style,
    multiples,
)
from sepfast.bench.report.standing import Standing, Verdict, standings
from sepfast.bench.results import Report
from sepfast.evaluation.page import Picture
from sepfast.evaluation.style import INK

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_MOST = 2.2  # of eager's: what a bar is cut at, as most lie below 1
_SAME = 0.02  # nearer to eager's than this is the same memory


def memory_bars(report: Report, path: Path, precision: str) -> Picture | None:
    """Draw our peak memory as a share of eager's, a bar for each case, the leanest on top.

    Args:
        report: that the cases are from.
        path: the PNG file, 1400 pixels wide.
        precision: of the cases.

    Returns:
        The picture; None where memory was not measured at that precision.
    """
    drawn = [s for s in standings(report) if s.precision == precision and s.memory() is not None]
    if not drawn:
        return None
    panels = panels_of(drawn, lambda standing: -_share(standing))
    title = heading(report, "Peak memory beside eager PyTorch", precision)
    compiled = any("compiled" in s.sides for s in drawn)
    with drawing(report, path, height_of(panels), title, _handles(drawn, compiled), 4) as figure:
        axes = axes_of(figure, panels)
        most = min(_MOST, max(1.0, *map(_reach, drawn)) * 1.04)
        for ax, group in zip(axes, panels.values(), strict=True):
            _panel(ax, group, most)
        axes[-1].set_xlabel("peak memory of a call, inputs included, as a share of eager PyTorch's")
    return Picture(path, _CAPTION, _words(panels))


def _share(standing: Standing) -> float:
    share = standing.memory()
    assert share is not None
    return share


def _reach(standing: Standing) -> float:
    return max(_share(standing), standing.memory("compiled") or 0.0)


def _colour(share: float) -> str:
    if abs(share - 1) < _SAME:
        return VERDICTS["level"]
    return VERDICTS["wins" if share < 1 else "loses"]


def _panel(ax: Axes, group: Sequence[Standing], most: float) -> None:
    from matplotlib.ticker import PercentFormatter

    for y, standing in enumerate(group):
        share, beside = _share(standing), standing.memory("compiled")
        ax.barh(y, min(share, most), 0.72, color=_colour(share), zorder=2)
        if beside is not None:
            ax.plot(min(beside, most), y, zorder=4, **marker_style("compiled"))
        _figure(ax, standing, y)
    ax.axvline(1, color=INK, linewidth=0.9, zorder=3)
    ax.set_xlim(0, most)
    ax.xaxis.set_major_formatter(PercentFormatter(1.0, symbol=" %"))


def _figure(ax: Axes, standing: Standing, y: float) -> None:
    """Both sides' megabytes and the ratio."""
    share = _share(standing)
    ours, eager = (_megabytes(standing.sides[side].peak_bytes) for side in ("ours", "eager"))
    more = share > 1 + _SAME
    text = f"{multiples(share)}{TIMES}  {ours} of {eager} MB" + ", more" * more
    write_beside(ax, y, text, more)


def _megabytes(peak: int | None) -> str:
    """Bytes, three digits of them at least where they are few.

    >>> [_megabytes(n) for n in (12_345, 1_234_567, 12_345_678, 1_234_567_890)]
    ['0.012', '1.23', '12.3', '1,235']
    """
    return multiples((peak or 0) / 1e6)


def _handles(drawn: Sequence[Standing], compiled: bool) -> list[Any]:
    from matplotlib.lines import Line2D
    from matplotlib.patches import Patch

    names: dict[Verdict, str] = {
        "wins": "ours, leaner", "level": "ours, the same", "loses": "ours, more than eager",
    }  # fmt: skip
    there = {_colour(_share(standing)) for standing in drawn}
    handles: list[Any] = [
        Patch(facecolor=VERDICTS[v], label=name)
        for v, name in names.items()
        if VERDICTS[v] in there
    ]
    if compiled:
        handles.append(Line2D([], [], label="compiled", **marker_style("compiled")))
    return handles


_CAPTION = (
    "Peak memory of one call, inputs included, as a share of eager PyTorch's in the same call: a "
    "bar that ends left of the line is leaner. At the right the ratio, and the megabytes (10^6 "
    "bytes) of ours and of eager. Bars end at the edge where they would pass it."
)


def _words(panels: Panels) -> str:
    told = listed(panels, lambda s: f"{s.case} {multiples(_share(s))} times")
    return f"Peak memory of ours over eager PyTorch's; {told}."
