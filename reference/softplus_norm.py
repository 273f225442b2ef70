"""Softplus, batch normalisation and dropout behind a 1-D convolution: the block of system E.

B batch, C channels, T frames, n = B T. x is what the convolution gives without its bias b:

    s = log(1 + exp(x + b)),  m = mean(s),  v = mean((s - m)^2) over B and T,  r = 1 / sqrt(v + eps)
    h = (s - m) r,  y = (h w + o) keep / (1 - p)

With g = dy keep / (1 - p), again over B and T:

    do = sum g,  dw = sum g h,  ds = w r (g - do / n - h dw / n)
    dx = ds sigmoid(x + b),  db = sum dx

The bias is taken in because PyTorch adds it, and sums its gradient, by passes of their own.

With statistics that are fixed it is `softplus_affine`.

Source: E, section 3.2.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from sepfast.errors import InputError
from sepfast.reference.half_types import widened
from sepfast.reference.philox import draw_seed, dropped
from sepfast.reference.softplus_affine import activated, scaled, slope


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

    Args:
        x: (B, C, T), what a convolution gives without its bias.
        bias: (C,) of the convolution, None for none.
        weight: (C,) of the normalisation, None for ones.
        offset: (C,) of the normalisation, None for zeros.
        eps: added to the variance.
        dropout: probability, 0 to below 1.
        seed: (1,) of int64, from which dropout has its bits, see `philox.kept`; None without it.

    Returns:
        y (B, C, T) in the type of x; mean and biased variance (C,) of the softplus, constants, in
        float32 for half types, NaN of nothing.
    """
    s = activated(x, bias)
    mean = s.mean((0, 2))
    apart = s - mean[:, None]
    variance = apart.square().mean((0, 2))
    y = scaled(apart, _gain(variance, weight, eps), offset)
    if seed is not None and dropout:
        y = dropped(y, dropout, seed)
    return y.to(x.dtype), mean.detach(), variance.detach()


def softplus_norm_backward(
    grad: Tensor,
    x: Tensor,
    bias: Tensor | None,
    weight: Tensor | None,
    mean: Tensor,
    variance: Tensor,
    *,
    eps: float = 1e-5,
    dropout: float = 0.0,
    seed: Tensor | None = None,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """The gradients of `softplus_norm`.

    Args:
        grad: (B, C, T), of y.
        x, bias, weight, eps, dropout, seed: as in the forward.
        mean, variance: what it gave.

    Returns:
        Gradients of x (B, C, T) in its type, and of bias, weight and offset, (C,) each, in float32
        for half types.
    """
    g = widened(grad)
    if seed is not None and dropout:
        g = dropped(g, dropout, seed)
    s, rate = activated(x, bias), torch.rsqrt(variance + eps)
    count = max(1, x.shape[0] * x.shape[2])
    h = (s - mean[:, None]) * rate[:, None]
    of_offset, of_weight = g.sum((0, 2)), (g * h).sum((0, 2))
    inner = g - of_offset[:, None] / count - h * (of_weight[:, None] / count)
    dx = _gain(variance, weight, eps)[:, None] * inner * slope(x, bias)
    return dx.to(x.dtype), dx.sum((0, 2)), of_weight, of_offset


class ConvSoftplusNorm(nn.Module):
    """A 1-D convolution that keeps the frames, softplus, batch normalisation and dropout.

    `norm` may become another layer, such as an `nn.SyncBatchNorm`. Dropout has its bits from
    `philox.kept`, with a seed from PyTorch's generator of the device, at each call that trains.

    Args:
        inputs: channels in.
        outputs: channels out.
        kernel: frames that a filter spans, odd.
        transposed: whether the convolution is a transposed one.
        dropout: probability, 0 to below 1.

    Raises:
        InputError: for a kernel that is not odd, or another dropout.

    Example:
        >>> import torch
        >>> block = ConvSoftplusNorm(4, 6)
        >>> block(torch.rand(2, 4, 50)).shape
        torch.Size([2, 6, 50])
    """

    def __init__(
        self,
        inputs: int,
        outputs: int,
        kernel: int = 5,
        *,
        transposed: bool = False,
        dropout: float = 0.3,
    ) -> None:
        super().__init__()
        if kernel < 1 or kernel % 2 == 0:
            raise InputError(f"kernel: got {kernel}, takes an odd number of frames")
        check_dropout(dropout)
        kind = nn.ConvTranspose1d if transposed else nn.Conv1d
        self.conv = kind(inputs, outputs, kernel, padding=kernel // 2)
        self.norm = nn.BatchNorm1d(outputs)
        self.dropout = dropout

    def forward(self, x: Tensor) -> Tensor:
        """Frames (B, inputs, T) to (B, outputs, T)."""
        return self.drop(self.norm(F.softplus(self.conv(x))))

    def drop(self, x: Tensor) -> Tensor:
        """Dropout of (B, C, T) where the block trains."""
        if not (self.training and self.dropout):
            return x
        return dropped(x, self.dropout, draw_seed(x.device))

    def extra_repr(self) -> str:
        """What `print` shows beside the layers."""
        return f"dropout={self.dropout}"


def check_dropout(dropout: float) -> None:
    """Refuse what is no probability, or would leave nothing."""
    if not 0 <= dropout < 1:
        raise InputError(f"dropout: got {dropout}, takes 0 to below 1")


def _gain(variance: Tensor, weight: Tensor | None, eps: float) -> Tensor:
    rate = torch.rsqrt(variance + eps)
    return rate if weight is None else rate * widened(weight)
