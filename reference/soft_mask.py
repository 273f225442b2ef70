"""Masks: what share of the mixture each source takes at each frame and bin.

N sources, on the axis `dim`. S = sum over sources of |y|^p.

    soft and Wiener   m_n = |y_n|^p / S, 1/N where S is 0; p = 1 for the models, 2 for Wiener
    binary            m_n = 1 for the loudest source (the first of equals), 0 for the others

Backward of the soft mask, with g_n the incoming gradient and p = 1:
    dy_k = sign(y_k) (g_k - sum_n g_n m_n) / S, 0 where S is 0.

Source: A and B, "mask"; the oracle masks are those of section 1.1 of B.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn


def soft_mask(estimates: Tensor, dim: int = 1) -> Tensor:
    """Shares of the sources; they add up to one everywhere, silence included.

    Args:
        estimates: any shape with the sources on `dim`.
        dim: the axis of the sources.

    Returns:
        Shares in [0, 1], of the shape of `estimates`.
    """
    return _shares(estimates.abs(), dim)


def soft_mask_backward(grad: Tensor, estimates: Tensor, dim: int = 1) -> Tensor:
    """The gradient of `soft_mask` with respect to the estimates.

    Args:
        grad: the gradient of the shares, of the shape of `estimates`.
        estimates: as in the forward.
        dim: as in the forward.

    Returns:
        The gradient, of the shape of `estimates`; 0 where all sources are silent.
    """
    levels = estimates.abs()
    total = levels.sum(dim, keepdim=True)
    common = (grad * _shares(levels, dim)).sum(dim, keepdim=True)
    return torch.where(total == 0, 0, estimates.sign() * (grad - common) / total)


def wiener_mask(targets: Tensor, dim: int = 1, power: float = 2.0) -> Tensor:
    """The oracle shares by power, from the magnitudes of the true sources.

    Args:
        targets: magnitudes, any shape with the sources on `dim`.
        dim: the axis of the sources.
        power: exponent; 2 is the Wiener filter.

    Returns:
        Shares in [0, 1], of the shape of `targets`.
    """
    return _shares(targets.abs() ** power, dim)


def binary_mask(targets: Tensor, dim: int = 1) -> Tensor:
    """The oracle that gives all of a bin to its loudest source.

    Args:
        targets: magnitudes, any shape with the sources on `dim`.
        dim: the axis of the sources.

    Returns:
        Zeros and ones, of the shape and type of `targets`.
    """
    loudest = targets.abs().argmax(dim, keepdim=True)
    return torch.zeros_like(targets).scatter_(dim, loudest, 1)


class SoftMask(nn.Module):
    """`soft_mask` as a layer.

    Args:
        dim: the axis of the sources.

    Example:
        >>> import torch
        >>> SoftMask()(torch.tensor([[3.0, -1.0]]))
        tensor([[0.7500, 0.2500]])
    """

    def __init__(self, dim: int = 1) -> None:
        super().__init__()
        self.dim = dim

    def forward(self, estimates: Tensor) -> Tensor:
        """Shares in [0, 1] of estimates of any shape, of that shape."""
        return soft_mask(estimates, self.dim)

    def extra_repr(self) -> str:
        """The options, for `print(model)`."""
        return f"dim={self.dim}"


def _shares(levels: Tensor, dim: int) -> Tensor:
    total = levels.sum(dim, keepdim=True)
    silent = total == 0
    # Dividing by 1 at silence keeps autograd from multiplying its 0 by a NaN.
    return torch.where(silent, 1 / levels.shape[dim], levels / torch.where(silent, 1, total))
