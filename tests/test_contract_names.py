"""Names of every operator: its ranges in a profile and its kernels."""

import re
import sys
from contextlib import contextmanager

import pytest
import torch
from contract import evaluate, launches
from contract_cases import CASES

from sepfast import ops

pytestmark = [
    pytest.mark.parametrize("case", CASES, ids=str),
    pytest.mark.usefixtures("one_thread"),
]


def test_ranges_are_off_unless_asked_for(case, ranges):
    evaluate(case, case.make())
    assert ranges == []


def test_ranges_are_named_as_operators_forward_and_backward(case, place, ranges):
    ops.enable_ranges()
    evaluate(case, case.make(device=place.device))
    assert ranges[0] == case.operator
    assert f"{case.operator}_backward" in ranges[1:]


def test_ranges_are_pytorchs_own_without_nvtx(case, ranges, monkeypatch):
    monkeypatch.setitem(sys.modules, "nvtx", None)
    names = []

    @contextmanager
    def of_pytorch(name):
        names.append(name)
        yield

    monkeypatch.setattr("torch.cuda.nvtx.range", of_pytorch)
    monkeypatch.setattr("torch.version.cuda", "13.0")  # builds for a CPU have none
    ops.enable_ranges()
    evaluate(case, case.make())
    assert names[0] == f"sepfast:{case.operator}"
    assert ranges == []


def test_ranges_break_no_graph(case, ranges):
    ops.enable_ranges()
    torch._dynamo.reset()
    compiled = torch.compile(case.call, fullgraph=True, backend="aot_eager")
    evaluate(case, case.make(), function=compiled)


def test_kernels_are_named_as_operators(case, kernels):
    with launches() as launched:
        evaluate(case, case.make(device=kernels.device))
    assert launched
    for launch in launched:
        operator, stage = re.fullmatch(r"sepfast_(\w+)_([a-z]+)", launch.kernel).groups()
        assert hasattr(ops, operator)
        assert stage
