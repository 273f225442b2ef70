"""A small data set of talkers: mouths that open and close, and sounds as loud as they are open."""

from pathlib import Path

import numpy as np
import soundfile

from sepfast.data import Utterance
from sepfast.data.landmarks import write_landmarks

RATE = 16000
VIDEO_RATE = 25


def opening(seconds: np.ndarray, seed: int) -> np.ndarray:
    """How far a mouth is open, from 0 to 1, some syllables a second."""
    return 0.5 - 0.5 * np.cos(2 * np.pi * (3 + 0.5 * seed) * seconds)


def face(frames: int, video_rate: float, seed: int) -> np.ndarray:
    """Landmarks, (frames, 136): a ring of points, half of which go down as the mouth opens."""
    angle = np.linspace(0, 2 * np.pi, 68, endpoint=False)
    points = 200 + 80 * np.stack([np.cos(angle), np.sin(angle)], axis=-1)
    down = np.stack([np.zeros(68), np.sin(angle) > 0], axis=-1)
    opened = 30 * opening(np.arange(frames) / video_rate, seed)
    return (points + opened[:, None, None] * down).reshape(frames, 136)


def voice(samples: int, seed: int, rate: int = RATE) -> np.ndarray:
    """Noise as loud as the mouth is open, (samples,)."""
    noise = np.random.default_rng(seed).normal(0, 0.1, samples)
    return noise * opening(np.arange(samples) / rate, seed)


def talk(
    speaker: Path,
    name: str,
    seconds: float = 0.5,
    seed: int = 0,
    rate: int = RATE,
    video_rate: float = VIDEO_RATE,
    waveform: np.ndarray | None = None,
) -> Path:
    """Write an utterance; gives its landmarks."""
    (speaker / "audio").mkdir(parents=True, exist_ok=True)
    samples = round(seconds * rate)
    sound = voice(samples, seed, rate) if waveform is None else waveform
    soundfile.write(speaker / "audio" / f"{name}.wav", sound, rate, subtype="FLOAT")
    landmarks = speaker / "landmarks" / f"{name}.txt"
    write_landmarks(landmarks, face(round(seconds * video_rate), video_rate, seed), video_rate)
    return landmarks


def crowd(root: Path, speakers: int = 3, utterances: int = 4, seconds: float = 0.5) -> Path:
    """A data set of speakers s1, s2 … with utterances a, b … each."""
    for s in range(speakers):
        for u in range(utterances):
            talk(root / f"s{s + 1}", chr(ord("a") + u), seconds, seed=10 * s + u)
    return root


def named(speaker: str, name: str, samples: int = 3 * RATE) -> Utterance:
    """An utterance without files."""
    paths = Path(f"{speaker}/audio/{name}.wav"), Path(f"{speaker}/landmarks/{name}.txt")
    return Utterance(speaker, name, *paths, samples, VIDEO_RATE)


def people(speakers: int, utterances: int, samples: int = 3 * RATE) -> list[Utterance]:
    """Utterances of many, without files."""
    return [
        named(f"s{s}", f"u{u}", samples + 16 * u)
        for s in range(speakers)
        for u in range(utterances)
    ]
