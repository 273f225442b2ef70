"""What a model learns from: the part of a training run that differs from system to system.

The trainer knows steps, batches and losses, and nothing of what is in them. A batch is a tuple of
tensors, the examples along their first axis. A system has a `Course` in a file of its own and a
line in `sepfast.training.courses`.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Generic, TypeVar

import torch
from torch import Tensor
from torch.utils.data import Dataset

from sepfast.data.excerpts import Recording
from sepfast.reference import Model
from sepfast.training.history import Report
from sepfast.training.options import TrainingOptions

Batch = tuple[Tensor, ...]

#: What a course learns from: a song, or a mixture of talkers.
Heard = TypeVar("Heard")


@dataclass(frozen=True)
class Material(Generic[Heard]):
    """What a course is made of.

    Attributes:
        songs: to learn from, at least one; mixtures where the course is of talkers.
        validation: to tell the best epoch by; empty for none.
        options: the choices of the run.
        cache_dir: where what is made of songs is kept; None for the user's cache.
        report: is told how far the making is.
    """

    songs: Sequence[Heard]
    validation: Sequence[Heard]
    options: TrainingOptions
    cache_dir: Path | None
    report: Report


class Course(ABC, Generic[Heard]):
    """What a model goes through in an epoch, and what it is judged by.

    A batch follows from its key (epoch, item), the options and the songs alone, so that a run can
    be resumed. It is made by worker processes, which are sent `examples`; the loss is made where
    the model is.

    Args:
        model: of the class that the course is for, on the device where it stays.
        material: the songs and the choices.

    Attributes:
        uses: the options that this course looks at and not all do.
        learns_from: what its songs are, in a word.
        adds: whether the loss of a batch is the sum over its examples; else it is their mean.
        steps: of an epoch.
        examples: batches on the host by their keys (epoch from 1, item from 0).
        validation: fixed batches, the same in every epoch.
    """

    uses: ClassVar[frozenset[str]] = frozenset()
    learns_from: ClassVar[str]
    adds: ClassVar[bool]

    steps: int
    examples: Dataset[Batch]
    validation: Sequence[Batch]

    @abstractmethod
    def __init__(self, model: Any, material: Material[Heard]) -> None: ...

    @classmethod
    @abstractmethod
    def described(cls, heard: Heard) -> str:
        """What tells one that it learns from apart from others; by it, a run is known again."""

    @classmethod
    def identity(cls, model: Any) -> dict[str, str]:
        """What else a run is known by, by the words for a person; most by nothing."""
        del model
        return {}

    @abstractmethod
    def names(self, epoch: int, item: int) -> list[str]:
        """The songs that are in a batch, each once."""

    @abstractmethod
    def loss(self, batch: Batch) -> Tensor:
        """The loss of a batch on the host or the device, a scalar on the device.

        Nothing in it waits for the device.
        """


@dataclass(frozen=True)
class Audio:
    """How a course takes its songs.

    Attributes:
        sample_rate: Hz.
        channels: 1 or 2.
        sources: the stems beside the mixture, in order.
    """

    sample_rate: int
    channels: int
    sources: tuple[str, ...]


class SongCourse(Course[Recording]):
    """A course that goes through songs."""

    learns_from = "song"

    @classmethod
    def described(cls, heard: Recording) -> str:
        """A song's name and length."""
        return f"{heard.song.name} ({heard.samples} samples)"

    @classmethod
    @abstractmethod
    def audio(cls, model: Any) -> Audio:
        """How the songs for a model are opened."""

    @classmethod
    def prepare(
        cls,
        model: Any,
        material: Material[Recording],
        device: torch.device,
    ) -> None:
        """Set what a fresh model has to know of the songs; most have to know nothing."""
        del model, material, device


def on_device(batch: Sequence[Tensor], model: Model) -> Batch:
    """A batch where a model is; from pinned memory, nothing waits for the copy."""
    device = next(model.parameters()).device
    return tuple(tensor.to(device, non_blocking=True) for tensor in batch)
