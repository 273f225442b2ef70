"""Names beside the points of a picture, none over another."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple

from sepfast.bench.report.drawing import SMALL
from sepfast.evaluation.style import INK

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.text import Annotation

#: From x and y to x and y.
Line = tuple[float, float, float, float]


class _Box(NamedTuple):
    """Pixels, left to right and bottom to top."""

    left: float
    bottom: float
    right: float
    top: float

    def meets(self, other: _Box) -> bool:
        return (
            self.left < other.right
            and other.left < self.right
            and self.bottom < other.top
            and other.bottom < self.top
        )

    def distance(self, x: float, y: float) -> float:
        """From a point, 0 inside."""
        across = max(self.left - x, 0, x - self.right)
        return float((across**2 + max(self.bottom - y, 0, y - self.top) ** 2) ** 0.5)


#: Around a point: where a label's box may lie, as shares of its own width and height.
_CORNERS = ((0, -0.5), (-1, -0.5), (-0.5, 0), (-0.5, -1), (0, 0), (0, -1), (-1, 0), (-1, -1))
_SIDEWAYS = ((1, 0), (-1, 0), (0, 1), (0, -1), (0.7, 0.7), (0.7, -0.7), (-0.7, 0.7), (-0.7, -0.7))
_REACHES = (9, 15, 23, 33, 45, 60, 78, 100, 125, 155, 190)  # pixels
_APART = 6.0  # pixels around a label
_LED = 16  # pixels beyond which a label is led to its point by a line


def place_labels(
    ax: Axes,
    labels: Sequence[tuple[str, float, float]],
    lines: Sequence[Line] = (),
    others: Sequence[tuple[float, float]] = (),
    names: Sequence[Annotation] = (),
) -> None:
    """Write names beside their points, none over another one, a point or a line.

    Of the places around a point, near ones first, the first free one is taken; where none is,
    that which covers least. The layout has to be final: labels do not move with it.

    Args:
        ax: where, with its final limits.
        labels: name, x and y of each point.
        lines: from x and y to x and y, also to be kept free.
        others: x and y of points without a name, likewise.
        names: that are there already, likewise.
    """
    points = [tuple(ax.transData.transform((x, y))) for _, x, y in labels]
    taken = [_around(x, y) for x, y in points]
    taken += [_around(x, y, 4.0) for x, y in map(ax.transData.transform, others)]
    taken += [_around(*at, 2.0) for line in lines for at in _along(ax, line)]
    taken += [_Box(*name.get_window_extent().extents) for name in names]
    inside = _Box(*ax.get_window_extent().extents)
    for (name, x, y), (across, up) in sorted(
        zip(labels, points, strict=True), key=lambda each: each[1]
    ):
        text = ax.annotate(
            name, (x, y), (0, 0), textcoords="offset pixels", fontsize=SMALL, color=INK, va="bottom"
        )
        extent = text.get_window_extent()
        box = _free(across, up, extent.width, extent.height, taken, inside)
        text.set_in_layout(False)
        text.set_position((box.left - across, box.bottom - up))
        taken.append(box)
        if box.distance(across, up) > _LED:
            _lead(ax, (across, up), box)


def _around(x: float, y: float, half: float = 7.0) -> _Box:
    return _Box(x - half, y - half, x + half, y + half)


def _along(ax: Axes, line: Line) -> list[tuple[float, float]]:
    """Points of a line, four pixels apart."""
    (left, bottom), (right, top) = ax.transData.transform([line[:2], line[2:]])
    steps = max(1, int(max(abs(right - left), abs(top - bottom)) // 4))
    return [
        (left + (right - left) * i / steps, bottom + (top - bottom) * i / steps)
        for i in range(steps + 1)
    ]


def _free(
    x: float, y: float, width: float, height: float, taken: Sequence[_Box], inside: _Box
) -> _Box:
    """The nearest free place of a label, or the one that covers least."""
    best, least = None, float("inf")
    for reach in _REACHES:
        for (at_x, at_y), (go_x, go_y) in zip(_CORNERS, _SIDEWAYS, strict=True):
            left, bottom = x + go_x * reach + at_x * width, y + go_y * reach + at_y * height
            box = _Box(left, bottom, left + width, bottom + height)
            grown = _Box(left - _APART, bottom - 1, box.right + _APART, box.top)
            out = (
                box.left < inside.left
                or box.right > inside.right
                or box.bottom < inside.bottom
                or box.top > inside.top
            )
            covered = sum(grown.meets(other) for other in taken) + 50 * out
            if covered < least:
                best, least = box, covered
        if least == 0:
            break
    assert best is not None
    return best


def _lead(ax: Axes, point: tuple[float, float], box: _Box) -> None:
    """A thin line from a point to the nearest end of its label."""
    x = min(max(point[0], box.left), box.right)
    y = min(max(point[1], box.bottom + 4), box.top - 4)
    ends = ax.transData.inverted().transform([point, (x, y)])
    ax.plot(ends[:, 0], ends[:, 1], color="#B4B4B4", linewidth=0.5, zorder=1.5)
