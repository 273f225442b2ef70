"""Samples that lie in a file one behind the other, read from any of them on without a decoder.

A short excerpt is one read and one conversion. Opened anew by a decoder it takes several times as
long, and so it does mapped into memory: each mapping is made, faulted in page by page and taken
down again.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import BinaryIO, Literal, get_args

import numpy as np
from numpy.typing import NDArray

from sepfast.errors import InputError

Floats = NDArray[np.float32]

Encoding = Literal["int16", "int24", "float32"]

#: (Format tag, bits) of a WAV file -> how its samples are encoded.
_ENCODINGS: dict[tuple[int, int], Encoding] = {
    (1, 16): "int16",
    (1, 24): "int24",
    (3, 32): "float32",
}
_BYTES = {"int16": 2, "int24": 3, "float32": 4}
_EXTENSIBLE = 0xFFFE
#: What follows the format tag in the sub-format of an extensible header.
_SUB_FORMAT = bytes.fromhex("000000001000800000aa00389b71")


@dataclass(frozen=True)
class RawSamples:
    """Interleaved little-endian samples of a file, which is opened for each read.

    Attributes:
        path: the file.
        offset: bytes in front of the first sample.
        samples: of each channel.
        channels: in the file.
        encoding: "int16" and "int24" with full scale at 1.0, or "float32".

    Raises:
        InputError: for another encoding.
    """

    path: Path
    offset: int
    samples: int
    channels: int
    encoding: Encoding

    _name: str = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "_name", str(self.path))
        if self.encoding not in get_args(Encoding):
            raise InputError(
                f"encoding: got {self.encoding!r}, takes {', '.join(get_args(Encoding))}"
            )

    def read_into(self, out: Floats, start: int) -> None:
        """Fill an array with the samples from `start` on.

        Args:
            out: (1 or 2, n). One row is the mean of the file's channels; two are its two, or
                its one twice.
            start: a sample, with n behind it in the file.

        Raises:
            InputError: the file cannot be read, or is shorter than it was.
        """
        if not out.shape[1]:
            return
        codes = self._codes(start, out.shape[1])
        rows = out[:1] if self.channels == 1 else out
        if len(rows) == self.channels:
            _decode(codes, rows)
        else:
            apart = np.empty((self.channels, out.shape[1]), np.float32)
            _decode(codes, apart)
            np.mean(apart, axis=0, out=out[0])
        if len(rows) < len(out):
            out[1] = out[0]

    def _codes(self, start: int, count: int) -> NDArray[np.generic]:
        """Samples as they are in the file, (count, channels); 24 bits in the upper part of 32."""
        size = _BYTES[self.encoding]
        held = np.empty(count * self.channels * size, np.uint8)
        try:
            # Not Path.open, which takes as long as all else.
            with open(self._name, "rb", buffering=0) as file:
                file.seek(self.offset + start * self.channels * size)
                got = _read(file, held)
        except OSError as error:
            raise InputError(f"{self.path}: cannot be read ({error.strerror})") from error
        if got < held.size:
            end = start + got // (self.channels * size)
            raise InputError(f"{self.path}: ends at sample {end}, before {start + count}")
        if self.encoding == "int24":
            wide = np.zeros((count * self.channels, 4), np.uint8)
            wide[:, 1:] = held.reshape(-1, 3)
            codes: NDArray[np.generic] = wide.view("<i4")
        else:
            codes = held.view("<i2" if self.encoding == "int16" else "<f4")
        return codes.reshape(count, self.channels)


def wav_samples(path: Path) -> RawSamples | None:
    """Where the samples of a WAV file lie; None where they are not plain, or it is no such file.

    Plain are 16 and 24 bits of integers and 32 bits of floats.
    """
    try:
        with path.open("rb") as file:
            return _wav_samples(path, file)
    except (OSError, struct.error):
        return None


def _wav_samples(path: Path, file: BinaryIO) -> RawSamples | None:
    encoding: Encoding | None = None
    channels = 0
    for name, size in _chunks(file):
        if name == b"fmt ":
            about = file.read(min(size, 40))
            tag, channels, _, _, align, bits = struct.unpack_from("<HHIIHH", about)
            if tag == _EXTENSIBLE and about[26:40] == _SUB_FORMAT:
                tag = int.from_bytes(about[24:26], "little")
            encoding = _ENCODINGS.get((tag, bits))
            if encoding is None or not channels or align != channels * bits // 8:
                return None
        elif name == b"data" and encoding is not None:
            samples = size // (channels * _BYTES[encoding])
            return RawSamples(path, file.tell(), samples, channels, encoding)
    return None


def _chunks(file: BinaryIO) -> Iterator[tuple[bytes, int]]:
    """Name and size of each chunk, with the file at its first byte."""
    riff, _, wave = struct.unpack("<4sI4s", file.read(12))
    if (riff, wave) != (b"RIFF", b"WAVE"):
        return
    while len(head := file.read(8)) == 8:
        name, size = struct.unpack("<4sI", head)
        begin = file.tell()
        yield name, size
        file.seek(begin + size + size % 2)


def _read(file: BinaryIO, out: NDArray[np.uint8]) -> int:
    """Fill `out` as far as the file goes; a system reads less than 2 GiB at once."""
    filled = 0
    while filled < out.size and (got := file.readinto(out[filled:])):  # type: ignore[attr-defined]
        filled += got
    return filled


def _decode(codes: NDArray[np.generic], out: Floats) -> None:
    """Samples (n, channels) to floats (channels, n)."""
    np.copyto(out, codes.T, casting="same_kind")
    if codes.dtype.kind == "i":
        out *= np.float32(2.0 ** (1 - 8 * codes.itemsize))
