"""The cases for pytest-benchmark: one group a case, one benchmark a side."""

from __future__ import annotations

import warnings
from dataclasses import asdict
from typing import Any

import torch

from sepfast.bench.cases import Case, Size, suite
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
    size: Size = "full" if _device().type == "cuda" else "small"
    cases = [case for operator in operators for case in suite(size, operator)]
    device = _device()
    return [(case, side) for case in cases for side in sides(case, compiles(case, device))]


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
    checked = check(case, "eager" if side == "compiled" else side, device)
    torch._dynamo.reset()
    tensors = case.inputs(case.shape, device)
    with warnings.catch_warnings():
        if side == "compiled":
            warnings.simplefilter("ignore")  # PyTorch's compiler warns of PyTorch
        functions = {name: side_function(case, name) for name in ("eager", side)}
        agree(case, functions, tensors)
    call = with_gradient(case, functions[side], tensors)

    def synchronised() -> None:
        call()
        if device.type == "cuda":
            torch.cuda.synchronize(device)

    with launched() as kernels:
        synchronised()
    path = path_of(case, kernels) if side == "ours" else "pytorch"
    benchmark.group = case.name
    benchmark.extra_info |= {
        "path": path,
        "error": checked.error,
        "gradient_error": checked.gradient_error,
        **asdict(case.work(case.shape)),
    }
    benchmark.pedantic(synchronised, rounds=9, warmup_rounds=1)


def _device() -> torch.device:
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")
