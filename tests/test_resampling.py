"""Changing the sample rate: in blocks as at once, never shorter, and a tone stays a tone."""

import math

import numpy as np
import pytest

from sepfast.data.resampling import StreamResampler, resample
from sepfast.errors import InputError

RATE = 44100


def music(samples: int) -> np.ndarray:
    """Noise within full scale, (2, samples)."""
    return np.random.default_rng(0).uniform(-0.7, 0.7, (2, samples)).astype(np.float32)


@pytest.mark.parametrize(
    ("from_rate", "to_rate"),
    [(44100, 16000), (16000, 44100), (48000, 44100), (44100, 48000), (44100, 44099), (8000, 8000)],
)
@pytest.mark.parametrize("samples", [0, 1, 2, 441, 10_007])
def test_resampling_in_blocks_is_resampling_at_once(from_rate, to_rate, samples):
    waveform = music(samples)
    whole = resample(waveform, from_rate, to_rate)
    assert whole.shape == (2, -(-samples * to_rate // from_rate))
    assert whole.dtype == np.float32
    for size in (100, 4096):
        resampler = StreamResampler(from_rate, to_rate, 2)
        blocks = [resampler.push(waveform[:, i : i + size]) for i in range(0, samples, size)]
        streamed = np.concatenate([*blocks, resampler.finish()], axis=1)
        assert streamed.shape == whole.shape
        np.testing.assert_allclose(streamed, whole, atol=1e-6)


def test_resampling_keeps_a_tone():
    """Neither delayed nor scaled, and what the new rate cannot hold is gone."""
    times = np.arange(48_000) / 48_000
    low, high = np.sin(2 * np.pi * 1000 * times), np.sin(2 * np.pi * 15_000 * times)
    out = resample(np.stack([low, high]).astype(np.float32), 48_000, 16_000)
    expected = np.sin(2 * np.pi * 1000 * np.arange(16_000) / 16_000)
    inner = slice(1000, -1000)
    np.testing.assert_allclose(out[0, inner], expected[inner], atol=3e-6)
    assert np.abs(out[1, inner]).max() < 3e-6


def test_resampling_at_the_same_rate_changes_nothing():
    np.testing.assert_array_equal(resample(music(1000), RATE, RATE), music(1000))


def test_a_whole_rate_may_be_a_float():
    expected = resample(music(1000), RATE, 16_000)
    np.testing.assert_array_equal(resample(music(1000), float(RATE), 16_000.0), expected)


@pytest.mark.parametrize("samples", [1, 999, 10_000, 12_345])
def test_there_and_back_is_never_shorter(samples):
    there = resample(music(samples), 44100, 16000)
    assert samples <= resample(there, 16000, 44100).shape[1] <= samples + 3


def test_resampling_refuses_what_it_cannot_do():
    for rate in (0, 44100.5, math.nan, math.inf):
        with pytest.raises(InputError, match=f"got {rate} to 44100 Hz, takes whole numbers"):
            StreamResampler(rate, 44100, 2)
    with pytest.raises(InputError, match=r"got shape \(3, 10\), takes \(2, samples\)"):
        StreamResampler(16000, 44100, 2).push(np.zeros((3, 10), np.float32))
