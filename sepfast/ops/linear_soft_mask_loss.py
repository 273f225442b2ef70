"""The operator `linear_soft_mask_loss`: a linear layer, ReLU, mask and loss; no estimate stored."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from sepfast import reference
from sepfast.errors import InputError
from sepfast.kernels.precision import product_precision
from sepfast.kernels.tuning import has_config
from sepfast.ops._operator import constant, define, differentiate, once
from sepfast.ops.soft_mask_loss import empty_losses, read
from sepfast.reference import LossWeights
from sepfast.reference.linear_soft_mask_loss import signed_linear_loss

_PUBLISHED = LossWeights()


def linear_soft_mask_loss(
    features: Tensor,
    weight: Tensor,
    bias: Tensor,
    mixture: Tensor,
    targets: Tensor,
    weights: LossWeights = _PUBLISHED,
) -> Tensor:
    """The loss of the mixture masked by what a linear layer and a ReLU make of the features.

    The estimates are y_s[b, c, t, f] = relu(bias[s, c] + sum_n features[b, s, t, n]
    weight[s, n, c, f]), and the loss is that of `soft_mask_loss`.

    Args:
        features: (B, S, T, N); S sources, at least 2, the vocals first, "other" last.
        weight: (S, N, C, F).
        bias: (S, C).
        mixture: (B, C, T, F), a constant.
        targets: (B, S, C, T, F), a constant.
        weights: the weights and the reading; those of the published programs by default.

    Returns:
        A scalar, summed over all elements; float32 for half types.

    Raises:
        InputError: for shapes that do not fit together, or a mixture or targets that require a
            gradient.

    Example:
        >>> import torch, sepfast
        >>> features, bias = torch.ones(1, 2, 1, 1), torch.zeros(2, 1)
        >>> weight, mixture = torch.ones(2, 1, 1, 1), torch.full((1, 1, 1, 1), 4.0)
        >>> targets = torch.tensor([3.0, 1.0]).view(1, 2, 1, 1, 1)
        >>> sepfast.ops.linear_soft_mask_loss(features, weight, bias, mixture, targets)
        tensor(0.9700)
    """
    constant("mixture", mixture)
    constant("targets", targets)
    numbers = weights.alpha, weights.beta, weights.beta_vocals
    given = features, weight, bias, mixture, targets
    return _linear_soft_mask_loss(*given, *numbers, weights.reading)[0]


def _check(
    features: Tensor, weight: Tensor, bias: Tensor, mixture: Tensor, targets: Tensor, *rest: Any
) -> None:
    shape = tuple(features.shape)
    if len(shape) != 4 or shape[1] < 2 or shape[3] < 1:
        raise InputError(
            f"features: got shape {shape}, takes (B, S, T, N) with S at least 2 and N at least 1"
        )
    batch, sources, frames, filters = shape
    if weight.ndim != 4 or tuple(weight.shape[:2]) != (sources, filters):
        raise InputError(
            f"weight: got shape {tuple(weight.shape)}, takes ({sources}, {filters}, C, F) beside "
            f"features of {shape}"
        )
    channels, bins = weight.shape[2:]
    for name, tensor, wanted in (
        ("bias", bias, (sources, channels)),
        ("mixture", mixture, (batch, channels, frames, bins)),
        ("targets", targets, (batch, sources, channels, frames, bins)),
    ):
        if tuple(tensor.shape) != wanted:
            raise InputError(
                f"{name}: got shape {tuple(tensor.shape)}, takes {wanted} beside features of "
                f"{shape} and weight of {tuple(weight.shape)}"
            )


def _check_backward(
    features: Tensor,
    weight: Tensor,
    bias: Tensor,
    mixture: Tensor,
    targets: Tensor,
    grad: Tensor,
    total: Tensor,
    *weights: Any,
) -> None:
    _check(features, weight, bias, mixture, targets)
    for name, scalar in (("grad", grad), ("total", total)):
        if scalar.ndim:
            raise InputError(f"{name}: got shape {tuple(scalar.shape)}, takes a scalar")


def _obstacle(*stages: str) -> Any:
    """Why one of some kernels cannot run, for arguments; None where they can."""

    def reason(features: Tensor, *rest: Any) -> str | None:
        precision = product_precision(features.device, features.dtype)
        sources = _padded(features.shape[1])
        for stage in stages:
            kernel = f"sepfast_linear_soft_mask_loss_{stage}"
            if not has_config(kernel, features.device, precision=precision, sources=sources):
                return f"as {kernel} is not shipped for {sources} sources, precision {precision!r}"
        return None

    return reason


def _padded(sources: int) -> int:
    """Sources that the kernels have room for: the next power of two."""
    return 1 << (sources - 1).bit_length()


def _reference(
    features: Tensor,
    weight: Tensor,
    bias: Tensor,
    mixture: Tensor,
    targets: Tensor,
    *weights: Any,
) -> tuple[Tensor, Tensor]:
    given = features, weight, bias, mixture, targets
    total = signed_linear_loss(*given, LossWeights(*weights))
    return read(total, weights[3]), total


def _reference_backward(
    features: Tensor,
    weight: Tensor,
    bias: Tensor,
    mixture: Tensor,
    targets: Tensor,
    grad: Tensor,
    total: Tensor,
    *weights: Any,
) -> tuple[Tensor, ...]:
    given = features, weight, bias, mixture, targets
    slopes = reference.linear_soft_mask_loss_backward(*given, LossWeights(*weights))
    return tuple((grad * slope).to(features.dtype) for slope in slopes)


def _kernel(
    features: Tensor,
    weight: Tensor,
    bias: Tensor,
    mixture: Tensor,
    targets: Tensor,
    *weights: Any,
) -> tuple[Tensor, Tensor]:
    from sepfast.kernels import linear_soft_mask_loss as kernels

    given = features, weight, bias, mixture, targets
    total = kernels.linear_soft_mask_loss(*given, weights[:3], weights[3])
    return read(total, weights[3]), total


def _kernel_backward(
    features: Tensor,
    weight: Tensor,
    bias: Tensor,
    mixture: Tensor,
    targets: Tensor,
    grad: Tensor,
    total: Tensor,
    *weights: Any,
) -> tuple[Tensor, Tensor, Tensor]:
    from sepfast.kernels import linear_soft_mask_loss as kernels

    given = features, weight, bias, mixture, targets
    return kernels.linear_soft_mask_loss_backward(grad, total, *given, weights[:3], weights[3])


def _fake(features: Tensor, *rest: Any) -> tuple[Tensor, Tensor]:
    return empty_losses(features)


def _fake_backward(
    features: Tensor, weight: Tensor, bias: Tensor, *rest: Any
) -> tuple[Tensor, Tensor, Tensor]:
    of_features, of_weight, of_bias = (
        features.new_empty(x.shape) for x in (features, weight, bias)
    )
    return of_features, of_weight, of_bias


def _save(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, Tensor]) -> None:
    total = output[1]
    ctx.save_for_backward(*inputs[:5], total)
    ctx.weights = inputs[5:]
    ctx.mark_non_differentiable(total)
    ctx.set_materialize_grads(False)


def _backward(ctx: Any, grad: Tensor | None, _: None) -> tuple[Tensor | None, ...]:
    nothing = (None,) * 6
    if grad is None:
        return None, None, None, *nothing
    *given, total = ctx.saved_tensors
    slopes = _linear_soft_mask_loss_backward(*given, grad, total, *ctx.weights)
    return *slopes, *nothing


_TENSORS = "Tensor features, Tensor weight, Tensor bias, Tensor mixture, Tensor targets"
_WEIGHTS = "float alpha, float beta, float beta_vocals, str reading"
_linear_soft_mask_loss = define(
    f"linear_soft_mask_loss({_TENSORS}, {_WEIGHTS}) -> (Tensor, Tensor)",
    reference=_reference,
    kernel=_kernel,
    fake=_fake,
    check=_check,
    obstacle=_obstacle("forward"),
)
_linear_soft_mask_loss_backward = define(
    f"linear_soft_mask_loss_backward({_TENSORS}, Tensor grad, Tensor total, {_WEIGHTS})"
    " -> (Tensor, Tensor, Tensor)",
    reference=_reference_backward,
    kernel=_kernel_backward,
    fake=_fake_backward,
    check=_check_backward,
    obstacle=_obstacle("features", "weights"),
)
differentiate("linear_soft_mask_loss", _backward, _save)
once("linear_soft_mask_loss_backward")
