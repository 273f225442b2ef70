"""The operator `softplus_affine`: softplus, and normalisation by fixed statistics, in one pass."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from sepfast import reference
from sepfast.ops._operator import define, differentiate, once
from sepfast.ops._products import takes
from sepfast.ops.softplus_norm import Four, as_given, check_channels, vectors_of


def softplus_affine(x: Tensor, bias: Tensor | None, scale: Tensor, shift: Tensor) -> Tensor:
    """Softplus, and normalisation by fixed statistics: log(1 + exp(x + bias)) scale + shift.

    Normalisation comes behind softplus, so that its scale and shift cannot go into the weights of
    the convolution that gives x. Those of the next convolution could take them, which would save
    nothing: softplus takes a pass over x, and the bias, the scale and the shift are in that pass.

    Args:
        x: (B, C, T), what a convolution gives without its bias.
        bias: (C,) of the convolution, None for none.
        scale: (C,), weight / sqrt(variance + eps).
        shift: (C,), offset - mean scale.

    Returns:
        (B, C, T) in the type of x, float32 under autocast.

    Raises:
        InputError: for shapes that do not fit together.

    Example:
        >>> import torch, sepfast
        >>> x, scale = torch.tensor([[[-50.0, 3.0, 50.0]]]), torch.tensor([2.0])
        >>> sepfast.ops.softplus_affine(x, None, scale, torch.tensor([1.0]))
        tensor([[[  1.0000,   7.0972, 101.0000]]])
    """
    return _softplus_affine(x, bias, scale, shift)


def _check(x: Tensor, bias: Tensor | None, scale: Tensor, shift: Tensor) -> None:
    check_channels(x, bias=bias, scale=scale, shift=shift)


def _check_backward(x: Tensor, bias: Tensor | None, scale: Tensor, grad: Tensor) -> None:
    check_channels(x, bias=bias, scale=scale)
    takes("grad", grad, f"{tuple(x.shape)} as x", grad.shape == x.shape)


def _reference_backward(x: Tensor, bias: Tensor | None, scale: Tensor, grad: Tensor) -> Four:
    return reference.softplus_affine_backward(grad, x, bias, scale)


def _kernel(x: Tensor, bias: Tensor | None, scale: Tensor, shift: Tensor) -> Tensor:
    from sepfast.kernels import softplus_affine as kernels

    return kernels.softplus_affine(x, bias, scale, shift)


def _kernel_backward(x: Tensor, bias: Tensor | None, scale: Tensor, grad: Tensor) -> Four:
    from sepfast.kernels import softplus_affine as kernels

    return kernels.softplus_affine_backward(grad, x, bias, scale)


def _save(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    x, bias, scale, shift = inputs
    ctx.save_for_backward(x, bias, scale)
    ctx.types = [v if v is None else v.dtype for v in (bias, scale, shift)]


def _backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
    of_x, *vectors = _softplus_affine_backward(*ctx.saved_tensors, grad)
    return of_x, *as_given(vectors, ctx.types)


_softplus_affine = define(
    "softplus_affine(Tensor x, Tensor? bias, Tensor scale, Tensor shift) -> Tensor",
    reference=reference.softplus_affine,
    kernel=_kernel,
    fake=lambda x, *rest: x.new_empty(x.shape),
    check=_check,
    compact=True,
)
_softplus_affine_backward = define(
    "softplus_affine_backward(Tensor x, Tensor? bias, Tensor scale, Tensor grad) "
    "-> (Tensor, Tensor, Tensor, Tensor)",
    reference=_reference_backward,
    kernel=_kernel_backward,
    fake=lambda x, *rest: (x.new_empty(x.shape), *vectors_of(x, 3)),
    check=_check_backward,
    compact=True,
)
differentiate("softplus_affine", _backward, _save)
once("softplus_affine_backward")
