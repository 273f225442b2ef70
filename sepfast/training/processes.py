"""The processes that train one model together, one for each GPU, as torchrun starts them.

    torchrun --nproc-per-node 4 -m sepfast train musdb18 -o run

Without torchrun there is one, and nothing here does anything. Several compute what one does with
the same batch, see `sepfast.training.spread`. The first alone writes, prints and listens. What may
go wrong in one of them is done inside `Processes.together`, at whose end all know of it: they end
with the same sentence, and none waits for another for ever.
"""

from __future__ import annotations

import os
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from sepfast.device import pick_device
from sepfast.errors import InputError

_NUMBERS = ("RANK", "WORLD_SIZE", "LOCAL_RANK", "LOCAL_WORLD_SIZE")
_ADDRESS = ("MASTER_ADDR", "MASTER_PORT")
#: How long they may wait for the first, which may be decoding a whole data set.
_PATIENCE = timedelta(days=30)
#: What PyTorch's messages hold where another process has gone; most have no class of their own.
_GONE = ("gloo", "NCCL", "Connection closed by peer", "Connection reset by peer")


class Agreed(InputError):
    """An error of one process that all raise."""


class Lost(InputError):
    """Another process has gone."""


@dataclass
class Processes:
    """What a process knows of those that it trains with.

    Attributes:
        rank: its number, from 0.
        size: how many there are.
        local_rank: its number on its machine.
        local_size: how many there are on its machine.
        talk: the group in which they say how it goes, from host to host; None for one process.
        begun: whether anything has been said in it.
    """

    rank: int = 0
    size: int = 1
    local_rank: int = 0
    local_size: int = 1
    talk: Any = None
    begun: bool = False

    @property
    def alone(self) -> bool:
        """Whether there is one process."""
        return self.size == 1

    @property
    def first(self) -> bool:
        """Whether this one writes, prints and listens."""
        return self.rank == 0

    def place(self, name: str | None) -> torch.device:
        """Where this process computes: of several, on a GPU of its own.

        Args:
            name: as `pick_device` takes it; of several processes, without a number.

        Raises:
            InputError: for a device that is not there, or too few of them.
        """
        if self.alone or not _on_gpus(name):
            return pick_device(name)
        if name not in (None, "cuda"):
            raise InputError(f"device: got {name!r}, {self.size} processes take cuda or cpu")
        gpus = torch.cuda.device_count()
        if self.local_size > gpus:
            raise InputError(
                f"processes: got {self.local_size} on a machine with {gpus} GPUs, takes one for "
                "each GPU, or --device cpu"
            )
        torch.cuda.set_device(self.local_rank)
        return torch.device("cuda", self.local_rank)

    @contextmanager
    def together(self) -> Iterator[None]:
        """Wait, at the end of a block, for all to have got through theirs.

        Within it no process waits for another.

        Raises:
            Agreed: in all of them, where one has raised `InputError`.
        """
        if self.alone:
            yield
            return
        error: InputError | None = None
        try:
            yield
        except InputError as raised:
            error = raised
        self.agree(error)

    def agree(self, error: InputError | None) -> None:
        """Raise `Agreed` in all processes where one of them comes with an error.

        The sentence is the first one's that has any.
        """
        if not self.any(error is not None):
            return
        said: list[str | None] = [None] * self.size
        dist.all_gather_object(said, None if error is None else str(error), self.talk)
        raise Agreed(next(text for text in said if text is not None)) from error

    @contextmanager
    def in_turn(self) -> Iterator[None]:
        """Go through a block one behind the other: who comes later finds what was kept on disk.

        First the first process, then one of each other machine, then all others. Otherwise it is as
        `together`.
        """
        if self.alone:
            yield
            return
        own = 0 if self.first else 1 if self.local_rank == 0 else 2
        for turn in range(3):
            with self.together():
                if turn == own:
                    yield

    def any(self, flag: bool) -> bool:
        """Whether it holds in one of the processes."""
        if self.alone:
            return flag
        self.begun = True
        flags = torch.tensor([flag], dtype=torch.int32)
        dist.all_reduce(flags, dist.ReduceOp.MAX, self.talk)
        return bool(flags)

    def total(self, values: Tensor) -> Tensor:
        """The sum of all processes' values, on the host, the same to the bit in all of them."""
        if self.alone:
            return values
        each = [torch.empty_like(values) for _ in range(self.size)]
        dist.all_gather(each, values.contiguous(), self.talk)
        return torch.stack(each).sum(0)

    def check_same(self, identity: object) -> None:
        """Raise in all processes where one is about to train something else than the first.

        Args:
            identity: of the run, in plain types.
        """
        if self.alone:
            return
        each: list[object] = [None] * self.size
        dist.all_gather_object(each, identity, self.talk)
        for rank, other in enumerate(each):
            if other != each[0]:
                raise Agreed(
                    f"processes: number {rank} has other songs or options than number 0, takes "
                    "the same data on all machines"
                )

    @torch.no_grad()
    def level(self, model: nn.Module) -> None:
        """Set the running statistics of batch normalisation to the mean over all processes."""
        if self.alone:
            return
        for module in model.modules():
            if isinstance(module, _BatchNorm):
                for running in (module.running_mean, module.running_var):
                    if running is not None:
                        running.copy_(self.total(running.cpu()) / self.size)


