"""What pictures with a bar for each case share: operators above systems, a line of text a bar."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from sepfast.bench.report.drawing import SMALL, WORDS
from sepfast.bench.report.standing import Standing
from sepfast.evaluation.style import INK

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_ROW, _GAP, _AXIS = 0.158, 3.0, 0.32  # inches of a bar, bars between panels, inches of an axis

#: A panel's name -> its cases from the bottom up.
Panels = Mapping[str, Sequence[Standing]]


def panels_of(drawn: Iterable[Standing], key: Callable[[Standing], float]) -> Panels:
    """Operators and systems, as far as there are any, the largest by the key on top."""
    ordered = sorted(drawn, key=key)
    both = {
        name: [standing for standing in ordered if standing.system == system]
        for name, system in (("operators", False), ("systems", True))
    }
    return {name: group for name, group in both.items() if group}


def height_of(panels: Panels) -> float:
    """Inches that panels take."""
    return _ROW * sum(len(group) + _GAP for group in panels.values()) + _AXIS


def axes_of(figure: Figure, panels: Panels) -> list[Axes]:
    """Axes with the names of panels and cases, a bar's middle at its place in the panel.

    They share the horizontal axis, which has its numbers below each of them.
    """
    ratios = {"height_ratios": [len(group) + 0.8 for group in panels.values()]}
    grid = figure.subplots(len(panels), 1, squeeze=False, sharex=True, gridspec_kw=ratios)
    axes = list(grid[:, 0])
    for ax, (name, group) in zip(axes, panels.items(), strict=True):
        ax.set_yticks(range(len(group)), [standing.case for standing in group], fontsize=SMALL)
        ax.set_ylim(-0.7, len(group) - 0.3)
        ax.tick_params(axis="y", length=0)
        ax.tick_params(axis="x", labelbottom=True)
        ax.grid(axis="x")
        ax.set_title(name, loc="left", fontsize=8)
    return axes


def write_beside(ax: Axes, y: float, text: str, lost: bool) -> None:
    """Write at the right of a bar, in the colour of what is lost where it is."""
    style: Any = {"color": WORDS, "weight": "bold"} if lost else {"color": INK}
    at: Any = {"xycoords": ("axes fraction", "data"), "textcoords": "offset points"}
    ax.annotate(text, (1, y), (4, 0), fontsize=SMALL, va="center", **at, **style)


def listed(panels: Panels, words: Callable[[Standing], str]) -> str:
    """All bars as text from the top down, for who does not see them."""
    return "; ".join(
        f"{name}: {', '.join(map(words, reversed(group)))}" for name, group in panels.items()
    )
