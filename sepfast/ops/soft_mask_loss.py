"""The operator `soft_mask_loss`: system A's whole loss, without its masks or stems in memory."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from sepfast import reference
from sepfast.errors import InputError
from sepfast.ops._operator import constant, define, differentiate, once, widened_type
from sepfast.reference import LossWeights
from sepfast.reference.soft_mask_loss import signed_loss

_PUBLISHED = LossWeights()


def soft_mask_loss(
    estimates: Tensor,
    mixture: Tensor,
    targets: Tensor,
    weights: LossWeights = _PUBLISHED,
) -> Tensor:
    """The loss of the soft-masked mixture against the targets.

    Args:
        estimates: (B, N, ...), what the network gives; N at least 2, the vocals first, "other"
            last.
        mixture: (B, ...), a constant.
        targets: (B, N, ...), a constant.
        weights: the weights and the reading; those of the published programs by default.

    Returns:
        A scalar, summed over all elements; float32 for half types.

    Raises:
        InputError: for shapes that do not fit together, or a mixture or targets that require a
            gradient.

    Example:
        >>> import torch, sepfast
        >>> targets = torch.tensor([[3.0, 1.0]])
        >>> sepfast.ops.soft_mask_loss(torch.tensor([[1.0, 1.0]]), torch.tensor([4.0]), targets)
        tensor(0.9700)
    """
    constant("mixture", mixture)
    constant("targets", targets)
    numbers = weights.alpha, weights.beta, weights.beta_vocals
    return _soft_mask_loss(estimates, mixture, targets, *numbers, weights.reading)[0]


def _check(estimates: Tensor, mixture: Tensor, targets: Tensor, *weights: Any) -> None:
    shape = tuple(estimates.shape)
    if len(shape) < 2 or shape[1] < 2:
        raise InputError(f"estimates: got shape {shape}, takes (B, N, ...) with N at least 2")
    if tuple(mixture.shape) != shape[:1] + shape[2:]:
        raise InputError(
            f"mixture: got shape {tuple(mixture.shape)}, takes {shape[:1] + shape[2:]} beside "
            f"estimates of {shape}"
        )
    if targets.shape != estimates.shape:
        raise InputError(f"targets: got shape {tuple(targets.shape)}, takes {shape} as estimates")


def _check_backward(
    estimates: Tensor, mixture: Tensor, targets: Tensor, grad: Tensor, total: Tensor, *weights: Any
) -> None:
    _check(estimates, mixture, targets)
    for name, scalar in (("grad", grad), ("total", total)):
        if scalar.ndim:
            raise InputError(f"{name}: got shape {tuple(scalar.shape)}, takes a scalar")


def _reference(
    estimates: Tensor, mixture: Tensor, targets: Tensor, *weights: Any
) -> tuple[Tensor, Tensor]:
    total = signed_loss(estimates, mixture, targets, LossWeights(*weights))
    return read(total, weights[3]), total


def _reference_backward(
    estimates: Tensor, mixture: Tensor, targets: Tensor, grad: Tensor, total: Tensor, *weights: Any
) -> Tensor:
    slope = reference.soft_mask_loss_backward(estimates, mixture, targets, LossWeights(*weights))
    return (grad * slope).to(estimates.dtype)


def _kernel(
    estimates: Tensor, mixture: Tensor, targets: Tensor, *weights: Any
) -> tuple[Tensor, Tensor]:
    from sepfast.kernels import soft_mask_loss as kernels

    total = kernels.soft_mask_loss(estimates, mixture, targets, weights[:3], weights[3])
    return read(total, weights[3]), total


def _kernel_backward(
    estimates: Tensor, mixture: Tensor, targets: Tensor, grad: Tensor, total: Tensor, *weights: Any
) -> Tensor:
    from sepfast.kernels import soft_mask_loss as kernels

    return kernels.soft_mask_loss_backward(
        grad, total, estimates, mixture, targets, weights[:3], weights[3]
    )


def read(total: Tensor, reading: str) -> Tensor:
    """The loss, from the signed one; never that itself, as results share no memory."""
    return total.abs() if reading == "code" else total.clone()


def empty_losses(like: Tensor) -> tuple[Tensor, Tensor]:
    """The shapes of the loss and the signed loss, float32 for half types."""
    dtype = widened_type(like)
    return like.new_empty((), dtype=dtype), like.new_empty((), dtype=dtype)


def _fake(
    estimates: Tensor, mixture: Tensor, targets: Tensor, *weights: Any
) -> tuple[Tensor, Tensor]:
    return empty_losses(estimates)


def _save(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, Tensor]) -> None:
    total = output[1]
    ctx.save_for_backward(*inputs[:3], total)
    ctx.weights = inputs[3:]
    ctx.mark_non_differentiable(total)
    ctx.set_materialize_grads(False)


def _backward(ctx: Any, grad: Tensor | None, _: None) -> tuple[Tensor | None, ...]:
    nothing = (None,) * 6
    if grad is None:
        return None, *nothing
    estimates, mixture, targets, total = ctx.saved_tensors
    slope = _soft_mask_loss_backward(estimates, mixture, targets, grad, total, *ctx.weights)
    return slope, *nothing


_WEIGHTS = "float alpha, float beta, float beta_vocals, str reading"
_soft_mask_loss = define(
    f"soft_mask_loss(Tensor estimates, Tensor mixture, Tensor targets, {_WEIGHTS})"
    " -> (Tensor, Tensor)",
    reference=_reference,
    kernel=_kernel,
    fake=_fake,
    check=_check,
)
_soft_mask_loss_backward = define(
    "soft_mask_loss_backward(Tensor estimates, Tensor mixture, Tensor targets, Tensor grad, "
    f"Tensor total, {_WEIGHTS}) -> Tensor",
    reference=_reference_backward,
    kernel=_kernel_backward,
    fake=lambda estimates, *rest: estimates.new_empty(estimates.shape),
    check=_check_backward,
)
differentiate("soft_mask_loss", _backward, _save)
once("soft_mask_loss_backward")
