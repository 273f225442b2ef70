"""Songs with stems as samples, read from any sample on.

What cannot be read where it is, compressed or at another sample rate, is decoded once to a file
of plain samples.
"""

from __future__ import annotations

import hashlib
import io
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np

from sepfast.data.audio import AudioReader, read_span
from sepfast.data.decoders import SEEKABLE
from sepfast.data.raw_samples import RawSamples, wav_samples
from sepfast.data.resampling import StreamResampler
from sepfast.data.songs import SOURCES, Song, Track
from sepfast.errors import InputError
from sepfast.files import PathLike, atomic

_DECODE_BLOCK = 1 << 16
_LENGTH_TOLERANCE = 0.1  # seconds


class SongAudio:
    """A song's mixture and stems at one sample rate, read from any sample on.

    WAV, FLAC and SPHERE files at that rate are read where they are, WAV files without a decoder.
    Everything else is decoded once, to a file in `cache_dir` that is found again as long as the
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
        folder = cache_folder(cache_dir)
        self._tracks = {
            name: _opened(track, sample_rate, channels, folder)
            for name, track in _wanted(song, self.sources).items()
        }
        whole = self._common_length()
        self._first = round(start * sample_rate)
        last = whole if stop is None else min(whole, round(stop * sample_rate))
        if not 0 <= self._first < last:
            end = "its end" if stop is None else f"{stop} s"
            raise InputError(
                f"{song.name}: has no samples from {start} s to {end}; it lasts "
                f"{whole / sample_rate:.2f} s"
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
        out = np.empty((1 + len(self.sources), self.channels, stop - start), np.float32)
        self.read_into(out, start)
        return out

    def read_into(self, out: np.ndarray, start: int) -> None:
        """Fill an array with what `read` gives from `start` on.

        Args:
            out: (1 + sources, channels, n) float32.
            start: a sample, 0 or more.

        Raises:
            InputError: for an array of other rows or channels, or a file that is corrupt there.
        """
        if out.shape[:2] != (1 + len(self.sources), self.channels):
            raise InputError(
                f"out: got shape {out.shape}, takes "
                f"({1 + len(self.sources)}, {self.channels}, samples)"
            )
        stems = dict(zip(self.sources, out[1:], strict=True))
        for source, row in stems.items():
            self._fill(row, self._tracks[source], start)
        self._mix(out[0], start, stems)

    def read_row(self, out: np.ndarray, row: int, start: int) -> None:
        """Fill an array, (channels, n) float32, with one row of what `read` gives, and only it.

        Raises:
            InputError: a file is corrupt there.
        """
        if row:
            self._fill(out, self._tracks[self.sources[row - 1]], start)
        else:
            self._mix(out, start, {})

    def fingerprint(self) -> tuple[str, ...]:
        """What its samples follow from: files with their sizes and times of change, and the span.

        Raises:
            InputError: a file is gone.
        """
        how = (self.sample_rate, self.channels, self._first, self.samples, self.sources)
        return (repr(how), *(f"{name}|{_state(t.track)}" for name, t in self._tracks.items()))

    def _mix(self, out: np.ndarray, start: int, stems: Mapping[str, np.ndarray]) -> None:
        """The mixture, (channels, n), from its file, or as the sum of all stems."""
        if self.song.mixture:
            self._fill(out, self._tracks["mixture"], start)
            return
        out[:] = 0
        for name, track in self._tracks.items():
            part = stems.get(name)
            if part is None:
                part = np.empty_like(out)
                self._fill(part, track, start)
            out += part

    def _fill(self, out: np.ndarray, track: _Samples, start: int) -> None:
        """One track's samples, (channels, n), with zeros behind its end."""
        first = self._first + start
        last = min(self._first + min(start + out.shape[1], self.samples), track.samples)
        count = max(0, last - first)
        if count:
            track.read_into(out[:, :count], first)
        out[:, count:] = 0

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


def cache_folder(given: PathLike | None) -> Path:
    """The folder that is given for a cache, or the user's own for None."""
    return default_cache_dir() if given is None else Path(given)


class _Samples(Protocol):
    """A track's samples at the sample rate and with the channels asked for."""

    @property
    def track(self) -> Track:
        """Where they come from."""

    @property
    def samples(self) -> int:
        """How many there are of each channel."""

    def read_into(self, out: np.ndarray, start: int) -> None:
        """Fill (channels, n) float32 with the samples from `start` on, all within `samples`."""


@dataclass(frozen=True)
class _DecodedSamples:
    """Samples of a file that a decoder reads, which opens it each time."""

    track: Track
    samples: int

    def read_into(self, out: np.ndarray, start: int) -> None:
        out[:] = _with_channels(read_span(self.track.path, start, start + out.shape[1]), len(out))


@dataclass(frozen=True)
class _PlainSamples:
    """Samples that lie in a WAV file, or in a `.npy` that a file was decoded to."""

    track: Track
    raw: RawSamples

    @property
    def samples(self) -> int:
        return self.raw.samples

    def read_into(self, out: np.ndarray, start: int) -> None:
        self.raw.read_into(out, start)
        checked = self.raw.encoding != "float32" or self.raw.path != self.track.path
        if not (checked or np.isfinite(out).all()):
            read_span(self.track.path, start, start + out.shape[1])  # raises, and says where


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
            return _readable(track, reader.samples, reader.channels)
        path = cache_dir / _cache_name(track, sample_rate, channels)
        cached = _cached(track, path, channels)
        if cached is None:
            _decode(reader, path, sample_rate, channels)
            cached = _cached(track, path, channels)
    if cached is None:
        raise InputError(f"{path}: was written, but cannot be read back")
    return cached


def _readable(track: Track, samples: int, channels: int) -> _Samples:
    """The samples of a file as it is; what is said of it is what its decoder says."""
    raw = wav_samples(track.path) if track.path.suffix.lower() == ".wav" else None
    if raw is not None and (raw.samples, raw.channels) == (samples, channels):
        return _PlainSamples(track, raw)
    return _DecodedSamples(track, samples)


def _cache_name(track: Track, sample_rate: int, channels: int) -> str:
    """A name that changes with the file and with what is made of it."""
    key = f"{_state(track)}|{sample_rate}|{channels}"
    return hashlib.sha256(os.fsencode(key)).hexdigest()[:32] + ".npy"


def _state(track: Track) -> str:
    """What changes when a file does: its path, stream, size and time of change."""
    try:
        about = track.path.stat()
    except OSError as error:
        raise InputError(f"{track.path}: cannot be read ({error.strerror})") from error
    return f"{track.path.resolve()}|{track.stream}|{about.st_size}|{about.st_mtime_ns}"


def _cached(track: Track, path: Path, channels: int) -> _PlainSamples | None:
    """The decoded samples at `path`, or None where there are none or the file is broken."""
    try:
        mapped = np.lib.format.open_memmap(path, mode="r")
    except (OSError, ValueError):
        return None
    if mapped.dtype != np.float32 or mapped.shape[1:] != (channels,):
        return None
    return _PlainSamples(track, RawSamples(path, mapped.offset, len(mapped), channels, "float32"))


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
