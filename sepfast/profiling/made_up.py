"""Made-up recordings, as files: what is read, cut and mixed of them is what a real data set costs.

Everything is noise. There is as much of it as whole batches take, and no more.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import soundfile

from sepfast.data.landmarks import write_landmarks
from sepfast.data.songs import SOURCES
from sepfast.data.style_transfer import CLEAN, MIXTURES

_SPEAKERS = 8
#: Of the speakers; validation and the test take as many each, and two talkers are mixed.
TALKERS_HELD_OUT = 0.25
#: Of each speaker: what is held out is mixed, too.
_LEAST = 4
_VIDEO_RATE, _VOICE_RATE = 25.0, 16_000
_RECORDINGS, _RECORDING = 4, 4.0
_LEVEL = 0.1


def write_songs(folder: Path, seconds: Sequence[float], sample_rate: int, channels: int) -> None:
    """Write songs with a mixture and the stems of MUSDB18, of a length each."""
    random = np.random.default_rng(0)
    for number, length in enumerate(seconds, 1):
        song = folder / f"song {number}"
        song.mkdir(parents=True)
        stems = [_noise(random, length, sample_rate, channels) for _ in SOURCES]
        for source, stem in zip(SOURCES, stems, strict=True):
            soundfile.write(song / f"{source}.wav", stem, sample_rate)
        soundfile.write(song / "mixture.wav", np.sum(stems, axis=0), sample_rate)


def write_talkers(folder: Path, mixtures: int, seconds: float) -> None:
    """Write talkers of whom there are at least so many mixtures to learn from, of a length."""
    random = np.random.default_rng(0)
    learning = round(_SPEAKERS * (1 - 2 * TALKERS_HELD_OUT))
    frames = round(seconds * _VIDEO_RATE)
    for speaker in range(_SPEAKERS):
        own = folder / f"s{speaker + 1}"
        (own / "audio").mkdir(parents=True)
        for utterance in range(max(_LEAST, -(-mixtures // learning))):
            voice = _noise(random, seconds, _VOICE_RATE, 1)
            soundfile.write(own / "audio" / f"{utterance}.wav", voice, _VOICE_RATE)
            face = random.uniform(0, 200, (frames, 136))
            write_landmarks(own / "landmarks" / f"{utterance}.txt", face, _VIDEO_RATE)


def write_recordings(folder: Path, snippet: float) -> None:
    """Write mixtures and clean recordings of equal names, each longer than a snippet."""
    random = np.random.default_rng(0)
    length = max(_RECORDING, 2 * snippet)
    for kind in (MIXTURES, CLEAN):
        (folder / kind).mkdir(parents=True)
        for number in range(_RECORDINGS):
            sound = _noise(random, length, _VOICE_RATE, 1)
            soundfile.write(folder / kind / f"{number}.wav", sound, _VOICE_RATE)


def _noise(
    random: np.random.Generator, seconds: float, sample_rate: int, channels: int
) -> np.ndarray:
    """White noise, (samples, channels)."""
    shape = (round(seconds * sample_rate), channels)
    return (_LEVEL * random.standard_normal(shape, np.float32)).clip(-0.9, 0.9)
