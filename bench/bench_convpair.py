"""DeepConvSep's convolution pairs, either way: ours, the reference, the same compiled.

    pytest bench/bench_convpair.py

Each is held to the reference in float64 before it is timed.
"""

import pytest

from sepfast.bench.pytest_sides import benchmark_side, pairs


@pytest.mark.parametrize(
    ("case", "side"), pairs("conv_pair", "deconv_pair", "horizontal_deconv"), ids=str
)
def test_convpair(benchmark, case, side):
    benchmark_side(benchmark, case, side)
