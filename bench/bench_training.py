"""The training step of systems A and B: ours, in a CUDA graph, the plain way, that compiled.

    pytest bench/bench_training.py

Forward, backward and Adadelta on magnitudes that are there. Each is held to the plain way, loss,
gradients and weights behind a step, before it is timed.
"""

import pytest

from sepfast.bench.pytest_sides import benchmark_system, system_pairs
from sepfast.bench.training_step import steps


@pytest.mark.parametrize(("system", "side"), system_pairs(steps), ids=str)
def test_training_step(benchmark, system, side):
    benchmark_system(benchmark, system, side)
