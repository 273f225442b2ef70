"""What stands behind an audio file: libsndfile where it counts exactly, FFmpeg elsewhere.

soundfile decodes what libsndfile counts exactly; PyAV decodes the rest, to the very samples that
ffmpeg gives. MP3 is PyAV's: libsndfile guesses the length of a file without a Xing header, and
soundfile stops at the guess.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

import numpy as np

from sepfast.data.sphere import check_sphere
from sepfast.errors import InputError

if TYPE_CHECKING:
    from av import AudioFrame

#: Suffixes whose files can be read from any sample on.
SEEKABLE = (".wav", ".flac", ".sph")
_SOUNDFILE = (*SEEKABLE, ".aif", ".aiff", ".ogg", ".oga", ".opus")
_PYAV = (".mp3", ".m4a", ".mp4", ".aac", ".ac3", ".mka", ".webm", ".wma")

#: Suffixes of the audio files that are taken; `.mp4` includes `.stem.mp4`.
SUFFIXES = _SOUNDFILE + _PYAV

# What libsndfile gives as the length of a FLAC that was written to a pipe.
_UNKNOWN_LENGTH = 2**63 - 1
# Chunk sizes from here on are what writers to a pipe leave in a header, not a promise.
_PIPED_BYTES = 0x7F000000


class Decoder(Protocol):
    """An opened file; `errors` is what its library raises.

    `least` is the number of samples below which the file ended early, 0 where nothing says.
    """

    sample_rate: int
    channels: int
    samples: int | None
    least: int
    errors: tuple[type[Exception], ...]

    def chunks(self, size: int) -> Iterator[np.ndarray]:
        """All samples in order, (channels, any) float32, about `size` at a time."""

    def close(self) -> None:
        """Let go of the file."""


def open_decoder(path: Path, stream: int) -> Decoder:
    """A decoder for a file, by its suffix; `stream` counts the container's audio from 0.

    Raises:
        InputError: the file is missing, empty, truncated, no audio, or has no such stream.
    """
    _check_readable(path)
    suffix = path.suffix.lower()
    if suffix == ".mp3":
        _check_mp3_whole(path)
    if suffix not in _SOUNDFILE:
        return _AvDecoder(path, stream)
    check_sphere(path)
    if stream:
        raise InputError(f"{path}: holds 1 audio stream; stream {stream} was asked for")
    decoder = _SoundFileDecoder(path)
    if decoder.counts:
        return decoder
    decoder.close()
    return _AvDecoder(path, stream)


class _SoundFileDecoder:
    """A file that libsndfile decodes."""

    def __init__(self, path: Path) -> None:
        import soundfile

        self.errors: tuple[type[Exception], ...] = (soundfile.SoundFileError,)
        try:
            self._file = soundfile.SoundFile(path)
        except self.errors as error:
            raise InputError(f"{path}: is corrupt, or not an audio file") from error
        self.sample_rate: int = self._file.samplerate
        self.channels: int = self._file.channels
        self.least: int = self._file.frames
        self.samples: int | None = self.least
        problem = self._problem()
        if problem:
            self.close()
            raise InputError(f"{path}: {problem}")

    @property
    def counts(self) -> bool:
        """Whether libsndfile knows the length of such a file, and not only guesses."""
        return self._file.format != "MP3" and self.samples != _UNKNOWN_LENGTH

    def _problem(self) -> str:
        """What is wrong with the file as its header tells it, or nothing."""
        if not self.samples:
            return "holds no samples"
        # libsndfile shortens a file that was cut without a word, but for its log.
        chunk = re.search(r"(?:data|SSND) : (\d+) \(should be (\d+)\)", self._file.extra_info)
        promised, held = map(int, chunk.groups()) if chunk else (0, 0)
        one_frame = 8 * self.channels
        if promised < _PIPED_BYTES and promised - held > one_frame:
            return f"is truncated: {held:,} of {promised:,} bytes of samples are there"
        return ""

    def chunks(self, size: int) -> Iterator[np.ndarray]:
        while len(frames := self._file.read(size, "float32", always_2d=True)):
            yield np.ascontiguousarray(frames.T)

    def close(self) -> None:
        self._file.close()


class _AvDecoder:
    """One audio stream of a container that FFmpeg decodes."""

    def __init__(self, path: Path, stream: int) -> None:
        import av

        self.errors: tuple[type[Exception], ...] = (av.FFmpegError,)
        try:
            # An absolute path cannot be taken for a URL, whatever colons are in it.
            self._container = av.open(str(path.absolute()))
        except self.errors as error:
            raise InputError(f"{path}: is corrupt, or not an audio file") from error
        streams = self._container.streams.audio
        if not 0 <= stream < len(streams):
            self.close()
            held = (
                f"{len(streams)} audio stream{'s' * (len(streams) != 1)}" if streams else "no audio"
            )
            raise InputError(f"{path}: holds {held}; stream {stream} was asked for")
        self._path, self._stream = path, streams[stream]
        self.sample_rate, self.channels = self._stream.rate, self._stream.channels
        self.samples: int | None = None
        self.least = self._indexed_samples()

    def _indexed_samples(self) -> int:
        """Samples that an MP4's index promises, less what a codec may prime and pad with."""
        duration, base = self._stream.duration, self._stream.time_base
        if "mp4" not in self._container.format.name or duration is None or base is None:
            return 0
        return int(duration * base * self.sample_rate) - self.sample_rate // 5

    def chunks(self, size: int) -> Iterator[np.ndarray]:
        broken: Exception | None = None
        for packet in self._container.demux(self._stream):
            try:
                frames = packet.decode()
            except self.errors as error:
                broken = broken or error
                continue
            if broken and frames:
                raise broken
            for frame in frames:
                yield self._samples(frame)
        # Behind the last frame of an MP3 there may be tags and padding that are no audio.
        if broken and self._container.format.name != "mp3":
            raise broken

    def _samples(self, frame: AudioFrame) -> np.ndarray:
        """A decoded frame as (channels, n) float32."""
        if (frame.sample_rate, frame.layout.nb_channels) != (self.sample_rate, self.channels):
            raise InputError(f"{self._path}: changes its sample rate or channels midway")
        samples: np.ndarray = frame.to_ndarray()
        if not frame.format.is_planar:  # (1, n * channels), interleaved
            samples = samples.reshape(-1, self.channels).T
        if samples.dtype == np.uint8:
            samples = samples.astype(np.float32) / 128 - 1
        elif samples.dtype.kind == "i":
            samples = samples.astype(np.float32) / -float(np.iinfo(samples.dtype).min)
        return np.ascontiguousarray(samples, dtype=np.float32)

    def close(self) -> None:
        self._container.close()


