"""System D's recurrent layers, forward and with their gradients: ours, the reference, which loops
in Python, the same with its step compiled on a GPU, and PyTorch's own layer, which has no peepholes
and is cuDNN's on a GPU.

    pytest bench/bench_lstm.py

Each is held to the reference in float64 before it is timed; PyTorch's own, beside a layer with
peepholes, to the reference without them.
"""

import pytest

from sepfast.bench.pytest_sides import benchmark_side, pairs


@pytest.mark.parametrize(("case", "side"), pairs("lstm"), ids=str)
def test_lstm(benchmark, case, side):
    benchmark_side(benchmark, case, side)
