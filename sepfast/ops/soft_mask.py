"""The operator `soft_mask`: what share of the mixture each source takes."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from sepfast import reference
from sepfast.errors import InputError
from sepfast.ops._operator import define, differentiate, once


def soft_mask(estimates: Tensor, dim: int = 1) -> Tensor:
    """Shares of the sources, |y_n| / sum |y|; 1 / N at silence.

    Args:
        estimates: any shape with the sources on `dim`.
        dim: the axis of the sources.

    Returns:
        Shares in [0, 1], of the shape and type of `estimates`.

    Raises:
        InputError: for an axis that the estimates do not have, or without a source.

    Example:
        >>> import torch, sepfast
        >>> sepfast.ops.soft_mask(torch.tensor([[3.0, 1.0]]))
        tensor([[0.7500, 0.2500]])
    """
    return _soft_mask(estimates, dim)


def _check(estimates: Tensor, dim: int) -> None:
    if not -estimates.ndim <= dim < estimates.ndim:
        raise InputError(f"dim: got {dim}, takes an axis of estimates {tuple(estimates.shape)}")
    if estimates.shape[dim] == 0:
        shape = tuple(estimates.shape)
        raise InputError(f"estimates: got shape {shape}, takes a source or more on axis {dim}")


def _check_backward(grad: Tensor, estimates: Tensor, dim: int) -> None:
    _check(estimates, dim)
    if grad.shape != estimates.shape:
        raise InputError(f"grad: got shape {tuple(grad.shape)}, takes {tuple(estimates.shape)}")


def _kernel(estimates: Tensor, dim: int) -> Tensor:
    from sepfast.kernels import soft_mask as kernels

    return kernels.soft_mask(estimates, dim % estimates.ndim)


def _kernel_backward(grad: Tensor, estimates: Tensor, dim: int) -> Tensor:
    from sepfast.kernels import soft_mask as kernels

    return kernels.soft_mask_backward(grad, estimates, dim % estimates.ndim)


def _save(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    estimates, ctx.dim = inputs
    ctx.save_for_backward(estimates)


def _backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None]:
    (estimates,) = ctx.saved_tensors
    return _soft_mask_backward(grad, estimates, ctx.dim), None


_soft_mask = define(
    "soft_mask(Tensor estimates, int dim) -> Tensor",
    reference=reference.soft_mask,
    kernel=_kernel,
    fake=lambda estimates, dim: estimates.new_empty(estimates.shape),
    check=_check,
)
_soft_mask_backward = define(
    "soft_mask_backward(Tensor grad, Tensor estimates, int dim) -> Tensor",
    reference=reference.soft_mask_backward,
    kernel=_kernel_backward,
    fake=lambda grad, estimates, dim: estimates.new_empty(estimates.shape),
    check=_check_backward,
)
differentiate("soft_mask", _backward, _save)
once("soft_mask_backward")
