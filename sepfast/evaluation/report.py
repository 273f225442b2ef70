"""The scores of many songs: what they come to, as files and as tables."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Self

import numpy as np

from sepfast.evaluation.score import DOUBTFUL, METRICS, SILENCE, SongScores, SourceScores
from sepfast.evaluation.written import number, read_json, write_csv, write_json
from sepfast.files import PathLike
from sepfast.metrics import SilenceEnergy, Statistics, statistics

_FORMAT = "sepfast-scores"
_CSV_FIELDS = ("song", "source", "frame", "start_s", *METRICS, "sir_sar_trusted")
_SUMMARY_FIELDS = ("source", "metric", "over", "mean", "std", "median", "count", "trusted")


@dataclass(frozen=True)
class SourceSummary:
    """What the scores of one source come to, over all songs that have it.

    Attributes:
        frames: each of `METRICS` over all frames of all songs.
        songs: each of `METRICS` over the songs' medians, and "pes" and "eps" over the songs that
            have one.
        untrusted: songs whose SIR and SAR cannot be trusted.
    """

    frames: Mapping[str, Statistics]
    songs: Mapping[str, Statistics]
    untrusted: int


@dataclass
class Report:
    """The scores of several songs.

    Attributes:
        songs: in the order in which they were scored.
    """

    songs: list[SongScores] = field(default_factory=list)

    @property
    def sources(self) -> list[str]:
        """All sources, in the order in which they first appear."""
        return list(dict.fromkeys(source for song in self.songs for source in song.sources))

    @property
    def untrusted(self) -> list[SongScores]:
        """The songs whose SIR and SAR cannot be trusted."""
        return [song for song in self.songs if not song.trusted]

    def add(self, song: SongScores) -> None:
        """Take in a song."""
        self.songs.append(song)

    def summary(self) -> dict[str, SourceSummary]:
        """Source -> what its scores come to."""
        return {source: self._summary_of(source) for source in self.sources}

    def _summary_of(self, source: str) -> SourceSummary:
        songs = [song for song in self.songs if source in song.sources]
        scores = [song.sources[source] for song in songs]
        frames = {m: statistics(np.concatenate([s.frames[m] for s in scores])) for m in METRICS}
        medians = [s.medians for s in scores]
        over_songs = {m: statistics([median[m] for median in medians]) for m in METRICS}
        energies = {m: statistics([getattr(s, m).decibels for s in scores]) for m in SILENCE}
        return SourceSummary(frames, over_songs | energies, sum(not s.trusted for s in songs))

    def to_json(self, path: PathLike) -> None:
        """Write all scores and the summary; NaN as null, infinities as "inf" and "-inf".

        Raises:
            InputError: where the file cannot be written.
        """
        summary = {source: asdict(found) for source, found in self.summary().items()}
        songs = [song_to_plain(song) for song in self.songs]
        content = {"format": _FORMAT, "version": 1, "summary": summary, "songs": songs}
        write_json(path, content)

    @classmethod
    def from_json(cls, path: PathLike) -> Self:
        """Read what `to_json` wrote.

        Raises:
            InputError: for a file that is missing or something else.
        """
        songs = read_json(
            path, _FORMAT, lambda content: list(map(song_from_plain, content["songs"])), "scores"
        )
        return cls(songs)

    def to_csv(self, path: PathLike) -> Path:
        """Write a row for each song, source and frame, and the summary beside it.

        Cells without a score are empty.

        Args:
            path: of the frames; `scores.csv` puts the summary into `scores.summary.csv`.

        Returns:
            The summary's path.

        Raises:
            InputError: where the files cannot be written.
        """
        path = Path(path)
        beside = path.with_name(f"{path.stem}.summary{path.suffix}")
        write_csv(path, _CSV_FIELDS, (row for song in self.songs for row in _frame_rows(song)))
        write_csv(beside, _SUMMARY_FIELDS, _summary_rows(self.summary()))
        return beside


@dataclass(frozen=True)
class ScoreTable:
    """A report as text, for a terminal or a page.

    Attributes:
        header: what stands above the columns.
        rows: a row for each source.
        notes: sentences below the table.
    """

    header: Sequence[str]
    rows: Sequence[Sequence[str]]
    notes: Sequence[str]


def table(report: Report) -> ScoreTable:
    """A row for each source: the scores in dB, those that cannot be trusted marked with "?"."""
    header = ("source", *(f"{name.upper()} (dB)" for name in (*METRICS, *SILENCE)))
    songs_with = {s: sum(s in song.sources for song in report.songs) for s in report.sources}
    rows = [
        (
            source,
            *(_cell(found, m, mark=m in DOUBTFUL and found.untrusted > 0) for m in METRICS),
            *(_silence_cell(found.songs[m], songs_with[source]) for m in SILENCE),
        )
        for source, found in report.summary().items()
    ]
    notes = [
        f"{count_songs(len(report.songs))}: median over songs of each song's median frame, in "
        "brackets mean ± standard deviation over all frames; PES and EPS: median over songs, less "
        "is better, in brackets the songs that have such frames, where not all do."
    ]
    return ScoreTable(header, rows, notes + _warnings(report))


def _warnings(report: Report) -> list[str]:
    if not report.untrusted:
        return []
    worst = max(song.conditioning for song in report.untrusted)
    songs = count_songs(len(report.songs))
    return [
        f"? SIR and SAR cannot be trusted in {len(report.untrusted)} of {songs}"
        f": the true stems leave parts of the spectrum empty (conditioning up to {worst:.0e}), "
        "where BSS Eval v4's filters amplify the cuts between frames; SDR and ISR hold, and so do "
        "SIR and SAR over the whole song as one frame (a window of inf)."
    ]


def count_songs(count: int) -> str:
    """How many songs, in words: "1 song", "50 songs"."""
    return "1 song" if count == 1 else f"{count} songs"


def _cell(found: SourceSummary, metric: str, *, mark: bool) -> str:
    over_songs, frames = found.songs[metric], found.frames[metric]
    if not frames.count:
        return "-"
    text = f"{_number(over_songs.median)} ({_number(frames.mean)} ± {_number(frames.std)})"
    return text + " ?" * mark


def _silence_cell(over_songs: Statistics, songs: int) -> str:
    if not over_songs.count:
        return "-"
    return _number(over_songs.median) + f" ({over_songs.count})" * (over_songs.count < songs)


def _number(value: float) -> str:
    return "-" if math.isnan(value) else f"{value:.1f}"


def _frame_rows(song: SongScores) -> Iterable[list[Any]]:
    for source, scores in song.sources.items():
        for frame, row in enumerate(zip(*(scores.frames[m] for m in METRICS), strict=True)):
            start = frame * song.hop if frame else 0.0  # an infinite hop has one frame
            yield [song.name, source, frame, start, *row, song.trusted]


def _summary_rows(summary: Mapping[str, SourceSummary]) -> Iterable[list[Any]]:
    for source, found in summary.items():
        for over, scores in (("frames", found.frames), ("songs", found.songs)):
            for metric, s in scores.items():
                trusted = metric not in DOUBTFUL or not found.untrusted
                yield [source, metric, over, s.mean, s.std, s.median, s.count, trusted]


def song_to_plain(song: SongScores) -> dict[str, Any]:
    """A song's scores as `plain` takes them for JSON."""
    sources = {
        source: {
            **{metric: scores.frames[metric] for metric in METRICS},
            "medians": scores.medians,
            "silent": scores.silent,
            "pes": scores.pes._asdict(),
            "eps": scores.eps._asdict(),
        }
        for source, scores in song.sources.items()
    }
    return {
        "name": song.name,
        "window": song.window,
        "hop": song.hop,
        "conditioning": song.conditioning,
        "trusted": song.trusted,
        "sources": sources,
    }


def song_from_plain(content: Mapping[str, Any]) -> SongScores:
    """A song's scores, read from JSON; raises what a mapping does for something else."""
    sources = {
        source: SourceScores(
            {m: np.array([number(v) for v in scores[m]], np.float64) for m in METRICS},
            scores["silent"],
            *(SilenceEnergy(number(scores[m]["decibels"]), scores[m]["frames"]) for m in SILENCE),
        )
        for source, scores in content["sources"].items()
    }
    window, hop, conditioning = (number(content[k]) for k in ("window", "hop", "conditioning"))
    return SongScores(content["name"], sources, window, hop, conditioning, content["trusted"])
