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

from collections.abc import Iterable, Mapping
from typing import Any, Protocol

import torch

from sepfast.bench.case import Case, Tensors, computed, demand
from sepfast.bench.clocks import Ceilings, Clock, Function, Timing, interleaved, percentiles
from sepfast.bench.graphs import graph_of
from sepfast.bench.peaks import held, peak_of
from sepfast.bench.results import OURS, Row
from sepfast.bench.verify import (
    Called,
    Checked,
    agree,
    check,
    launched,
    path_of,
    side_function,
    with_gradient,
)
from sepfast.bench.work import Work

#: Sides held to another one instead of float64: to "eager", and to "ours".
_HELD_OTHERWISE = ("compiled", "graph")


def measure(
    case: Case,
    device: torch.device,
    clock: Clock,
    most: Ceilings,
    sides: Iterable[str],
    *,
    seconds: float = 1.0,
    rounds: tuple[int, int] = (5, 100),
    scale: float = 1.0,
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
        scale: of the case's shape, for the rows.

    Returns:
        A row for each side.

    Raises:
        WrongResult: where a side does not compute what it is measured for; nothing is timed then.
        FailedSide: where "graph" cannot be recorded.
    """
    sides = list(sides)
    checked = {side: check(case, side, device) for side in sides if side not in _HELD_OTHERWISE}
    torch._dynamo.reset()  # what was compiled for other shapes counts towards a limit
    torch.manual_seed(0)
    tensors = case.inputs(case.shape, device)
    functions = {side: side_function(case, side) for side in sides if side != "graph"}
    agree(case, functions, tensors)
    calls = {side: _call_of(case, side, f, tensors) for side, f in functions.items()}
    with launched() as kernels:
        if "ours" in calls:
            calls["ours"]()
    ran = sorted(set(kernels))
    peaks = {side: _peak(case, side, f, tensors, device) for side, f in functions.items()}
    if "graph" in sides:
        graph = graph_of(case, with_gradient(case, functions["ours"], tensors), device)
        calls["graph"], peaks["graph"] = graph, held(tensors.values()) + graph.peak
    timings = interleaved(calls, clock, seconds=seconds, rounds=rounds)
    return [
        row_of(
            case, side, timings,
            shapes=_shapes(tensors),
            path=path_of(case, ran) if side in OURS else "pytorch",
            kernels=ran if side in OURS else [],
            work=case.work(case.shape),
            most=most,
            products=case.products,
            peak=peaks[side],
            errors=_errors(checked.get(side)),
            scale=scale,
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
    scale: float = 1.0,
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
        scale=scale,
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


def _call_of(case: Case, side: str, function: Called, tensors: Tensors) -> Function:
    return with_gradient(computed(case, side)[0], function, tensors)


def _peak(case: Case, side: str, function: Called, tensors: Tensors, device: torch.device) -> int:
    """Bytes that a call holds at most, with its inputs; the gradients that it is given, too."""
    if side == "compiled":
        _call_of(case, side, function, tensors)()  # its backward is compiled when first called
    return held(tensors.values()) + peak_of(_call_of(case, side, function, tensors), device)
