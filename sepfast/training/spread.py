"""The loss of a batch that several processes share.

Every process draws the same batch and computes its own rows of it, so that all of them together
take the step that one takes with that batch. The rows are a block rather than each Nth one: a block
of pinned memory is copied to the GPU as it lies, without the host waiting for it.

DistributedDataParallel averages the gradients of N processes. What is differentiated is therefore N
times a process's part of the loss: the loss of its rows where a batch's loss is the sum over its
examples, that times its share of the rows where it is their mean (`Course.adds`).

Every process reads the whole batch: it follows from its key, and what the silence filter turns
down decides what the next row is.
"""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.parallel import DistributedDataParallel

from sepfast.errors import InputError
from sepfast.training.course import Batch, Course
from sepfast.training.processes import Processes


class SpreadLoss:
    """A course's loss, of which each process computes a part.

    With one process it is the course's own.

    Batch statistics are those of the whole batch on GPUs, if `synchronise` has been called. On
    the CPU, where PyTorch has none of these, they are those of a process's own rows, and the losses
    of system E are others than one process's.

    Args:
        model: on the device where it stays; the first process's weights are taken by all.
        course: of the model.
        processes: who shares a batch.
    """

    def __init__(self, model: nn.Module, course: Course[Any], processes: Processes) -> None:
        self._course, self._processes = course, processes
        self._shared: nn.Module | None = None
        if not processes.alone:
            self._shared = DistributedDataParallel(_Loss(model, course))

    def __call__(self, batch: Batch) -> tuple[Tensor, Tensor]:
        """What is to be differentiated, and this process's part of the loss; both scalars."""
        if self._shared is None:
            loss = self._course.loss(batch)
            return loss, loss
        own, weight = self.share(batch)
        part = self._shared(own) * weight
        return part * self._processes.size, part

    def share(self, batch: Batch) -> tuple[Batch, float]:
        """A process's rows of a batch, and by what their loss is multiplied to be a part of all.

        A process that a small batch has no row for takes the first, with weight 0: all have to
        take part in a step.
        """
        rows = len(batch[0])
        rank, size = self._processes.rank, self._processes.size
        own = tuple(tensor.tensor_split(size)[rank] for tensor in batch)
        count = len(own[0])
        if not count:
            return tuple(tensor[:1] for tensor in batch), 0.0
        return own, 1.0 if self._course.adds else count / rows


class _Loss(nn.Module):
    """A course's loss as the forward of a module, which is where DDP begins its work.

    It has the model's weights and no buffers, which DDP would send around in every step: running
    statistics are levelled behind an epoch, and nothing else changes.
    """

    def __init__(self, model: nn.Module, course: Course[Any]) -> None:
        super().__init__()
        self.weights, self._course = nn.ParameterList(model.parameters()), course

    def forward(self, batch: Batch) -> Tensor:
        return self._course.loss(batch)


def check_batch(batch_size: int, processes: Processes) -> None:
    """Raise `InputError` where some processes would never have a row."""
    if batch_size < processes.size:
        raise InputError(
            f"batch_size: got {batch_size}, {processes.size} processes take at least as many "
            "examples, which they share"
        )


def synchronise(model: nn.Module, processes: Processes) -> None:
    """Give a model on several GPUs the statistics of the whole batch, in place.

    Its fused blocks then run layer by layer. Parameters and state dictionaries stay as they are.
    """
    normalises = any(isinstance(module, _BatchNorm) for module in model.modules())
    on_gpu = next(model.parameters()).device.type == "cuda"
    if normalises and on_gpu and not processes.alone:
        nn.SyncBatchNorm.convert_sync_batchnorm(model)
