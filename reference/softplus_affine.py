"""Softplus, and normalisation by fixed statistics, behind a 1-D convolution.

B batch, C channels, T frames; x is what the convolution gives without its bias b, m, v, w and o the
statistics, weight and offset of the normalisation:

    s = log(1 + exp(x + b)),  y = s scale + shift,  scale = w / sqrt(v + eps),  shift = o - m scale
    dx = dy scale sigmoid(x + b),  db = sum dx,  dscale = sum dy s,  dshift = sum dy

summed over B and T. Scale and shift cannot go into the convolution's own weights, as softplus
stands between. Into those of the next one they could, but would save nothing: softplus takes a
pass, and bias, scale and shift are in it.

Source: E, section 3.2.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from sepfast.reference.half_types import widened

#: Where PyTorch's softplus is the identity.
_LINEAR = 20.0


def softplus_affine(x: Tensor, bias: Tensor | None, scale: Tensor, shift: Tensor) -> Tensor:
    """Softplus, and normalisation by fixed statistics.

    Args:
        x: (B, C, T), what a convolution gives without its bias.
        bias: (C,) of the convolution, None for none.
        scale: (C,), weight / sqrt(variance + eps).
        shift: (C,), offset - mean scale.

    Returns:
        log(1 + exp(x + bias)) scale + shift, (B, C, T) in the type of x.
    """
    return scaled(activated(x, bias), scale, shift).to(x.dtype)


def softplus_affine_backward(
    grad: Tensor, x: Tensor, bias: Tensor | None, scale: Tensor
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """The gradients of `softplus_affine`.

    Args:
        grad: (B, C, T), of the result.
        x, bias, scale: as in the forward.

    Returns:
        Gradients of x (B, C, T) in its type, and of bias, scale and shift, (C,) each, in float32
        for half types.
    """
    g = widened(grad)
    dx = g * widened(scale)[:, None] * slope(x, bias)
    of_scale = (g * activated(x, bias)).sum((0, 2))
    return dx.to(x.dtype), dx.sum((0, 2)), of_scale, g.sum((0, 2))


def activated(x: Tensor, bias: Tensor | None) -> Tensor:
    """log(1 + exp(x + bias)) of x (B, C, T) and bias (C,)."""
    return F.softplus(_biased(x, bias), threshold=_LINEAR)


def slope(x: Tensor, bias: Tensor | None) -> Tensor:
    """The derivative of `activated`, (B, C, T)."""
    z = _biased(x, bias)
    return torch.where(z > _LINEAR, 1, z.sigmoid())


def scaled(x: Tensor, scale: Tensor, shift: Tensor | None) -> Tensor:
    """x scale + shift, of x (B, C, T) and (C,) each."""
    x = x * widened(scale)[:, None]
    return x if shift is None else x + widened(shift)[:, None]


def _biased(x: Tensor, bias: Tensor | None) -> Tensor:
    return widened(x) if bias is None else widened(x) + widened(bias)[:, None]
