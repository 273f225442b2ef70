"""Two timbres: a melody of tones, and strokes of noise above it, alone and together."""

from pathlib import Path

import numpy as np

from sepfast.data.audio import write

RATE = 16000
#: Hz of the tones, and the amplitudes of their partials.
_PITCHES = (165, 196, 220, 262, 294)
_PARTIALS = (1.0, 0.7, 0.5, 0.3)
#: Hz between which the noise lies.
_BAND = (1500, 6000)


def tones(samples, random):
    """A melody, (samples,)."""
    return _played(samples, random, _tone)


def noise(samples, random):
    """Strokes of noise, (samples,)."""
    return _played(samples, random, _stroke)


def duet(samples, seed):
    """A mixture and its tones, which are what is wanted, (2, samples)."""
    random = np.random.default_rng((1, seed))
    wanted, other = tones(samples, random), noise(samples, random)
    return np.stack([wanted + other, wanted])


def alone(samples, seed):
    """Tones that are in no mixture: (samples,)."""
    return tones(samples, np.random.default_rng((2, seed)))


def write_recordings(folder: Path, count: int, samples: int, *, paired: bool) -> Path:
    """As many mixtures, and in `clean` what is wanted of them, or other recordings of it."""
    for number in range(count):
        mixture, wanted = duet(samples, number)
        write(folder / "mixtures" / f"{number}.wav", mixture[None], RATE)
        name, clean = (number, wanted) if paired else (f"take {number}", alone(samples, number))
        write(folder / "clean" / f"{name}.wav", clean[None], RATE)
    return folder


def _played(samples, random, sound):
    """Sounds of random lengths, a quarter of them rests; RMS 0.05."""
    line = np.zeros(samples, np.float32)
    while not line.any():
        at = 0
        while at < samples:
            length = min(int(random.uniform(0.15, 0.4) * RATE), samples - at)
            level = random.uniform(0.5, 1) * (random.random() < 0.75)
            t = np.arange(length) / RATE
            fade = np.minimum(1, np.minimum(t, length / RATE - t) / 0.02)
            line[at : at + length] = sound(t, random) * fade * level
            at += length
    return line * 0.05 / np.sqrt(np.mean(line**2))


def _tone(t, random):
    pitch, phases = random.choice(_PITCHES), random.uniform(0, 2 * np.pi, len(_PARTIALS))
    waves = (np.sin(2 * np.pi * n * pitch * t + phase) for n, phase in enumerate(phases, 1))
    return sum(a * wave for a, wave in zip(_PARTIALS, waves, strict=True))


def _stroke(t, random):
    spectrum = np.fft.rfft(random.standard_normal(len(t)))
    pitch = np.fft.rfftfreq(len(t), 1 / RATE)
    spectrum[(pitch < _BAND[0]) | (pitch > _BAND[1])] = 0
    return np.fft.irfft(spectrum, len(t)) * np.exp(-t / 0.1)
