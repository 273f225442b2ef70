"""System B's denoisers: what a trained separator makes of a source, and what it should have made.

B examples a batch, C channels, T frames of context, F bins. The examples are the separator's own:
excerpts of songs, by its silence filter, on its scale. It stays as it is, and a run is known by it:
`Denoiser.attach` has its digest among the model's options.

Targets are turned down along the bins (`target_slope`) only where that is asked for: a separator
forms shares of its estimates, in which such a slope cancels out, but a denoiser's output is heard.
Source: B (the stereo thesis), sections 5.4 and 6.3.
"""

from __future__ import annotations

import copy
from typing import ClassVar

import torch
from torch import Tensor

from sepfast.data.excerpts import Recording
from sepfast.errors import InputError
from sepfast.fusion import fuse
from sepfast.reference import DeepConvSep, Denoiser
from sepfast.training.course import Audio, Batch, Material, SongCourse
from sepfast.training.course_deepconvsep import DeepConvSepCourse


class DenoiserCourse(SongCourse):
    """The batches of the separator's own course."""

    uses: ClassVar[frozenset[str]] = DeepConvSepCourse.uses - {"statistics", "loss"}
    adds = True

    def __init__(self, model: Denoiser, material: Material[Recording]) -> None:
        device = next(model.parameters()).device
        self.model = model
        self.separator = copy.deepcopy(_attached(model)).to(device)
        if device.type == "cuda":
            fuse(self.separator)
        self._place = self.separator.sources.index(model.source)
        self._songs = DeepConvSepCourse(self.separator, material)
        self.examples, self.steps = self._songs.examples, self._songs.steps
        self.validation = self._songs.validation

    @classmethod
    def audio(cls, model: Denoiser) -> Audio:
        """As the separator takes them."""
        return DeepConvSepCourse.audio(_attached(model))

    def names(self, epoch: int, item: int) -> list[str]:
        """The songs that are in a batch, each once."""
        return self._songs.names(epoch, item)

    def loss(self, batch: Batch) -> Tensor:
        """The absolute difference, summed: a scalar."""
        return self.model.loss(*self.pairs(batch))

    @torch.no_grad()
    def pairs(self, batch: Batch) -> tuple[Tensor, Tensor]:
        """The separator's estimates of the source and the source itself, both (B, C, T, F)."""
        mixture, targets = self._songs.features(batch)
        shares = self.separator.shares(self.separator(mixture))
        return shares[:, self._place] * mixture, targets[:, self._place]


def _attached(model: Denoiser) -> DeepConvSep:
    """The separator that a model learns from."""
    if model.attached is None:
        raise InputError(
            "separator: got None, a denoiser learns from the output of a trained separator"
        )
    return model.attached
