"""Audio files to read: made, cut short and corrupted."""

from fractions import Fraction
from pathlib import Path

import av
import numpy as np

from sepfast.data.audio import AudioReader

RATE = 44100


def music(samples: int = RATE, channels: int = 2, seed: int = 0) -> np.ndarray:
    """A chord with a little noise, (channels, samples), within ±0.7."""
    rng = np.random.default_rng(seed)
    times = np.arange(samples) / RATE
    tones = [np.sin(2 * np.pi * (220 + 70 * c) * times) for c in range(channels)]
    noise = 0.02 * rng.standard_normal((channels, samples)).clip(-4, 4)
    return (0.6 * np.stack(tones) + noise).astype(np.float32)


def encode(path: Path, waveform: np.ndarray, codec: str) -> None:
    """Write a waveform through one of FFmpeg's encoders."""
    layout = {1: "mono", 2: "stereo"}[len(waveform)]
    frame = av.AudioFrame.from_ndarray(waveform, format="fltp", layout=layout)
    frame.sample_rate, frame.pts, frame.time_base = RATE, 0, Fraction(1, RATE)
    with av.open(str(path), "w") as container:
        stream = container.add_stream(codec, rate=RATE, layout=layout)
        resampler = av.AudioResampler(stream.format, layout, RATE, frame_size=stream.frame_size)
        for piece in (*resampler.resample(frame), *resampler.resample(None)):
            container.mux(stream.encode(piece))
        container.mux(stream.encode(None))


def read_all(path: Path, size: int = 4096) -> np.ndarray:
    with AudioReader(path) as reader:
        return np.concatenate(list(reader.blocks(size)), axis=1)
