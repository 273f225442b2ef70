"""Some steps of training, and where their time went.

Warm-up steps come first, without ranges. The steps that are timed follow with nothing beside them
but a clock at both ends of each range; the last ones run under PyTorch's profiler, which slows down
small operators more than large ones and is asked for the device's time alone.

The backward runs on the thread that asks for it, so that its ranges are inside the step's; on a
GPU it would have one of its own.
"""

from __future__ import annotations

import importlib.util
import json
import platform
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from time import perf_counter
from typing import Any

import torch

from sepfast.device import pick_device
from sepfast.errors import InputError
from sepfast.files import PathLike, atomic
from sepfast.ops.ranges import enable_ranges
from sepfast.profiling.shares import Row, Stopwatch, rows
from sepfast.profiling.subject import Built, Subject, built
from sepfast.profiling.trace import Function, Trace, traced
from sepfast.training.history import Report, Silent

#: Steps that are traced, on a GPU and on a CPU: a trace of many is slow to look at, and to make.
_TRACED, _TRACED_ON_CPU = 2, 1
#: Files of a profile.
TRACE, TABLE, SUMMARY = "trace.json", "functions.txt", "summary.json"


@dataclass(frozen=True)
class Profile:
    """Where the time of some steps went.

    Attributes:
        name: of the configuration.
        model: its model's name.
        device: in words.
        path: what the operators ran.
        batch_size: examples a step.
        steps: that were timed.
        seconds: of a step, their mean.
        rows: shares of the host's time.
        device_rows: shares of the time of kernels; none on a CPU.
        busy: the share of the steps in which the GPU had a kernel to run; None on a CPU.
        functions: PyTorch's, those that take most first.
        notes: in what this is not the training run, a sentence each.
    """

    name: str
    model: str
    device: str
    path: str
    batch_size: int
    steps: int
    seconds: float
    rows: list[Row]
    device_rows: list[Row]
    busy: float | None
    functions: list[Function]
    notes: tuple[str, ...]


def profile(
    subject: Subject,
    output: PathLike | None,
    *,
    data: PathLike | None = None,
    steps: int | None = None,
    warm: int | None = None,
    device: str | None = None,
    fused: bool = True,
    batch_size: int | None = None,
    commands: Sequence[str] = (),
    report: Report | None = None,
) -> Profile | None:
    """Take some steps of a training run, and see where their time goes.

    Args:
        subject: the configuration.
        output: a new folder for the trace, the table and the summary. None: take the steps with
            the ranges on, for another profiler to see, and write nothing.
        data: as `train_folder` takes it; None for made-up recordings.
        steps: that are timed, at least 1; None for 3 on a CPU and 10 on a GPU.
        warm: steps before, 0 or more; None for 1 on a CPU and 5 on a GPU, behind which a captured
            step is there.
        device: where; None for the GPU where there is one.
        fused: whether layers run fused.
        batch_size: examples a step; None for the configuration's, on a CPU fewer.
        commands: what else looks at this run, to be kept in the summary.
        report: is told how far it is.

    Returns:
        What was seen; None without `output`.

    Raises:
        InputError: for numbers out of range, a folder that is there already, and as
            `train_folder` does.
    """
    report, place = report or Silent(), pick_device(device)
    of_cpu = place.type == "cpu"
    steps = (3 if of_cpu else 10) if steps is None else steps
    warm = (1 if of_cpu else 5) if warm is None else warm
    _check(
        steps=(steps, 1), warm=(warm, 0), batch_size=(1 if batch_size is None else batch_size, 1)
    )
    folder = None if output is None else _unused(Path(output))
    subject, notes = subject.sized(batch_size, place)
    with TemporaryDirectory(prefix="sepfast-") as room, _alone(place):
        given = None if data is None else Path(data)
        made = built(subject, given, Path(room), place, report, fused=fused)
        few = 0 if folder is None else min(steps, _TRACED_ON_CPU if of_cpu else _TRACED)
        take = _Taking(made, report, warm + steps + few)
        try:
            take(warm)
            watch, seconds = _timed(take, steps, place, clock=folder is not None)
            if folder is None:
                return None
            trace = _traced(take, few, place, folder / TRACE)
        finally:
            enable_ranges(False)
            # A loader's processes end with it.
            made.steps.close()
    found = Profile(
        subject.name,
        subject.model,
        _device_words(place),
        _path_words(place, fused=fused),
        subject.options.batch_size,
        steps,
        seconds / steps,
        rows(watch.spans),
        rows(trace.device),
        _busy(trace, few * seconds / steps),
        trace.functions,
        (*notes, *made.notes),
    )
    _write(folder, found, trace, commands)
    return found


def _check(**given: tuple[int, int]) -> None:
    """Raise for a number below its least."""
    for name, (value, least) in given.items():
        if value < least:
            raise InputError(f"{name}: got {value}, takes {least} or more")


def _unused(folder: Path) -> Path:
    if folder.exists():
        raise InputError(f"{folder}: is there already, takes a new folder")
    return folder


@contextmanager
def _alone(device: torch.device) -> Iterator[None]:
    """Leave the random numbers as they are, and have the backward on this thread."""
    devices = [device] if device.type == "cuda" else []
    with torch.random.fork_rng(devices), torch.autograd.set_multithreading_enabled(False):
        yield


class _Taking:
    """Takes steps, and says how many are done."""

    def __init__(self, made: Built, report: Report, total: int) -> None:
        self._made, self._report, self._total, self._done = made, report, total, 0

    def __call__(self, steps: int) -> None:
        for _ in range(steps):
            next(self._made.steps)
            self._done += 1
            self._report.progress("training", self._done, self._total)


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def _timed(
    take: _Taking, steps: int, device: torch.device, *, clock: bool
) -> tuple[Stopwatch, float]:
    """Steps with their ranges, and how long they took, the last kernel included.

    Without a clock, which is for others to have, the ranges have PyTorch's profiler beside NVTX.
    """
    watch = Stopwatch()
    _wait(device)
    enable_ranges(also=watch if clock else None)
    began = perf_counter()
    take(steps)
    _wait(device)
    return watch, perf_counter() - began


def _traced(take: _Taking, steps: int, device: torch.device, path: Path) -> Trace:
    enable_ranges()
    return traced(lambda: take(steps), device, path)


def _busy(trace: Trace, seconds: float) -> float | None:
    """The share of some seconds in which the GPU had a kernel to run."""
    used = sum(span.time for span in trace.device.values()) / 1e6
    return min(used / seconds, 1.0) if used else None


def _device_words(device: torch.device) -> str:
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    threads = torch.get_num_threads()
    return f"{device.type}, {threads} thread{'s' * (threads > 1)}"


def _path_words(device: torch.device, *, fused: bool) -> str:
    """What runs inside the operators."""
    if device.type == "cuda" and importlib.util.find_spec("triton") is not None:
        ran = "Triton kernels, where an operator has one for its arguments"
    else:
        ran = "PyTorch"
    return ran if fused else f"{ran}; layers are not fused"


def _write(folder: Path, found: Profile, trace: Trace, commands: Sequence[str]) -> None:
    """The summary, and PyTorch's table."""
    machine = {"platform": platform.platform(), "torch": torch.__version__}
    summary: dict[str, Any] = {**asdict(found), "machine": machine, "commands": list(commands)}
    with atomic(folder / SUMMARY) as temporary:
        temporary.write_text(json.dumps(summary, indent=2, ensure_ascii=False) + "\n", "utf-8")
    with atomic(folder / TABLE) as temporary:
        temporary.write_text(trace.table + "\n", "utf-8")
