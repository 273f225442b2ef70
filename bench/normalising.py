"""`softplus_norm` and `softplus_affine` in the shapes of system E: cases, work, what to tune.

Behind a convolution of 1024 channels, B 32, T 2064 frames of 2 s. Counts as in `work.py`, bytes and
operations those that `kernels/softplus_norm.py` derives. Dropout is timed with the bits that the
operator draws: "eager" and "compiled" compute them in PyTorch, and PyTorch's own layers, which
would draw others, are given them as they keep them, as a mask in memory.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from sepfast.bench.case import Case, Prepared, Tensors
from sepfast.bench.plain import SEED
from sepfast.bench.work import Work
from sepfast.bench.workloads import Workload

_FLOAT = 4
_CHANNELS = 1024
_DROPOUT = 0.3
_STAGES = ("softplus_norm_forward", "softplus_norm_backward")
_FIXED = ("softplus_affine_forward", "softplus_affine_backward")
_NAMES = ("x", "bias", "weight", "offset")


def norm(name: str, shape: Workload, gradient: bool = False) -> Case:
    """Training: the batch's own statistics, with dropout."""

    def call(f: Any, x: Tensors, s: Workload) -> Tensor:
        options = {"dropout": _DROPOUT, "seed": _seed(x["x"])}
        return f.softplus_norm(*(x[name] for name in _NAMES), **options)[0]

    return Case(
        name, "softplus_norm", shape, _inputs, call, lambda s: work(s, gradient), _NAMES,
        gradient=gradient, kernels=_STAGES[: 1 + gradient], transforms=False, products=False,
        own_layer=True, random=True,
    )  # fmt: skip


def affine(name: str, shape: Workload) -> Case:
    """Evaluation: fixed statistics."""
    return Case(
        name, "softplus_affine", shape, _inputs,
        lambda f, x, s: f.softplus_affine(*(x[name] for name in _NAMES)),
        fixed_work, _NAMES, kernels=_FIXED[:1], transforms=False, products=False, own_layer=True,
    )  # fmt: skip


def work(shape: Workload, gradient: bool) -> Work:
    """The work of training, or of it and its gradient: what is read again is in the L2."""
    elements = _elements(shape)
    passes, loads, needed, performed = (5, 8, 92, 136) if gradient else (2, 3, 42, 56)
    least = _FLOAT * passes * elements
    return Work(least, least, _FLOAT * loads * elements, needed * elements, performed * elements)


def fixed_work(shape: Workload) -> Work:
    """The work of evaluation."""
    elements = _elements(shape)
    bytes_ = 2 * _FLOAT * elements
    return Work(bytes_, bytes_, bytes_, 18 * elements, 18 * elements)


def keys() -> list[tuple[str, dict[str, Any]]]:
    """Kernels and keys to tune."""
    return [(stage, {}) for stage in (*_STAGES, *_FIXED)]


def prepare(stage: str, frames: int, device: torch.device) -> Prepared:
    """The operator that launches a kernel, and what to call it with.

    Args:
        stage: the kernel's name without its prefix.
        frames: of each of two lines of a channel.
        device: where it runs.
    """
    tensors, o = _tensors(2, frames, device), torch.ops.sepfast
    options = 1e-5, _DROPOUT
    if stage == _STAGES[0]:
        return lambda x: o.softplus_norm(*x.values(), _seed(x["x"]), *options)[0], tensors
    if stage == _FIXED[0]:
        return lambda x: o.softplus_affine(*x.values()), tensors
    x, bias, weight, _ = tensors.values()
    tensors = {"x": x, "bias": bias, "weight": weight, "grad": torch.randn_like(x)}
    if stage == _FIXED[1]:
        return lambda x: o.softplus_affine_backward(*x.values())[0], tensors
    _, mean, variance = o.softplus_norm(x, bias, weight, None, None, 1e-5, 0.0)
    tensors |= {"mean": mean, "variance": variance}

    def backward(x: Tensors) -> Tensor:
        vectors = (x[name] for name in ("x", "bias", "weight", "mean", "variance"))
        return o.softplus_norm_backward(*vectors, _seed(x["x"]), *options, x["grad"])[0]

    return backward, tensors


def _elements(shape: Workload) -> int:
    return shape.rows * _CHANNELS * shape.frames


def _seed(x: Tensor) -> Tensor:
    return torch.full((1,), SEED, dtype=torch.int64, device=x.device)


def _inputs(shape: Workload, device: torch.device) -> Tensors:
    return _tensors(shape.rows, shape.frames, device)


def _tensors(batch: int, frames: int, device: torch.device) -> Tensors:
    """x spreads over the bend of softplus."""
    x = 3 * torch.randn(batch, _CHANNELS, frames, device=device)
    bias, weight, offset = torch.randn(3, _CHANNELS, device=device)
    return {"x": x, "bias": bias, "weight": weight, "offset": offset}
