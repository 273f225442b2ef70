"""How near operators come to what the device does at best: a roofline for each precision."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from sepfast.bench.clocks import Ceilings
from sepfast.bench.report.drawing import SMALL, drawing, heading, log_ticks, marker_style
from sepfast.bench.report.labels import Line, place_labels
from sepfast.bench.report.standing import Standing, standings
from sepfast.bench.results import Report, Row
from sepfast.evaluation.page import Picture
from sepfast.evaluation.style import INK

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.text import Annotation

_PANEL = 3.6  # inches
_OTHER: Any = marker_style("ours") | {"markersize": 3, "markeredgewidth": 0, "alpha": 0.3}


class _Roof(NamedTuple):
    """What bounds a panel.

    Attributes:
        copy: bytes a second.
        matrix: operations a second at the panel's precision.
        unit: operations a second that 1 on the axis stands for.
    """

    copy: float
    matrix: float
    unit: float

    @property
    def ridge(self) -> float:
        """Operations a byte at which both take as long."""
        return self.matrix / self.copy

    def at(self, intensity: float) -> float:
        """The roof's height."""
        return min(self.copy * intensity, self.matrix) / self.unit

    def height(self, row: Row) -> float:
        """A row's: operations a second of its median."""
        return 1e3 * row.operations / row.p50_ms / self.unit


def roofline(report: Report, path: Path) -> Picture | None:
    """Draw achieved operations a second over operations a least byte, below the run's own ceilings.

    An operator's first case in the report, which is its most important one, has a point for ours
    and one for eager, and its name; all its others have a pale point each. On a CPU the axis is a
    share of the measured matrix ceiling, on a GPU operations a second.

    Args:
        report: of at least one operator's case.
        path: the PNG file, 1400 pixels wide.

    Returns:
        The picture; None where no operator has operations that are counted.
    """
    drawn = [each for each in standings(report) if not each.system and each.ours.operations > 0]
    if not drawn or not report.ceilings:
        return None
    groups = {p: [s for s in drawn if s.precision == p] for p in _precisions(drawn)}
    title = heading(report, "Roofline of the operators")
    with drawing(report, path, _PANEL * len(groups), title, _handles(), 3) as figure:
        panels = figure.subplots(len(groups), 1, squeeze=False)[:, 0]
        marked = [
            _panel(ax, report, precision, group)
            for ax, (precision, group) in zip(panels, groups.items(), strict=True)
        ]
        figure.draw_without_rendering()  # the layout is final from here
        for ax, marks in zip(panels, marked, strict=True):
            place_labels(ax, *marks)
    return Picture(path, _caption(report), _words(drawn))


def _precisions(drawn: Sequence[Standing]) -> list[str]:
    return list(dict.fromkeys(each.precision for each in drawn))


def _panel(ax: Axes, report: Report, precision: str, drawn: Sequence[Standing]) -> Any:
    """Draw a precision; its labels, and what these keep clear of."""
    gpu, most = report.on_gpu, Ceilings(**report.ceilings)
    matrix = most.matrix(precision)
    roof = _Roof(most.copy, matrix, 1e12 if gpu else matrix / 100)
    first = {each.operator: each for each in reversed(drawn)}
    others = [_point(each.ours, roof) for each in drawn if first[each.operator] is not each]
    for point in others:
        ax.plot(*point, zorder=2, **_OTHER)
    labels, lines = [], []
    for operator, each in first.items():
        x, y = _point(each.ours, roof)
        labels.append((operator, x, y))
        lines += _pair(ax, each, roof)
    edges = _limits(ax, drawn, roof, gpu)
    roofs, names = _roofs(ax, roof, edges, gpu)
    ax.set_xlabel("arithmetic intensity (operations per least byte)")
    ax.set_ylabel("achieved (TFLOP/s)" if gpu else "achieved (share of the matrix ceiling)")
    if gpu:
        ax.set_title(f"float32 precision {precision!r}", loc="left", fontsize=8)
    ax.grid(which="major")
    kept_clear = [*others, *(line[:2] for line in lines)]  # of eager, where each line begins
    return labels, [*lines, *roofs], kept_clear, names


def _point(row: Row, roof: _Roof) -> tuple[float, float]:
    return row.operations / row.least_bytes, roof.height(row)


