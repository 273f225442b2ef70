"""The operator `softplus_norm`: softplus, batch normalisation and dropout behind a convolution."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from sepfast import reference
from sepfast.errors import InputError
from sepfast.ops._operator import define, differentiate, once, widened_type
from sepfast.ops._products import check_bias, takes
from sepfast.reference.philox import threshold
from sepfast.reference.softplus_norm import check_dropout

Four = tuple[Tensor, Tensor, Tensor, Tensor]


def softplus_norm(
    x: Tensor,
    bias: Tensor | None = None,
    weight: Tensor | None = None,
    offset: Tensor | None = None,
    *,
    eps: float = 1e-5,
    dropout: float = 0.0,
    seed: Tensor | None = None,
) -> tuple[Tensor, Tensor, Tensor]:
    """Softplus, normalisation by the batch's own statistics, and dropout.

    y = ((s - mean) / sqrt(variance + eps) weight + offset) keep / (1 - dropout), where
    s = log(1 + exp(x + bias)). Under autocast all is float32, as PyTorch has softplus and the
    normalisation there; without it x may be of a half type where the vectors are float32.

    Args:
        x: (B, C, T), what a convolution gives without its bias.
        bias: (C,) of the convolution, None for none.
        weight: (C,) of the normalisation, None for ones.
        offset: (C,) of the normalisation, None for zeros.
        eps: added to the variance.
        dropout: probability, 0 to below 1.
        seed: (1,) of int64, from which dropout has its bits; None where nothing is dropped. The
            same seed gives the same bits on every device, with kernels and without.

    Returns:
        y (B, C, T) in the type of x; mean and biased variance (C,) of s, without a gradient, in
        float32 for half types, NaN of nothing.

    Raises:
        InputError: for shapes that do not fit together, one value for a channel, another
            dropout, or dropout without a seed.

    Example:
        >>> import torch, sepfast
        >>> x = torch.tensor([[[-50.0, 3.0, 50.0]]])
        >>> y, mean, variance = sepfast.ops.softplus_norm(x)
        >>> y, mean
        (tensor([[[-0.7727, -0.6395,  1.4121]]]), tensor([17.6829]))
    """
    check_dropout(dropout)
    if dropout and seed is None:
        raise InputError("seed: got None with dropout, takes (1,) of int64")
    return _softplus_norm(x, bias, weight, offset, seed if dropout else None, eps, dropout)


def _check(
    x: Tensor,
    bias: Tensor | None,
    weight: Tensor | None,
    offset: Tensor | None,
    seed: Tensor | None,
    eps: float,
    dropout: float,
) -> None:
    check_channels(x, bias=bias, weight=weight, offset=offset)
    takes("seed", seed, "(1,) or None", seed is None or seed.shape == (1,))
    if x.shape[0] * x.shape[2] == 1:
        raise InputError(
            f"x: got shape {tuple(x.shape)}, takes more than one value for a channel, as they are "
            "normalised by their own statistics"
        )


def _check_backward(
    x: Tensor,
    bias: Tensor | None,
    weight: Tensor | None,
    mean: Tensor,
    variance: Tensor,
    seed: Tensor | None,
    eps: float,
    dropout: float,
    grad: Tensor,
) -> None:
    _check(x, bias, weight, None, seed, eps, dropout)
    check_channels(x, mean=mean, variance=variance)
    takes("grad", grad, f"{tuple(x.shape)} as x", grad.shape == x.shape)


def check_channels(x: Tensor, **vectors: Tensor | None) -> None:
    """Refuse what is no (B, C, T), and vectors that are not of its channels."""
    takes("x", x, "(B, C, T)", x.ndim == 3)
    for name, vector in vectors.items():
        check_bias(name, vector, (x.shape[1],))


def _reference(
    x: Tensor,
    bias: Tensor | None,
    weight: Tensor | None,
    offset: Tensor | None,
    seed: Tensor | None,
    eps: float,
    dropout: float,
) -> tuple[Tensor, Tensor, Tensor]:
    return reference.softplus_norm(x, bias, weight, offset, eps=eps, dropout=dropout, seed=seed)


def _reference_backward(
    x: Tensor,
    bias: Tensor | None,
    weight: Tensor | None,
    mean: Tensor,
    variance: Tensor,
    seed: Tensor | None,
    eps: float,
    dropout: float,
    grad: Tensor,
) -> Four:
    return reference.softplus_norm_backward(
        grad, x, bias, weight, mean, variance, eps=eps, dropout=dropout, seed=seed
    )


def _kernel(
    x: Tensor,
    bias: Tensor | None,
    weight: Tensor | None,
    offset: Tensor | None,
    seed: Tensor | None,
    eps: float,
    dropout: float,
) -> tuple[Tensor, Tensor, Tensor]:
    from sepfast.kernels import softplus_norm as kernels

    least = threshold(dropout)
    return kernels.softplus_norm(x, bias, weight, offset, _long(seed), eps, dropout, least)


def _kernel_backward(
    x: Tensor,
    bias: Tensor | None,
    weight: Tensor | None,
    mean: Tensor,
    variance: Tensor,
    seed: Tensor | None,
    eps: float,
    dropout: float,
    grad: Tensor,
) -> Four:
    from sepfast.kernels import softplus_norm as kernels

    vectors = bias, weight, mean, variance, _long(seed)
    return kernels.softplus_norm_backward(grad, x, *vectors, eps, dropout, threshold(dropout))


def _long(seed: Tensor | None) -> Tensor | None:
    return None if seed is None else seed.long()


def _fake(x: Tensor, *rest: Any) -> tuple[Tensor, Tensor, Tensor]:
    mean, variance = vectors_of(x, 2)
    return x.new_empty(x.shape), mean, variance


def vectors_of(x: Tensor, count: int) -> tuple[Tensor, ...]:
    """So many empty vectors of the channels of x, float32 for half types."""
    return tuple(x.new_empty(x.shape[1], dtype=widened_type(x)) for _ in range(count))


def _save(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, Tensor, Tensor]) -> None:
    x, bias, weight, offset, seed, ctx.eps, ctx.dropout = inputs
    _, mean, variance = output
    ctx.save_for_backward(x, bias, weight, mean, variance, seed)
    ctx.types = [v if v is None else v.dtype for v in (bias, weight, offset)]
    ctx.mark_non_differentiable(mean, variance)
    ctx.set_materialize_grads(False)


def _backward(ctx: Any, grad: Tensor | None, *rest: Any) -> tuple[Tensor | None, ...]:
    if grad is None:
        return (None,) * 7
    of_x, *vectors = _softplus_norm_backward(*ctx.saved_tensors, ctx.eps, ctx.dropout, grad)
    return of_x, *as_given(vectors, ctx.types), None, None, None


def as_given(gradients: list[Tensor], types: list[torch.dtype | None]) -> tuple[Tensor | None, ...]:
    """Gradients in the types of their tensors, None for what was not given."""
    pairs = zip(gradients, types, strict=True)
    return tuple(None if dtype is None else g.to(dtype) for g, dtype in pairs)


_softplus_norm = define(
    "softplus_norm(Tensor x, Tensor? bias, Tensor? weight, Tensor? offset, Tensor? seed, "
    "float eps, float dropout) -> (Tensor, Tensor, Tensor)",
    reference=_reference,
    kernel=_kernel,
    fake=_fake,
    check=_check,
    compact=True,
)
_softplus_norm_backward = define(
    "softplus_norm_backward(Tensor x, Tensor? bias, Tensor? weight, Tensor mean, Tensor variance, "
    "Tensor? seed, float eps, float dropout, Tensor grad) -> (Tensor, Tensor, Tensor, Tensor)",
    reference=_reference_backward,
    kernel=_kernel_backward,
    fake=lambda x, *rest: (x.new_empty(x.shape), *vectors_of(x, 3)),
    check=_check_backward,
    compact=True,
)
differentiate("softplus_norm", _backward, _save)
once("softplus_norm_backward")
