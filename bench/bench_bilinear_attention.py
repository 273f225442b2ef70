"""System C's attention, forward and with its gradients: ours, the reference, PyTorch's
`scaled_dot_product_attention`, the reference compiled.

    pytest bench/bench_bilinear_attention.py

Each is held to the reference in float64 before it is timed.
"""

import pytest

from sepfast.bench.pytest_sides import benchmark_side, pairs


@pytest.mark.parametrize(("case", "side"), pairs("bilinear_attention"), ids=str)
def test_bilinear_attention(benchmark, case, side):
    benchmark_side(benchmark, case, side)
