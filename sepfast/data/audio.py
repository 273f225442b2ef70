"""Audio files as blocks of samples: reading and writing.

A waveform is a float32 array, (channels, samples), with full scale at 1.0. Files are streamed, so
that memory depends on the size of a block and not on the length of a song. Whatever is wrong with
a file ends in an `InputError` that names it; no exception of a decoder comes through.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from types import TracebackType
from typing import Any, Literal, Self, get_args

import numpy as np

from sepfast.data.decoders import SUFFIXES, open_decoder
from sepfast.errors import InputError
from sepfast.files import PathLike, atomic

Subtype = Literal["float", "int16"]

# What a WAV file can hold, its header left out.
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
            (everything but WAV, SPHERE, FLAC, AIFF and Ogg).

    Raises:
        InputError: the file is missing, a folder, empty, truncated, no audio, or has no such
            stream.
    """

    def __init__(self, path: PathLike, *, stream: int = 0) -> None:
        """Open a file; `stream` counts the audio streams of its container from 0."""
        self.path = Path(path)
        self._decoder = open_decoder(self.path, stream)
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

        with atomic(self.path) as temporary:
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
