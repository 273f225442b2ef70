"""What a case is: an operator in a shape, with what to call it with and what it has to do."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, Literal, cast

import torch
from torch import Tensor

from sepfast.bench.work import Work
from sepfast.bench.workloads import WORKLOADS, Workload
from sepfast.ops.accuracy import ACCURACY, Bound, Precision

Tensors = dict[str, Tensor]
#: What tuning times: an operator that launches a kernel, and the tensors to call it with.
Prepared = tuple[Callable[[Tensors], Tensor], Tensors]
Output = Tensor | tuple[Tensor, ...]
Size = Literal["full", "small", "quick"]
SIZES: tuple[Size, ...] = ("full", "small", "quick")

#: The side that is PyTorch's own layer, and what it is called beside a case that it cannot compute.
#: Results keep the names that it has on a GPU; on a CPU PyTorch runs code of its own there.
OWN_LAYER, BESIDE = "cudnn", "cudnn without peepholes"

#: Workload -> rows and samples on a CPU: for seconds a case, and for next to nothing.
_SMALLER = {
    "song": ((2, 10 * 44100), (2, 44100)),
    "song-mono": ((1, 10 * 44100), (1, 44100)),
    "training": ((2 * 2 * 2, 28 * 256), (2, 28 * 256)),
    "style-transfer": ((2, 8000), (1, 2000)),
    "fragments": ((2, 131_584), (1, 16_000)),
    "landmarks": ((8, 48000), (2, 16000)),
}


@dataclass(frozen=True)
class Case:
    """An operator in one shape.

    Attributes:
        name: `workload/operator`, with what sets it apart from others behind that.
        operator: its name, or "chain".
        shape: of what is timed.
        inputs: takes a shape and a device; gives random float32 tensors by name.
        call: takes a package with the operators' names, tensors and their shape; gives the result.
        work: takes a shape; gives its work.
        differentiable: the tensors whose gradients are verified; none where a slope has no bound,
            as that of a power below 1 next to silence.
        gradient: whether they are timed too.
        kernels: what runs where all of it runs in kernels, without the prefix `sepfast_`.
        parts: the operators whose errors add up to this one's.
        transforms: whether there is a side that goes through cuFFT; PyTorch's compiler takes
            minutes for such a case on a CPU.
        products: whether it takes matrix products, to which the precision demanded matters.
        batched: whether there is a side that takes all at once where the reference loops, in
            Python and too often to be compiled: that side is compiled instead.
        sdpa: whether there is a side that takes `scaled_dot_product_attention`.
        own_layer: whether there is a side that takes PyTorch's own layer, cuDNN's on a GPU.
        stepwise: whether the reference loops over steps, too many to be compiled at once: the
            compiled side is a loop over one compiled step.
        random: whether the reference draws a random bit for each element, in PyTorch; its
            compiler takes minutes for that.
        beside: the same case without what PyTorch's own layer has not. Its `own_layer` is timed
            beside this case's sides, by a name that says so, and held to its own reference.
    """

    name: str
    operator: str
    shape: Workload
    inputs: Callable[[Workload, torch.device], Tensors]
    call: Callable[[Any, Tensors, Workload], Output]
    work: Callable[[Workload], Work]
    differentiable: tuple[str, ...]
    gradient: bool = False
    kernels: tuple[str, ...] = ()
    parts: tuple[str, ...] = ()
    transforms: bool = True
    products: bool = True
    batched: bool = False
    sdpa: bool = False
    own_layer: bool = False
    stepwise: bool = False
    random: bool = False
    beside: Case | None = None

    def __str__(self) -> str:
        return self.name

    def bound(self) -> Bound:
        """Of the accuracy table, for what PyTorch's knob says now."""
        bounds = [ACCURACY[part][demand()] for part in self.parts or (self.operator,)]
        return Bound(sum(b.forward for b in bounds), sum(b.backward for b in bounds))

    def tiny(self) -> Workload:
        """A shape to verify in: two rows, so long that several programs share them."""
        long = 12 * self.shape.framing.n_fft + 37
        return replace(
            self.shape, rows=min(2, self.shape.rows), samples=min(long, self.shape.samples)
        )


def computed(case: Case, side: str) -> tuple[Case, str]:
    """What a side of a case computes: a case, the same but for `BESIDE`, and the side it has."""
    if side == BESIDE:
        assert case.beside is not None
        return case.beside, OWN_LAYER
    return case, side


def demand() -> Precision:
    """`torch.get_float32_matmul_precision()`, as the accuracy table has it."""
    return cast(Precision, torch.get_float32_matmul_precision())


def product_precision() -> str:
    """What NVIDIA's GPUs take for the matrix products at the precision that is demanded now."""
    return "tf32x3" if demand() == "highest" else "tf32"


def shaped(workload: str, size: Size) -> Workload:
    """The shape of a workload in a size."""
    full = WORKLOADS[workload]
    if size == "full":
        return full
    rows, samples = _SMALLER[workload][SIZES.index(size) - 1]
    return replace(full, rows=rows, samples=samples)
