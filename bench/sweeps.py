"""A case of each family of operators at several scales: where ours begins to win, or to lose."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import lru_cache

from sepfast.bench.case import Case, Size
from sepfast.bench.cases import suite
from sepfast.bench.workloads import Workload

#: What is swept, the most important first.
SWEPT = (
    "song/masked_istft",
    "song/stft_magnitude",
    "training/linear_soft_mask_loss+gradient",
    "song/overlap_decode",
    "song/conv_pair",
    "fragments/bilinear_attention",
    "landmarks/lstm-peephole-b32",
    "style-transfer/softplus_norm",
)

#: The largest scale by workload: on a CPU that of calls of about a second.
_CPU_TOPS = {
    "song": 1 / 8,
    "training": 1.0,
    "fragments": 1 / 8,
    "landmarks": 1.0,
    "style-transfer": 1 / 8,
}
_GPU_TOP = 4.0

#: Scales below the largest one and with it, each twice the one before.
_DOUBLINGS = {"full": 7, "small": 5, "quick": 2}


@dataclass(frozen=True)
class Point:
    """A case at a scale.

    Attributes:
        case: the case in that shape.
        scale: of the workload's own size.
    """

    case: Case
    scale: float

    def __str__(self) -> str:
        return f"sweep of {self.case}, scale {self.scale:g}"


def points(size: Size, only: str = "") -> Iterator[Point]:
    """What a run sweeps, one case after the other, each from the smallest scale up.

    Args:
        size: "full" is that of a GPU, up to four times the workload.
        only: what a case's name must contain.
    """
    for name in (name for name in SWEPT if only in name):
        case = _full()[name]
        top = _GPU_TOP if size == "full" else _CPU_TOPS[name.split("/")[0]]
        if size == "quick":
            top /= 8
        for doubling in reversed(range(_DOUBLINGS[size])):
            scale = top / 2**doubling
            yield Point(replace(case, shape=_scaled(case.shape, scale)), scale)


def _scaled(shape: Workload, scale: float) -> Workload:
    """A workload at a scale: a song grows in length, a batch in rows, and below one in length."""
    if shape.rows <= shape.network.channels:
        return replace(shape, samples=round(shape.samples * scale))
    rows = shape.rows * scale
    return replace(shape, rows=max(1, round(rows)), samples=round(shape.samples * min(1, rows)))


def scale_of(case: Case) -> float:
    """What a case has of its workload's own lines and samples."""
    return _size(case.shape) / _size(_full()[case.name].shape)


def _size(shape: Workload) -> int:
    return shape.rows * shape.samples


@lru_cache(maxsize=1)
def _full() -> dict[str, Case]:
    return {case.name: case for case in suite("full")}
