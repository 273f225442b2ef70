"""Systems A and B: random excerpts of songs, the magnitudes of all sources, the soft-mask loss."""

from __future__ import annotations

from functools import partial
from typing import ClassVar

import torch
from torch import Tensor
from torch.utils.data import Dataset

from sepfast.data.augmented_examples import Augmentation
from sepfast.data.examples import (
    Examples,
    SilenceFilter,
    batch_features,
    excerpt_framing,
    validation_batches,
)
from sepfast.data.excerpts import Excerpts, Recording
from sepfast.data.kept_statistics import kept_statistics
from sepfast.data.shared_places import SharedPlaces
from sepfast.reference import DeepConvSep
from sepfast.training.course import Audio, Batch, Material, SongCourse, on_device


class DeepConvSepCourse(SongCourse):
    """Batches (waveforms,), each (B, 1 + N, C, samples), as `Examples` draws them.

    Where examples may be remixed, (waveforms, remixed), with (B,) bool behind. What is validated
    on is never augmented.
    """

    uses: ClassVar[frozenset[str]] = frozenset(
        {
            "silence",
            "statistics",
            "target_slope",
            "remix",
            "source_drop",
            "validation_batches",
            "loss",
        }
    )
    adds = True

    def __init__(self, model: DeepConvSep, material: Material[Recording]) -> None:
        options = material.options
        self.model, self.options = model, options
        samples = excerpt_framing(model.framing).covered(model.context)
        keep = SilenceFilter.of(model, options.silence) if options.silence else None
        excerpts = Excerpts(material.songs, samples)
        augmentation = Augmentation(options.remix, options.source_drop)
        self.drawn = Examples(excerpts, options.batch_size, options.seed, keep, augmentation)
        self.examples: Dataset[Batch] = ExampleBatches(self.drawn, options.workers)
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
        material: Material[Recording],
        device: torch.device,
    ) -> None:
        """Set the statistics of the songs, where they are asked for."""
        if not material.options.statistics:
            return
        found = kept_statistics(
            material.songs,
            model.framing,
            cache_dir=material.cache_dir,
            progress=partial(material.report.progress, "statistics"),
            note=material.report.note,
            device=device,
        )
        model.set_statistics(*found)

    def names(self, epoch: int, item: int) -> list[str]:
        """The songs that are in a batch, each once."""
        return self.drawn.names(epoch, item)

    def features(self, batch: Batch) -> tuple[Tensor, Tensor]:
        """The scaled mixture (B, C, T, F) and targets (B, N, C, T, F) of a batch."""
        waveforms, *remixed = on_device(batch, self.model)
        return batch_features(
            self.model,
            waveforms,
            target_slope=self.options.target_slope,
            remixed=remixed[0] if remixed else None,
        )

    def loss(self, batch: Batch) -> Tensor:
        """The paper's loss, a scalar."""
        return self.model.loss(*self.features(batch), self.options.loss)


class ExampleBatches(Dataset[Batch]):
    """Examples as batches of one tensor, or of two where some may be remixed.

    For one loader at a time.

    Args:
        examples: what they are of.
        workers: processes that make them; 0 for the one that trains.
    """

    def __init__(self, examples: Examples, workers: int) -> None:
        self.drawn = examples
        self._places = SharedPlaces(examples.shape, workers) if workers else None

    def __getitem__(self, key: tuple[int, int]) -> Batch:
        if self._places is not None:
            # In a worker it is no batch yet, but becomes one on its way.
            return self._places.filled(lambda out: self._fill(key, out))  # type: ignore[return-value]
        out = torch.empty(self.drawn.shape)
        return (out, *self._fill(key, out))

    def _fill(self, key: tuple[int, int], out: Tensor) -> list[Tensor]:
        """Make a batch's waveforms, and give what is beside them."""
        drawn = self.drawn.drawn(key, out)
        return [drawn.remixed] if self.drawn.augmentation.remix else []
