"""System E: mixtures, and clean sounds of other recordings, or for the baseline of the same.

B snippets a batch, S samples each. The supervised baseline, a `DenoisingVAE`, is the one that
needs pairs; `UDT` never sees what its mixtures are made of.
Source: E (Venkataramani et al. 2019), section 4.1.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

import torch
from torch import Tensor
from torch.utils.data import Dataset

from sepfast.data.clips import SAMPLE_RATE
from sepfast.data.style_transfer import Part
from sepfast.data.style_transfer_examples import SnippetPool, StyleTransferExamples
from sepfast.errors import InputError
from sepfast.ops import stft_magnitude
from sepfast.reference import DenoisingVAE, StyleTransfer
from sepfast.training.course import Batch, Course, Material, on_device


class StyleTransferCourse(Course[Part]):
    """Batches (mixtures, clean), both (B, S), as `StyleTransferExamples` draws them."""

    uses: ClassVar[frozenset[str]] = frozenset({"snippet", "voice", "validation_batches"})
    learns_from = "recording"
    adds = False

    def __init__(self, model: StyleTransfer, material: Material[Part]) -> None:
        if model.sample_rate != SAMPLE_RATE:
            raise InputError(
                f"sample_rate: got {model.sample_rate}, takes {SAMPLE_RATE} in training"
            )
        options = material.options
        self.model = model
        samples = round(options.snippet * SAMPLE_RATE)
        self.drawn = self._examples(material.songs, material, samples, options.seed)
        self.examples: Dataset[Batch] = self.drawn
        filled = _mixed_samples(material.songs) // (samples * options.batch_size)
        self.steps = options.batches_per_epoch or max(1, filled)
        self.validation: list[Batch] = []
        if material.validation:
            fixed = self._examples(material.validation, material, samples, None)
            batches = (fixed[1, item] for item in range(options.validation_batches))
            self.validation = [on_device(batch, model) for batch in batches]

    @classmethod
    def described(cls, heard: Part) -> str:
        """What a recording is for, which it is, and how long."""
        return f"{heard.role} {heard.clip.key} ({heard.clip.samples} samples)"

    def names(self, epoch: int, item: int) -> list[str]:
        """The recordings that are in a batch, each once."""
        return self.drawn.names(epoch, item)

    def loss(self, batch: Batch) -> Tensor:
        """The model's loss of the batch, a scalar."""
        mixture, clean = (self._levels(waveforms) for waveforms in on_device(batch, self.model))
        return self.model.loss(mixture, clean)

    def _examples(
        self, parts: Sequence[Part], material: Material[Part], samples: int, seed: int | None
    ) -> StyleTransferExamples:
        pool = SnippetPool(parts, samples, material.cache_dir)
        paired = isinstance(self.model, DenoisingVAE)
        return StyleTransferExamples(pool, material.options.batch_size, seed, paired)

    @torch.no_grad()
    def _levels(self, waveforms: Tensor) -> Tensor:
        """Compressed magnitudes (B, T, K)."""
        return stft_magnitude(waveforms, self.model.framing, power=self.model.power)


def _mixed_samples(parts: Sequence[Part]) -> int:
    """Samples of all recordings that are mixtures, or what is wanted of them."""
    return sum(part.clip.samples for part in parts if part.role in ("mixture", "target"))
