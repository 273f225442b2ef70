"""What a training run has to tell: its epochs, and whom they are reported to."""

from __future__ import annotations

import csv
from dataclasses import dataclass, field, fields
from typing import Literal, Protocol

from sepfast.files import PathLike, atomic

Ended = Literal["", "epochs", "patience", "time limit"]
Task = Literal[
    "songs", "fragments", "utterances", "speakers", "recordings", "statistics", "training"
]


@dataclass(frozen=True)
class Epoch:
    """One epoch.

    Attributes:
        epoch: its number, from 1.
        training_loss: mean over its steps.
        validation_loss: mean over the validation batches behind it; None without validation.
        learning_rate: the one it ran at.
        seconds: how long it took, validation included.
        gradient_norm: mean over its steps, before clipping, of those that are finite; None
            without clipping.
    """

    epoch: int
    training_loss: float
    validation_loss: float | None
    learning_rate: float
    seconds: float
    gradient_norm: float | None = None

    @property
    def loss(self) -> float:
        """The loss that tells better from worse."""
        return self.training_loss if self.validation_loss is None else self.validation_loss


@dataclass
class History:
    """All epochs of a run.

    Attributes:
        epochs: in order.
        ended: why the last call of `train` stopped; empty while it runs.
    """

    epochs: list[Epoch] = field(default_factory=list)
    ended: Ended = ""

    @property
    def best(self) -> Epoch | None:
        """The first epoch of the lowest loss; None before the first."""
        return min(self.epochs, key=lambda epoch: epoch.loss, default=None)

    def write_csv(self, path: PathLike) -> None:
        """Write a table with one row an epoch, replaced in one step.

        Raises:
            InputError: where the file cannot be written.
        """
        with atomic(path) as temporary, temporary.open("w", newline="", encoding="utf-8") as file:
            writer = csv.DictWriter(file, [column.name for column in fields(Epoch)])
            writer.writeheader()
            writer.writerows(vars(epoch) for epoch in self.epochs)


class Report(Protocol):
    """Whom a run tells how far it is."""

    def note(self, text: str) -> None:
        """A sentence that a person should see."""

    def progress(self, task: Task, done: int, total: int) -> None:
        """How far a task is: songs opened or cut, utterances found, steps …"""

    def epoch(self, epoch: Epoch, best: bool) -> None:
        """An epoch ended; whether it is the best so far."""


class Silent:
    """A report to nobody."""

    def note(self, text: str) -> None:
        """Nothing."""

    def progress(self, task: Task, done: int, total: int) -> None:
        """Nothing."""

    def epoch(self, epoch: Epoch, best: bool) -> None:
        """Nothing."""
