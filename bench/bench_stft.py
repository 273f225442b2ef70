"""The STFT and its inverse: ours, the reference, the same compiled, and cuFFT.

    pytest bench/bench_stft.py

Each is held to the reference in float64 before it is timed.
"""

import pytest

from sepfast.bench.pytest_sides import benchmark_side, pairs


@pytest.mark.parametrize(("case", "side"), pairs("stft", "istft"), ids=str)
def test_stft(benchmark, case, side):
    benchmark_side(benchmark, case, side)
