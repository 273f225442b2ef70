"""A training step, and the steps of a run one after the other, with the ranges of a profile."""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterable, Iterator
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader

from sepfast.ops.ranges import phase_range
from sepfast.training.course import Batch, Course
from sepfast.training.options import TrainingOptions
from sepfast.training.update import Update


class TrainingStep:
    """One update of a model.

    Args:
        model: on the device where it stays.
        update: of its weights.
        loss: what is to be differentiated for a batch, and this process's part of the loss.
    """

    def __init__(
        self, model: nn.Module, update: Update, loss: Callable[[Batch], tuple[Tensor, Tensor]]
    ) -> None:
        self._model, self._update, self._loss = model, update, loss

    def __call__(self, batch: Batch) -> Tensor:
        """The loss and the norm of all weights behind the update, (2,), left on the device.

        Of several processes, the loss is this one's part.

        With clipping (3,), the gradients' norm before it behind them.
        """
        self._update.optimizer.zero_grad()
        with phase_range("forward"), self._update.autocast():
            loss, part = self._loss(batch)
        gradients = self._update(loss)
        norm = nn.utils.get_total_norm([weight.detach() for weight in self._model.parameters()])
        return torch.stack([part.detach(), norm, *gradients])


def batches(
    course: Course[Any], options: TrainingOptions, device: torch.device, first: int
) -> Iterator[Batch]:
    """The batches of all steps from an epoch on, counted from 1, on the host."""
    epochs = range(first, options.epochs + 1)
    loader = DataLoader(
        course.examples,
        batch_size=None,
        # One after the other: `product` would hold all numbers at once.
        sampler=((epoch, item) for epoch in epochs for item in range(course.steps)),
        num_workers=options.workers,
        pin_memory=device.type == "cuda",
        generator=torch.Generator(),  # else it would draw from the one that dropout uses
    )
    return map(tuple, loader)  # a loader makes lists of tuples


def updates(step: Callable[[Batch], Tensor], batches: Iterable[Batch]) -> Generator[Tensor]:
    """What each step gives, taken when it is asked for."""
    left = iter(batches)
    while True:
        with phase_range("step"):
            with phase_range("data"):
                batch = next(left, None)
            if batch is None:
                return
            result = step(batch)
        yield result