def _pair(ax: Axes, each: Standing, roof: _Roof) -> list[Line]:
    """Ours and, joined with it by a thin line, eager; that line."""
    x, y = _point(each.ours, roof)
    ax.plot(x, y, zorder=4, **marker_style("ours") | {"markersize": 5.5})
    eager = each.sides.get("eager")
    if eager is None:
        return []
    below = roof.height(eager)
    ax.plot([x, x], [below, y], color="#8A8A8A", linewidth=0.7, zorder=2.5)
    ax.plot(x, below, zorder=3, **_eager())
    return [(x, below, x, y)]


def _eager() -> dict[str, Any]:
    hollow = {"markerfacecolor": "white", "markeredgecolor": "#555555", "markeredgewidth": 0.9}
    return marker_style("eager") | hollow | {"markersize": 4.5}


def _limits(ax: Axes, drawn: Sequence[Standing], roof: _Roof, gpu: bool) -> tuple[float, float]:
    """Set log axes with room around all points and the ridge; the horizontal edges."""
    rows = [row for each in drawn for row in each.sides.values() if row.side in ("ours", "eager")]
    points = [_point(row, roof) for row in [*rows, *(each.ours for each in drawn)]]
    xs, ys = [x for x, _ in points] + [roof.ridge], [y for _, y in points]
    left, right = min(xs) / 2.2, max(xs) * 2.5
    bottom, top = min(ys) / 1.8, max([*ys, roof.at(right)]) * 3
    ax.set(xscale="log", yscale="log", xlim=(left, right), ylim=(bottom, top))
    log_ticks(ax.xaxis, left, right)
    log_ticks(ax.yaxis, bottom, top, "" if gpu else " %")
    return left, right


def _roofs(
    ax: Axes, roof: _Roof, edges: tuple[float, float], gpu: bool
) -> tuple[list[Line], list[Annotation]]:
    """Draw and name both ceilings; their lines and their names."""
    (left, right), bottom = edges, ax.get_ylim()[0]
    ridge = min(max(roof.ridge, left), right)
    ax.plot([left, ridge, right], [*map(roof.at, (left, ridge, right))], color=INK, linewidth=1.2)
    ax.plot([ridge, ridge], [bottom, roof.at(ridge)], ":", color="#AAAAAA", linewidth=0.7, zorder=1)
    copy = f"copy, {roof.copy / 1e9:,.0f} GB/s" if gpu else "copy ceiling"
    matrix = f"matrix product, {roof.matrix / 1e12:,.3g} TFLOP/s" if gpu else "matrix ceiling"
    style: Any = {"fontsize": SMALL, "color": "#444444", "style": "italic", "ha": "right"}
    style |= {"textcoords": "offset points"}
    seen = min(max(left, bottom * roof.unit / roof.copy), ridge)  # where the slope comes into view
    names = [ax.annotate(matrix, (right, roof.at(right)), (-3, 3), **style)]
    if seen < ridge:
        low = seen ** (2 / 3) * ridge ** (1 / 3)
        names.append(ax.annotate(copy, (low, roof.at(low)), (-4, 4), **style))
    return [(a, roof.at(a), b, roof.at(b)) for a, b in ((seen, ridge), (ridge, right))], names


def _handles() -> list[Any]:
    from matplotlib.lines import Line2D

    return [
        Line2D([], [], label="ours", **marker_style("ours") | {"markersize": 5.5}),
        Line2D([], [], label="eager PyTorch", **_eager()),
        Line2D([], [], label="ours, an operator's other cases", **_OTHER),
    ]


def _caption(report: Report) -> str:
    scale = (
        "operations a second"
        if report.on_gpu
        else "a share of the matrix ceiling, both measured in the same run"
    )
    return (
        "Roofline. Right: more operations for each byte that has to be moved; up: "
        f"{scale}. The roof is what the device did at best in the same run, copying bytes (slope) "
        "and multiplying matrices (flat). An operator's point is its first case in the report; a "
        "line leads to the same by eager PyTorch. Small inputs that stay in a cache can pass the "
        "copy ceiling."
    )


def _words(drawn: Sequence[Standing]) -> str:
    first = {(each.operator, each.precision): each for each in reversed(drawn)}
    shares = [
        f"{s.operator} at {p!r} {s.ours.ceiling_percent:.0f} %" for (_, p), s in first.items()
    ]
    return "Roofline; ours reaches of its ceiling: " + ", ".join(reversed(shares)) + "."
