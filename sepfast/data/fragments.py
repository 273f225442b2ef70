"""Training examples for models over whole fragments: songs cut end to end, in batches.

B fragments a batch, N frames of a fragment, F bins, M steps of side information. A fragment is the
mixture and its target, mono, (2, samples).

Every batch follows from its key (epoch, item), the seed and the songs alone. Which worker makes
it, in what order and after which interruption makes no difference.
Source: C (Schulze-Forster et al. 2019), sections 4.1 to 4.3.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import Dataset

from sepfast.data.augmentation import Variations
from sepfast.data.excerpts import Recording
from sepfast.data.side_information import side_information
from sepfast.errors import InputError
from sepfast.ops import stft_magnitude
from sepfast.reference import Framing

Batch = tuple[Tensor, ...]

#: First numbers of seeds, which set apart what is drawn for different ends.
_ORDER, _SIDE, _FIXED_SIDE = 2, 3, 4


class Fragments:
    """All fragments of some songs, numbered through.

    Each song is cut from its first sample on; the last fragment ends in silence. A fragment whose
    mixture is nothing but silence is left out.

    Args:
        songs: at least one, of a mixture and a target, mono.
        samples: length of a fragment.
        progress: is told how many songs have been looked through, and of how many.

    Attributes:
        places: (song, fragment) of each, numbers from 0; those left out are counted.

    Raises:
        InputError: for songs of another shape, samples that are not finite, or nothing but silence.
    """

    def __init__(
        self,
        songs: Sequence[Recording],
        samples: int,
        progress: Callable[[int, int], None] = lambda done, total: None,
    ) -> None:
        if not songs:
            raise InputError("songs: got none, takes at least one")
        self.songs, self.samples = songs, samples
        self.places: list[tuple[int, int]] = []
        for number, song in enumerate(songs):
            cut = range(-(-song.samples // samples))
            self.places += [(number, part) for part in cut if self._sounds(number, part)]
            progress(number + 1, len(songs))
        if not self.places:
            raise InputError(
                f"songs: got {len(songs)} of nothing but silence, takes some that sound"
            )

    def __len__(self) -> int:
        return len(self.places)

    def __getitem__(self, number: int) -> NDArray[np.float32]:
        """Mixture and target, (2, samples) float32."""
        return self._read(*self.places[number])

    def name(self, number: int) -> str:
        """The song that a fragment is of."""
        return self.songs[self.places[number][0]].song.name

    def _read(self, song: int, part: int) -> NDArray[np.float32]:
        start = part * self.samples
        waveforms = self.songs[song].read(start, start + self.samples)
        if waveforms.shape[:2] != (2, 1):
            raise InputError(
                f"{self.songs[song].song.name}: got {waveforms.shape[0]} waveforms of "
                f"{waveforms.shape[1]} channels, takes a mixture and its target, mono"
            )
        return waveforms[:, 0]

    def _sounds(self, song: int, part: int) -> bool:
        """Whether a fragment is anything but silence."""
        fragment = self._read(song, part)
        if not np.isfinite(fragment).all():
            first = part * self.samples
            raise InputError(
                f"{self.songs[song].song.name}: holds NaN or infinite samples between "
                f"{first} and {first + self.samples}"
            )
        return bool(fragment[0].any())


@dataclass(frozen=True)
class SideMaker:
    """What makes side information from the true target.

    Attributes:
        framing: of a fragment: whole frames only.
        kind: one of `SIDE_KINDS`.
        steps: M of the padded kinds.
    """

    framing: Framing
    kind: str
    steps: int

    @torch.no_grad()
    def __call__(
        self, targets: Tensor, seeds: Sequence[Sequence[int]], split: float | None
    ) -> Tensor:
        """Side information of a batch.

        Args:
            targets: (B, samples).
            seeds: one for each of B.
            split: of all paddings; None for one that follows from each seed.

        Returns:
            (B, M, 1).
        """
        magnitudes = stft_magnitude(targets, self.framing)  # (B, N, F)
        peaks = magnitudes.amax((1, 2), keepdim=True)
        scaled = magnitudes / torch.where(peaks > 0, peaks, 1)
        made = [
            side_information(self.kind, own.numpy(), seed, length=self.steps, split=split)
            for own, seed in zip(scaled, seeds, strict=True)
        ]
        return torch.from_numpy(np.stack(made))


class FragmentBatches(Dataset[Batch]):
    """Batches of an epoch that goes once through all versions of all fragments.

    `batches[epoch, item]` is waveforms (B, 2, samples), mixture and target, and side information
    (B, M, 1) where there is any. The order is drawn from (seed, epoch), the split of the paddings,
    one for the batch, from (seed, epoch, item). The last batch of an epoch may be smaller.

    Args:
        fragments: what is gone through.
        batch_size: B.
        seed: of all draws, 0 or more.
        side: what makes the side information; None for none.
        variations: the versions of a fragment; None for the fragment as it is.
    """

    def __init__(
        self,
        fragments: Fragments,
        batch_size: int,
        seed: int,
        *,
        side: SideMaker | None = None,
        variations: Variations | None = None,
    ) -> None:
        self.fragments, self.batch_size, self.seed = fragments, batch_size, seed
        self.side, self.variations = side, variations
        self._versions = 1 if variations is None else variations.versions

    def __len__(self) -> int:
        """Batches of an epoch."""
        return -(-len(self.fragments) * self._versions // self.batch_size)

    def __getitem__(self, key: tuple[int, int]) -> Batch:
        """A batch by its epoch and item, `item` below `len`."""
        waveforms = torch.from_numpy(np.stack([self._version(n) for n in self._numbers(*key)]))
        if self.side is None:
            return (waveforms,)
        seed = (_SIDE, self.seed, *key)
        seeds = [(*seed, 1 + row) for row in range(len(waveforms))]
        split = float(np.random.default_rng(seed).random())
        return waveforms, self.side(waveforms[:, 1], seeds, split)

    def names(self, epoch: int, item: int) -> list[str]:
        """The songs that a batch is of, each once."""
        numbers = self._numbers(epoch, item)
        return sorted({self.fragments.name(number // self._versions) for number in numbers})

    def _numbers(self, epoch: int, item: int) -> list[int]:
        """The numbers of a batch, fragment by fragment and version by version."""
        random = np.random.default_rng((_ORDER, self.seed, epoch))
        order = random.permutation(len(self.fragments) * self._versions)
        return order[item * self.batch_size : (item + 1) * self.batch_size].tolist()

    def _version(self, number: int) -> NDArray[np.float32]:
        fragment, version = divmod(number, self._versions)
        plain = self.fragments[fragment]
        if self.variations is None:
            return plain
        return self.variations.of(plain, self.fragments.places[fragment], version)


def fixed_batches(fragments: Fragments, batch_size: int, side: SideMaker | None) -> list[Batch]:
    """All fragments in order and as they are, their side information the same at each call.

    Args:
        fragments: what is taken.
        batch_size: B; the last batch may be smaller.
        side: what makes the side information, each padding with a split of its own; None for none.

    Returns:
        Batches as those of `FragmentBatches`.
    """
    batches: list[Batch] = []
    for first in range(0, len(fragments), batch_size):
        numbers = range(first, min(first + batch_size, len(fragments)))
        waveforms = torch.from_numpy(np.stack([fragments[number] for number in numbers]))
        if side is None:
            batches.append((waveforms,))
        else:
            seeds = [(_FIXED_SIDE, number) for number in numbers]
            batches.append((waveforms, side(waveforms[:, 1], seeds, None)))
    return batches