def _check_readable(path: Path) -> None:
    if not path.exists():
        raise InputError(f"{path}: there is no such file")
    if not path.is_file():
        raise InputError(f"{path}: is not a file")
    try:
        with path.open("rb") as file:
            if not file.read(1):
                raise InputError(f"{path}: is empty")
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror})") from error


def _check_mp3_whole(path: Path) -> None:
    """Refuse an MP3 that is shorter than its Xing or Info header says; FFmpeg is silent there."""
    with path.open("rb") as file:
        tag = file.read(10)
        start = 10 + _synchsafe(tag[6:]) if tag[:3] == b"ID3" else 0
        file.seek(start)
        frame = file.read(256)
    at = max(frame.find(b"Xing"), frame.find(b"Info"))
    flags = int.from_bytes(frame[at + 4 : at + 8], "big") if at >= 0 else 0
    if not flags & 2:
        return
    field = at + 8 + 4 * (flags & 1)  # behind the number of frames, where there is one
    promised = int.from_bytes(frame[field : field + 4], "big")
    held = path.stat().st_size - start
    if held < 0.99 * promised:  # encoders differ in what they count
        raise InputError(f"{path}: is truncated: {held:,} of {promised:,} bytes are there")


def _synchsafe(size: bytes) -> int:
    """The size in the header of an ID3 tag: seven bits a byte."""
    return sum(byte << 7 * place for place, byte in enumerate(reversed(size)))
