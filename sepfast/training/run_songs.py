"""The songs of a training run, from a folder of them."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from sepfast.data.examples import Recording
from sepfast.data.song_audio import SongAudio
from sepfast.data.songs import Song, find_songs
from sepfast.errors import InputError
from sepfast.files import PathLike
from sepfast.training.course import Audio
from sepfast.training.history import Report

#: Fewer songs than this are all trained on.
_LEAST_TO_VALIDATE = 5


def songs_of(
    data: PathLike,
    audio: Audio,
    validation: float | PathLike,
    seed: int,
    cache_dir: PathLike | None,
    report: Report,
) -> tuple[list[Recording], list[Recording]]:
    """Songs to train on, and songs to validate on.

    Args:
        data: in any layout that `find_songs` knows; of a data set with splits, its "train".
        audio: how they are opened.
        validation: the fraction that is kept for validation, or a folder of others.
        seed: of the draw.
        cache_dir: where decoded songs are kept; None for the user's cache.
        report: is told how far it is and what was skipped.

    Raises:
        InputError: where there are none that can be used, or for a fraction out of range.
    """
    songs, held_out = _split(data, validation, audio, seed, report)
    training = _opened(songs, audio, cache_dir, report)
    return training, _opened(held_out, audio, cache_dir, report) if held_out else []


def _split(
    data: PathLike, validation: float | PathLike, audio: Audio, seed: int, report: Report
) -> tuple[list[Song], list[Song]]:
    """The songs to train on, and those to validate on."""
    songs = [song for song in _found(data, audio, report) if song.split in (None, "train")]
    if not songs:
        raise InputError(f"{data}: holds test songs alone, training takes others")
    if not isinstance(validation, (int, float)):
        return songs, _found(validation, audio, report)
    if not 0 <= validation < 1:
        raise InputError(f"validation: got {validation}, takes a fraction below 1, or a folder")
    if validation and len(songs) < _LEAST_TO_VALIDATE:
        report.note(
            f"no validation with fewer than {_LEAST_TO_VALIDATE} songs ({len(songs)} here): "
            "the best epoch is that of the lowest training loss"
        )
        return songs, []
    count = max(1, round(validation * len(songs))) if validation else 0
    order = np.random.default_rng(seed).permutation(len(songs))
    held_out = set(order[:count].tolist())
    return (
        [song for number, song in enumerate(songs) if number not in held_out],
        [song for number, song in enumerate(songs) if number in held_out],
    )


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
