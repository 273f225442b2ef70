"""The figure of an alignment: what of its side information a model looked at, frame by frame.

Source: C (Schulze-Forster et al. 2019), figure 3.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike

from sepfast.data.side_information import PADDING
from sepfast.errors import InputError
from sepfast.evaluation.style import INK, picture, show_power
from sepfast.files import PathLike

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_HEIGHT = 5.0  # inches
_WEIGHTS_MAP, _SIDE_MAP = "magma", "cividis"
_SHARP = 16  # columns drawn for each feature, so that smoothing does not mix features
_HATCH: Any = {"facecolor": "white", "edgecolor": INK, "hatch": "//////", "linewidth": 0}


def alignment_figure(
    path: PathLike,
    weights: ArrayLike,
    side: ArrayLike,
    magnitudes: ArrayLike,
    *,
    seconds: float,
    rate: float,
    steps: int | None = None,
    title: str = "",
) -> None:
    """Draw attention weights with the side information to their left and a spectrogram below.

    Time runs to the right through both images, steps of side information upwards; lighter is
    more. Weights are shown by their square root, so that one frame's weight on many steps is seen
    beside another's on one. Padding is hatched. Side information of several features has a column
    for each, from dark, the feature's least value or 0 if that is less, to light, its greatest.

    Args:
        path: the PNG file, 1400 x 1000 pixels.
        weights: (N, M), not negative, of frames and steps, or of cells that each hold several.
        side: (M, D); a step is padding where all of its values are 100.
        magnitudes: of the target, (frames, F), as many frames as the weights or not.
        seconds: that the first axes of weights and magnitudes cover.
        rate: samples a second; the F bins reach from 0 to half of it.
        steps: that the M rows stand for; None for one each.
        title: above the figure.

    Raises:
        InputError: for shapes that do not fit, values that are not finite, negative weights or
            magnitudes, or a file that cannot be written.
    """
    alpha = _checked("weights", weights)
    values = _checked("side", side, negative=True)
    target = _checked("magnitudes", magnitudes)
    if len(values) != alpha.shape[1]:
        raise InputError(f"side: got {len(values)} steps, takes {alpha.shape[1]} as the weights")
    for name, number in (("seconds", seconds), ("rate", rate), ("steps", steps)):
        if number is not None and not 0 < number < math.inf:
            raise InputError(f"{name}: got {number}, takes a number above 0")
    top = len(values) if steps is None else steps
    with picture(path, _HEIGHT) as figure:
        strip, above, below = _panels(figure, values.shape[1])
        handles = _show_side(strip, values, top)
        _show_weights(figure, above, alpha, seconds, top)
        _show_target(figure, below, target, seconds, rate)
        above.set_title(title)
        figure.legend(handles=handles, loc="outside lower center", ncols=3)


def _checked(name: str, given: ArrayLike, *, negative: bool = False) -> np.ndarray:
    array = np.asarray(given, np.float64)
    if array.ndim != 2 or not array.size:
        raise InputError(f"{name}: got shape {array.shape}, takes two axes that are not empty")
    if not np.isfinite(array).all():
        raise InputError(f"{name}: holds NaN or infinite values")
    if not negative and array.min() < 0:
        raise InputError(f"{name}: got {array.min():.4g}, takes no negative values")
    return array


def _panels(figure: Figure, features: int) -> tuple[Axes, Axes, Axes]:
    """The axes of side information, weights and target."""
    above, below = figure.subplots(2, 1, sharex=True, height_ratios=(2.3, 1))
    width = min(0.15, 0.025 + 0.01 * features)  # of the weights' panel
    strip = above.inset_axes((-width - 0.012, 0, width, 1))
    return strip, above, below


def _show_side(ax: Axes, values: np.ndarray, top: float) -> list[Any]:
    """Draw the strip; gives the handles of its legend."""
    from matplotlib.ticker import MaxNLocator

    padded = (values == PADDING).all(1)
    shown = values[~padded] if not padded.all() else np.zeros_like(values[:1])
    least = np.minimum(shown.min(0), 0)
    most = np.where(shown.max(0) > least, shown.max(0), least + 1)
    scaled = np.ma.array((values - least) / (most - least))
    scaled[padded] = np.ma.masked
    features, step = values.shape[1], top / len(values)
    ax.imshow(
        scaled.repeat(_SHARP, axis=1),
        origin="lower",
        aspect="auto",
        extent=(0, features, 0, top),
        cmap=_SIDE_MAP,
        vmin=0,
        vmax=1,
    )
    for first, behind in _runs(padded):
        ax.axhspan(first * step, behind * step, **_HATCH)
    ax.set(ylabel="side information (step)", ylim=(0, top), xlim=(0, features), xticks=[])
    ax.yaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))
    ends = ("least of a feature", "most of a feature")
    if features == 1:
        ends = (f"{least[0]:.4g}", f"{most[0]:.4g}")
    return _handles(() if padded.all() else ends, bool(padded.any()))


def _handles(ends: Sequence[str], padded: bool) -> list[Any]:
    """Handles of a legend: what darkest and lightest stand for, and padding."""
    from matplotlib import colormaps
    from matplotlib.patches import Patch

    texts = [f"side information: {ends[0]}", ends[1]] if ends else []
    handles = [
        Patch(facecolor=colour, edgecolor=INK, linewidth=0.5, label=text)
        for text, colour in zip(texts, colormaps[_SIDE_MAP]((0.0, 1.0)), strict=False)
    ]
    if padded:
        handles.append(Patch(**_HATCH | {"linewidth": 0.5}, label=f"padding ({PADDING:g})"))
    return handles


def _show_weights(figure: Figure, ax: Axes, alpha: np.ndarray, seconds: float, top: float) -> None:
    from matplotlib.colors import PowerNorm

    image = ax.imshow(
        alpha.T,
        origin="lower",
        aspect="auto",
        extent=(0, seconds, 0, top),
        cmap=_WEIGHTS_MAP,
        norm=PowerNorm(0.5, 0, alpha.max() or 1.0),
    )
    ax.set_yticks([])
    figure.colorbar(image, ax=ax, pad=0.015, aspect=25).set_label("attention weight")


def _show_target(figure: Figure, ax: Axes, target: np.ndarray, seconds: float, rate: float) -> None:
    power = target.T**2
    image = show_power(ax, power, power.max(), seconds, rate / 2000)
    ax.set(xlabel="time (s)", ylabel="frequency (kHz)", xlim=(0, seconds))
    figure.colorbar(image, ax=ax, pad=0.015, aspect=11).set_label("level (dB)")


def _runs(of: np.ndarray) -> list[tuple[int, int]]:
    """First index of each run of True, and the one behind its last."""
    edges = np.flatnonzero(np.diff(np.concatenate(([False], of, [False])).astype(int)))
    return [(int(a), int(b)) for a, b in edges.reshape(-1, 2)]
