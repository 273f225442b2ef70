"""Systems A and B: random excerpts of songs, the magnitudes of all sources, the soft-mask loss."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import ClassVar

import torch
from torch import Tensor
from torch.utils.data import Dataset

from sepfast.data.examples import (
    Examples,
    Excerpts,
    Recording,
    SilenceFilter,
    batch_features,
    excerpt_framing,
    statistics,
    validation_batches,
)
from sepfast.reference import DeepConvSep
from sepfast.training.course import Audio, Batch, Material, SongCourse, on_device
from sepfast.training.options import TrainingOptions


class DeepConvSepCourse(SongCourse):
    """Batches (waveforms,), each (B, 1 + N, C, samples), as `Examples` draws them."""

    uses: ClassVar[frozenset[str]] = frozenset(
        {"silence", "statistics", "target_slope", "validation_batches", "loss"}
    )

    def __init__(self, model: DeepConvSep, material: Material[Recording]) -> None:
        options = material.options
        self.model, self.options = model, options
        samples = excerpt_framing(model.framing).covered(model.context)
        keep = SilenceFilter.of(model, options.silence) if options.silence else None
        excerpts = Excerpts(material.songs, samples)
        self.drawn = Examples(excerpts, options.batch_size, options.seed, keep)
        self.examples: Dataset[Batch] = _Batches(self.drawn)
        self.steps = options.batches_per_epoch or excerpts.batches(options.batch_size)
        self.validation: list[Batch] = []
        if material.validation:
            fixed = Excerpts(material.validation, samples)
            batches = validation_batches(fixed, options.batch_size, options.validation_batches)
            self.validation = [on_device([waveforms], model) for waveforms in batches]

    @classmethod
    def audio(cls, model: DeepConvSep) -> Audio:
        """All sources of the model, with its channels."""
        return Audio(model.sample_rate, model.channels, tuple(model.sources))

    @classmethod
    def prepare(
        cls,
        model: DeepConvSep,
        songs: Sequence[Recording],
        options: TrainingOptions,
        progress: Callable[[int, int], None],
        device: torch.device,
    ) -> None:
        """Set the statistics of the songs, where they are asked for."""
        if options.statistics:
            model.set_statistics(*statistics(songs, model.framing, progress, device))

    def names(self, epoch: int, item: int) -> list[str]:
        """The songs that are in a batch, each once."""
        return self.drawn.names(epoch, item)

    def loss(self, batch: Batch) -> Tensor:
        """The paper's loss, a scalar."""
        (waveforms,) = on_device(batch, self.model)
        mixture, targets = batch_features(
            self.model, waveforms, target_slope=self.options.target_slope
        )
        return self.model.loss(mixture, targets, self.options.loss)


class _Batches(Dataset[Batch]):
    """Examples as batches of one tensor."""

    def __init__(self, examples: Examples) -> None:
        self.drawn = examples

    def __getitem__(self, key: tuple[int, int]) -> Batch:
        return (self.drawn[key],)
