"""Magnitudes from samples: ours, the reference, the same compiled, and cuFFT.

    pytest bench/bench_stft_magnitude.py

Each is held to the reference in float64 before it is timed.
"""

import pytest

from sepfast.bench.pytest_sides import benchmark_side, pairs


@pytest.mark.parametrize(("case", "side"), pairs("stft_magnitude"), ids=str)
def test_stft_magnitude(benchmark, case, side):
    benchmark_side(benchmark, case, side)
