"""Softplus, normalisation and dropout: ours, the reference, PyTorch's own layers, compiled.

    pytest bench/bench_softplus_norm.py

Each is held to the reference in float64 before it is timed.
"""

import pytest

from sepfast.bench.pytest_sides import benchmark_side, pairs


@pytest.mark.parametrize(("case", "side"), pairs("softplus_norm"), ids=str)
def test_softplus_norm(benchmark, case, side):
    benchmark_side(benchmark, case, side)
