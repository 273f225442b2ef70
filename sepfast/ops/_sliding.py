"""Which framings the sums that slide serve, in the place of a transform of each frame.

Of a frame of 2048 samples 16 apart, the kernels of `dft.py` take 0.79 million operations in
products each way, whatever the hop is. Sums that slide (`kernels/_sliding.py`) take, tiles with
their edges counted, 0.15 million forward and 0.33 million back, and about 40 and 60 for each bin
beside them: a magnitude 4 times and a `masked_istft` of one source 3 times fewer. The bytes are the
same, but that the way back stores and adds the samples of 10 groups of bins, for `masked_istft` of
19: 20 and 38 numbers a sample, against 128 of a spectrum and 64 of shares. Three products in TF32
of what is left cost less than the bytes, so that float32 is exact here without waiting for it. From
these counts the choice follows until both are measured.

The window must be a0 - a1 cos(2 pi n / N), which is Hann's, Hamming's or none with the period N.
Taken in the spectrum, it has the rounding of a whole frame next to its ends too, where it is small.
On the way back that counts where a sample lies under nothing but such ends and is divided by their
squares, so that frames must begin well in front of the samples and end well behind them.
"""

from __future__ import annotations

from functools import lru_cache

import torch

from sepfast.kernels.precision import product_precision
from sepfast.kernels.tuning import has_config
from sepfast.ops._framing import kernel_obstacle
from sepfast.reference import Framing

#: Frames on each sample from which it is worth it: two segments of chunks, as kernels have them.
_OVERLAP = 32
#: The least hop: the depth of a product.
_HOP = 16


def slides(
    framing: Framing, device: torch.device, kernel: str, back: bool = False
) -> tuple[float, float] | None:
    """What a kernel that slides takes for a framing, in the precision that is demanded now.

    Args:
        framing: the framing.
        device: where it runs.
        kernel: its name.
        back: whether it gives samples.

    Returns:
        a0 and - a1 / 2 of the window, times the scale; None where the kernel does not serve it.
    """
    key = {"n_fft": framing.n_fft, "hop": framing.hop}
    shipped = has_config(kernel, device, precision=product_precision(device), **key)
    return _window_terms(framing) if shipped and (_covers(framing) or not back) else None


def _covers(framing: Framing) -> bool:
    """Whether frames lie about every sample, the first and the last one included."""
    quarters = 4 * framing.front / framing.n_fft
    return framing.rule != "valid" and 1 <= quarters <= 3


def obstacle(
    framing: Framing,
    device: torch.device,
    sliding: str,
    kernel: str,
    *,
    back: bool = False,
    **key: str,
) -> str | None:
    """Why neither the kernel that slides nor the other one can run, which has `key` besides."""
    if slides(framing, device, sliding, back) is not None:
        return None
    return kernel_obstacle(framing, device, kernel, **key)


@lru_cache(maxsize=64)
def _window_terms(framing: Framing) -> tuple[float, float] | None:
    """a0 and - a1 / 2 of a framing's window, times its scale; None where sums do not serve it."""
    n, hop = framing.n_fft, framing.hop
    if n & (n - 1) or n % hop or n < _OVERLAP * hop or hop < _HOP or framing.span != n:
        return None
    window = framing.window_on(torch.empty(0, dtype=torch.float64))
    cosine = torch.cos(2 * torch.pi * torch.arange(n, dtype=torch.float64) / n)
    center, side = float(window.mean()), float((window * cosine).mean())
    if float((center + 2 * side * cosine - window).abs().max()) > 1e-12:
        return None
    return center * framing.scale, side * framing.scale
