"""Two timbres: melodies of a low instrument and of a high one, alone and together."""

from pathlib import Path

import numpy as np

from sepfast.data.audio import write

RATE = 16000
#: (pitches in Hz, amplitude of each partial by its number) of what is wanted and of what is not.
LOW = ((150, 300), {1: 1.0, 2: 0.7, 3: 0.5, 4: 0.3})
HIGH = ((700, 1400), {1: 1.0, 3: 0.8, 5: 0.5})


def melody(timbre, samples, random):
    """Notes of random pitch and length, a quarter of them rests; RMS 0.05."""
    (lowest, highest), partials = timbre
    line = np.zeros(samples, np.float32)
    while not line.any():
        at = 0
        while at < samples:
            length = min(int(random.uniform(0.15, 0.4) * RATE), samples - at)
            pitch, level = random.uniform(lowest, highest), random.uniform(0.5, 1)
            phases = dict(zip(partials, random.uniform(0, 2 * np.pi, len(partials)), strict=True))
            t = np.arange(length) / RATE
            note = sum(
                a * np.sin(2 * np.pi * n * pitch * t + phases[n]) for n, a in partials.items()
            )
            fade = np.minimum(1, np.minimum(t, length / RATE - t) / 0.02)
            line[at : at + length] = note * fade * level * (random.random() < 0.75)
            at += length
    return line * 0.05 / np.sqrt(np.mean(line**2))


def duet(samples, seed):
    """A mixture and what is wanted of it, (2, samples)."""
    random = np.random.default_rng((1, seed))
    low, high = melody(LOW, samples, random), melody(HIGH, samples, random)
    return np.stack([low + high, low])


def alone(samples, seed):
    """What is wanted, in no mixture: (samples,)."""
    return melody(LOW, samples, np.random.default_rng((2, seed)))


def write_recordings(folder: Path, count: int, samples: int, *, paired: bool) -> Path:
    """As many mixtures, and in `clean` what is wanted of them, or other recordings of it."""
    for number in range(count):
        mixture, target = duet(samples, number)
        write(folder / "mixtures" / f"{number}.wav", mixture[None], RATE)
        clean = target if paired else alone(samples, number)
        write(
            folder / "clean" / (f"{number}.wav" if paired else f"take {number}.wav"),
            clean[None],
            RATE,
        )
    return folder
