"""What the STFT's operators share: framings as kernels take them, and what is refused."""

from __future__ import annotations

from functools import lru_cache

import torch
from torch import Tensor

from sepfast.errors import InputError
from sepfast.reference import Framing


def framing_obstacle(framing: Framing) -> str | None:
    """Why there is no kernel for a framing; None where there is one."""
    n = framing.n_fft
    if 256 <= n <= 4096 and n & (n - 1) == 0:
        return None
    return f"as n_fft {n} is no power of two from 256 to 4096"


@lru_cache(maxsize=64)
def scaled_window(framing: Framing, device: torch.device) -> Tensor:
    """The window times the framing's scale, zeros behind its span: (n_fft,), float32."""
    window = framing.window_on(torch.empty(0, dtype=torch.float64)) * framing.scale
    padded = torch.nn.functional.pad(window, (0, framing.n_fft - framing.span))
    return padded.to(device, torch.float32)


def single(tensor: Tensor) -> Tensor:
    """Half types in float32, as the STFT is computed; others as they are."""
    return tensor if tensor.dtype == torch.float64 else tensor.float()


def rows(tensor: Tensor, axes: int) -> Tensor:
    """Leading axes as one: (R, ...) with the last `axes` axes kept."""
    return single(tensor).reshape(-1, *tensor.shape[tensor.ndim - axes :])


def check_line(name: str, tensor: Tensor) -> None:
    """Refuse what has no axis of samples."""
    if tensor.ndim < 1:
        raise InputError(f"{name}: got a single number, takes (..., samples)")


def check_bins(name: str, tensor: Tensor, framing: Framing, complex_axis: bool) -> None:
    """Refuse what is no (..., frames, bins) or (..., frames, bins, 2) of a framing."""
    tail = (framing.bins, 2) if complex_axis else (framing.bins,)
    if tensor.ndim < len(tail) + 1 or tuple(tensor.shape[-len(tail) :]) != tail:
        wanted = ", ".join(map(str, tail))
        raise InputError(f"{name}: got shape {tuple(tensor.shape)}, takes (..., frames, {wanted})")
