"""The songs of a training run, from a folder of them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from sepfast.data.excerpts import Recording
from sepfast.data.song_audio import SongAudio
from sepfast.data.songs import Song, find_songs, write_names
from sepfast.errors import InputError
from sepfast.files import PathLike
from sepfast.training.course import Audio
from sepfast.training.history import Report

#: Fewer songs than this are all trained on.
_LEAST_TO_VALIDATE = 5
#: The fraction for validation where nothing else is said.
_VALIDATION = 0.2


@dataclass(frozen=True)
class Shares:
    """Which songs a run takes for what.

    Attributes:
        validation: the fraction that is kept for validation, or a folder of others; None for 0.2.
        test: the fraction that is kept for the test, whatever split the data set gives its songs;
            None for the data set's own.
        validate_on_test: whether to validate on the data set's own test songs, and to train on
            all others.
        extra: more songs to train on, and for nothing else.

    Raises:
        InputError: for a fraction out of range, or what does not go together.
    """

    validation: float | PathLike | None = None
    test: float | None = None
    validate_on_test: bool = False
    extra: PathLike | None = None

    def __post_init__(self) -> None:
        for name, value in (("validation", self.validation), ("test", self.test)):
            if isinstance(value, (int, float)) and not 0 <= value < 1:
                other = ", or a folder" if name == "validation" else ""
                raise InputError(f"{name}: got {value}, takes a fraction below 1{other}")
        if self.validate_on_test and (self.validation is not None or self.test is not None):
            raise InputError("validate_on_test: got true, takes neither validation nor test beside")
        if self.test is not None and not isinstance(self.held_out, (int, float)):
            raise InputError(f"test: got {self.test}, takes a fraction for validation beside it")

    @property
    def held_out(self) -> float | PathLike:
        """The fraction for validation, or a folder."""
        return _VALIDATION if self.validation is None else self.validation


def songs_of(
    data: PathLike,
    audio: Audio,
    shares: Shares,
    seed: int,
    cache_dir: PathLike | None,
    manifests: PathLike | None,
    report: Report,
) -> tuple[list[Recording], list[Recording]]:
    """Songs to train on, and songs to validate on.

    Args:
        data: in any layout that `find_songs` knows; of a data set with splits, its "train" but
            for what `shares` says.
        audio: how they are opened.
        shares: which songs are for what.
        seed: of the draw.
        cache_dir: where decoded songs are kept; None for the user's cache.
        manifests: where `test.txt` is written, the names of the songs that are drawn for the
            test; None for nowhere.
        report: is told how far it is and what was skipped.

    Raises:
        InputError: where there are none that can be used.
    """
    songs, held_out, test = _split(data, shares, audio, seed, report)
    if shares.extra is not None:
        songs += _trainable(shares.extra, _found(shares.extra, audio, report))
    training = _opened(songs, audio, cache_dir, report)
    validating = _opened(held_out, audio, cache_dir, report) if held_out else []
    if manifests is not None and test:
        write_names(Path(manifests) / "test.txt", test)
    return training, validating


def _split(
    data: PathLike, shares: Shares, audio: Audio, seed: int, report: Report
) -> tuple[list[Song], list[Song], list[Song]]:
    """The songs to train on, those to validate on, and those drawn for the test."""
    found = _found(data, audio, report)
    if shares.validate_on_test:
        held_out = [song for song in found if song.split == "test"]
        if not held_out:
            raise InputError(f"{data}: holds no test songs, validate_on_test takes some")
        return _trainable(data, found), held_out, []
    songs = _trainable(data, found) if shares.test is None else found
    order = np.random.default_rng(seed).permutation(len(songs)).tolist()
    test = _of(songs, order, shares.test or 0.0)
    if not isinstance(shares.held_out, (int, float)):
        return songs, _found(shares.held_out, audio, report), []
    if shares.held_out and len(songs) < _LEAST_TO_VALIDATE:
        report.note(
            f"no validation with fewer than {_LEAST_TO_VALIDATE} songs ({len(songs)} here): "
            "the best epoch is that of the lowest training loss"
        )
        validating = []
    else:
        validating = _of(songs, order[len(test) :], shares.held_out, len(songs))
    training = [song for song in songs if song not in test and song not in validating]
    if not training:
        raise InputError(f"{data}: holds {len(songs)} songs, which validation and test take all of")
    return training, validating, test


def _of(
    songs: Sequence[Song], order: Sequence[int], fraction: float, total: int | None = None
) -> list[Song]:
    """A fraction of all songs, at least one, the first in an order; in the order of the songs."""
    count = max(1, round(fraction * (total or len(songs)))) if fraction else 0
    drawn = set(order[:count])
    return [song for number, song in enumerate(songs) if number in drawn]


def _trainable(data: PathLike, found: Sequence[Song]) -> list[Song]:
    """The songs that are not a data set's own for the test."""
    songs = [song for song in found if song.split in (None, "train")]
    if not songs:
        raise InputError(f"{data}: holds test songs alone, training takes others")
    return songs


def _found(folder: PathLike, audio: Audio, report: Report) -> list[Song]:
    songs, skipped = find_songs(folder, sources=audio.sources)
    for reason in skipped:
        report.note(f"skipped: {reason}")
    return songs


def _opened(
    songs: Sequence[Song], audio: Audio, cache_dir: PathLike | None, report: Report
) -> list[Recording]:
    """The songs that can be decoded, as the course wants them."""
    opened: list[Recording] = []
    reasons: list[str] = []
    for done, song in enumerate(songs, 1):
        try:
            opened.append(
                SongAudio(
                    song,
                    sample_rate=audio.sample_rate,
                    channels=audio.channels,
                    sources=audio.sources,
                    cache_dir=cache_dir,
                )
            )
        except InputError as error:
            reasons.append(str(error))
            report.note(f"skipped: {error}")
        report.progress("songs", done, len(songs))
    if not opened:
        raise InputError(f"none of {len(songs)} songs can be used, the first because {reasons[0]}")
    return opened
