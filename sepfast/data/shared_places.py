"""Batches from worker processes, through memory that is taken once.

By itself a `DataLoader` gives every batch of a worker shared memory of its own: the system clears
its pages, both processes fault them in, and a file descriptor changes hands under a handshake. For
batches of waveforms all that takes longer than reading them. Here a worker has a few places that
stay; it fills one and sends its number, and who receives that copies the batch out and gives the
place back. A worker without a free place sends a batch the usual way.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from itertools import count
from typing import Any
from weakref import WeakValueDictionary

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import get_worker_info

Batch = tuple[Tensor, ...]

#: Places of a worker: as many as the batches that a loader asks of it before one has arrived, so
#: that no more memory is shared than without.
_EACH = 2
_NUMBERS = count()


class SharedPlaces:
    """Places in shared memory for batches of one shape, some for each worker of one loader.

    Made in the process that receives. It costs nothing to send to a worker.

    Args:
        shape: of a batch's first tensor, which is the large one, float32.
        workers: how many there will be.
    """

    def __init__(self, shape: Sequence[int], workers: int) -> None:
        self._memory = torch.zeros(_EACH * workers, *shape).share_memory_()
        #: Who has a place, 0 for nobody. It is written before the place is filled, so that two
        #: workers in one place are found out.
        self._holders = torch.zeros(_EACH * workers, dtype=torch.int64).share_memory_()
        self._number, self._made = next(_NUMBERS), 0
        _KNOWN[self._number] = self

    def filled(self, fill: Callable[[Tensor], Sequence[Tensor]]) -> Batch | HandedOver:
        """A batch, in the hands of a worker what becomes one where it is received.

        Args:
            fill: fills a tensor of `shape`, and gives the batch's other tensors, small ones.
        """
        place = self._free()
        if place is None:
            batch = torch.empty(self._memory.shape[1:])
            return (batch, *fill(batch))
        self._made += 1
        holder = os.getpid() << 32 | self._made
        self._holders[place] = holder
        try:
            others = fill(self._memory[place])
        except BaseException:
            self._holders[place] = 0
            raise
        return HandedOver(self._number, place, holder, [other.numpy() for other in others])

    def received(self, place: int, holder: int) -> Tensor:
        """A copy of a batch, whose place is free from then on."""
        batch = self._memory[place].clone()
        if int(self._holders[place]) != holder:
            raise RuntimeError("examples: two loaders have read them at once, takes one at a time")
        self._holders[place] = 0
        return batch

    def _free(self) -> int | None:
        """A place for this worker; None where it has none, or is none."""
        worker = get_worker_info()
        if worker is None:
            return None
        own = range(worker.id * _EACH, (worker.id + 1) * _EACH)
        return next((p for p in own if p < len(self._holders) and not int(self._holders[p])), None)


class HandedOver:
    """A batch in a place, which is sent as its number and arrives as a batch."""

    def __init__(
        self, number: int, place: int, holder: int, others: Sequence[NDArray[Any]]
    ) -> None:
        self._sent = (number, place, holder, others)

    def __reduce__(self) -> tuple[Callable[..., Batch], tuple[Any, ...]]:
        return _received, self._sent


#: Those made in this process, by their numbers.
_KNOWN: WeakValueDictionary[int, SharedPlaces] = WeakValueDictionary()


def _received(number: int, place: int, holder: int, others: Sequence[NDArray[np.generic]]) -> Batch:
    return (_KNOWN[number].received(place, holder), *map(torch.from_numpy, others))
