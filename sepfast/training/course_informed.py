"""System C: fragments of songs, varied in level and pitch, with side information about the target.

B fragments a batch, N frames of one, F bins, M steps of side information.
Source: C (Schulze-Forster et al. 2019), sections 4.1 to 4.3.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import ClassVar

import torch
from torch import Tensor
from torch.utils.data import Dataset

from sepfast.data.augmentation import Variations
from sepfast.data.examples import excerpt_framing
from sepfast.data.excerpts import Recording
from sepfast.data.fragments import FragmentBatches, Fragments, SideMaker, fixed_batches
from sepfast.errors import InputError
from sepfast.ops import stft_magnitude
from sepfast.reference import Informed
from sepfast.training.course import Audio, Batch, Material, SongCourse, on_device


class InformedCourse(SongCourse):
    """Batches (waveforms, side), (B, 2, samples) and (B, M, 1); without attention (waveforms,).

    An epoch goes once through all versions of all fragments. All validation fragments are
    listened to, as they are.
    """

    uses: ClassVar[frozenset[str]] = frozenset({"augmentation"})
    adds = False

    def __init__(self, model: Informed, material: Material[Recording]) -> None:
        options = material.options
        self.model, self.framing = model, excerpt_framing(model.framing)
        if model.attention is not None and model.side_features != 1:
            raise InputError(
                f"side_features: got {model.side_features}, takes 1 in training: what it makes "
                "from the target is one value a step"
            )
        variations = None
        if options.augmentation:
            variations = Variations(
                options.augmentation, options.seed, model.sample_rate, material.cache_dir
            )
        side = _side_maker(model)
        drawn = FragmentBatches(
            self._fragments(material.songs, material),
            options.batch_size,
            options.seed,
            side=side,
            variations=variations,
        )
        self.drawn = drawn
        self.examples: Dataset[Batch] = drawn
        self.steps = min(len(drawn), options.batches_per_epoch or len(drawn))
        self.validation: list[Batch] = []
        if material.validation:
            fixed = self._fragments(material.validation, material)
            self.validation = [
                on_device(batch, model) for batch in fixed_batches(fixed, options.batch_size, side)
            ]

    def _fragments(self, songs: Sequence[Recording], material: Material[Recording]) -> Fragments:
        samples = self.framing.covered(self.model.context)
        return Fragments(songs, samples, partial(material.report.progress, "fragments"))

    @classmethod
    def audio(cls, model: Informed) -> Audio:
        """The target alone, in mono; all else of the mixture is accompaniment."""
        return Audio(model.sample_rate, 1, model.sources[:1])

    def names(self, epoch: int, item: int) -> list[str]:
        """The songs that are in a batch, each once."""
        return self.drawn.names(epoch, item)

    def loss(self, batch: Batch) -> Tensor:
        """L1 between magnitudes, a scalar."""
        waveforms, *side = on_device(batch, self.model)
        with torch.no_grad():
            magnitudes = stft_magnitude(waveforms, self.framing)  # (B, 2, N, F)
        return self.model.loss(magnitudes[:, 0], magnitudes[:, 1], *side)


def _side_maker(model: Informed) -> SideMaker | None:
    """What makes a model's side information; None for the model without."""
    if model.attention is None:
        return None
    # A3.2 is A3 when it is trained; only what it is then used with is rolled.
    kind = "A3" if model.side == "A3.2" else model.side
    return SideMaker(excerpt_framing(model.framing), kind, model.side_steps)
