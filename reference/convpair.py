"""The convolution pair of DeepConvSep and its transposed twin: vertical, then horizontal, and back.

B batch, C channels, S sources, T frames, F bins, N1 vertical and N2 horizontal filters, f1 bins and
t2 frames a filter spans, F' = F - f1 + 1 and T' = T - t2 + 1. Nothing non-linear stands between the
two layers of a pair.

    conv_pair     v = W1 * x + b1, over bins: (B, N1, T, F');    z = W2 * v + b2, over frames
    deconv_pair   u = W2^T * z + b2, over frames: (B, N1, T, F'); y = W1^T * u + b1, over bins

Each layer is linear, so its gradient is the other pair's layer, and that of its weights a
correlation of what goes in with the gradient of what comes out:

    conv_pair     dv = W2^T * dz,  dx = W1^T * dv,  dW2 = v (x) dz,  dW1 = x (x) dv
    deconv_pair   du = W1 * dy,    dz = W2 * du,    dW1 = dy (x) u,  dW2 = du (x) z

Source: A and B, "vertical" and "horizontal convolution".
"""

from __future__ import annotations

from typing import NamedTuple, cast

import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.grad import conv2d_weight


class ConvPairGrads(NamedTuple):
    """The gradients of a pair, each of the shape of what it belongs to.

    Attributes:
        x: of the pair's input.
        first: of the weight of its first layer.
        first_bias: of the bias of its first layer, whether it has one or not.
        second: of the weight of its second layer.
        second_bias: likewise.
    """

    x: Tensor
    first: Tensor
    first_bias: Tensor
    second: Tensor
    second_bias: Tensor


def conv_pair(
    x: Tensor,
    vertical: Tensor,
    vertical_bias: Tensor | None,
    horizontal: Tensor,
    horizontal_bias: Tensor | None,
) -> Tensor:
    """A vertical convolution over bins, then a horizontal one over frames.

    Args:
        x: (B, C, T, F).
        vertical: (N1, C, 1, f1), as `Conv2d` has it.
        vertical_bias: (N1,), or None.
        horizontal: (N2, N1, t2, 1), likewise.
        horizontal_bias: (N2,), or None.

    Returns:
        (B, N2, T', F').
    """
    return F.conv2d(F.conv2d(x, vertical, vertical_bias), horizontal, horizontal_bias)


def conv_pair_backward(
    grad: Tensor, x: Tensor, filtered: Tensor, vertical: Tensor, horizontal: Tensor
) -> ConvPairGrads:
    """The gradients of `conv_pair`.

    Args:
        grad: (B, N2, T', F'), of its result.
        x: (B, C, T, F).
        filtered: (B, N1, T, F'), what its first layer gave.
        vertical: (N1, C, 1, f1).
        horizontal: (N2, N1, t2, 1).
    """
    filtered_grad = F.conv_transpose2d(grad, horizontal)
    return ConvPairGrads(
        F.conv_transpose2d(filtered_grad, vertical),
        conv2d_weight(x, vertical.shape, filtered_grad),
        filtered_grad.sum((0, 2, 3)),
        conv2d_weight(filtered, horizontal.shape, grad),
        grad.sum((0, 2, 3)),
    )


def deconv_pair(
    codes: Tensor,
    horizontal: Tensor,
    horizontal_bias: Tensor | None,
    vertical: Tensor,
    vertical_bias: Tensor | None,
) -> Tensor:
    """A horizontal deconvolution over frames, then a vertical one over bins.

    Either of one pair, or of the pairs of S sources at once, each with codes of its own: all
    shapes but that of the batch then begin with S, weights as `torch.stack` makes them.

    Args:
        codes: (B, N2, T', F'), or (B, S, N2, T', F').
        horizontal: (N2, N1, t2, 1), as `ConvTranspose2d` has it, or (S, N2, N1, t2, 1).
        horizontal_bias: (N1,) or (S, N1), or None.
        vertical: (N1, C, 1, f1), or (S, N1, C, 1, f1).
        vertical_bias: (C,) or (S, C), or None.

    Returns:
        (B, C, T, F), or (B, S, C, T, F).
    """
    if codes.ndim == 4:
        parts = (horizontal, horizontal_bias, vertical, vertical_bias)
        stacked = (part if part is None else part[None] for part in parts)
        return deconv_pair(codes[:, None], *stacked)[:, 0]  # type: ignore[arg-type]
    features = deconv_by_source(codes, horizontal, horizontal_bias)
    return deconv_by_source(features, vertical, vertical_bias)


def deconv_pair_backward(
    grad: Tensor, codes: Tensor, features: Tensor, horizontal: Tensor, vertical: Tensor
) -> ConvPairGrads:
    """The gradients of `deconv_pair` for S sources.

    Args:
        grad: (B, S, C, T, F), of its result.
        codes: (B, S, N2, T', F').
        features: (B, S, N1, T, F'), what its first layer gave.
        horizontal: (S, N2, N1, t2, 1).
        vertical: (S, N1, C, 1, f1).
    """
    features_grad = _conv_by_source(grad, vertical)
    return ConvPairGrads(
        _conv_by_source(features_grad, horizontal),
        _weight_by_source(features_grad, codes, horizontal),
        features_grad.sum((0, 3, 4)),
        _weight_by_source(grad, features, vertical),
        grad.sum((0, 3, 4)),
    )


