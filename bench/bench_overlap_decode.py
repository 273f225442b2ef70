"""A track's contexts decoded, masked and cross-faded: ours, the reference, all at once.

    pytest bench/bench_overlap_decode.py

Each is held to the reference in float64 before it is timed.
"""

import pytest

from sepfast.bench.pytest_sides import benchmark_side, pairs


@pytest.mark.parametrize(("case", "side"), pairs("overlap_decode"), ids=str)
def test_overlap_decode(benchmark, case, side):
    benchmark_side(benchmark, case, side)
