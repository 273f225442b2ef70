"""Shares of a mixture to samples: ours, the reference, the same compiled, and cuFFT.

    pytest bench/bench_masked_istft.py

Each is held to the reference in float64 before it is timed.
"""

import pytest

from sepfast.bench.pytest_sides import benchmark_side, pairs


@pytest.mark.parametrize(("case", "side"), pairs("masked_istft"), ids=str)
def test_masked_istft(benchmark, case, side):
    benchmark_side(benchmark, case, side)
