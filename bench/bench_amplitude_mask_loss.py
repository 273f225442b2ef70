"""System D's loss: ours, the reference, the same compiled.

    pytest bench/bench_amplitude_mask_loss.py

Each is held to the reference in float64 before it is timed.
"""

import pytest

from sepfast.bench.pytest_sides import benchmark_side, pairs


@pytest.mark.parametrize(("case", "side"), pairs("amplitude_mask_loss"), ids=str)
def test_amplitude_mask_loss(benchmark, case, side):
    benchmark_side(benchmark, case, side)
