"""The operator `amplitude_mask_loss`: system D's loss, without its mask or estimate in memory."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from sepfast import reference
from sepfast.ops._operator import constant, define, differentiate, once, widened_type
from sepfast.ops._products import takes


def amplitude_mask_loss(
    scores: Tensor, mixture: Tensor, target: Tensor, lengths: Tensor | None = None
) -> Tensor:
    """The squared error of the mixture under an amplitude mask: sum (10 sigmoid(z) y - s)^2.

    Args:
        scores: z, (B, T, F), what the network gives, before the sigmoid.
        mixture: y, (B, T, F), compressed magnitudes, a constant.
        target: s, (B, T, F), likewise.
        lengths: (B,) integers, frames that count; below 0 is 0, above T is T, None all. What lies
            behind them is not looked at, and its gradient is 0.

    Returns:
        A scalar, summed over all bins of the frames that count; float32 for half types.

    Raises:
        InputError: for shapes that do not fit together, lengths that are not integers, or a mixture
            or target that requires a gradient.

    Example:
        >>> import torch, sepfast
        >>> scores, mixture = torch.zeros(2, 3, 4), torch.ones(2, 3, 4)
        >>> lengths = torch.tensor([3, 1])
        >>> sepfast.ops.amplitude_mask_loss(scores, mixture, 3 * mixture, lengths)
        tensor(64.)
    """
    constant("mixture", mixture)
    constant("target", target)
    return _amplitude_mask_loss(scores, mixture, target, lengths)


def _check(
    scores: Tensor, mixture: Tensor, target: Tensor, lengths: Tensor | None, *rest: Any
) -> None:
    takes("scores", scores, "(B, T, F)", scores.ndim == 3)
    shape = tuple(scores.shape)
    for name, other in (("mixture", mixture), ("target", target)):
        takes(name, other, f"{shape} as scores", tuple(other.shape) == shape)
    if lengths is not None:
        takes("lengths", lengths, f"({shape[0]},)", lengths.shape == shape[:1])


def _check_backward(
    scores: Tensor, mixture: Tensor, target: Tensor, lengths: Tensor | None, grad: Tensor
) -> None:
    _check(scores, mixture, target, lengths)
    takes("grad", grad, "a scalar", grad.ndim == 0)


def _reference_backward(
    scores: Tensor, mixture: Tensor, target: Tensor, lengths: Tensor | None, grad: Tensor
) -> Tensor:
    slope = reference.amplitude_mask_loss_backward(scores, mixture, target, lengths)
    return (grad * slope).to(scores.dtype)


def _kernel(scores: Tensor, mixture: Tensor, target: Tensor, lengths: Tensor | None) -> Tensor:
    from sepfast.kernels import amplitude_mask_loss as kernels

    counts = None if lengths is None else lengths.long()
    return kernels.amplitude_mask_loss(scores, mixture, target, counts)


def _kernel_backward(
    scores: Tensor, mixture: Tensor, target: Tensor, lengths: Tensor | None, grad: Tensor
) -> Tensor:
    from sepfast.kernels import amplitude_mask_loss as kernels

    counts = None if lengths is None else lengths.long()
    return kernels.amplitude_mask_loss_backward(grad, scores, mixture, target, counts)


def _fake(scores: Tensor, *rest: Any) -> Tensor:
    return scores.new_empty((), dtype=widened_type(scores))


def _save(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    ctx.save_for_backward(*inputs)


def _backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
    return _amplitude_mask_loss_backward(*ctx.saved_tensors, grad), None, None, None


_TENSORS = "Tensor scores, Tensor mixture, Tensor target, Tensor? lengths"
_amplitude_mask_loss = define(
    f"amplitude_mask_loss({_TENSORS}) -> Tensor",
    reference=reference.amplitude_mask_loss,
    kernel=_kernel,
    fake=_fake,
    check=_check,
)
_amplitude_mask_loss_backward = define(
    f"amplitude_mask_loss_backward({_TENSORS}, Tensor grad) -> Tensor",
    reference=_reference_backward,
    kernel=_kernel_backward,
    fake=lambda scores, *rest: scores.new_empty(scores.shape),
    check=_check_backward,
)
differentiate("amplitude_mask_loss", _backward, _save)
once("amplitude_mask_loss_backward")
