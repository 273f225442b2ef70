"""How lean ours is: a bar for each case, its peak memory as a share of eager's."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sepfast.bench.report.drawing import (
    SMALL,
    TIMES,
    VERDICTS,
    WORDS,
    drawing,
    heading,
    marker_style,
    multiples,
    rows_high,
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
    groups = {
        name: sorted((s for s in drawn if s.system == system), key=_share, reverse=True)
        for name, system in (("operators", False), ("systems", True))
    }
    groups = {name: group for name, group in groups.items() if group}
    title = heading(report, "Peak memory beside eager PyTorch", precision)
    compiled = any("compiled" in s.sides for s in drawn)
    with drawing(report, path, rows_high(groups), title, _handles(drawn, compiled), 4) as figure:
        counts = {"height_ratios": [len(group) + 0.8 for group in groups.values()]}
        axes = figure.subplots(len(groups), 1, squeeze=False, sharex=True, gridspec_kw=counts)[:, 0]
        most = min(_MOST, max(1.0, *map(_reach, drawn)) * 1.04)
        for ax, (name, group) in zip(axes, groups.items(), strict=True):
            _panel(ax, name, group, most)
        axes[-1].set_xlabel("peak memory of a call, inputs included, as a share of eager PyTorch's")
    return Picture(path, _CAPTION, _words(groups))


def _share(standing: Standing) -> float:
    return standing.memory()  # type: ignore[return-value]


def _reach(standing: Standing) -> float:
    return max(_share(standing), _compiled(standing) or 0.0)


def _compiled(standing: Standing) -> float | None:
    """Peak bytes of the compiled side over eager's."""
    compiled = standing.sides.get("compiled")
    eager = standing.sides["eager"].peak_bytes
    if compiled is None or compiled.peak_bytes is None or not eager:
        return None
    return compiled.peak_bytes / eager


def _colour(share: float) -> str:
    if abs(share - 1) < _SAME:
        return VERDICTS["level"]
    return VERDICTS["wins" if share < 1 else "loses"]


def _panel(ax: Axes, name: str, group: Sequence[Standing], most: float) -> None:
    from matplotlib.ticker import PercentFormatter

    for y, standing in enumerate(group):
        share, beside = _share(standing), _compiled(standing)
        ax.barh(y, min(share, most), 0.72, color=_colour(share), zorder=2)
        if beside is not None:
            ax.plot(min(beside, most), y, zorder=4, **marker_style("compiled"))
        _figure(ax, standing, y)
    ax.axvline(1, color=INK, linewidth=0.9, zorder=3)
    ax.set_yticks(range(len(group)), [standing.case for standing in group], fontsize=SMALL)
    ax.set(xlim=(0, most), ylim=(-0.7, len(group) - 0.3))
    ax.tick_params(axis="y", length=0)
    ax.tick_params(axis="x", labelbottom=True)
    ax.xaxis.set_major_formatter(PercentFormatter(1.0, symbol=" %"))
    ax.grid(axis="x")
    ax.set_title(name, loc="left", fontsize=8)


def _figure(ax: Axes, standing: Standing, y: float) -> None:
    """Both sides' megabytes and the ratio."""
    share = _share(standing)
    ours, eager = (_megabytes(standing.sides[side].peak_bytes) for side in ("ours", "eager"))
    more = share > 1 + _SAME
    style: Any = {"color": WORDS, "weight": "bold"} if more else {"color": INK}
    at: Any = {"xycoords": ("axes fraction", "data"), "textcoords": "offset points"}
    text = f"{multiples(share)}{TIMES}  {ours} of {eager} MB" + ", more" * more
    ax.annotate(text, (1, y), (4, 0), fontsize=SMALL, va="center", **at, **style)


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


def _words(groups: dict[str, list[Standing]]) -> str:
    told = [
        f"{name}: " + ", ".join(f"{s.case} {multiples(_share(s))} times" for s in reversed(group))
        for name, group in groups.items()
    ]
    return "Peak memory of ours over eager PyTorch's; " + "; ".join(told) + "."
