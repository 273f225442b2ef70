"""Time of functions, taken in turns so that they share whatever the machine goes through."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple, Protocol

import numpy as np
import torch

Function = Callable[[], Any]


class Timing(NamedTuple):
    """One call.

    Attributes:
        seconds: that it took on the device.
        host: seconds after which Python had control again; the device may work on.
    """

    seconds: float
    host: float


class Clock(Protocol):
    """What takes the time of a call."""

    def run(self, function: Function) -> Callable[[], Timing]:
        """Call a function; what is returned gives its time, once all is called."""


class HostClock:
    """Time on the CPU.

    Args:
        now: seconds since whenever.
    """

    def __init__(self, now: Callable[[], float] = time.perf_counter) -> None:
        self._now = now

    def run(self, function: Function) -> Callable[[], Timing]:
        """Call a function and take its time."""
        start = self._now()
        function()
        taken = self._now() - start
        return lambda: Timing(taken, taken)


class DeviceClock:
    """Time on a GPU, by events, with a cold L2.

    Memory is overwritten before each call: the L2 then holds nothing of the inputs, and the host
    has put the call in the queue by the time the GPU comes to it, so that the GPU's own time is
    taken and not the host's.

    Args:
        device: the GPU.
        flushed: bytes that are overwritten.
    """

    def __init__(self, device: torch.device, flushed: int = 2**30) -> None:
        self._flushed = torch.empty(flushed // 4, dtype=torch.int32, device=device)

    def run(self, function: Function) -> Callable[[], Timing]:
        """Call a function; its time is known when the GPU is done."""
        start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        self._flushed.zero_()
        start.record()
        begin = time.perf_counter()
        function()
        host = time.perf_counter() - begin
        end.record()

        def read() -> Timing:
            end.synchronize()
            return Timing(start.elapsed_time(end) / 1e3, host)

        return read


def clock_for(device: torch.device) -> Clock:
    """The clock of a device."""
    return DeviceClock(device) if device.type == "cuda" else HostClock()


def interleaved(
    functions: Mapping[str, Function],
    clock: Clock,
    *,
    seconds: float,
    rounds: tuple[int, int] = (5, 100),
    warm: int = 2,
) -> dict[str, list[Timing]]:
    """Times of functions, each called once a round.

    Args:
        functions: the functions by name.
        clock: takes the time of a call.
        seconds: no round begins later.
        rounds: but so many are made at least, and so many at most.
        warm: rounds ahead of these, which do not count.
    """
    for _ in range(warm):
        for function in functions.values():
            clock.run(function)()
    timings: dict[str, list[Timing]] = {name: [] for name in functions}
    stop = time.perf_counter() + seconds
    for done in range(rounds[1]):
        if done >= rounds[0] and time.perf_counter() > stop:
            break
        read = {name: clock.run(function) for name, function in functions.items()}
        for name in functions:
            timings[name].append(read[name]())
    return timings


def percentiles(values: list[float]) -> tuple[float, float, float]:
    """The 20th, 50th and 80th, linear between neighbours."""
    low, middle, high = np.percentile(values, (20, 50, 80))
    return float(low), float(middle), float(high)


class Ceilings(NamedTuple):
    """What a device does at best, measured.

    Attributes:
        copy: bytes a second, read and written, of a large copy.
        single: operations a second of a large float32 product; TF32 on a GPU.
        half: the same in bf16; None on a CPU.
    """

    copy: float
    single: float
    half: float | None

    def matrix(self, demand: str) -> float:
        """Operations a second of matrix products, at a float32 precision demanded.

        On a GPU, `highest` takes three TF32 products for each; on a CPU all are float32.
        """
        return self.single / 3 if self.half is not None and demand == "highest" else self.single


def ceilings(device: torch.device, clock: Clock) -> Ceilings:
    """Measure the ceilings of a device."""
    on_gpu = device.type == "cuda"
    length, side = (2**28, 8192) if on_gpu else (2**23, 768)
    copy = _copied(length, device, clock)
    demand = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision("high")
    try:
        single = _product(side, torch.float32, device, clock)
    finally:
        torch.set_float32_matmul_precision(demand)
    half = _product(side, torch.bfloat16, device, clock) if on_gpu else None
    return Ceilings(copy, single, half)


def _copied(length: int, device: torch.device, clock: Clock) -> float:
    source = torch.zeros(length, device=device)
    target = torch.empty_like(source)
    return 2 * 4 * length / _median(lambda: target.copy_(source), clock)


def _product(side: int, dtype: torch.dtype, device: torch.device, clock: Clock) -> float:
    a, b = torch.randn(2, side, side, device=device).to(dtype)
    out = torch.empty_like(a)
    return 2 * side**3 / _median(lambda: torch.mm(a, b, out=out), clock)


def _median(function: Function, clock: Clock) -> float:
    timings = interleaved({"it": function}, clock, seconds=0.5, rounds=(5, 30))["it"]
    return percentiles([t.seconds for t in timings])[1]
