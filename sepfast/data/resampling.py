"""Changing the sample rate, at once or block by block."""

from __future__ import annotations

import numpy as np

from sepfast.errors import InputError


def resampled_length(samples: int, from_rate: int, to_rate: int) -> int:
    """Samples that so many become at another rate: ceil(samples * to_rate / from_rate).

    Never shorter than the time that went in, so that the way there and back can be trimmed.
    """
    return -(-samples * to_rate // from_rate)


class StreamResampler:
    """A change of sample rate, block by block (soxr, high quality: errors near -120 dB).

    n samples in become `resampled_length` of them out, whatever the blocks.

    Args:
        from_rate: Hz of what goes in.
        to_rate: Hz of what comes out.
        channels: of both.

    Raises:
        InputError: for a rate below 1 Hz or between whole ones.
    """

    def __init__(self, from_rate: int, to_rate: int, channels: int) -> None:
        import soxr

        if not all(rate >= 1 and rate % 1 == 0 for rate in (from_rate, to_rate)):
            raise InputError(
                f"sample rate: got {from_rate} to {to_rate} Hz, takes whole numbers, at least 1 Hz"
            )
        from_rate, to_rate = int(from_rate), int(to_rate)  # 44100.0 is one, but counts no samples
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
        length = resampled_length(self._taken, self.from_rate, self.to_rate)
        # One more output sample than soxr would give: it rounds the length, we round it up.
        silence = np.zeros((self.channels, -(-self.from_rate // self.to_rate)), np.float32)
        return self._resampled(silence, last=True)[:, : length - self._given]

    def _resampled(self, block: np.ndarray, *, last: bool = False) -> np.ndarray:
        if self._stream is None:
            return block.astype(np.float32, copy=False)
        frames = np.ascontiguousarray(block.T, dtype=np.float32)
        return np.ascontiguousarray(self._stream.resample_chunk(frames, last=last).T)


def resample(waveform: np.ndarray, from_rate: int, to_rate: int) -> np.ndarray:
    """A waveform, (channels, n), at another sample rate: float32, (channels, m).

    m is `resampled_length`. Equal to what a `StreamResampler` gives in blocks.

    Raises:
        InputError: as `StreamResampler`.

    >>> resample(np.zeros((2, 441), np.float32), 44100, 16000).shape
    (2, 160)
    """
    resampler = StreamResampler(from_rate, to_rate, waveform.shape[0])
    return np.concatenate([resampler.push(waveform), resampler.finish()], axis=1)
