"""Audio files as blocks of samples: reading, resampling and writing.

A waveform is a float32 array, (channels, samples), with full scale at 1.0. Files are streamed, so
that memory depends on the size of a block and not on the length of a song. Whatever is wrong with
a file ends in an `InputError` that names it; no exception of a decoder comes through.

soundfile decodes what libsndfile counts exactly; PyAV decodes the rest, to the very samples that
ffmpeg gives. MP3 is PyAV's: libsndfile guesses the length of a file without a Xing header, and
soundfile stops at the guess.
"""

from __future__ import annotations

import math
import os
import re
import secrets
from collections.abc import Iterable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Literal, Protocol, Self, get_args

import numpy as np

from sepfast.errors import InputError

if TYPE_CHECKING:
    from av import AudioFrame

PathLike = str | os.PathLike[str]
Subtype = Literal["float", "int16"]

#: Suffixes whose files can be read from any sample on.
SEEKABLE = (".wav", ".flac")
_SOUNDFILE = (*SEEKABLE, ".aif", ".aiff", ".ogg", ".oga", ".opus")
_PYAV = (".mp3", ".m4a", ".mp4", ".aac", ".ac3", ".mka", ".webm", ".wma")

#: Suffixes of the audio files that are taken; `.mp4` includes `.stem.mp4`.
SUFFIXES = _SOUNDFILE + _PYAV

# What libsndfile gives as the length of a FLAC that was written to a pipe.
_UNKNOWN_LENGTH = 2**63 - 1
# Chunk sizes from here on are what writers to a pipe leave in a header, not a promise.
_PIPED_BYTES = 0x7F000000
_WAV_BYTES = 2**32 - 2**16
_ENCODINGS = {
    (".wav", "float"): "FLOAT",
    (".wav", "int16"): "PCM_16",
    (".flac", "float"): "PCM_24",
    (".flac", "int16"): "PCM_16",
}
_BITS = {"PCM_16": 16, "PCM_24": 24}


def is_audio(path: PathLike) -> bool:
    """Whether a file's name is that of an audio file; hidden files are none."""
    path = Path(path)
    return not path.name.startswith(".") and path.suffix.lower() in SUFFIXES


class AudioReader:
    """An audio file, opened and read once from start to end.

    Attributes:
        path: the file.
        sample_rate: samples a second.
        channels: channels of the stream that is read.
        samples: samples of each channel, or None where the container does not say exactly
            (everything but WAV, FLAC, AIFF and Ogg).

    Raises:
        InputError: the file is missing, a folder, empty, truncated, no audio, or has no such
            stream.
    """

    def __init__(self, path: PathLike, *, stream: int = 0) -> None:
        """Open a file; `stream` counts the audio streams of its container from 0."""
        self.path = Path(path)
        _check_readable(self.path)
        self._decoder = _open_decoder(self.path, stream)
        self._started = False
        self.sample_rate = self._decoder.sample_rate
        self.channels = self._decoder.channels
        self.samples = self._decoder.samples

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    def close(self) -> None:
        """Let go of the file."""
        self._decoder.close()

    def blocks(self, size: int) -> Iterator[np.ndarray]:
        """All samples in order, as (channels, size) float32 blocks, the last one shorter.

        Raises:
            InputError: the file is corrupt, ends early, or holds NaN or infinite samples.
            RuntimeError: the blocks were already asked for.
        """
        if size < 1:
            raise InputError(f"size: got {size}, takes at least 1 sample")
        if self._started:
            raise RuntimeError(f"{self.path}: a reader reads once; open the file again")
        self._started = True
        return self._checked(_regroup(self._chunks(size), size))

    def _chunks(self, size: int) -> Iterator[np.ndarray]:
        """What the decoder gives, (channels, any), its exceptions turned into `InputError`."""
        position = 0
        try:
            for chunk in self._decoder.chunks(size):
                yield chunk
                position += chunk.shape[1]
        except self._decoder.errors as error:
            seconds = position / self.sample_rate
            raise InputError(f"{self.path}: is corrupt at {seconds:.2f} s") from error
        if position < self._decoder.least:
            seconds = position / self.sample_rate
            raise InputError(f"{self.path}: is truncated or corrupt: it ends at {seconds:.2f} s")
        if not position:
            raise InputError(f"{self.path}: holds no samples")

    def _checked(self, blocks: Iterable[np.ndarray]) -> Iterator[np.ndarray]:
        position = 0
        for block in blocks:
            _check_finite(block, self.path, position / self.sample_rate, self.sample_rate)
            position += block.shape[1]
            yield block


