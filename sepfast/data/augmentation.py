"""Variations of a fragment: another level of the target in its mixture, another pitch.

    v' = shift(10^(d / 40) v, s),  a' = shift(10^(-d / 40) (x - v), s),  x' = v' + a'

with d uniform on +-2 dB, the change of the ratio of energies of v and a, and s uniform on +-2
semitones. Where both are as loud, half of d on either side leaves the level of the mixture within
0.12 dB; where one is silent it moves by 1 dB at most. The model divides it out. Both
parts are shifted by as much and the mixture is their sum, since a model's accompaniment is what is
left of the mixture: a phase vocoder would not make the same of the mixture itself.

A shift of 8 s of both takes a tenth of a second or more, a step of training less. What is made is
therefore kept, under a name that follows from the samples and what was done to them: 1 MB for each
variation of 8.2 s at 16 kHz, 8.2 GB for the 8152 of the paper.
Source: C (Schulze-Forster et al. 2019), section 4.1.
"""

from __future__ import annotations

import hashlib
import importlib.util
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.metadata import version as installed_version
from pathlib import Path
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from sepfast.data.arrays import read_array
from sepfast.data.song_audio import cache_folder
from sepfast.errors import InputError
from sepfast.files import PathLike, atomic

Floats = NDArray[np.float32]

_DECIBELS = 2.0
_SEMITONES = 2.0
#: First number of all seeds here, which sets them apart from those of orders and side information.
_STREAM = 1
#: Of the cached files; to be raised when what is computed changes.
_FORMAT = 1


@dataclass(frozen=True)
class Variation:
    """What is done to a fragment.

    Attributes:
        decibels: how far the ratio of energies, target to accompaniment, is raised.
        semitones: how far the pitch is raised.
    """

    decibels: float
    semitones: float

    @classmethod
    def drawn(cls, seed: int | Sequence[int]) -> Self:
        """The paper's, uniform on +-2 dB and +-2 semitones."""
        random = np.random.default_rng(seed)
        return cls(
            float(random.uniform(-_DECIBELS, _DECIBELS)),
            float(random.uniform(-_SEMITONES, _SEMITONES)),
        )

    def of(self, fragment: Floats, sample_rate: int) -> Floats:
        """Make it.

        Args:
            fragment: mixture and target, (2, samples).
            sample_rate: Hz.

        Returns:
            (2, samples), a new array.
        """
        import librosa

        mixture, target = fragment
        gain = np.float32(10 ** (self.decibels / 40))
        parts = np.stack([target * gain, (mixture - target) / gain])
        shifted = librosa.effects.pitch_shift(parts, sr=sample_rate, n_steps=self.semitones)
        return np.stack([shifted[0] + shifted[1], shifted[0]]).astype(np.float32, copy=False)


class Variations:
    """The variations of fragments, each made when it is first asked for and kept in a file.

    Which variation is which follows from (seed, song, fragment, version) alone. Several processes
    may share a cache; where two make the same file, one replaces the other's by its like.

    Args:
        versions: of each fragment, 1 or more; 4 in the paper.
        seed: of what is drawn.
        sample_rate: Hz.
        cache_dir: where they are kept, in a folder of their own; None for the user's cache.

    Raises:
        InputError: where `librosa` is not installed.
    """

    def __init__(
        self, versions: int, seed: int, sample_rate: int, cache_dir: PathLike | None = None
    ) -> None:
        if importlib.util.find_spec("librosa") is None:
            raise InputError(
                "augmentation: takes librosa for the pitch, which is not installed; "
                "`pip install 'sepfast[train]'`, or an augmentation of 0"
            )
        self.versions, self.seed, self.sample_rate = versions, seed, sample_rate
        self.folder = cache_folder(cache_dir) / "variations"
        self._made_by = f"{_FORMAT}|librosa {installed_version('librosa')}|{sample_rate}"

    def variation(self, place: tuple[int, int], version: int) -> Variation:
        """What is done to a fragment, by its place (song, fragment) in one of its versions."""
        return Variation.drawn((_STREAM, self.seed, *place, version))

    def of(self, fragment: Floats, place: tuple[int, int], version: int) -> Floats:
        """A version of a fragment, made or found.

        Args:
            fragment: mixture and target, (2, samples).
            place: (song, fragment).
            version: 0 to `versions` - 1.

        Returns:
            (2, samples).

        Raises:
            InputError: where the cache cannot be written.
        """
        variation = self.variation(place, version)
        path = self.folder / self._name(fragment, variation)
        found = _loaded(path, fragment.shape)
        if found is None:
            found = variation.of(fragment, self.sample_rate)
            _keep(found, path)
        return found

    def _name(self, fragment: Floats, variation: Variation) -> str:
        """A name that changes with the samples and with what is made of them."""
        numbers = (variation.decibels.hex(), variation.semitones.hex())
        key = hashlib.sha256("|".join((self._made_by, *numbers)).encode())
        key.update(fragment.tobytes())
        return key.hexdigest()[:32] + ".npy"


def _loaded(path: Path, shape: tuple[int, ...]) -> Floats | None:
    """What is kept at `path`, or None where there is nothing or the file is broken."""
    try:
        kept: NDArray[Any] = read_array(path)
    except InputError:
        return None
    return kept if kept.dtype == np.float32 and kept.shape == shape else None


def _keep(variation: Floats, path: Path) -> None:
    try:
        with atomic(path) as temporary:
            np.save(temporary, variation, allow_pickle=False)
    except OSError as error:
        raise InputError(f"{path}: cannot be written ({error.strerror})") from error
