"""Mixtures with their clean targets, in two folders: mixtures/NAME and clean/NAME.

Files may be of any format, rate and number of channels, and in folders of their own; the path below
`mixtures` or `clean` less the suffix is the name.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from itertools import chain, count
from pathlib import Path

import numpy as np

from sepfast.data.audio import AudioReader
from sepfast.data.clips import SAMPLE_RATE, Clip, Floats, find_audio, open_clip
from sepfast.data.usable import usable
from sepfast.errors import InputError
from sepfast.files import PathLike

#: The folders of mixtures and of clean targets.
MIXTURES, CLEAN = "mixtures", "clean"


@dataclass(frozen=True)
class Pair:
    """A mixture and the clean target that is in it.

    Attributes:
        name: what tells it apart from others, fit for a file name.
        mixture: what is heard.
        target: what is to be separated from it, as long.
    """

    name: str
    mixture: Clip
    target: Clip

    def waveforms(self, cache_dir: PathLike | None = None) -> Floats:
        """What is heard at 16 kHz, (3, samples): the mixture, the target, mixture less target.

        Args:
            cache_dir: where decoded audio is kept; None for the user's cache.

        Raises:
            InputError: where a file cannot be decoded.
        """
        samples = self.mixture.samples
        mixture, target = (clip.read(0, samples, cache_dir) for clip in (self.mixture, self.target))
        return np.stack([mixture, target, mixture - target])


def is_pair_folder(folder: PathLike) -> bool:
    """Whether a folder holds the folders mixtures and clean."""
    return all((Path(folder) / name).is_dir() for name in (MIXTURES, CLEAN))


def name_of(clip: Clip) -> str:
    """A recording's path below mixtures or clean, less the suffix."""
    return clip.key.partition("/")[2]


def find_clips(
    data: PathLike,
    folder: str,
    *,
    cache_dir: PathLike | None = None,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> tuple[list[Clip], list[str]]:
    """The recordings in a folder of the data, sorted by key, and the reason of each skipped.

    Args:
        data: the data's folder.
        folder: the one in it.
        cache_dir: where a file is decoded to that does not say how long it is.
        progress: is told how many are looked at, and of how many.
    """
    found = find_audio(Path(data) / folder)

    def opened(one: tuple[str, list[Path]]) -> Clip:
        name, paths = one
        return open_clip(f"{folder}/{name}", paths, cache_dir)

    return usable(found.items(), opened, progress)


def find_pairs(
    folder: PathLike,
    *,
    cache_dir: PathLike | None = None,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> tuple[list[Pair], list[str]]:
    """The pairs in a folder, sorted by name, and the reason of each mixture that is skipped.

    A mixture and its target have as many samples, or where their rates differ, as many at 16 kHz
    give or take one. Clean recordings without a mixture are left out without a word.

    Args:
        folder: holds mixtures/ and clean/.
        cache_dir: where a file is decoded to that does not say how long it is.
        progress: is told how many files are looked at, and of how many.

    Raises:
        InputError: where there is no such folder, or no pair in it; it says what was looked for.
    """
    folder = Path(folder)
    if not is_pair_folder(folder):
        raise InputError(f"{folder}: takes a folder that holds {MIXTURES}/ and {CLEAN}/")
    mixtures, reasons = find_clips(folder, MIXTURES, cache_dir=cache_dir, progress=progress)
    clean, unread = find_clips(folder, CLEAN, cache_dir=cache_dir, progress=progress)
    targets = {name_of(clip): clip for clip in clean}
    pairs: dict[str, Pair] = {}
    for mixture in mixtures:
        try:
            pair = _pair(mixture, targets, pairs)
        except InputError as error:
            reasons.append(str(error))
        else:
            pairs[pair.name] = pair
    reasons += unread
    if not pairs:
        first = f"; skipped {len(reasons)}, the first because {reasons[0]}" if reasons else ""
        raise InputError(
            f"{folder}: holds no pairs; looked for {MIXTURES}/NAME and {CLEAN}/NAME of one "
            f"length{first}"
        )
    return list(pairs.values()), reasons


def _pair(mixture: Clip, targets: Mapping[str, Clip], others: Mapping[str, Pair]) -> Pair:
    """A mixture with its target; `InputError` is the reason to skip it."""
    name = name_of(mixture)
    if name not in targets:
        raise InputError(f"{mixture.audio} has no {CLEAN}/{name} that can be read")
    target = targets[name]
    (held, rate), (wanted, its_rate) = (_length(clip) for clip in (mixture, target))
    # Lengths of two rates are rounded apart.
    alike = abs(mixture.samples - target.samples) <= 1 if rate != its_rate else held == wanted
    if not alike:
        raise InputError(
            f"{mixture.audio} has {held:,} samples at {rate} Hz, but {target.audio} has "
            f"{wanted:,} at {its_rate} Hz"
        )
    flat = name.replace("/", "_")
    names = chain([flat], (f"{flat}-{number}" for number in count(2)))
    return Pair(next(each for each in names if each not in others), mixture, target)


def _length(clip: Clip) -> tuple[int, int]:
    """A recording's samples and the rate that they are counted at, its own where the file says."""
    with AudioReader(clip.audio) as reader:
        if reader.samples is None:
            return clip.samples, SAMPLE_RATE
        return reader.samples, reader.sample_rate
