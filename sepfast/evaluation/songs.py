"""Scoring songs: stems from a folder, from a model, or from an oracle, against the true ones."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import torch

from sepfast.data.audio import read
from sepfast.data.songs import SOURCES, Song, Track, find_songs_of
from sepfast.errors import InputError
from sepfast.evaluation.kept import KeptScores
from sepfast.evaluation.plots import box_plots, spectrograms
from sepfast.evaluation.report import Report
from sepfast.evaluation.score import SongScores, score_song
from sepfast.files import file_called
from sepfast.reference import (
    FRAMINGS,
    binary_mask,
    masked_istft,
    stft_magnitude,
    wiener_mask,
)
from sepfast.separation import Separator
from sepfast.sharing import Team

_MASKS = {"binary": binary_mask, "wiener": wiener_mask}

#: What stands for an estimate without any separation, or with knowledge of the truth.
ORACLES = ("mixture", *_MASKS)


@dataclass(frozen=True)
class Recording:
    """A song in memory.

    Attributes:
        name: the song's.
        mixture: (channels, samples).
        stems: source -> (channels, samples).
        sample_rate: Hz.
    """

    name: str
    mixture: np.ndarray
    stems: Mapping[str, np.ndarray]
    sample_rate: int


class Estimator:
    """Gives the estimated sources of a song, (channels, samples) each.

    Args:
        estimates: does so.

    Attributes:
        needs: the stems that a song must have.
    """

    needs: tuple[str, ...] = SOURCES

    def __init__(self, estimates: Callable[[Recording], Mapping[str, np.ndarray]]) -> None:
        self._estimates = estimates

    def __call__(self, recording: Recording) -> Mapping[str, np.ndarray]:
        """The estimates of a song's stems."""
        return self._estimates(recording)

    def open(self, song: Song) -> Recording:
        """Read a song as it is to be estimated and scored."""
        return open_recording(song)

    def draw(self, song: Song, recording: Recording, output: Path) -> None:
        """Draw what else there is to see of the song that was estimated last, and read from it."""


def from_folder(folder: Path) -> Estimator:
    """Stems as `sepfast separate` writes them: folder/SONG/SOURCE.wav or .flac.

    Raises:
        InputError: for a folder that is not there.
    """
    if not folder.is_dir():
        raise InputError(f"{folder}: there is no such folder of estimates")

    def estimates(song: Recording) -> dict[str, np.ndarray]:
        return {s: _estimate(folder / song.name, s, song.sample_rate) for s in song.stems}

    return Estimator(estimates)


def from_separator(separator: Separator) -> Estimator:
    """What a model makes of the mixture."""

    def estimates(song: Recording) -> dict[str, np.ndarray]:
        stems = separator(song.mixture, song.sample_rate)
        return {source: stem.cpu().numpy() for source, stem in stems.items()}

    return Estimator(estimates)


def from_oracle(name: str) -> Estimator:
    """The mixture itself, or the masks that only the true stems can give.

    Args:
        name: one of `ORACLES`.

    Raises:
        InputError: for another name.
    """
    if name not in ORACLES:
        raise InputError(f"oracle: got {name!r}, takes one of {', '.join(ORACLES)}")
    if name == "mixture":
        return Estimator(lambda song: dict.fromkeys(song.stems, song.mixture))
    return Estimator(partial(_masked, _MASKS[name]))


def evaluate_songs(
    references: Path,
    estimator: Estimator,
    output: Path,
    *,
    split: str | None = None,
    window: float = 1.0,
    hop: float = 1.0,
    resume: bool = False,
    made_by: str = "",
    team: Team | None = None,
    progress: Callable[[float, float | None], None] = lambda done, total: None,
    note: Callable[[str], None] = lambda text: None,
) -> Report:
    """Score songs and write what was found.

    Writes `scores.json`, `scores.csv` with `scores.summary.csv`, `scores.png` with box plots, and
    for each song `spectrograms/SONG.png`, what the estimator draws and, last, `songs/SONG.json`
    with its scores (each in a folder SPLIT of its own where there are splits). A song that cannot
    be scored does not stop the others.

    Several processes share the songs out. The first joins what all of them have found, and writes
    what is about all songs; the folder must be one for all of them.

    Args:
        references: songs with their stems, in any layout that `find_songs` knows.
        estimator: gives the estimates of a song.
        output: folder of what is written.
        split: "train" or "test" in layouts that have them, the path of a list of songs' names, or
            None for all songs.
        window: seconds of a frame.
        hop: seconds from one frame to the next.
        resume: take the scores of songs that lie in `songs` already, made with the same `window`,
            `hop` and `made_by`, and score the others.
        made_by: what tells this estimator and these references from others, for `resume`.
        team: the processes that share the songs; None for this one alone.
        progress: called with songs done and songs to do, by this process.
        note: called with sentences for a person.

    Returns:
        The scores, of the songs that could be scored; in another process than the first, of those
        alone that it has scored itself or found.

    Raises:
        InputError: where no song is found or none can be scored, and where several processes do
            not find the same songs.
    """
    team = team or Team()
    songs, skipped = find_songs_of(references, split, sources=estimator.needs)
    tell = note if team.leads else lambda text: None
    for reason in skipped:
        tell(f"skipped: {reason}")
    kept = KeptScores(output / "songs", window, hop, made_by)
    found = {i: kept.read(song) for i, song in enumerate(songs)} if resume else {}
    scored = {i: scores for i, scores in found.items() if scores is not None}
    if scored:
        tell(f"{len(scored)} of {len(songs)} songs are scored already")
    todo = [i for i in range(len(songs)) if i not in scored]
    team.agree([songs[i].name for i in todo])
    mine, failed = team.share(todo), {}
    for done, i in enumerate(mine, 1):
        try:
            scored[i] = _score(songs[i], estimator, output, kept)
        except InputError as error:
            failed[i] = str(error)
            note(f"skipped: {error}")
        progress(done, len(mine))
    failed = _joined(team, failed)
    if team.several and team.leads:
        _list_failed(failed, len(songs), note)
        for i in set(range(len(songs))) - scored.keys() - failed.keys():
            scored[i] = _of_another(songs[i], kept)
    report = Report([scored[i] for i in sorted(scored)])
    if team.leads:
        if not scored:
            first = failed[min(failed)]
            raise InputError(f"none of {len(songs)} songs could be scored, the first: {first}")
        _write(report, output)
    return report


