"""Steps under PyTorch's profiler: a trace to look at, a table, and the device's time by range."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch.autograd import DeviceType
from torch.profiler import ProfilerActivity

from sepfast.files import atomic
from sepfast.muted import muted
from sepfast.ops.ranges import unprefixed
from sepfast.profiling.shares import Path as Ranges
from sepfast.profiling.shares import Span


@dataclass(frozen=True)
class Function:
    """A line of PyTorch's table.

    Attributes:
        name: of one of its functions, or of a kernel.
        share: of the time of all by themselves, on the device where there is one.
        calls: in all steps of the trace.
    """

    name: str
    share: float
    calls: int


@dataclass(frozen=True)
class Trace:
    """What the profiler saw.

    Attributes:
        device: the device's time by itself of each range, in microseconds; empty on a CPU.
        functions: of PyTorch, those that take most first.
        table: PyTorch's own, as text.
    """

    device: dict[Ranges, Span]
    functions: list[Function]
    table: str


def traced(work: Callable[[], None], device: torch.device, path: Path) -> Trace:
    """Do something under the profiler, and write the trace.

    Args:
        work: takes steps, with the ranges on.
        device: where the kernels run.
        path: a JSON file, for Perfetto or a browser's tracing page.
    """
    on_gpu = device.type == "cuda"
    activities = [ProfilerActivity.CPU, *([ProfilerActivity.CUDA] if on_gpu else [])]
    profiler = torch.profiler.profile(activities=activities, acc_events=True)
    with nullcontext() if on_gpu else muted():
        profiler.start()
    try:
        work()
        if on_gpu:
            torch.cuda.synchronize(device)
    finally:
        with nullcontext() if on_gpu else muted():
            profiler.stop()
    with atomic(path) as temporary:
        profiler.export_chrome_trace(str(temporary))
    averages: Any = profiler.key_averages()
    order = "self_device_time_total" if on_gpu else "self_cpu_time_total"
    table = averages.table(sort_by=order, row_limit=100, max_name_column_width=60)
    spans = device_spans(profiler.events() or []) if on_gpu else {}
    return Trace(spans, _functions(averages, order), table)


def device_spans(events: Iterable[Any]) -> dict[Ranges, Span]:
    """The device's time of each range by itself, from the profiler's events.

    A kernel is its launch's, and the launch the innermost range's around it on its thread.

    Args:
        events: as `torch.profiler.profile.events` gives them.
    """
    spans: dict[Ranges, Span] = defaultdict(Span)
    for event in events:
        if event.device_type != DeviceType.CPU:
            continue
        path = _path(event)
        if unprefixed(event.name) is not None:
            if path[0] == "step":
                spans[path].calls += 1
        elif event.kernels and path and path[0] == "step":
            spans[path].time += sum(kernel.duration for kernel in event.kernels)
    return spans


def _path(event: Any) -> Ranges:
    """The names of the ranges that an event is in, its own included."""
    names: list[str] = []
    while event is not None:
        name = unprefixed(event.name)
        names += [] if name is None else [name]
        event = event.cpu_parent
    return tuple(reversed(names))


def _functions(averages: Iterable[Any], order: str) -> list[Function]:
    """PyTorch's functions without the ranges, whose time is in a table of their own."""
    found = [each for each in averages if unprefixed(each.key) is None]
    total = sum(getattr(each, order) for each in found) or 1
    made = [Function(each.key, getattr(each, order) / total, each.count) for each in found]
    return sorted(made, key=lambda function: -function.share)