_CURRENT: Processes | None = None


@contextmanager
def formed(device: str | None = None) -> Iterator[Processes]:
    """The processes that torchrun has started, brought together while the block runs.

    A block within another's has the same ones.

    Args:
        device: where they will compute, as `Processes.place` takes it.

    Yields:
        Those of torchrun's environment; a single one elsewhere.

    Raises:
        InputError: where they cannot be brought together, or, as `Lost`, where one has gone.
    """
    global _CURRENT
    if _CURRENT is not None:
        yield _CURRENT
        return
    rank, size, local_rank, local_size = _launched()
    if size == 1:
        yield Processes()
        return
    if dist.is_initialized():
        raise InputError("processes: are in a group already, training forms its own")
    gpus, agreed = _on_gpus(device) and torch.cuda.is_available(), False
    try:
        try:
            dist.init_process_group("nccl" if gpus else "gloo")
            talk = dist.new_group(backend="gloo", timeout=_PATIENCE)
        except (RuntimeError, ValueError, OSError) as error:
            reason = str(error).partition("\n")[0]
            raise InputError(f"processes: cannot be brought together ({reason})") from error
        _CURRENT = Processes(rank, size, local_rank, local_size, talk)
        with _lost(), warnings.catch_warnings():
            # Of a performance that is DDP's own to lose, for layouts that oneDNN chooses.
            warnings.filterwarnings("ignore", "Grad strides do not match bucket view strides")
            yield _CURRENT
        agreed = True
    except BaseException as error:
        agreed = isinstance(error, Agreed) or isinstance(error.__cause__, Agreed)
        raise
    finally:
        _CURRENT = None
        # NCCL would wait for what the others are in the middle of, and they for this process, whose
        # end has torchrun end them.
        if dist.is_initialized() and (agreed or not gpus):
            dist.destroy_process_group()


def _launched() -> tuple[int, ...]:
    """Rank, size, local rank and local size, as torchrun gives them to its processes."""
    if os.environ.get("WORLD_SIZE", "1") == "1":
        return 0, 1, 0, 1
    missing = [name for name in (*_NUMBERS, *_ADDRESS) if name not in os.environ]
    if missing:
        raise InputError(
            f"WORLD_SIZE: got {os.environ['WORLD_SIZE']} without {', '.join(missing)}, several "
            "processes are started by torchrun"
        )
    try:
        return tuple(int(os.environ[name]) for name in _NUMBERS)
    except ValueError as error:
        raise InputError(f"{', '.join(_NUMBERS)}: take whole numbers ({error})") from error


def _on_gpus(device: str | None) -> bool:
    return torch.cuda.is_available() if device is None else device.startswith("cuda")


@contextmanager
def _lost() -> Iterator[None]:
    """Say that another process has gone, which is found out in whatever needed it."""
    try:
        yield
    except RuntimeError as error:
        if not isinstance(error, dist.DistError) and not any(w in str(error) for w in _GONE):
            raise
        reason = str(error).partition("\n")[0]
        raise Lost(
            "training: the processes have lost each other, as where one has ended; the run can be "
            f"resumed, with another number of them too ({reason})"
        ) from error
