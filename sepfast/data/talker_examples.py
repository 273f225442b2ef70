"""Training examples of system D: mixtures with the target's face, in batches.

B examples a batch, S samples and T frames of the longest, F = 257 bins. A worker reads samples and
landmarks; the spectrograms are made of them where the model is (`talker_features`).

Every batch follows from its key (seed, epoch, item) alone.
Source: D (Morrone et al. 2019), sections 2 and 3.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor
from torch.utils.data import Dataset

from sepfast.data.speaker_statistics import POWER, SpeakerStatistics, normalised
from sepfast.data.talker_mixtures import Mixture
from sepfast.data.talkers import FRAMING
from sepfast.errors import InputError
from sepfast.files import PathLike
from sepfast.ops import stft_magnitude


class TalkerItem(NamedTuple):
    """One example.

    Attributes:
        waveforms: (2, samples), the mixture and the target, at 16 kHz.
        motion: (frames, 136), normalised by the target's statistics.
        levels: (3, F), of the target's speaker: mean and deviation of the mixtures, and the
            binary mask's threshold.
    """

    waveforms: Tensor
    motion: Tensor
    levels: Tensor


class TalkerBatch(NamedTuple):
    """Examples with zeros behind the shorter ones.

    Attributes:
        waveforms: (B, 2, S), the mixture and the target.
        motion: (B, T, 136).
        levels: (B, 3, F), as of an item.
        lengths: (B,) int64, frames of each.
    """

    waveforms: Tensor
    motion: Tensor
    levels: Tensor
    lengths: Tensor


class TalkerFeatures(NamedTuple):
    """What the models of system D are given and held to; all is zero behind an example's frames.

    Attributes:
        mixture: (B, T, F), compressed: what a mask is multiplied with.
        heard: (B, T, F), the same, normalised by the target speaker's mixtures: what a network
            hears.
        target: (B, T, F), compressed.
        binary_mask: (B, T, F), 1 where the target is at or above the speaker's threshold, else 0.
        motion: (B, T, 136), normalised: what a network sees.
        lengths: (B,) int64, frames of each.
    """

    mixture: Tensor
    heard: Tensor
    target: Tensor
    binary_mask: Tensor
    motion: Tensor
    lengths: Tensor


class TalkerExamples(Dataset[TalkerBatch]):
    """Mixtures in batches, each once an epoch, in an order of the epoch's own.

    `examples[epoch, item]` is batch `item` of an epoch; the order is a permutation by
    `numpy.random.default_rng((seed, epoch))`. The last batch may be smaller.

    Args:
        mixtures: at least one.
        statistics: of each target's speaker, as `speaker_statistics` gives them.
        batch_size: B.
        seed: of the order, 0 or more. None: the order given in every epoch, for validation.
        cache_dir: where resampled audio is kept; None for the user's cache.

    Raises:
        InputError: where there are no mixtures, or no statistics of a target's speaker.
    """

    def __init__(
        self,
        mixtures: Sequence[Mixture],
        statistics: Mapping[str, SpeakerStatistics],
        batch_size: int,
        seed: int | None,
        cache_dir: PathLike | None = None,
    ) -> None:
        if not mixtures or batch_size < 1:
            raise InputError(
                f"mixtures, batch_size: got {len(mixtures)}, {batch_size}, take at least 1 and 1"
            )
        missing = sorted({each.target.speaker for each in mixtures} - statistics.keys())
        if missing:
            raise InputError(f"statistics: got none of {', '.join(missing)}, takes every target's")
        self.mixtures, self.statistics = list(mixtures), dict(statistics)
        self.batch_size, self.seed, self.cache_dir = batch_size, seed, cache_dir

    @property
    def batches(self) -> int:
        """Batches of an epoch."""
        return -(-len(self.mixtures) // self.batch_size)

    def __getitem__(self, key: tuple[int, int]) -> TalkerBatch:
        """A batch by its epoch and item.

        Raises:
            InputError: where a file cannot be read.
            IndexError: for an item that the epoch does not have.
        """
        return collate_talkers([self.item(mixture) for mixture in self.drawn(*key)])

    def drawn(self, epoch: int, item: int) -> list[Mixture]:
        """The mixtures of a batch."""
        if not 0 <= item < self.batches:
            raise IndexError(f"item: got {item}, takes 0 to {self.batches - 1}")
        count = len(self.mixtures)
        order = range(count) if self.seed is None else _order(self.seed, epoch, count)
        start = item * self.batch_size
        return [self.mixtures[i] for i in order[start : start + self.batch_size]]

    def item(self, mixture: Mixture) -> TalkerItem:
        """A mixture's example.

        Raises:
            InputError: where a file cannot be read.
        """
        statistics = self.statistics[mixture.target.speaker]
        motion = normalised(mixture.target.motion(), statistics.motion)
        levels = np.stack([*statistics.mixtures, statistics.threshold()])
        parts = (mixture.waveforms(self.cache_dir)[:2], motion, levels)
        return TalkerItem(*map(torch.from_numpy, parts))


def collate_talkers(items: Sequence[TalkerItem]) -> TalkerBatch:
    """Examples as a batch, with zeros behind the shorter ones."""
    samples = max(item.waveforms.shape[-1] for item in items)
    frames = max(len(item.motion) for item in items)
    return TalkerBatch(
        torch.stack([F.pad(i.waveforms, (0, samples - i.waveforms.shape[-1])) for i in items]),
        torch.stack([F.pad(i.motion, (0, 0, 0, frames - len(i.motion))) for i in items]),
        torch.stack([item.levels for item in items]),
        torch.tensor([len(item.motion) for item in items]),
    )


@torch.no_grad()
def talker_features(batch: TalkerBatch) -> TalkerFeatures:
    """Spectrograms and masks of a batch, made on its device.

    Each example's frames are those that it has alone, whatever is beside it in the batch.

    Raises:
        InputError: for a batch whose waveforms and motion do not last as long.
    """
    waveforms, motion, levels, lengths = batch
    frames = FRAMING.frames(waveforms.shape[-1])
    if motion.shape[1] != frames:
        raise InputError(
            f"motion: got {motion.shape[1]} frames, takes {frames} for "
            f"{waveforms.shape[-1]} samples"
        )
    mixture, target = stft_magnitude(waveforms, FRAMING, power=POWER).unbind(1)
    mean, deviation, threshold = levels[:, :, None].unbind(1)
    valid = (torch.arange(frames, device=lengths.device) < lengths[:, None])[..., None]
    return TalkerFeatures(
        mixture * valid,
        (mixture - mean) / deviation * valid,
        target * valid,
        (target >= threshold).to(target.dtype) * valid,
        motion,
        lengths,
    )


def _order(seed: int, epoch: int, count: int) -> np.ndarray:
    return np.random.default_rng((seed, epoch)).permutation(count)
