"""The search for configurations: for each kernel and key, what is near the shipped one, timed.

What is found is written in the format of `kernels/tuned/`, for this GPU alone. One constant is
changed at a time, from the best so far: a dozen candidates a key, of which each is compiled, held
to PyTorch in float64, and timed. A key that is not shipped is tried too; its winner is written
where it beats PyTorch.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from sepfast import ops
from sepfast.bench.case import demand
from sepfast.bench.clocks import Clock, interleaved, percentiles
from sepfast.bench.tuning_jobs import Config, Job, prepare
from sepfast.bench.verify import demanded
from sepfast.files import atomic
from sepfast.ops.accuracy import ACCURACY, relative_error

#: What is tried in place of a constant; None for twice and half the best so far.
_CHOICES: dict[str, tuple[int, ...] | None] = {
    "FRAMES": None,
    "SOURCES": (1, 2, 4),
    "BLOCK": None,
    "TILE": None,
    "ROWS": None,
    "COLUMNS": None,
    "BINS": None,
    "DEPTH": None,
    "STEP": None,
    "FILTERS": None,
    "FEATURES": None,
    "UNITS": None,
    "HELD": (0, 1),
    "BANDS": (2, 4, 8),
    "SEGMENTS": (16, 32, 64, 128),
    "num_warps": (4, 8),
    "BLOCKS": (4, 8, 16, 32),
    "num_stages": (1, 2, 3),
}
#: The least of these: operands of matrix products have 16 rows, columns and terms.
_PRODUCTS = ("ROWS", "COLUMNS", "BINS", "DEPTH", "STEP", "FILTERS", "FEATURES", "UNITS")
_LEAST = dict.fromkeys(_PRODUCTS, 16)
#: Stages held to the bound of an operator's result; others make gradients.
_RESULTS = (
    "forward", "compact", "inverse", "sliding", "vertical", "horizontal", "scores", "context",
    "product",
)  # fmt: skip
#: The modules that ask whether a kernel is shipped, each of which has the function by name.
_ASKING = (
    "kernels._product", "ops._framing", "ops._products", "ops._sliding",
    "ops.linear_soft_mask_loss", "ops.masked_istft", "ops.overlap_decode",
)  # fmt: skip
_DEMANDS = {"tf32x3": "highest", "tf32": "high", "ieee": "highest"}


@dataclass(frozen=True)
class Found:
    """What a sweep found.

    Attributes:
        kernel, key: of the job.
        config: the fastest that is right; None where there is none.
        p50_ms: its time.
        shipped: the shipped configuration, None where there is none.
        shipped_ms: its time, or PyTorch's where nothing is shipped.
        tried: how many were tried.
        failed: those that did not compile or were wrong, and why.
    """

    kernel: str
    key: Mapping[str, Any]
    config: Config | None
    p50_ms: float
    shipped: Config | None
    shipped_ms: float
    tried: int
    failed: list[str]


def sweep(
    job: Job, device: torch.device, clock: Clock, late: Callable[[], bool], frames: int = 10_000
) -> Found:
    """Search near a job's configuration.

    Args:
        job: the job.
        device: where it runs; the CPU in Triton's interpreter.
        clock: the device's.
        late: whether to stop; asked between candidates.
        frames: frames of each of two rows that it is timed on.
    """
    torch.manual_seed(0)
    with demanded(_DEMANDS.get(str(job.key.get("precision")), "highest")), torch.no_grad():
        run, tensors = prepare(job, frames, device)
        true = run({name: x.double() for name, x in tensors.items()})
        trial = _Trial(job, lambda: run(tensors), true, clock)
        trial.take(job.start)
        for name, choices in _CHOICES.items():
            for value in _values(name, choices, trial.best or job.start):
                if not late():
                    trial.take({**(trial.best or job.start), name: value})
        return trial.found()


class _Trial:
    """Candidates of one job, and the best so far."""

    def __init__(self, job: Job, call: Callable[[], Tensor], true: Tensor, clock: Clock) -> None:
        self.job, self.call, self.true, self.clock = job, call, true, clock
        self.best: Config | None = None
        self.times: dict[str, float] = {}
        self.failed: list[str] = []

    def take(self, config: Config) -> None:
        """Compile, verify and time a configuration."""
        name = json.dumps(config, sort_keys=True)
        if name in self.times:
            return
        self.times[name] = float("inf")
        try:
            with configured(self.job.kernel, config), ops.use_backend("triton"):
                error = relative_error(self.call(), self.true)
                if not error <= self._bound():
                    self.failed.append(f"{name}: off by {error:.2g}")
                    return
                self.times[name] = self._time()
        except Exception as reason:  # whatever Triton raises for what does not fit
            self.failed.append(f"{name}: {type(reason).__name__}: {str(reason)[:200]}")
            return
        if self.best is None or self.times[name] < self._of(self.best):
            self.best = config

    def found(self) -> Found:
        """The fastest; the shipped one stands where the gain is within the noise."""
        job = self.job
        if job.known:
            usual = self._of(job.start)
            if self.best is not None and self._of(self.best) > 0.98 * usual:
                self.best = job.start
        else:
            with ops.use_backend("reference"):
                usual = self._time()
            if self.best is not None and self._of(self.best) > usual:
                self.best = None
        return Found(
            job.kernel,
            job.key,
            self.best,
            1e3 * (self._of(self.best) if self.best is not None else float("inf")),
            job.start if job.known else None,
            1e3 * usual,
            len(self.times),
            self.failed,
        )

    def _of(self, config: Config) -> float:
        return self.times[json.dumps(config, sort_keys=True)]

    def _time(self) -> float:
        timings = interleaved({"it": self.call}, self.clock, seconds=0.1, rounds=(5, 30))["it"]
        return percentiles([t.seconds for t in timings])[1]

    def _bound(self) -> float:
        operator, stage = self.job.stage.rsplit("_", 1)
        bound = ACCURACY[operator][demand()]
        return bound.forward if stage in _RESULTS else bound.backward


@contextmanager
def configured(kernel: str, config: Config) -> Iterator[None]:
    """Launch a kernel in a configuration, whatever is shipped."""
    from sepfast.kernels import launch

    asking: list[Any] = [import_module(f"sepfast.{name}") for name in _ASKING]
    lookup, has_config = launch.lookup, asking[0].has_config

    def chosen(name: str, device: torch.device, **key: Any) -> Mapping[str, int]:
        return config if name == kernel else lookup(name, device, **key)

    replaced: Any = launch
    replaced.lookup = chosen
    for module in asking:
        module.has_config = lambda *args, **key: True
    try:
        yield
    finally:
        replaced.lookup = lookup
        for module in asking:
            module.has_config = has_config


def write_tuned(folder: Path, device: str, found: list[Found]) -> None:
    """Write the winners, a file for each kernel, in the format of `kernels/tuned/`.

    Args:
        folder: where to.
        device: as tuned files name it, "cuda:90".
        found: all results.
    """
    for kernel in {each.kernel for each in found if each.config is not None}:
        entries = [
            json.dumps({"device": device, "key": dict(each.key), "config": each.config})
            for each in found
            if each.kernel == kernel and each.config is not None
        ]
        with atomic(folder / f"{kernel}.json") as path:
            path.write_text("[\n  " + ",\n  ".join(entries) + "\n]\n")


def _values(name: str, choices: tuple[int, ...] | None, best: Config) -> list[int]:
    """What to try for a constant, if the kernel has it."""
    if name not in best:
        # Elementwise kernels ship no num_stages, which they have no use for.
        return []
    now = best[name]
    if choices is None:
        return [value for value in (2 * now, now // 2) if value >= _LEAST.get(name, 1)]
    return [value for value in choices if value != now]
