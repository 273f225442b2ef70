"""System D: mixtures of talkers, of whom one is seen; the masks that make out the voice.

B mixtures a batch, S samples and T frames of the longest, F bins. The two that refine a binary mask
learn in two steps: a model that holds no VL2M is given the oracle's mask, the target's own; one
that holds a VL2M is given that one's, which stays as it is (`Refining.hold`).
Source: D (Morrone et al. 2019), sections 2 and 3.3.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor
from torch.utils.data import Dataset

from sepfast.data.speaker_statistics import POWER, SpeakerStatistics
from sepfast.data.talker_examples import (
    TalkerBatch,
    TalkerExamples,
    TalkerFeatures,
    talker_features,
)
from sepfast.data.talker_mixtures import Mixture
from sepfast.data.talkers import FRAMING, SAMPLE_RATE
from sepfast.errors import InputError
from sepfast.reference.audiovisual import VL2M, AudioVisual, AVConcat
from sepfast.reference.audiovisual_ref import Refining
from sepfast.training.course import Batch, Course, Material, on_device


@dataclass(frozen=True)
class Talk:
    """A mixture of talkers, and what is usual for the one who is to be heard.

    Attributes:
        mixture: with its target.
        statistics: of the target's speaker.
    """

    mixture: Mixture
    statistics: SpeakerStatistics


class AudioVisualCourse(Course[Talk]):
    """Batches (waveforms, motion, levels, lengths), as `TalkerExamples` draws them.

    An epoch goes once through all mixtures. T differs from batch to batch.
    """

    uses: ClassVar[frozenset[str]] = frozenset({"talkers"})
    learns_from = "mixture"
    adds = False

    def __init__(self, model: AudioVisual, material: Material[Talk]) -> None:
        _check(model)
        options = material.options
        self.model = model
        self.drawn = _examples(material.songs, material, options.seed)
        self.examples: Dataset[Batch] = _Batches(self.drawn)
        batches = self.drawn.batches
        self.steps = min(batches, options.batches_per_epoch or batches)
        self.validation: list[Batch] = []
        if material.validation:
            # They stay on the host: those of GRID are more than a gigabyte.
            fixed = _examples(material.validation, material, None)
            self.validation = [fixed[1, item] for item in range(fixed.batches)]

    @classmethod
    def described(cls, heard: Talk) -> str:
        """Who talks, for how long, and how fast the film is."""
        target = heard.mixture.target
        about = f"{target.samples} samples, {target.video_rate:g} video frames a second"
        return f"{heard.mixture.key} ({about})"

    @classmethod
    def identity(cls, model: AudioVisual) -> dict[str, str]:
        """The VL2M that a model holds, by its weights."""
        held = model.mask_model if isinstance(model, Refining) else None
        return {} if held is None else {"mask model": held.digest()}

    def names(self, epoch: int, item: int) -> list[str]:
        """Whose mixtures are in a batch: the utterances that are to be heard, each once."""
        return list(dict.fromkeys(each.target.key for each in self.drawn.drawn(epoch, item)))

    def loss(self, batch: Batch) -> Tensor:
        """The model's loss for each example, summed over bins and frames: their mean, a scalar."""
        features = talker_features(TalkerBatch(*on_device(batch, self.model)))
        return _summed(self.model, features) / len(features.lengths)


def _summed(model: AudioVisual, features: TalkerFeatures) -> Tensor:
    """The loss as the paper has it, a scalar."""
    mixture, heard, target, binary_mask, motion, lengths = features
    if isinstance(model, VL2M):
        return model.loss(motion, binary_mask, lengths)
    if isinstance(model, AVConcat):
        return model.loss(motion, heard, mixture, target, lengths)
    assert isinstance(model, Refining)  # there is no other
    oracle = binary_mask if model.mask_model is None else None
    return model.loss(motion, heard, mixture, target, lengths, oracle)


def _examples(talks: Sequence[Talk], material: Material[Talk], seed: int | None) -> TalkerExamples:
    return TalkerExamples(
        [talk.mixture for talk in talks],
        {talk.mixture.target.speaker: talk.statistics for talk in talks},
        material.options.batch_size,
        seed,
        material.cache_dir,
    )


def _check(model: AudioVisual) -> None:
    """Raise where a model is not made for what the examples are."""
    made = {"framing": FRAMING, "sample_rate": SAMPLE_RATE, "power": POWER, "landmarks": 136}
    for name, value in made.items():
        if getattr(model, name) != value:
            raise InputError(f"{name}: got {getattr(model, name)}, takes {value} in training")


class _Batches(Dataset[Batch]):
    """Examples as plain batches."""

    def __init__(self, examples: TalkerExamples) -> None:
        self.drawn = examples

    def __getitem__(self, key: tuple[int, int]) -> Batch:
        return self.drawn[key]
