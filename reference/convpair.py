"""The convolution pair of DeepConvSep and its transposed twin: vertical, then horizontal, and back.

B batch, C channels, T frames, F bins, N1 vertical and N2 horizontal filters, f1 bins and t2
frames a filter spans. Nothing non-linear stands between the two layers of a pair.

    ConvPair     (B, C, T, F) -> Conv2d (1, f1) -> Conv2d (t2, 1) -> (B, N2, T', F')
    DeconvPair   the same backwards with ConvTranspose2d

with F' = F - f1 + 1 and T' = T - t2 + 1. Source: A and B, "vertical" and "horizontal convolution".
"""

from __future__ import annotations

from typing import cast

from torch import nn


class ConvPair(nn.Sequential):
    """A vertical convolution over bins, then a horizontal one over frames.

    Args:
        channels: C.
        n1: vertical filters.
        n2: horizontal filters.
        f1: bins a vertical filter spans.
        t2: frames a horizontal filter spans.
    """

    def __init__(self, channels: int, n1: int, n2: int, f1: int, t2: int) -> None:
        super().__init__(nn.Conv2d(channels, n1, (1, f1)), nn.Conv2d(n1, n2, (t2, 1)))

    @property
    def vertical(self) -> nn.Conv2d:
        """The layer over bins."""
        return cast(nn.Conv2d, self[0])

    @property
    def horizontal(self) -> nn.Conv2d:
        """The layer over frames."""
        return cast(nn.Conv2d, self[1])


class DeconvPair(nn.Sequential):
    """A horizontal deconvolution over frames, then a vertical one over bins.

    Args:
        channels: C.
        n1: vertical filters.
        n2: horizontal filters.
        f1: bins a vertical filter spans.
        t2: frames a horizontal filter spans.
    """

    def __init__(self, channels: int, n1: int, n2: int, f1: int, t2: int) -> None:
        super().__init__(
            nn.ConvTranspose2d(n2, n1, (t2, 1)), nn.ConvTranspose2d(n1, channels, (1, f1))
        )

    @property
    def horizontal(self) -> nn.ConvTranspose2d:
        """The layer over frames."""
        return cast(nn.ConvTranspose2d, self[0])

    @property
    def vertical(self) -> nn.ConvTranspose2d:
        """The layer over bins."""
        return cast(nn.ConvTranspose2d, self[1])