def horizontal_deconv(codes: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    """The first half of `deconv_pair` where filters span all bins, as rows of features.

    Args:
        codes: (B, S, N2, T').
        weight: (S, N2, N1, t2).
        bias: (S, N1), or None.

    Returns:
        (B, S, T, N1).
    """
    return deconv_by_source(codes[..., None], weight[..., None], bias).squeeze(-1).mT


def horizontal_deconv_backward(
    grad: Tensor, codes: Tensor, weight: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """The gradients of `horizontal_deconv`: of codes, weight and bias.

    Args:
        grad: (B, S, T, N1).
        codes: (B, S, N2, T').
        weight: (S, N2, N1, t2).
    """
    grad, codes, weight = grad.mT[..., None], codes[..., None], weight[..., None]
    return (
        _conv_by_source(grad, weight).squeeze(-1),
        _weight_by_source(grad, codes, weight).squeeze(-1),
        grad.sum((0, 3, 4)),
    )


def deconv_by_source(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    """`conv_transpose2d` of (B, S, in, H, W) by weights (S, in, out, h, w) and (S, out)."""
    sources, flat = len(weight), None if bias is None else bias.flatten()
    out = F.conv_transpose2d(x.flatten(1, 2), weight.flatten(0, 1), flat, groups=sources)
    return out.unflatten(1, (sources, -1))


def _conv_by_source(x: Tensor, weight: Tensor) -> Tensor:
    """The adjoint of `deconv_by_source` without its bias: (B, S, out, H, W) to (B, S, in, ...)."""
    out = F.conv2d(x.flatten(1, 2), weight.flatten(0, 1), groups=len(weight))
    return out.unflatten(1, (len(weight), -1))


def _weight_by_source(grad: Tensor, x: Tensor, weight: Tensor) -> Tensor:
    """The gradient of `deconv_by_source`'s weight, from that of its result and its input."""
    shape = weight.flatten(0, 1).shape
    out = conv2d_weight(grad.flatten(1, 2), shape, x.flatten(1, 2), groups=len(weight))
    return out.view(weight.shape)


class ConvPair(nn.Sequential):
    """A vertical convolution over bins, then a horizontal one over frames.

    Args:
        channels: C.
        n1: vertical filters.
        n2: horizontal filters.
        f1: bins a vertical filter spans.
        t2: frames a horizontal filter spans.
        pool: bins that are max-pooled between the two; 0 for none.

    Shape:
        (B, C, T, F) to (B, N2, T', F'), with a pool F' // pool.
    """

    def __init__(self, channels: int, n1: int, n2: int, f1: int, t2: int, pool: int = 0) -> None:
        super().__init__(nn.Conv2d(channels, n1, (1, f1)), nn.Conv2d(n1, n2, (t2, 1)))
        self.pool = pool

    @property
    def vertical(self) -> nn.Conv2d:
        """The layer over bins."""
        return cast(nn.Conv2d, self[0])

    @property
    def horizontal(self) -> nn.Conv2d:
        """The layer over frames."""
        return cast(nn.Conv2d, self[1])

    def forward(self, x: Tensor) -> Tensor:
        """Codes of (B, C, T, F)."""
        return self.with_peaks(x)[0] if self.pool else self.horizontal(self.vertical(x))

    def with_peaks(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Codes, and the bins where the pool found its maxima, (B, N1, T, F' // pool)."""
        filtered = self.vertical(x)
        pooled, peaks = F.max_pool2d(filtered, (1, self.pool), return_indices=True)
        return self.horizontal(pooled), peaks % filtered.shape[-1]


class DeconvPair(nn.Sequential):
    """A horizontal deconvolution over frames, then a vertical one over bins.

    Args:
        channels: C.
        n1: vertical filters.
        n2: horizontal filters.
        f1: bins a vertical filter spans.
        t2: frames a horizontal filter spans.
        pool: bins that a max-pool left one of, to be set free between the two; 0 for none. The
            model does that, which knows where they came from.

    Shape:
        (B, N2, T', F') to (B, C, T, F).
    """

    def __init__(self, channels: int, n1: int, n2: int, f1: int, t2: int, pool: int = 0) -> None:
        super().__init__(
            nn.ConvTranspose2d(n2, n1, (t2, 1)), nn.ConvTranspose2d(n1, channels, (1, f1))
        )
        self.pool = pool

    @property
    def horizontal(self) -> nn.ConvTranspose2d:
        """The layer over frames."""
        return cast(nn.ConvTranspose2d, self[0])

    @property
    def vertical(self) -> nn.ConvTranspose2d:
        """The layer over bins."""
        return cast(nn.ConvTranspose2d, self[1])
