"""Cases and systems for pytest-benchmark: one group for each, one benchmark a side."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterable
from dataclasses import asdict
from typing import Any

import torch

from sepfast.bench.case import Case, Size, computed
from sepfast.bench.cases import suite
from sepfast.bench.clocks import Function
from sepfast.bench.graphs import graph_of
from sepfast.bench.separating import Separation
from sepfast.bench.systems import System, errors_of
from sepfast.bench.training_step import TrainingStep
from sepfast.bench.verify import (
    agree,
    check,
    compiles,
    launched,
    path_of,
    side_function,
    sides,
    with_gradient,
)


def pairs(*operators: str) -> list[tuple[Case, str]]:
    """Every case of some operators with each of its sides, in sizes for this machine."""
    cases = [case for operator in operators for case in suite(_size(), operator)]
    device = _device()
    graph = device.type == "cuda"
    return [(case, side) for case in cases for side in sides(case, compiles(case, device), graph)]


def benchmark_side(benchmark: Any, case: Case, side: str) -> None:
    """Verify a side of a case, then time it.

    Args:
        benchmark: pytest-benchmark's fixture.
        case: the case.
        side: the side.

    Raises:
        WrongResult: where it does not compute what it is measured for.
    """
    device = _device()
    # What computes: a graph replays ours.
    own = "ours" if side == "graph" else side
    checked = check(case, "eager" if side == "compiled" else own, device)
    torch._dynamo.reset()
    tensors = case.inputs(case.shape, device)
    with warnings.catch_warnings():
        if side == "compiled":
            warnings.simplefilter("ignore")  # PyTorch's compiler warns of PyTorch
        functions = {name: side_function(case, name) for name in ("eager", own)}
        agree(case, functions, tensors)
    call = with_gradient(computed(case, side)[0], functions[own], tensors)
    if side == "graph":
        call = graph_of(case, call, device)
    synchronised = _synchronised(call, device)
    with launched() as kernels:
        synchronised()
    path = {"ours": path_of(case, kernels), "graph": "as ours"}.get(side, "pytorch")
    benchmark.group = case.name
    benchmark.extra_info |= {
        "path": path,
        "error": checked.error,
        "gradient_error": checked.gradient_error,
        **asdict(case.work(case.shape)),
    }
    benchmark.pedantic(synchronised, rounds=9, warmup_rounds=1)


def system_pairs(
    every: Callable[[Size], Iterable[TrainingStep | Separation]],
) -> list[tuple[System, str]]:
    """Every system with each of its sides, in sizes for this machine."""
    return [(system, side) for system in every(_size()) for side in system.sides(_device())]


def benchmark_system(benchmark: Any, system: System, side: str) -> None:
    """Verify a side of a system, then time it.

    Args:
        benchmark: pytest-benchmark's fixture.
        system: the system.
        side: the side.

    Raises:
        WrongResult: where it does not compute what "eager" does.
    """
    device = _device()
    torch._dynamo.reset()
    true = system.build("eager", device).result()
    with warnings.catch_warnings():
        if side == "compiled":
            warnings.simplefilter("ignore")  # PyTorch's compiler warns of PyTorch
        built = system.build(side, device)
        for _ in range(built.warm):
            built.call()
        errors = errors_of(system, side, built.result(), true)
        benchmark.group = system.name
        benchmark.extra_info |= {"errors": errors, **asdict(system.work())}
        benchmark.pedantic(_synchronised(built.call, device), rounds=5, warmup_rounds=1)


def _synchronised(call: Function, device: torch.device) -> Function:
    def whole() -> None:
        call()
        if device.type == "cuda":
            torch.cuda.synchronize(device)

    return whole


def _size() -> Size:
    return "full" if _device().type == "cuda" else "small"


def _device() -> torch.device:
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")
