"""Songs with stems as samples, read from any sample on.

What cannot be read where it is, compressed or at another sample rate, is decoded once to a file
that is mapped into memory.
"""

from __future__ import annotations

import hashlib
import io
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np

from sepfast.data.audio import AudioReader, read_span
from sepfast.data.decoders import SEEKABLE
from sepfast.data.resampling import StreamResampler
from sepfast.data.songs import SOURCES, Song, Track
from sepfast.errors import InputError
from sepfast.files import PathLike, atomic

_DECODE_BLOCK = 1 << 16
_LENGTH_TOLERANCE = 0.1  # seconds


class SongAudio:
    """A song's mixture and stems at one sample rate, read from any sample on.

    WAV, FLAC and SPHERE files at that rate are read where they are. Everything else is decoded
    once, to a file in `cache_dir` that is mapped into memory and found again as long as the
    original does not change. No file stays open, so that a thousand songs can be, and pickling
    sends only paths.

    Attributes:
        song: what was opened.
        sample_rate: samples a second.
        channels: 1, the mean of a file's channels, or 2, mono being doubled.
        sources: the stems that `read` gives, in order.
        samples: samples of the song, or of the span of it that was asked for.
    """

    def __init__(
        self,
        song: Song,
        *,
        sample_rate: int,
        channels: int,
        sources: Sequence[str] = SOURCES,
        cache_dir: PathLike | None = None,
        start: float = 0.0,
        stop: float | None = None,
    ) -> None:
        """Open a song, or the span of it from `start` to `stop` seconds; a late stop is the end.

        `cache_dir` is `default_cache_dir()` unless given, and is made where it does not exist.

        Raises:
            InputError: a stem is missing, a file cannot be decoded, has more than two channels
                where two are wanted, or lasts over 0.1 s less than another; or the span is empty.
        """
        if channels not in (1, 2):
            raise InputError(f"channels: got {channels}, takes 1 or 2")
        self.song, self.sample_rate, self.channels = song, sample_rate, channels
        self.sources = tuple(sources)
        folder = Path(cache_dir) if cache_dir is not None else default_cache_dir()
        self._tracks = {
            name: _opened(track, sample_rate, channels, folder)
            for name, track in _wanted(song, self.sources).items()
        }
        whole = self._common_length()
        self._first = round(start * sample_rate)
        last = whole if stop is None else min(whole, round(stop * sample_rate))
        if not 0 <= self._first < last:
            raise InputError(
                f"{song.name}: has no samples from {start} s to {stop or 'its end'}"
                f"{' s' if stop else ''}; it lasts {whole / sample_rate:.2f} s"
            )
        self.samples = last - self._first

    def read(self, start: int, stop: int) -> np.ndarray:
        """Samples `start` to `stop`, (1 + sources, channels, stop - start) float32, a new array.

        Row 0 is the mixture; the sources follow in order. Beyond `samples` there are zeros.

        Raises:
            InputError: the span is not ascending from 0, or a file is corrupt there.
        """
        if not 0 <= start <= stop:
            raise InputError(f"start, stop: got {start}, {stop}, take 0 <= start <= stop")
        parts = {name: self._part(track, start, stop) for name, track in self._tracks.items()}
        stems = [parts[source] for source in self.sources]
        mixture = parts["mixture"] if self.song.mixture else np.sum(list(parts.values()), axis=0)
        return np.stack([mixture, *stems])

    def _part(self, track: _Samples, start: int, stop: int) -> np.ndarray:
        """One track's samples, (channels, stop - start), with zeros behind its end."""
        part = np.zeros((self.channels, stop - start), np.float32)
        first = self._first + start
        last = min(self._first + min(stop, self.samples), track.samples)
        if first < last:
            part[:, : last - first] = track.read(first, last)
        return part

    def _common_length(self) -> int:
        """The longest track's samples; raises where another is shorter than rounding explains."""
        rate = self.sample_rate
        by_length = sorted(self._tracks.values(), key=lambda track: track.samples)
        shortest, longest = by_length[0], by_length[-1]
        if longest.samples - shortest.samples > _LENGTH_TOLERANCE * rate:
            raise InputError(
                f"{shortest.track}: lasts {shortest.samples / rate:.2f} s, but {longest.track} "
                f"lasts {longest.samples / rate:.2f} s"
            )
        return longest.samples


def default_cache_dir() -> Path:
    """Where decoded audio is kept: `$XDG_CACHE_HOME/sepfast`, or else `~/.cache/sepfast`."""
    base = os.environ.get("XDG_CACHE_HOME")
    return (Path(base) if base else Path.home() / ".cache") / "sepfast"


