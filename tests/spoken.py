"""Small data for system E: NIST SPHERE files, a little TIMIT of them, and pairs in two folders."""

from collections.abc import Iterable
from pathlib import Path

import numpy as np
import soundfile

RATE = 16000
#: Hz of the lowest voices of either sex.
_PITCHES = {"f": 210, "m": 105}


def write_sphere(
    path: Path,
    samples: np.ndarray,
    rate: int = RATE,
    *,
    order: str = "01",
    coding: str = "",
    **fields: int,
) -> Path:
    """Write a SPHERE file.

    Args:
        path: of any suffix.
        samples: (samples,) or (samples, channels), int16 or floats within ±1; bytes (uint8) are
            written as they are.
        rate: Hz.
        order: of the bytes, "01" with the low one first, as TIMIT's, or "10".
        coding: of the samples; none stands in TIMIT's headers.
        fields: numbers that the header gives instead of the true ones.
    """
    if samples.dtype.kind == "f":
        samples = np.rint(samples * 32768).clip(-32768, 32767).astype(np.int16)
    width = samples.itemsize
    own = {
        "channel_count": samples.shape[1] if samples.ndim > 1 else 1,
        "sample_count": len(samples),
        "sample_rate": rate,
        "sample_n_bytes": width,
        "sample_sig_bits": 8 * width,
    }
    numbers = (f"{name} -i {value}" for name, value in (own | fields).items())
    texts = {"sample_byte_format": order if width > 1 else "1", "sample_coding": coding}
    named = (f"{name} -s{len(value)} {value}" for name, value in texts.items() if value)
    lines = ("NIST_1A", "   1024", "database_id -s5 TIMIT", *numbers, *named, "end_head", "")
    path.parent.mkdir(parents=True, exist_ok=True)
    stored = samples.astype(samples.dtype.newbyteorder("<" if order == "01" else ">"))
    path.write_bytes("\n".join(lines).encode().ljust(1024) + stored.tobytes())
    return path


def speech(sex: str, seconds: float, seed: int = 0, rate: int = RATE) -> np.ndarray:
    """A buzz of syllables, (samples,), twice as high of a woman as of a man."""
    random = np.random.default_rng((ord(sex), seed))
    times = np.arange(round(seconds * rate)) / rate
    pitch = _PITCHES[sex] * random.uniform(1, 1.1)
    tones = [
        np.sin(2 * np.pi * (k * pitch * times + random.random())) / k
        for k in range(1, int(3000 // pitch) + 1)
    ]
    syllables = 0.55 - 0.45 * np.cos(2 * np.pi * (random.uniform(2, 5) * times + random.random()))
    return random.uniform(0.05, 0.15) * syllables * np.sum(tones, axis=0)


def write_timit(
    root: Path,
    dialects: Iterable[int] = (1, 2, 3),
    speakers: int = 2,
    seconds: float = 0.5,
    sentences: int = 2,
    split: str = "TRAIN",
) -> Path:
    """Write a little TIMIT: ROOT/TRAIN/DR1/FAAX0/SX1.WAV and so on; gives the root.

    Args:
        root: where to.
        dialects: which.
        speakers: of each sex in each: FAAX0, FABX0 … and MAAX0 … of DR1, FBAX0 … of DR2.
        seconds: length of a sentence.
        sentences: of each speaker.
        split: TRAIN or TEST, or nothing for a copy without either.
    """
    for dialect in dialects:
        for sex in "FM":
            for s in range(speakers):
                folder = f"{sex}{chr(64 + dialect)}{chr(65 + s)}X0"
                for n in range(1, sentences + 1):
                    path = root / split / f"DR{dialect}" / folder / f"SX{n}.WAV"
                    write_sphere(path, speech(sex.lower(), seconds, 100 * dialect + 10 * s + n))
    return root


def write_pairs(
    root: Path, names: Iterable[str] = "abc", seconds: float = 0.5, rate: int = RATE
) -> Path:
    """Write mixtures/NAME.wav of a woman and a man, and clean/NAME.wav of the woman; the root."""
    for number, name in enumerate(names):
        woman, man = (speech(sex, seconds, number, rate) for sex in "fm")
        for folder, sound in (("mixtures", woman + man), ("clean", woman)):
            path = root / folder / f"{name}.wav"
            path.parent.mkdir(parents=True, exist_ok=True)
            soundfile.write(path, sound, rate, subtype="FLOAT")
    return root