def read(path: PathLike, *, stream: int = 0) -> tuple[np.ndarray, int]:
    """The whole of a file: (channels, samples) float32, and its sample rate.

    Raises:
        InputError: as `AudioReader` and its blocks do.
    """
    with AudioReader(path, stream=stream) as reader:
        return np.concatenate(list(reader.blocks(1 << 20)), axis=1), reader.sample_rate


def read_span(path: PathLike, start: int, stop: int) -> np.ndarray:
    """Samples `start` to `stop` of a `SEEKABLE` file, (channels, stop - start) float32.

    Raises:
        InputError: the file cannot be read, is corrupt, ends before `stop`, or holds NaN or
            infinite samples there.
    """
    import soundfile

    path = Path(path)
    try:
        with soundfile.SoundFile(path) as file:
            rate = file.samplerate
            file.seek(start)
            span = np.ascontiguousarray(file.read(stop - start, "float32", always_2d=True).T)
    except soundfile.SoundFileError as error:
        raise InputError(f"{path}: cannot be read from sample {start} on") from error
    if span.shape[1] < stop - start:
        raise InputError(f"{path}: ends at sample {start + span.shape[1]}, before {stop}")
    _check_finite(span, path, start / rate, rate)
    return span


class StreamResampler:
    """A change of sample rate, block by block (soxr, high quality: errors near -120 dB).

    n samples in become ceil(n * to_rate / from_rate) samples out, whatever the blocks: never
    shorter than the time that went in, so that the way there and back can be trimmed to n.
    """

    def __init__(self, from_rate: int, to_rate: int, channels: int) -> None:
        import soxr

        if from_rate < 1 or to_rate < 1:
            raise InputError(f"sample rate: got {from_rate} to {to_rate} Hz, takes at least 1 Hz")
        self.from_rate, self.to_rate, self.channels = from_rate, to_rate, channels
        self._taken = self._given = 0
        same = from_rate == to_rate
        self._stream = (
            None if same else soxr.ResampleStream(from_rate, to_rate, channels, quality="HQ")
        )

    def push(self, block: np.ndarray) -> np.ndarray:
        """Take (channels, n) samples, give (channels, m) that are ready, m = 0 included."""
        if block.ndim != 2 or block.shape[0] != self.channels:
            raise InputError(f"block: got shape {block.shape}, takes ({self.channels}, samples)")
        self._taken += block.shape[1]
        ready = self._resampled(block)
        self._given += ready.shape[1]
        return ready

    def finish(self) -> np.ndarray:
        """The samples still inside, (channels, m); nothing can be pushed after it."""
        remaining = -(-self._taken * self.to_rate // self.from_rate) - self._given
        # One more output sample than soxr would give: it rounds the length, we round it up.
        silence = np.zeros((self.channels, -(-self.from_rate // self.to_rate)), np.float32)
        return self._resampled(silence, last=True)[:, :remaining]

    def _resampled(self, block: np.ndarray, *, last: bool = False) -> np.ndarray:
        if self._stream is None:
            return block.astype(np.float32, copy=False)
        frames = np.ascontiguousarray(block.T, dtype=np.float32)
        return np.ascontiguousarray(self._stream.resample_chunk(frames, last=last).T)


def resample(waveform: np.ndarray, from_rate: int, to_rate: int) -> np.ndarray:
    """A waveform, (channels, n), at another sample rate: float32, (channels, m).

    m = ceil(n * to_rate / from_rate). Equal to what a `StreamResampler` gives in blocks.

    >>> resample(np.zeros((2, 441), np.float32), 44100, 16000).shape
    (2, 160)
    """
    resampler = StreamResampler(from_rate, to_rate, waveform.shape[0])
    return np.concatenate([resampler.push(waveform), resampler.finish()], axis=1)


class AudioWriter:
    """A WAV or FLAC file, written block by block, that is there whole or not at all.

    It grows under a temporary name in the same folder and takes its place on a clean exit of the
    `with` block; on any exception nothing at `path` changes and nothing is left behind.

    "float" is 32-bit float in WAV and, FLAC having no float, 24-bit integers in FLAC; "int16" is
    16-bit integers in both. Integers are rounded to the nearest, without dither, and clipped to
    full scale: +1.0 itself becomes the largest code and does not count as clipped.

    Attributes:
        path: the file that is to be.
        samples: samples written to each channel so far.
        clipped: samples, over all channels, beyond full scale; 0 in a float file, which holds them.
        peak: the largest magnitude given so far, before any clipping.

    Raises:
        InputError: the suffix is not .wav or .flac, the folder cannot be written, `path` is a
            folder, the format does not take the sample rate or the channels, or the disk is full.
    """

    def __init__(
        self, path: PathLike, sample_rate: int, channels: int, *, subtype: Subtype = "float"
    ) -> None:
        self.path = Path(path)
        self.sample_rate, self.channels = sample_rate, channels
        self.samples = self.clipped = 0
        self.peak = 0.0
        self._encoding = _encoding(self.path, subtype)
        self._file: Any = None
        self._opening: AbstractContextManager[Any] | None = None

    def __enter__(self) -> Self:
        self._opening = self._opened()
        self._file = self._opening.__enter__()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        assert self._opening is not None
        self._opening.__exit__(kind, error, trace)

    def write(self, block: np.ndarray) -> None:
        """Append a block of floats, (channels, n); it is not changed.

        Raises:
            InputError: the block has another shape or type, holds NaN or infinite samples, or
                cannot be written (4 GiB is all that a WAV file holds).
        """
        block = self._checked(block)
        if not block.size:
            return
        magnitude = np.abs(block)
        self.peak = max(self.peak, float(magnitude.max()))
        bits = _BITS.get(self._encoding)
        if bits:
            self.clipped += int(np.count_nonzero(magnitude > 1))
        self._append(_quantise(block, bits) if bits else block)
        self.samples += block.shape[1]

    def _checked(self, block: np.ndarray) -> np.ndarray:
        block = np.asarray(block)
        if block.ndim != 2 or block.shape[0] != self.channels:
            raise InputError(f"block: got shape {block.shape}, takes ({self.channels}, samples)")
        if not np.issubdtype(block.dtype, np.floating):
            raise InputError(f"block: got {block.dtype} samples, takes floats")
        block = block.astype(np.float32, copy=False)
        _check_finite(block, self.path, self.samples / self.sample_rate, self.sample_rate)
        return block

    def _append(self, block: np.ndarray) -> None:
        import soundfile

        held = (self.samples + block.shape[1]) * self.channels * block.itemsize
        if self.path.suffix.lower() == ".wav" and held > _WAV_BYTES:
            raise InputError(f"{self.path}: passes the 4 GiB that a WAV file holds; write a .flac")
        try:
            self._file.write(np.ascontiguousarray(block.T))
        except (soundfile.SoundFileError, AssertionError) as error:  # it asserts a whole write
            raise InputError(f"{self.path}: cannot be written; is the disk full?") from error

    @contextmanager
    def _opened(self) -> Iterator[Any]:
        """The file under its temporary name, put in place once it is seen to be whole."""
        import soundfile

        with replacing(self.path) as temporary:
            with self._created(temporary) as file:
                yield file
            # Closing may write too, and libsndfile is silent where that fails.
            if self.samples and soundfile.info(temporary).frames != self.samples:
                raise InputError(f"{self.path}: cannot be written; is the disk full?")

    def _created(self, temporary: Path) -> Any:
        import soundfile

        form, rate, channels = self.path.suffix[1:].upper(), self.sample_rate, self.channels
        try:
            return soundfile.SoundFile(temporary, "w", rate, channels, self._encoding, format=form)
        except (soundfile.SoundFileError, ValueError, TypeError) as error:
            raise InputError(
                f"{self.path}: {form} does not take {channels} channels at {rate} Hz"
            ) from error


def write(
    path: PathLike, waveform: np.ndarray, sample_rate: int, *, subtype: Subtype = "float"
) -> int:
    """Write a waveform, (channels, samples), as `AudioWriter` does; return the clipped samples.

    Raises:
        InputError: as `AudioWriter` does.
    """
    channels = np.shape(waveform)[0] if np.ndim(waveform) == 2 else 0
    if not channels:
        raise InputError(f"waveform: got shape {np.shape(waveform)}, takes (channels, samples)")
    with AudioWriter(path, sample_rate, channels, subtype=subtype) as writer:
        writer.write(waveform)
    return writer.clipped


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """A temporary file beside `path` that takes its place on a clean exit, and vanishes otherwise.

    Raises:
        InputError: `path` is a folder, or its folder cannot be written.
    """
    if path.is_dir():
        raise InputError(f"{path}: is a folder, not a file to write")
    temporary = path.with_name(f".sepfast-{secrets.token_hex(8)}.tmp")
    try:
        temporary.touch(exist_ok=False)
    except OSError as error:
        raise InputError(f"{path}: cannot be written ({error.strerror})") from error
    try:
        yield temporary
        temporary.replace(path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


class _Decoder(Protocol):
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


def _open_decoder(path: Path, stream: int) -> _Decoder:
    suffix = path.suffix.lower()
    if suffix == ".mp3":
        _check_mp3_whole(path)
    if suffix not in _SOUNDFILE:
        return _AvDecoder(path, stream)
    if stream:
        raise InputError(f"{path}: holds 1 audio stream; stream {stream} was asked for")
    decoder = _SoundFileDecoder(path)
    if decoder.counts:
        return decoder
    decoder.close()
    return _AvDecoder(path, stream)


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


def _check_finite(block: np.ndarray, path: Path, start: float, rate: int) -> None:
    """Raise where a block that starts at `start` seconds holds NaN or infinite samples."""
    finite = np.isfinite(block)
    if not finite.all():
        first = int(np.argmin(finite.all(axis=0)))
        raise InputError(f"{path}: holds NaN or infinite samples at {start + first / rate:.2f} s")


def _regroup(chunks: Iterable[np.ndarray], size: int) -> Iterator[np.ndarray]:
    """Chunks of any lengths as blocks of `size` samples, the last one shorter."""
    held: list[np.ndarray] = []
    count = 0
    for chunk in chunks:
        held.append(chunk)
        count += chunk.shape[1]
        if count < size:
            continue
        joined = np.concatenate(held, axis=1) if len(held) > 1 else chunk
        whole = count - count % size
        for start in range(0, whole, size):
            yield np.ascontiguousarray(joined[:, start : start + size])
        held, count = [joined[:, whole:]], count - whole
    if count:
        yield np.concatenate(held, axis=1)


def _encoding(path: Path, subtype: str) -> str:
    if subtype not in get_args(Subtype):
        raise InputError(f"subtype: got {subtype!r}, takes {', '.join(get_args(Subtype))}")
    try:
        return _ENCODINGS[path.suffix.lower(), subtype]
    except KeyError:
        raise InputError(f"{path}: only .wav and .flac files are written") from None


def _quantise(block: np.ndarray, bits: int) -> np.ndarray:
    """Floats as integer codes: int16, or 24 bits in the upper part of int32.

    Done here because libsndfile rounds down in some formats and scales by 32767 in others.
    """
    full = math.ldexp(1.0, bits - 1)
    codes = np.clip(np.rint(block * np.float32(full)), -full, full - 1)
    return codes.astype(np.int16) if bits == 16 else codes.astype(np.int32) << 8
