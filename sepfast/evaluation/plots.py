"""Figures of scores, spectrograms and training, as PNG files for a paper."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Literal, get_args

import numpy as np

from sepfast.errors import InputError
from sepfast.evaluation.report import Report
from sepfast.evaluation.score import DOUBTFUL, METRICS
from sepfast.evaluation.style import INK, picture, show_power
from sepfast.files import PathLike

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

Over = Literal["frames", "songs"]

# Okabe and Ito's palette, which stays apart under every common kind of colour blindness.
_COLOURS = {
    "vocals": "#D55E00",
    "drums": "#0072B2",
    "bass": "#009E73",
    "other": "#CC79A7",
    "accompaniment": "#56B4E9",
}
_MORE_COLOURS = ("#E69F00", "#F0E442", "#332288", "#999999")
_MEAN: Any = {
    "marker": "D",
    "markersize": 3.5,
    "markerfacecolor": "white",
    "markeredgecolor": INK,
    "markeredgewidth": 0.7,
}

_SECONDS = 0.046  # of a segment: 2048 samples at 44.1 kHz
_COLUMNS = 1500


def colours(sources: Iterable[str]) -> dict[str, str]:
    """Source -> its colour, the same in every figure for the sources of the field.

    >>> colours(["vocals", "piano"])
    {'vocals': '#D55E00', 'piano': '#E69F00'}
    """
    names = list(dict.fromkeys(sources))
    others = sorted(name for name in names if name not in _COLOURS)
    more = {name: _MORE_COLOURS[i % len(_MORE_COLOURS)] for i, name in enumerate(others)}
    return {name: (_COLOURS | more)[name] for name in names}


def box_plots(
    report: Report,
    path: PathLike,
    *,
    over: Over = "frames",
    baseline: Report | None = None,
    names: tuple[str, str] = ("estimate", "baseline"),
) -> None:
    """Draw SDR, ISR, SIR and SAR of each source as boxes.

    A box spans the quartiles with a line at the median and a diamond at the mean; the whiskers
    reach from the 5th to the 95th percentile. SIR and SAR that cannot be trusted say so.

    Args:
        report: at least one song.
        path: the PNG file, 1400 x 560 pixels.
        over: what a box is drawn over: all frames, or the songs' medians.
        baseline: drawn beside in pale colours, for the sources of the report.
        names: of the report and the baseline in the legend.

    Raises:
        InputError: for a report without songs, or a file that cannot be written.
    """
    if over not in get_args(Over):
        raise InputError(f"over: got {over!r}, takes {' or '.join(get_args(Over))}")
    if not report.songs:
        raise InputError("report: holds no songs, takes at least one")
    reports = [report] if baseline is None else [report, baseline]
    with picture(path, 2.8) as figure:
        axes = figure.subplots(1, len(METRICS))
        for metric, ax in zip(METRICS, axes, strict=True):
            for side, shown in enumerate(reports):
                offset = (side - (len(reports) - 1) / 2) * 0.4
                _boxes(ax, shown, metric, over, report.sources, offset, 0.7 / len(reports), side)
            _dress_boxes(ax, metric, report.sources, any(r.untrusted for r in reports))
        axes[0].set_ylabel("dB")
        _box_legend(figure, names if baseline else (), over)


def spectrograms(
    path: PathLike,
    targets: Mapping[str, np.ndarray],
    estimates: Mapping[str, np.ndarray],
    sample_rate: int,
) -> None:
    """Draw each source's target beside its estimate.

    The power over all channels in dB, relative to the loudest point of all panels, down to -80.

    Args:
        path: the PNG file, 1400 pixels wide and 300 high a source, with 100 for the time axis.
        targets: source -> (channels, samples), in the order of the rows.
        estimates: the same sources and shapes.
        sample_rate: samples a second.

    Raises:
        InputError: for sources or shapes that differ, or a file that cannot be written.
    """
    if not targets or set(targets) != set(estimates):
        raise InputError(
            f"estimates: got {', '.join(estimates) or 'none'}, takes the sources of the targets: "
            f"{', '.join(targets) or 'none'}"
        )
    for source, target in targets.items():
        if np.shape(target) != np.shape(estimates[source]) or np.ndim(target) != 2:
            raise InputError(
                f"{source}: got shapes {np.shape(target)} and {np.shape(estimates[source])}, "
                "takes twice the same (channels, samples)"
            )
    pairs = [[_power(of[s], sample_rate) for of in (targets, estimates)] for s in targets]
    peak = max(power.max() for pair in pairs for power in pair)
    with picture(path, 1.5 * len(pairs) + 0.5) as figure:
        axes = figure.subplots(len(pairs), 2, sharex=True, sharey=True, squeeze=False)
        samples = max(np.shape(target)[-1] for target in targets.values())
        tints = colours(targets)
        for source, row, pair in zip(targets, axes, pairs, strict=True):
            for ax, power in zip(row, pair, strict=True):
                image = show_power(ax, power, peak, samples / sample_rate, sample_rate / 2000)
            row[0].set_ylabel("frequency (kHz)")
            _tag(row[0], source, tints[source])
        for ax, title in zip(axes[0], ("target", "estimate"), strict=True):
            ax.set_title(title)
        for ax in axes[-1]:
            ax.set_xlabel("time (s)")
        bar = figure.colorbar(image, ax=axes, pad=0.015, aspect=15 * len(pairs))
        bar.set_label("dB relative to the loudest")


def loss_curve(
    path: PathLike,
    epochs: Sequence[int],
    train: Sequence[float],
    valid: Sequence[float] | None = None,
) -> None:
    """Draw the loss over epochs; the best epoch is marked on the validation loss if there is one.

    Args:
        path: the PNG file, 1400 x 700 pixels.
        epochs: their numbers.
        train: the training loss of each.
        valid: the validation loss of each.

    Raises:
        InputError: for lengths that differ or are 0, or a file that cannot be written.
    """
    from matplotlib.ticker import MaxNLocator

    lengths = {len(epochs), len(train), len(epochs if valid is None else valid)}
    if len(lengths) > 1 or not len(epochs):
        raise InputError(f"loss: got {sorted(lengths)} values, takes one for each of the epochs")
    with picture(path, 3.5) as figure:
        ax = figure.subplots()
        marker = "o" if len(epochs) <= 30 else ""
        style: dict[str, Any] = {"linewidth": 1.4, "marker": marker, "markersize": 3}
        ax.plot(epochs, train, color="#0072B2", label="training", **style)
        if valid is not None:
            ax.plot(epochs, valid, color="#D55E00", label="validation", linestyle="--", **style)
            _mark_best(ax, epochs, valid)
        margin = max(0.5, 0.02 * (epochs[-1] - epochs[0]))
        ax.set_xlim(epochs[0] - margin, epochs[-1] + margin)
        ax.set_xlabel("epoch")
        ax.set_ylabel("loss")
        ax.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))
        ax.grid(axis="y")
        ax.legend()


def _values(report: Report, source: str, metric: str, over: Over) -> np.ndarray:
    """What a box is drawn over, finite values only."""
    scores = [song.sources[source] for song in report.songs if source in song.sources]
    if over == "songs":
        values = np.array([s.medians[metric] for s in scores])
    else:
        values = np.concatenate([s.frames[metric] for s in scores] or [np.array([])])
    return values[np.isfinite(values)]


def _boxes(
    ax: Axes,
    report: Report,
    metric: str,
    over: Over,
    sources: Sequence[str],
    offset: float,
    width: float,
    side: int,
) -> None:
    """One box for each source, at 0, 1, … + offset; the second side in pale colours."""
    tints = colours(sources)
    for position, source in enumerate(sources):
        values = _values(report, source, metric, over)
        if not values.size:
            continue
        ax.boxplot(
            values,
            positions=[position + offset],
            widths=width,
            whis=(5, 95),
            showfliers=False,
            showmeans=True,
            patch_artist=True,
            boxprops={
                "facecolor": _faces(tints[source])[side],
                "edgecolor": INK,
                "linewidth": 0.8,
            },
            medianprops={"color": INK, "linewidth": 1.4},
            whiskerprops={"color": INK, "linewidth": 0.8},
            capprops={"color": INK, "linewidth": 0.8},
            meanprops=_MEAN,
            manage_ticks=False,
        )


def _dress_boxes(ax: Axes, metric: str, sources: Sequence[str], untrusted: bool) -> None:
    doubtful = untrusted and metric in DOUBTFUL
    ax.set_title(metric.upper() + " (not trusted)" * doubtful)
    ax.set_xticks(range(len(sources)), sources, rotation=35, ha="right", rotation_mode="anchor")
    ax.set_xlim(-0.6, len(sources) - 0.4)
    ax.tick_params(axis="x", length=0)
    ax.grid(axis="y")


def _box_legend(figure: Figure, names: Sequence[str], over: Over) -> None:
    from matplotlib.lines import Line2D
    from matplotlib.patches import Patch

    handles: list[Any] = [
        Patch(facecolor=face, edgecolor=INK, linewidth=0.8, label=name)
        for name, face in zip(names, _faces("#777777"), strict=False)
    ]
    median = Line2D([], [], color=INK, linewidth=1.4, label=f"median over {over}")
    mean = Line2D([], [], linestyle="", label="mean", **_MEAN)
    figure.legend(handles=[*handles, median, mean], loc="outside lower center", ncols=4)


def _faces(tint: str) -> tuple[str, str]:
    """A colour, and the pale one of it."""
    from matplotlib.colors import to_hex, to_rgb

    red, green, blue = (0.25 * part + 0.75 for part in to_rgb(tint))
    return tint, to_hex((red, green, blue))


def _power(waveform: np.ndarray, sample_rate: int) -> np.ndarray:
    """The power spectrogram summed over channels, (bins, frames); some 1,500 frames at most."""
    n_fft = 2 ** max(1, round(np.log2(_SECONDS * sample_rate)))
    # Mirrored at its ends, the waveform makes no click there.
    padded = np.pad(waveform, ((0, 0), (n_fft // 2, n_fft // 2)), mode="reflect")
    segments = np.lib.stride_tricks.sliding_window_view(padded, n_fft, axis=-1)
    segments = segments[:, :: max(1, n_fft // 8, waveform.shape[-1] // _COLUMNS)]
    return (np.abs(np.fft.rfft(segments * np.hanning(n_fft))) ** 2).sum(0).T


def _tag(ax: Axes, source: str, tint: str) -> None:
    """The source's name in the panel's corner, on its colour."""
    from matplotlib.colors import to_rgb

    bright = np.dot(to_rgb(tint), (0.299, 0.587, 0.114)) > 0.6
    ax.text(
        0.02,
        0.94,
        source,
        transform=ax.transAxes,
        verticalalignment="top",
        color=INK if bright else "white",
        weight="bold",
        bbox={"facecolor": tint, "edgecolor": "none", "boxstyle": "round,pad=0.3"},
    )


def _mark_best(ax: Axes, epochs: Sequence[int], valid: Sequence[float]) -> None:
    finite = np.where(np.isfinite(valid), valid, np.inf)
    best = int(np.argmin(finite))
    if not np.isfinite(finite[best]):
        return
    label = f"best: {valid[best]:.4g} in epoch {epochs[best]}"
    ax.plot(epochs[best], valid[best], label=label, linestyle="", **_MEAN | {"markersize": 6})
