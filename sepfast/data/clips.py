"""Recordings of system E, and snippets drawn from them.

Where the paper is silent: a recording that is shorter than a snippet has silence on both sides,
evenly, as the talkers of system D do; a snippet of nothing but silence is drawn again.
Source: E (Venkataramani et al. 2019), section 4.1.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from sepfast.data.audio import AudioReader, is_audio
from sepfast.data.decoders import SUFFIXES
from sepfast.data.resampling import resampled_length
from sepfast.data.song_audio import SongAudio
from sepfast.data.songs import Song, Track
from sepfast.errors import InputError
from sepfast.files import PathLike

Floats = NDArray[np.float32]

#: Hz at which system E hears.
SAMPLE_RATE = 16000
#: Snippets drawn for each one wanted, before the data is said to be silent.
_TRIES = 100


@dataclass(frozen=True)
class Clip:
    """A recording.

    Attributes:
        key: its path below the data's folder, without suffix and with slashes; no other recording
            of the data has it.
        audio: the file.
        samples: length at 16 kHz.
    """

    key: str
    audio: Path
    samples: int

    def read(self, start: int, count: int, cache_dir: PathLike | None = None) -> Floats:
        """`count` samples from `start` on at 16 kHz, (count,), the mean of all channels.

        There are zeros behind its end, and before its start where `start` is negative. A WAV, FLAC
        or SPHERE file at 16 kHz is read there alone; any other is decoded once, to a file in
        `cache_dir`.

        Args:
            start: the first sample; may be negative.
            count: how many, 0 or more.
            cache_dir: where decoded audio is kept; None for the user's cache.

        Raises:
            InputError: where the file cannot be decoded, or has another length than it had.
        """
        read = np.zeros(count, np.float32)
        audio = _opened(self.key, self.audio, cache_dir)
        if audio.samples != self.samples:
            raise InputError(
                f"{self.audio}: has {audio.samples:,} samples at {SAMPLE_RATE} Hz, and had "
                f"{self.samples:,} when it was found"
            )
        first, last = max(0, start), min(start + count, self.samples)
        if first < last:
            read[first - start : last - start] = audio.read(first, last)[0, 0]
        return read


class Snippet(NamedTuple):
    """A piece of a recording.

    Attributes:
        clip: the recording.
        start: its first sample; negative where silence comes first.
        waveform: (samples,) at 16 kHz, not silent.
    """

    clip: Clip
    start: int
    waveform: Floats


class SnippetDraw:
    """Snippets at random: of a group of recordings, then of one in it, then from any sample on.

    Args:
        groups: the recordings of each speaker, or one by itself; each group is as likely.
        samples: length of a snippet at 16 kHz.
        cache_dir: where decoded audio is kept; None for the user's cache.

    Raises:
        InputError: where there are no groups, a group is empty, or snippets have no samples.
    """

    def __init__(
        self,
        groups: Sequence[Sequence[Clip]],
        samples: int,
        cache_dir: PathLike | None = None,
    ) -> None:
        if not groups or not all(groups) or samples < 1:
            raise InputError(
                f"clips, samples: got {sum(map(len, groups))} in {len(groups)} groups and "
                f"{samples}, take at least 1 in each and 1"
            )
        self.groups, self.samples, self.cache_dir = groups, samples, cache_dir

    def draw(self, random: np.random.Generator) -> Snippet:
        """A snippet that is not silent.

        Raises:
            InputError: where a file cannot be decoded, or a hundred snippets in a row are silent.
        """
        for _ in range(_TRIES):
            group = self.groups[int(random.integers(len(self.groups)))]
            clip = group[int(random.integers(len(group)))]
            start = _drawn_start(clip.samples, self.samples, random)
            waveform = clip.read(start, self.samples, self.cache_dir)
            if waveform.any():
                return Snippet(clip, start, waveform)
        raise InputError(
            f"{clip.audio}: is silent from {max(0, start) / SAMPLE_RATE:.2f} s on, as are the "
            f"{_TRIES - 1} snippets drawn before it; takes recordings that are heard"
        )


def _drawn_start(held: int, wanted: int, random: np.random.Generator) -> int:
    """Where a snippet starts; where the silence around it is odd, the sample more is behind it."""
    return int(random.integers(held - wanted + 1)) if held > wanted else -((wanted - held) // 2)


def by_folder(clips: Iterable[Clip]) -> list[list[Clip]]:
    """Recordings grouped by the folder that they are in, both in the order given."""
    groups: dict[str, list[Clip]] = {}
    for clip in clips:
        groups.setdefault(clip.key.rpartition("/")[0], []).append(clip)
    return list(groups.values())


def find_audio(root: PathLike) -> dict[str, list[Path]]:
    """The audio files beneath a folder by their keys, sorted; what is hidden is left out.

    Where some have one key, as `a.wav`, `a.flac` and a copy converted beside them, `a.WAV.wav`,
    they are taken for one recording: the original first, then in the order of `SUFFIXES`.
    Only names are looked at.
    """
    root = Path(root)
    found: dict[str, list[Path]] = {}
    for path in _audio_files(root):
        name = path.name
        while is_audio(name):
            name = name[: name.rindex(".")]
        key = path.parent.relative_to(root) / name
        found.setdefault(key.as_posix(), []).append(path)
    return {key: sorted(found[key], key=original_first) for key in sorted(found)}


def original_first(path: Path) -> tuple[int, int, str]:
    """What files of one recording are sorted by."""
    return len(path.suffixes), SUFFIXES.index(path.suffix.lower()), str(path)


def open_clip(key: str, paths: Sequence[Path], cache_dir: PathLike | None = None) -> Clip:
    """The recording in the first of some files that can be opened.

    Args:
        key: of the recording.
        paths: at least one.
        cache_dir: where a file is decoded to that does not say how long it is.

    Raises:
        InputError: where none can be opened: the reason of the first.
    """
    reasons: list[InputError] = []
    for path in paths:
        try:
            return Clip(key, path, _samples(key, path, cache_dir))
        except InputError as error:
            reasons.append(error)
    raise reasons[0]


def _audio_files(root: Path) -> Iterator[Path]:
    for folder, folders, files in os.walk(root):
        folders[:] = [name for name in folders if not name.startswith(".")]
        yield from (Path(folder, name) for name in files if is_audio(name))


def _samples(key: str, path: Path, cache_dir: PathLike | None) -> int:
    """Samples at 16 kHz; only a file that does not say how long it is is decoded."""
    with AudioReader(path) as reader:
        if reader.samples is not None:
            return resampled_length(reader.samples, reader.sample_rate, SAMPLE_RATE)
    return _opened(key, path, cache_dir).samples


def _opened(key: str, path: Path, cache_dir: PathLike | None) -> SongAudio:
    song = Song(key, None, Track(path), {})
    return SongAudio(song, sample_rate=SAMPLE_RATE, channels=1, sources=(), cache_dir=cache_dir)
