"""Systems as a user runs them, whole: training steps and separations, each by several sides.

    ours       the fused model
    graph      the same, its step captured in a CUDA graph; on a GPU
    eager      the plain way in PyTorch, what the others are held to
    compiled   the plain way by `torch.compile`
    published  the published program's method; on a CPU

A side is built, held to "eager" at full float32 precision, whatever is demanded, and timed beside
the others. One that fails is left out and the others go on, without "ours" nothing does.
"""

from __future__ import annotations

import gc
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from sepfast.bench.case import Size, demand
from sepfast.bench.clocks import Ceilings, Clock, Function, interleaved
from sepfast.bench.measure import row_of
from sepfast.bench.peaks import alive, peak_of
from sepfast.bench.results import Row
from sepfast.bench.separating import excerpts
from sepfast.bench.side import Side
from sepfast.bench.training_step import steps
from sepfast.bench.verify import (
    WrongResult,
    demanded,
    launched,
    path_of,
)
from sepfast.bench.work import Work
from sepfast.ops.accuracy import largest, relative_error


class System(Protocol):
    """What is built, verified and timed.

    Attributes:
        name: `workload/what`.
        operator: what kind of system it is.
        gradient: whether it goes backward, too.
        kernels: what runs where all of it runs in kernels, without the prefix `sepfast_`.
        result: which of the errors is the result's; others are those of gradients.
    """

    @property
    def name(self) -> str: ...
    @property
    def operator(self) -> str: ...
    @property
    def gradient(self) -> bool: ...
    @property
    def kernels(self) -> tuple[str, ...]: ...
    @property
    def result(self) -> str: ...

    def sides(self, device: torch.device) -> list[str]:
        """Its sides on a device, "ours" first, "compiled" last."""

    def build(self, side: str, device: torch.device) -> Side:
        """A side in the size that is timed."""

    def work(self) -> Work:
        """Its work, at the precision that is demanded now."""

    def shapes(self) -> dict[str, list[int]]:
        """Of its inputs, by name."""

    def tolerances(self) -> Mapping[str, float]:
        """What each error stays below, at the precision that is demanded now."""


@dataclass(frozen=True)
class _Ready:
    """A side that was built and is right."""

    call: Function
    error: float
    gradient_error: float | None
    peak: int | None
    kernels: list[str]


def systems(size: Size = "full") -> list[System]:
    """All systems in a size, in the order of their importance."""
    training, separation = list(steps(size)), list(excerpts(size))
    # In turns, so that a short run has of both.
    paired = [each for pair in zip(separation, training, strict=False) for each in pair]
    shorter = min(len(training), len(separation))
    return [*paired, *separation[shorter:], *training[shorter:]]


def measure_system(
    system: System,
    device: torch.device,
    clock: Clock,
    most: Ceilings,
    sides: Iterable[str],
    leave_out: Callable[[str, Exception], None],
    *,
    seconds: float = 2.0,
    rounds: tuple[int, int] = (3, 100),
) -> list[Row]:
    """Time the sides of a system.

    Args:
        system: the system.
        device: where it runs.
        clock: the device's.
        most: the device's ceilings.
        sides: the sides, "ours" among them.
        leave_out: is told the side that failed, other than "ours", and its error.
        seconds: for all of them together.
        rounds: the least and the most that are made, whatever the seconds.

    Returns:
        A row for each side that did not fail.

    Raises:
        WrongResult: where ours does not compute what eager does.
    """
    torch._dynamo.reset()
    with demanded("highest"):
        true = system.build("eager", device).result()
    gc.collect()  # a model is in cycles, and is not to count as there before the sides
    ready: dict[str, _Ready] = {}
    for side in sides:
        try:
            ready[side] = _ready(system, side, device, true)
        except Exception as error:  # memory, or a compiler that fails: the others go on
            if side == "ours":
                raise
            leave_out(side, error)
        gc.collect()  # a side that was left out holds its model in cycles
        if device.type == "cuda":
            torch.cuda.empty_cache()
    del true
    calls = {side: each.call for side, each in ready.items()}
    timings = interleaved(calls, clock, seconds=seconds, rounds=rounds, warm=1)
    return [
        row_of(
            system, side, timings,
            shapes=system.shapes(),
            path=path_of(system, each.kernels),
            kernels=each.kernels,
            work=system.work(),
            most=most,
            products=True,
            peak=each.peak,
            errors=(each.error, each.gradient_error),
        )
        for side, each in ready.items()
    ]  # fmt: skip


def errors_of(
    system: System, side: str, out: Mapping[str, list[Tensor]], true: Mapping[str, list[Tensor]]
) -> dict[str, float]:
    """The errors of a side's results, by name, each the largest of its tensors.

    Raises:
        WrongResult: where one is above its tolerance.
    """
    errors = {}
    for name, most in system.tolerances().items():
        pairs = zip(out[name], true[name], strict=True)
        errors[name] = largest(relative_error(x, _as_far(x, wanted)) for x, wanted in pairs)
        if not errors[name] <= most:  # NaN is wrong too
            raise WrongResult(system, side, f"{name} ({demand()})", errors[name], most)
    return errors


def _as_far(out: Tensor, true: Tensor) -> Tensor:
    """As much as there is of a result: the published program may end early."""
    return true[..., : out.shape[-1]] if out.ndim else true


def _ready(
    system: System, side: str, device: torch.device, true: Mapping[str, list[Tensor]]
) -> _Ready:
    before = alive(device)
    with launched() as kernels:
        built = system.build(side, device)
        peak = _warm(built, side, device, before)
    errors = errors_of(system, side, built.result(), true)
    gradients = [error for name, error in errors.items() if name != system.result]
    return _Ready(
        built.call, errors[system.result], max(gradients, default=None), peak,
        sorted(set(kernels)),
    )  # fmt: skip


def _warm(built: Side, side: str, device: torch.device, before: int) -> int | None:
    """Make the warm calls; the peak of a call, with all that the side holds.

    Of a graph's replay the allocator sees nothing: the last warm call is the capture. Of the
    published program's arrays, which are numpy's, it never does.
    """
    on_gpu = device.type == "cuda"
    for _ in range(built.warm - 1 if on_gpu else side == "compiled"):
        built.call()
    if side == "published":
        built.call()
        return None
    kept = []

    def ahead() -> None:
        if not on_gpu:
            built.call()
        kept.append(alive(device) - before)

    peak = peak_of(built.call, device, ahead)
    return kept[0] + peak
