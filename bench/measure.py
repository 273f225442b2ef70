"""A case measured: verified, all sides timed in turns, and put beside the ceilings.

Example:
    >>> import torch
    >>> from sepfast.bench.cases import suite
    >>> from sepfast.bench.clocks import HostClock, ceilings
    >>> clock, cpu = HostClock(), torch.device("cpu")
    >>> case = suite("quick", "soft_mask")[0]
    >>> most = ceilings(cpu, clock)
    >>> rows = measure(case, cpu, clock, most, ["ours", "eager"], seconds=0.01)
    >>> [row.side for row in rows]
    ['ours', 'eager']
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any, Protocol

import torch

from sepfast.bench.case import Case, Tensors, computed, demand
from sepfast.bench.clocks import Ceilings, Clock, Timing, interleaved, percentiles
from sepfast.bench.results import Row
from sepfast.bench.verify import (
    Checked,
    agree,
    check,
    launched,
    path_of,
    side_function,
    with_gradient,
)
from sepfast.bench.work import Work


def measure(
    case: Case,
    device: torch.device,
    clock: Clock,
    most: Ceilings,
    sides: Iterable[str],
    *,
    seconds: float = 1.0,
    rounds: tuple[int, int] = (5, 100),
) -> list[Row]:
    """Time the sides of a case, "eager" among them.

    Args:
        case: the case.
        device: where it runs.
        clock: the device's.
        most: the device's ceilings.
        sides: the sides.
        seconds: for all of them together.
        rounds: the least and the most that are made, whatever the seconds.

    Returns:
        A row for each side.

    Raises:
        WrongResult: where a side does not compute what it is measured for; nothing is timed then.
    """
    sides = list(sides)
    checked = {side: check(case, side, device) for side in sides if side != "compiled"}
    torch._dynamo.reset()  # what was compiled for other shapes counts towards a limit
    resident = allocated(device)
    torch.manual_seed(0)
    tensors = case.inputs(case.shape, device)
    functions = {side: side_function(case, side) for side in sides}
    agree(case, functions, tensors)
    calls = {
        side: with_gradient(computed(case, side)[0], f, tensors) for side, f in functions.items()
    }
    with launched() as kernels:
        for side in ("ours",) if "ours" in calls else ():
            calls[side]()
    ran = sorted(set(kernels))
    peaks = {side: _peak(call, device, resident) for side, call in calls.items()}
    timings = interleaved(calls, clock, seconds=seconds, rounds=rounds)
    return [
        row_of(
            case, side, timings,
            shapes=_shapes(tensors),
            path=path_of(case, ran) if side == "ours" else "pytorch",
            kernels=ran if side == "ours" else [],
            work=case.work(case.shape),
            most=most,
            products=case.products,
            peak=peaks[side],
            errors=_errors(checked.get(side)),
        )
        for side in sides
    ]  # fmt: skip


class Measured(Protocol):
    """What rows are of, a case or a system."""

    @property
    def name(self) -> str: ...
    @property
    def operator(self) -> str: ...
    @property
    def gradient(self) -> bool: ...


def row_of(
    measured: Measured,
    side: str,
    timings: Mapping[str, list[Timing]],
    *,
    shapes: dict[str, list[int]],
    path: str,
    kernels: list[str],
    work: Work,
    most: Ceilings,
    products: bool,
    peak: int | None,
    errors: tuple[float | None, float | None],
) -> Row:
    """The row of a side, from the times of all sides; the rest is as `Row` has it."""
    medians = {name: _milliseconds(times)[1] for name, times in timings.items()}
    return Row(
        case=measured.name,
        operator=measured.operator,
        side=side,
        precision=demand(),
        gradient=measured.gradient,
        shapes=shapes,
        path=path,
        kernels=kernels,
        rounds=len(timings[side]),
        **_times(timings[side]),
        **_worth(work, most, medians[side], products),
        peak_bytes=peak,
        error=errors[0],
        gradient_error=errors[1],
        ratio_to_eager=medians["eager"] / medians[side] if "eager" in medians else None,
    )


def _times(timings: list[Timing]) -> dict[str, Any]:
    p20, p50, p80 = _milliseconds(timings)
    host = percentiles([1e3 * t.host for t in timings])[1]
    return {"p20_ms": p20, "p50_ms": p50, "p80_ms": p80, "host_ms": host}


def _milliseconds(timings: list[Timing]) -> tuple[float, float, float]:
    return percentiles([1e3 * t.seconds for t in timings])


def _worth(work: Work, most: Ceilings, median: float, products: bool) -> dict[str, Any]:
    """The work, and how much of the median it takes at least."""
    floor, bound = work.floor(most.copy, most.matrix(demand() if products else "high"))
    return {
        "least_bytes": work.least,
        "moved_bytes": work.moved,
        "requested_bytes": work.requested,
        "operations": work.needed,
        "bound": bound,
        "ceiling_percent": 1e5 * floor / median,
    }


def _errors(checked: Checked | None) -> tuple[float | None, float | None]:
    return (None, None) if checked is None else (checked.error, checked.gradient_error)


def _shapes(tensors: Tensors) -> dict[str, list[int]]:
    return {name: list(x.shape) for name, x in tensors.items()}


def allocated(device: torch.device) -> int:
    """Bytes of a GPU's memory that tensors take; 0 on a CPU."""
    return torch.cuda.memory_allocated(device) if device.type == "cuda" else 0


def _peak(call: Callable[[], Any], device: torch.device, resident: int) -> int | None:
    """Bytes that a call holds at most, beyond what was there before its inputs."""
    if device.type != "cuda":
        return None
    torch.cuda.reset_peak_memory_stats(device)
    call()
    torch.cuda.synchronize(device)
    return torch.cuda.max_memory_allocated(device) - resident
