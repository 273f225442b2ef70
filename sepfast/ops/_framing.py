"""What the STFT's operators share: framings as kernels take them, and what is refused."""

from __future__ import annotations

from functools import lru_cache
from typing import NamedTuple

import torch
from torch import Tensor

from sepfast.errors import InputError
from sepfast.kernels.precision import product_precision
from sepfast.kernels.tuning import has_config
from sepfast.reference import Framing
from sepfast.reference.half_types import widened
from sepfast.reference.overlap_add import squared_window_sum


def framing_obstacle(framing: Framing) -> str | None:
    """Why there are no kernels for a framing; None where there are."""
    n = framing.n_fft
    if 256 <= n <= 4096 and n & (n - 1) == 0:
        return None
    return f"as n_fft {n} is no power of two from 256 to 4096"


def kernel_obstacle(framing: Framing, device: torch.device, kernel: str, **key: str) -> str | None:
    """Why a kernel cannot run, for a framing and the precision that is demanded now.

    Args:
        framing: the framing.
        device: where it would run.
        kernel: its name.
        **key: what else its configurations depend on.
    """
    reason = framing_obstacle(framing)
    if reason:
        return reason
    precision = product_precision(device)
    if has_config(kernel, device, n_fft=framing.n_fft, precision=precision, **key):
        return None
    words = "".join(f", {name} {word!r}" for name, word in key.items())
    return f"as {kernel} is not shipped for n_fft {framing.n_fft}, precision {precision!r}{words}"


class InverseNorm(NamedTuple):
    """One over the summed squared scaled window, at the positions that `full` frames cover.

    Attributes:
        edges: (positions,); with as many frames as reach a sample, all values that there are.
        full: the frames.
    """

    edges: Tensor
    full: int


def inverse_norm(framing: Framing, frames: int, like: Tensor) -> InverseNorm:
    """What samples that some frames were added to are multiplied by; as `like` is."""
    full = min(frames, -(-framing.span // framing.hop))
    return InverseNorm(_inverse_norm(framing, full, like.dtype, like.device), max(1, full))


def normalised(lines: Tensor, framing: Framing, frames: int) -> Tensor:
    """Lines (R, samples) multiplied so; 0 where no frame reaches."""
    edges, full = inverse_norm(framing, frames, lines)
    ramp, hop = (full - 1) * framing.hop, framing.hop
    if frames > full:
        middle = edges[ramp : ramp + hop].expand(frames - full + 1, hop).flatten()
        edges = torch.cat([edges[:ramp], middle, edges[ramp + hop :]])
    line = edges[framing.front : framing.front + lines.shape[1]]
    return lines * torch.nn.functional.pad(line, (0, lines.shape[1] - len(line)))


@lru_cache(maxsize=64)
def _inverse_norm(
    framing: Framing, frames: int, dtype: torch.dtype, device: torch.device
) -> Tensor:
    """The same for all positions that some frames cover."""
    window = framing.window_on(torch.empty(0, dtype=torch.float64)) * framing.scale
    if frames == 0:
        return torch.empty(0, dtype=dtype, device=device)
    return (1 / squared_window_sum(window, frames, framing.hop)).to(device, dtype)


@lru_cache(maxsize=64)
def scaled_window(framing: Framing, device: torch.device) -> Tensor:
    """The window times the framing's scale, zeros behind its span: (n_fft,), float32."""
    window = framing.window_on(torch.empty(0, dtype=torch.float64)) * framing.scale
    padded = torch.nn.functional.pad(window, (0, framing.n_fft - framing.span))
    return padded.to(device, torch.float32)


def rows(tensor: Tensor, axes: int) -> Tensor:
    """Leading axes as one, half types in float32: (R, ...) with the last `axes` axes kept."""
    split = tensor.ndim - axes
    # Not -1, which says nothing where another axis is 0.
    return widened(tensor).reshape(tensor.shape[:split].numel(), *tensor.shape[split:])


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
