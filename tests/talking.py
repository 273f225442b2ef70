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


def gestures(frames: int, seed: int) -> np.ndarray:
    """How far a mouth is open for each of two vowels, (2, frames of video), from 0 to 1.

    Syllables of random lengths, with pauses between them: nothing foretells when.
    """
    random = np.random.default_rng((seed, 0))
    openness, frame = np.zeros((2, frames)), 0
    while frame < frames:
        frame += int(random.integers(1, 5))  # closed
        length = int(random.integers(2, 6))
        openness[random.integers(2), frame : frame + length] = 1
        frame += length
    return openness


def gesturing_face(openness: np.ndarray, size: float) -> np.ndarray:
    """Landmarks, (frames, 136): half a ring goes down for a vowel; the second widens it."""
    angle = np.linspace(0, 2 * np.pi, 68, endpoint=False)
    ring = np.stack([np.cos(angle), np.sin(angle)], axis=-1)
    down = np.stack([np.zeros(68), 0.4 * (ring[:, 1] > 0)], axis=-1)
    apart = np.stack(
        [0.3 * np.sign(ring[:, 0]) * (np.abs(ring[:, 1]) < 0.7), np.zeros(68)], axis=-1
    )
    opened, widened = openness.sum(0)[:, None, None], openness[1][:, None, None]
    return (300 + size * (ring + opened * down + widened * apart)).reshape(-1, 136)


def two_vowels(openness: np.ndarray, samples: int, seed: int) -> np.ndarray:
    """Noise in the band of the vowel that the mouth is open for, (samples,)."""
    random = np.random.default_rng((seed, 1))
    hertz = np.fft.rfftfreq(samples, 1 / RATE)
    at = np.arange(samples) / RATE * VIDEO_RATE
    heard = np.zeros(samples)
    for (low, high), opened in zip(((200, 1500), (2000, 5000)), openness, strict=True):
        spectrum = np.fft.rfft(random.normal(0, 1, samples))
        noise = np.fft.irfft(spectrum * ((hertz >= low) & (hertz < high)), samples)
        heard += 0.1 * noise / noise.std() * np.interp(at, np.arange(len(opened)), opened)
    return heard


def chatter(root: Path, speakers: int, utterances: int, seconds: float, seed: int = 0) -> Path:
    """A data set of speakers who sound alike, and whom only their faces tell apart."""
    for s in range(speakers):
        for u in range(utterances):
            own = 10_000 * seed + 100 * s + u
            openness = gestures(round(seconds * VIDEO_RATE), own)
            sound = two_vowels(openness, round(seconds * RATE), own)
            landmarks = talk(root / f"s{s + 1:02}", f"u{u}", seconds, waveform=sound)
            write_landmarks(landmarks, gesturing_face(openness, 80 + 5 * (s % 7)), VIDEO_RATE)
    return root
