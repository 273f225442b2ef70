"""The operator `horizontal_deconv`: the first half of `deconv_pair`, as rows of features."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from sepfast import reference
from sepfast.ops._operator import define, differentiate, lowered, once
from sepfast.ops._products import LAYERS, SLOPES, TRANSPOSED, check_bias, takes, unshipped, wanted


def horizontal_deconv(codes: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    """The first half of `deconv_pair` where filters span all bins: the features of each frame.

    Args:
        codes: (B, S, N2, T').
        weight: (S, N2, N1, t2).
        bias: (S, N1), or None.

    Returns:
        (B, S, T' + t2 - 1, N1).

    Raises:
        InputError: for shapes that do not fit together.

    Example:
        >>> import torch, sepfast
        >>> codes, weight = torch.rand(5, 4, 30, 16), torch.rand(4, 30, 50, 15)
        >>> sepfast.ops.horizontal_deconv(codes, weight, None).shape
        torch.Size([5, 4, 30, 50])
    """
    return _horizontal_deconv(*lowered(codes, weight, bias))


def _check(codes: Tensor, weight: Tensor, bias: Tensor | None) -> None:
    takes("codes", codes, "(B, S, N2, T')", codes.ndim == 4)
    s, n2 = codes.shape[1:3]
    fits = weight.ndim == 4 and weight.shape[:2] == (s, n2)
    takes("weight", weight, f"({s}, {n2}, N1, t2)", fits)
    check_bias("bias", bias, (s, weight.shape[2]))


def _kernel(codes: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    from sepfast.kernels import convpair as kernels

    return kernels.horizontal_transposed(codes, weight, bias)


def _fake(codes: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    batch, sources, _, long = codes.shape
    n1, span = weight.shape[2:]
    return codes.new_empty(batch, sources, long + span - 1, n1)


def _kernel_backward(grad: Tensor, codes: Tensor, weight: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    from sepfast.kernels import convpair as kernels

    of_weight = kernels.horizontal_slope(codes, grad)
    return kernels.horizontal(grad, weight), of_weight, grad.sum((0, 2))


def _fake_backward(grad: Tensor, codes: Tensor, weight: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    bias = grad.new_empty(weight.shape[0], weight.shape[2])
    return codes.new_empty(codes.shape), codes.new_empty(weight.shape), bias


def _check_backward(grad: Tensor, codes: Tensor, weight: Tensor) -> None:
    _check(codes, weight, None)
    out = _fake(codes, weight, None)
    takes("grad", grad, f"{tuple(out.shape)}", grad.shape == out.shape)


def _save(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    ctx.save_for_backward(*inputs[:2])
    ctx.biased = inputs[2] is not None


def _backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
    grads = _horizontal_deconv_backward(grad, *ctx.saved_tensors)
    return wanted(grads, (True, True, ctx.biased))


_horizontal_deconv = define(
    "horizontal_deconv(Tensor codes, Tensor weight, Tensor? bias) -> Tensor",
    reference=reference.horizontal_deconv,
    kernel=_kernel,
    fake=_fake,
    check=_check,
    obstacle=lambda codes, *rest: unshipped(codes, TRANSPOSED[0]),
    lowers=True,
)
_horizontal_deconv_backward = define(
    "horizontal_deconv_backward(Tensor grad, Tensor codes, Tensor weight) "
    "-> (Tensor, Tensor, Tensor)",
    reference=reference.horizontal_deconv_backward,
    kernel=_kernel_backward,
    fake=_fake_backward,
    check=_check_backward,
    obstacle=lambda grad, *rest: unshipped(grad, LAYERS[1], SLOPES[1]),
    lowers=True,
)
differentiate("horizontal_deconv", _backward, _save)
once("horizontal_deconv_backward")
