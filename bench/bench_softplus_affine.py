"""Softplus and normalisation by fixed statistics: ours, the reference, PyTorch's own, compiled.

    pytest bench/bench_softplus_affine.py

Each is held to the reference in float64 before it is timed.
"""

import pytest

from sepfast.bench.pytest_sides import benchmark_side, pairs


@pytest.mark.parametrize(("case", "side"), pairs("softplus_affine"), ids=str)
def test_softplus_affine(benchmark, case, side):
    benchmark_side(benchmark, case, side)
