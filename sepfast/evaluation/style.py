"""The house's look of a figure: its width, fonts, inks and the file that it becomes.

Drawn through matplotlib's objects alone, so that no window opens and no state of pyplot changes.
Figures are 7 inches wide, the text width of most papers, at 200 dots an inch.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import numpy as np

from sepfast.files import PathLike, atomic

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from matplotlib.image import AxesImage

WIDTH, DPI = 7.0, 200  # inches, dots an inch
INK, FAINT = "#222222", "#DDDDDD"

DYNAMIC_RANGE = 80.0  # dB

_STYLE: Any = {
    "font.family": "sans-serif",
    "font.sans-serif": ["DejaVu Sans"],  # it comes with matplotlib
    "font.size": 8,
    "axes.titlesize": 9,
    "axes.labelsize": 8,
    "axes.edgecolor": INK,
    "axes.linewidth": 0.6,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.axisbelow": True,
    "grid.color": FAINT,
    "grid.linewidth": 0.6,
    "hatch.color": INK,
    "hatch.linewidth": 0.5,
    "xtick.major.width": 0.6,
    "ytick.major.width": 0.6,
    "legend.frameon": False,
}


@contextmanager
def picture(path: PathLike, height: float, made_from: str = "") -> Iterator[Figure]:
    """A figure of `height` inches, written to `path` when the block ends.

    What it was made from can stand in the file, as its "Source".

    Raises:
        InputError: for a file that cannot be written.
    """
    import matplotlib
    from matplotlib.figure import Figure

    with matplotlib.rc_context(_STYLE):
        figure = Figure(figsize=(WIDTH, height), dpi=DPI, layout="constrained")
        yield figure
        with atomic(path) as temporary:
            source = {"Source": made_from} if made_from else None
            figure.savefig(temporary, format="png", dpi=DPI, metadata=source)


def box(ax: Axes, position: int, values: np.ndarray, face: Any, width: float) -> np.ndarray:
    """Draw a box of the quartiles, with a line at the median and whiskers over all values.

    Args:
        ax: where.
        position: of its middle.
        values: at least one.
        face: colour of the box.
        width: of the box.

    Returns:
        Where the points of the values may stand: each has a place of its own across the box.
    """
    line: Any = {"color": INK, "linewidth": 0.8}
    ax.boxplot(
        values,
        positions=[position],
        widths=width,
        whis=(0, 100),
        showfliers=False,
        patch_artist=True,
        boxprops={"facecolor": face, "edgecolor": INK, "linewidth": 0.8},
        medianprops={"color": INK, "linewidth": 1.6, "zorder": 4},
        whiskerprops=line,
        capprops=line,
        manage_ticks=False,
    )
    across = np.linspace(-0.3, 0.3, len(values)) if len(values) > 1 else np.zeros(1)
    return position + width * across


def show_power(ax: Axes, power: np.ndarray, peak: float, seconds: float, khz: float) -> AxesImage:
    """Draw a power spectrogram, (bins, frames), in dB relative to `peak`, down to -80."""
    floor = 10 ** (-DYNAMIC_RANGE / 10)
    level = 10 * np.log10(np.maximum(power / (peak or 1.0), floor))
    return ax.imshow(
        level,
        origin="lower",
        aspect="auto",
        extent=(0, seconds, 0, khz),
        cmap="magma",
        vmin=-DYNAMIC_RANGE,
        vmax=0,
    )