def _score(song: Song, estimator: Estimator, output: Path, kept: KeptScores) -> SongScores:
    """Score and draw a song; its scores are kept last, so that they stand for all of it."""
    recording = estimator.open(song)
    estimates = estimator(recording)
    rate = recording.sample_rate
    scores = score_song(
        song.name, recording.stems, estimates, rate, window=kept.window, hop=kept.hop
    )
    picture = song.file_in(output / "spectrograms", ".png")
    spectrograms(picture, recording.stems, estimates, rate)
    estimator.draw(song, recording, output)
    kept.write(song, scores)
    return scores


def _joined(team: Team, failed: Mapping[int, str]) -> dict[int, str]:
    """Why songs could not be scored, of all processes; waits until all are done."""
    told = team.exchange(list(failed.items()), last=True)
    return dict(sorted((i, reason) for of_one in told for i, reason in of_one))


def _list_failed(failed: Mapping[int, str], songs: int, note: Callable[[str], None]) -> None:
    if failed:
        note(f"{len(failed)} of {songs} songs could not be scored:")
    for reason in failed.values():
        note(f"  {reason}")


def _of_another(song: Song, kept: KeptScores) -> SongScores:
    scores = kept.read(song)
    if scores is None:
        raise InputError(
            f"{kept.folder}: lacks the scores of {song.name} that another process has written; "
            "takes a folder that all processes share"
        )
    return scores


def _write(report: Report, output: Path) -> None:
    report.to_json(output / "scores.json")
    report.to_csv(output / "scores.csv")
    box_plots(report, output / "scores.png")


def open_recording(song: Song) -> Recording:
    """Read a song and its stems into memory; without a mixture file it is their sum.

    Raises:
        InputError: for files that cannot be read, or that differ in rate or shape.
    """
    tracks = {s: (t, *read(t.path, stream=t.stream)) for s, t in _tracks(song).items()}
    first, shape, rate = next((t, wave.shape, rate) for t, wave, rate in tracks.values())
    for track, wave, its_rate in tracks.values():
        if (wave.shape, its_rate) != (shape, rate):
            raise InputError(
                f"{track}: holds {_extent(wave.shape, its_rate)}, {first} {_extent(shape, rate)}"
            )
    waves = {s: wave for s, (_, wave, _) in tracks.items()}
    mixture = waves.pop("mixture", None)
    if mixture is None:
        mixture = np.sum(list(waves.values()), axis=0)
    return Recording(song.name, mixture, waves, rate)


def _tracks(song: Song) -> dict[str, Track]:
    mixture = {} if song.mixture is None else {"mixture": song.mixture}
    return {**song.stems, **mixture}


def _extent(shape: tuple[int, ...], rate: int) -> str:
    return f"{shape[0]} channels of {shape[1]} samples at {rate} Hz"


def _estimate(folder: Path, source: str, rate: int) -> np.ndarray:
    path = file_called(folder, source, (".wav", ".flac"))
    if path is None:
        raise InputError(f"{folder}: holds no {source}.wav or .flac")
    wave, its_rate = read(path)
    if its_rate != rate:
        raise InputError(f"{path}: is at {its_rate} Hz, its reference at {rate} Hz")
    return wave


def _masked(mask: Callable[[torch.Tensor, int], torch.Tensor], song: Recording) -> dict:
    framing = FRAMINGS["deepconvsep"]
    true = torch.from_numpy(np.stack(list(song.stems.values())))
    shares = mask(stft_magnitude(true, framing), 0)
    stems = masked_istft(shares, torch.from_numpy(song.mixture), framing)
    return dict(zip(song.stems, stems.numpy(), strict=True))
