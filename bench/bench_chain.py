"""Samples to magnitudes, estimates to shares, shares to stems: ours and others' side by side.

    pytest bench/bench_chain.py

Each is held to the reference in float64 before it is timed.
"""

import pytest

from sepfast.bench.pytest_sides import benchmark_side, pairs


@pytest.mark.parametrize(("case", "side"), pairs("chain"), ids=str)
def test_chain(benchmark, case, side):
    benchmark_side(benchmark, case, side)
