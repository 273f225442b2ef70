"""Work shared out to processes that torchrun, or a launcher with its variables, has started.

They need no process group. Each does every `size`-th piece of the work, and they meet before it,
so that all share out the same, and behind it: torchrun ends all processes as soon as one has
failed, so that none may leave with a failure while another works. What they tell each other goes
through the launcher's key-value store, which is asked again and again: a collective would give up
after its time limit, and one process may have hours of work left when another has none.
"""

from __future__ import annotations

import json
import os
import signal
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import timedelta
from hashlib import sha256
from typing import TYPE_CHECKING, Any, TypeVar

import torch

from sepfast.device import pick_device
from sepfast.errors import InputError

if TYPE_CHECKING:
    from torch.distributed import Store

T = TypeVar("T")

#: Seconds between two looks for what the others have said.
_PAUSE = 0.1
#: What the others have to come to the first meeting: they read a model and search folders.
_JOIN = timedelta(hours=1)


@dataclass
class Team:
    """This process among those that share the work; by itself it is the only one.

    Attributes:
        rank: its number among all, from 0.
        size: how many there are.
        local_rank: its number on its machine.
    """

    rank: int = 0
    size: int = 1
    local_rank: int = 0
    _store: Store | None = field(default=None, init=False, repr=False)
    _meetings: int = field(default=0, init=False, repr=False)

    @property
    def several(self) -> bool:
        """Whether there are others."""
        return self.size > 1

    @property
    def leads(self) -> bool:
        """Whether it speaks for all and writes what is one's for all."""
        return self.rank == 0

    def share(self, work: Sequence[T]) -> Sequence[T]:
        """What this process has to do of all the work."""
        return work[self.rank :: self.size]

    def device(self, name: str | None) -> torch.device:
        """As `pick_device`; among several, a GPU without a number is the process's own.

        Where a machine has more processes than GPUs they share those.
        """
        gpus = torch.cuda.device_count() if self.several and name in (None, "cuda") else 0
        if not gpus:
            return pick_device(name)
        device = pick_device(f"cuda:{self.local_rank % gpus}")
        torch.cuda.set_device(device)  # or each would take memory of the first GPU too
        return device

    def agree(self, work: Sequence[str]) -> None:
        """Wait for all, and see that they are about to share out the same work.

        Raises:
            InputError: where they are not, such as over folders that are not shared.
        """
        # The lists themselves may be longer than the store takes.
        found = self.exchange([len(work), sha256("\0".join(work).encode()).hexdigest()])
        if any(other != found[0] for other in found):
            counts = ", ".join(str(count) for count, _ in found)
            raise InputError(
                f"the processes find different work ({counts} pieces), take the same files in all"
            )

    def exchange(self, said: Any, *, last: bool = False) -> list[Any]:
        """What every process says, in the order of their ranks; waits for as long as it takes.

        Args:
            said: anything that JSON takes.
            last: whether this is the last time. Rank 0 then waits until the others have heard it
                all, since it may hold the store and may leave with a failure.
        """
        if not self.several:
            return [said]
        if self._store is None:
            self._store = _store()
        meeting, self._meetings = f"sepfast/{_attempt()}/{self._meetings}", self._meetings + 1
        self._store.set(f"{meeting}/{self.rank}", json.dumps(said))
        heard = [json.loads(_told(self._store, f"{meeting}/{r}")) for r in range(self.size)]
        if last and not self.leads:
            self._store.set(f"{meeting}/left/{self.rank}", "")
        elif last:
            for rank in range(1, self.size):
                _told(self._store, f"{meeting}/left/{rank}")
        return heard


@contextmanager
def shared() -> Iterator[Team]:
    """This process as `RANK`, `WORLD_SIZE` and `LOCAL_RANK` say; the only one without a `RANK`.

    Among several, the signal by which torchrun ends them is taken as Ctrl-C while the block runs,
    so that nothing half-written is left.

    Raises:
        InputError: where the variables hold something else.
    """
    rank, size, local = _started_as()
    if size == 1:
        yield Team()
        return
    before = signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        yield Team(rank, size, local)
    finally:
        signal.signal(signal.SIGTERM, before)


def how_many() -> int:
    """Processes that share the work, this one counted.

    Raises:
        InputError: as `shared` does.
    """
    return _started_as()[1]


def _started_as() -> tuple[int, int, int]:
    """Rank, size and rank on the machine."""
    if "RANK" not in os.environ:  # a WORLD_SIZE alone is of a scheduler, not of processes
        return 0, 1, 0
    given = [os.environ.get(name, "") for name in ("RANK", "WORLD_SIZE", "LOCAL_RANK")]
    try:
        rank, size = int(given[0]), int(given[1])
        local = int(given[2] or rank)
    except ValueError:
        rank, size, local = -1, 0, -1
    if not (0 <= rank < size and local >= 0):
        raise InputError(
            "the environment: got RANK={!r}, WORLD_SIZE={!r}, LOCAL_RANK={!r}, takes what torchrun "
            "sets".format(*given)
        )
    return rank, size, local


def _store() -> Store:
    """The launcher's store, or one that rank 0 holds at MASTER_ADDR and MASTER_PORT."""
    from torch.distributed import rendezvous

    try:
        store: Store = next(rendezvous("env://", timeout=_JOIN))[0]
    except (ValueError, RuntimeError) as error:
        reason = str(error).splitlines()[0]
        raise InputError(f"the processes cannot meet ({reason}), take torchrun") from error
    return store


def _attempt() -> str:
    """torchrun may start all processes anew, over the same store."""
    return os.environ.get("TORCHELASTIC_RESTART_COUNT", "0")


def _told(store: Store, key: str) -> bytes:
    # A wait inside the store could not be interrupted.
    while not store.check([key]):
        time.sleep(_PAUSE)
    value: bytes = store.get(key)
    return value