class _Samples(Protocol):
    """A track's samples at the sample rate and with the channels asked for."""

    @property
    def track(self) -> Track:
        """Where they come from."""

    @property
    def samples(self) -> int:
        """How many there are of each channel."""

    def read(self, start: int, stop: int) -> np.ndarray:
        """Samples `start` to `stop`, within `samples`, (channels, stop - start) float32."""


@dataclass(frozen=True)
class _FileSamples:
    """Samples of a file as it is. It is opened for each read: open files are few, songs many."""

    track: Track
    samples: int
    channels: int

    def read(self, start: int, stop: int) -> np.ndarray:
        return _with_channels(read_span(self.track.path, start, stop), self.channels)


@dataclass(frozen=True)
class _CachedSamples:
    """Samples of a file decoded to a `.npy` of float32, (samples, channels)."""

    track: Track
    samples: int
    channels: int
    path: Path
    offset: int

    def read(self, start: int, stop: int) -> np.ndarray:
        shape = (self.samples, self.channels)
        return np.memmap(self.path, np.float32, "r", self.offset, shape)[start:stop].T


def _wanted(song: Song, sources: tuple[str, ...]) -> dict[str, Track]:
    """The tracks that are read: the mixture and the sources, or else all stems for their sum."""
    missing = [source for source in sources if source not in song.stems]
    if missing:
        raise InputError(f"{song.name}: has no {', '.join(missing)}")
    if song.mixture is None:
        return dict(song.stems)
    return {"mixture": song.mixture, **{source: song.stems[source] for source in sources}}


def _opened(track: Track, sample_rate: int, channels: int, cache_dir: Path) -> _Samples:
    with AudioReader(track.path, stream=track.stream) as reader:
        if channels == 2 and reader.channels > 2:
            raise InputError(f"{track}: has {reader.channels} channels, takes 1 or 2")
        seekable = track.path.suffix.lower() in SEEKABLE and reader.sample_rate == sample_rate
        if seekable and reader.samples is not None:
            return _FileSamples(track, reader.samples, channels)
        path = cache_dir / _cache_name(track, sample_rate, channels)
        cached = _cached(track, path, channels)
        if cached is None:
            _decode(reader, path, sample_rate, channels)
            cached = _cached(track, path, channels)
    if cached is None:
        raise InputError(f"{path}: was written, but cannot be read back")
    return cached


def _cache_name(track: Track, sample_rate: int, channels: int) -> str:
    """A name that changes with the file and with what is made of it."""
    about = track.path.stat()
    parts = (track.path.resolve(), track.stream, about.st_size, about.st_mtime_ns)
    key = "|".join(map(str, (*parts, sample_rate, channels)))
    return hashlib.sha256(os.fsencode(key)).hexdigest()[:32] + ".npy"


def _cached(track: Track, path: Path, channels: int) -> _CachedSamples | None:
    """The decoded samples at `path`, or None where there are none or the file is broken."""
    try:
        mapped = np.lib.format.open_memmap(path, mode="r")
    except (OSError, ValueError):
        return None
    if mapped.dtype != np.float32 or mapped.shape[1:] != (channels,):
        return None
    return _CachedSamples(track, mapped.shape[0], channels, path, mapped.offset)


def _decode(reader: AudioReader, path: Path, sample_rate: int, channels: int) -> None:
    """Write a whole file's samples as a `.npy`, (samples, channels) float32, block by block."""
    samples = 0
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with atomic(path) as temporary, temporary.open("wb") as file:
            file.write(_npy_header(samples, channels))
            for block in _converted(reader, sample_rate, channels):
                file.write(np.ascontiguousarray(block.T, dtype="<f4").tobytes())
                samples += block.shape[1]
            file.seek(0)
            file.write(_npy_header(samples, channels))
    except OSError as error:
        raise InputError(f"{path}: cannot be written ({error.strerror})") from error


def _converted(reader: AudioReader, sample_rate: int, channels: int) -> Iterator[np.ndarray]:
    """The blocks of a file with the channels and at the sample rate asked for."""
    resampler = StreamResampler(reader.sample_rate, sample_rate, channels)
    for block in reader.blocks(_DECODE_BLOCK):
        yield resampler.push(_with_channels(block, channels))
    yield resampler.finish()


def _npy_header(samples: int, channels: int) -> bytes:
    """The header of a `.npy`; numpy pads it so that its size is the same for any first axis."""
    header = io.BytesIO()
    about = {"descr": "<f4", "fortran_order": False, "shape": (samples, channels)}
    np.lib.format.write_array_header_1_0(header, about)
    return header.getvalue()


def _with_channels(block: np.ndarray, channels: int) -> np.ndarray:
    """The mean of all channels for 1; for 2, stereo as it is and mono doubled."""
    if channels == 1:
        return block.mean(axis=0, keepdims=True)
    return block if block.shape[0] == 2 else np.repeat(block, 2, axis=0)
