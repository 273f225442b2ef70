"""Experiments beside each other: one source's scores over the same songs, as boxes and as a table.

Source: C (Schulze-Forster et al. 2019), figure 2 and section 5.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from sepfast.errors import InputError
from sepfast.evaluation.report import Report, ScoreTable, count_songs
from sepfast.evaluation.score import DOUBTFUL, SILENCE
from sepfast.evaluation.style import INK, box, picture
from sepfast.files import PathLike

if TYPE_CHECKING:
    from matplotlib.axes import Axes

#: The paper's metrics, in the order of its figure.
COMPARED = ("sdr", "sar", "sir", "pes", "eps")

_HEIGHT = 3.0  # inches
_FACE = "#A9CFE8"
_POINTS: Any = {
    "color": "#0072B2",
    "markersize": 2.5,
    "markeredgewidth": 0,
    "alpha": 0.75,
    "zorder": 3,
}
_COUNT: Any = {"fontsize": 6, "color": INK, "ha": "center", "va": "bottom"}

Values = dict[str, dict[str, np.ndarray]]


def compare_plots(reports: Mapping[str, Report], source: str, path: PathLike) -> None:
    """Draw SDR, SAR, SIR, PES and EPS of a source over songs, a box for each experiment.

    A point is a song: the median of its frames, of PES and EPS the mean of those that have one. A
    box spans the quartiles with a line at the median; the whiskers reach over all songs. Songs
    that have no such score, or an infinite one, are left out and counted below their box.

    Args:
        reports: experiment -> its scores, in the order of the boxes.
        source: whose scores.
        path: the PNG file, 1400 x 600 pixels.

    Raises:
        InputError: where there is no report, where one lacks the source, where they differ in
            songs, windows or hops, or for a file that cannot be written.
    """
    values = _values(reports, source)
    songs = len(next(iter(reports.values())).songs)
    with picture(path, _HEIGHT) as figure:
        axes = figure.subplots(1, len(COMPARED))
        for metric, ax in zip(COMPARED, axes, strict=True):
            doubtful = metric in DOUBTFUL and any(r.untrusted for r in reports.values())
            _panel(ax, metric, values[metric], songs, doubtful)
        axes[0].set_ylabel("dB")
        figure.suptitle(_heading(source, songs, values), fontsize=9)


def medians_table(reports: Mapping[str, Report], source: str) -> ScoreTable:
    """A row for each experiment: the medians over songs that `compare_plots` draws, in dB.

    Args and errors are those of `compare_plots`.
    """
    values = _values(reports, source)
    songs = len(next(iter(reports.values())).songs)
    header = ("experiment", *(f"{metric.upper()} (dB)" for metric in COMPARED))
    rows = [
        (name, *(_median(values[metric][name], songs) for metric in COMPARED)) for name in reports
    ]
    notes = [
        f"{source}, {count_songs(songs)}: median over songs; in brackets the songs that have such "
        "a score, where not all do. PES and EPS: lower is better."
    ]
    untrusted = [name for name, report in reports.items() if report.untrusted]
    if untrusted:
        notes.append(f"SAR and SIR cannot be trusted in songs of {', '.join(untrusted)}.")
    return ScoreTable(header, rows, notes)


def _values(reports: Mapping[str, Report], source: str) -> Values:
    """Metric -> experiment -> its finite scores, one a song."""
    _check(reports, source)
    found: Values = {metric: {} for metric in COMPARED}
    for name, report in reports.items():
        scores = [song.sources[source] for song in report.songs]
        for metric in COMPARED:
            over_songs = [
                getattr(s, metric).decibels if metric in SILENCE else s.medians[metric]
                for s in scores
            ]
            values = np.array(over_songs, np.float64)
            found[metric][name] = values[np.isfinite(values)]
    return found


def _check(reports: Mapping[str, Report], source: str) -> None:
    """Raise `InputError` unless all reports hold the source in the same songs and frames."""
    if not reports:
        raise InputError("reports: got none, takes at least one")
    first = next(iter(reports))
    for name, report in reports.items():
        if not report.songs:
            raise InputError(f"{name}: holds no songs, takes at least one")
        for song in report.songs:
            if source not in song.sources:
                raise InputError(
                    f"source: got {source!r}, takes one of {', '.join(song.sources)}, which are "
                    f"in song {song.name} of {name}"
                )
        frames = [{(s.window, s.hop) for s in reports[n].songs} for n in (first, name)]
        if frames[0] != frames[1] or len(frames[1]) > 1:
            raise InputError(
                f"{name}: has frames of {_frames(frames[1])}, {first} of {_frames(frames[0])}; "
                "takes reports of one window and hop"
            )
        songs, others = ([s.name for s in reports[n].songs] for n in (first, name))
        differing = [song for song in [*songs, *others] if songs.count(song) != others.count(song)]
        if differing:
            raise InputError(
                f"{name}: differs from {first} in song {differing[0]}, takes reports of the same "
                "songs"
            )


def _frames(frames: set[tuple[float, float]]) -> str:
    return " and ".join(f"{window:g} s every {hop:g} s" for window, hop in sorted(frames))


def _heading(source: str, songs: int, values: Values) -> str:
    heading = f"{source}: a point is one of {count_songs(songs)}"
    if all(len(v) == songs for by_name in values.values() for v in by_name.values()):
        return heading
    return f"{heading}; \N{MINUS SIGN}n below a box: n songs have no such score"


def _panel(
    ax: Axes, metric: str, values: Mapping[str, np.ndarray], songs: int, doubtful: bool
) -> None:
    """One metric: a box and its points at 0, 1, … for the experiments."""
    from matplotlib.ticker import MaxNLocator

    turn = 0 if len(values) <= 4 else 90
    across = ax.get_xaxis_transform()
    for position, over_songs in enumerate(values.values()):
        missing = songs - len(over_songs)
        if missing:
            text = "none" if missing == songs else f"\N{MINUS SIGN}{missing}"
            ax.text(position, 0.012, text, rotation=turn, **_COUNT, transform=across)
        if len(over_songs):
            _box(ax, position, over_songs)
    about = "lower is better" if metric in SILENCE else "not trusted" * doubtful
    ax.set_title(f"{metric.upper()}\n{about}", fontsize=8)
    ax.set_xticks(range(len(values)), values, rotation=45, ha="right", rotation_mode="anchor")
    ax.set_xlim(-0.6, len(values) - 0.4)
    ax.margins(y=0.05)
    low, high = ax.get_ylim()
    ax.set_ylim(low - 0.12 * (high - low), high)  # room for the counts
    ax.yaxis.set_major_locator(MaxNLocator(nbins=6))
    ax.tick_params(axis="x", length=0, labelsize=7 if len(values) <= 8 else 5)
    ax.grid(axis="y")


def _box(ax: Axes, position: int, values: np.ndarray) -> None:
    ax.plot(box(ax, position, values, _FACE, 0.65), values, ".", **_POINTS)


def _median(values: np.ndarray, songs: int) -> str:
    if not values.size:
        return "-"
    return f"{np.median(values):.2f}" + f" ({values.size})" * (values.size < songs)
