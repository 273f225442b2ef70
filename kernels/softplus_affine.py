"""Softplus, and normalisation by fixed statistics, in one pass each way.

B batch, C channels, T frames, and with the bias b, scale a and shift d of a channel:

    z = x + b,  s = log(1 + exp(z)),  y = s a + d
    dx = dy a sigmoid(z),  db = sum dx,  da = sum dy s,  dd = sum dy over B and T

Forward a program has a tile of a channel. Backward it has a share of a channel's tiles, of so many
shares that the GPU is busy, and writes their sums: no atomics.

Bytes: forward 2 B C T elements, backward 3. About 18 operations an element forward, 24 backward.

Source: E, section 3.2.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor

from sepfast.kernels import _softplus, launch
from sepfast.kernels._softplus import read, sigmoid

#: Lengths: one compilation serves all their values.
_SIZES = ("batch", "channels", "units", "biased")
_SHARED = (*_SIZES, "share", "shares")


@triton.jit(do_not_specialize=_SIZES)
def sepfast_softplus_affine_forward(
    x,
    bias,
    scale,
    shift,
    out,
    batch,
    channels,
    units,
    biased,
    UNIT: tl.constexpr,
    ROWS: tl.constexpr,
    TILE: tl.constexpr,
):
    """The result of a tile."""
    BLOCK: tl.constexpr = TILE // ROWS
    frames = units * UNIT
    across = tl.cdiv(frames, BLOCK)
    tiles = tl.cdiv(batch, ROWS) * across
    channel, tile = tl.program_id(0) // tiles, tl.program_id(0) % tiles
    b = tl.load(bias + channel, biased > 0, other=0).to(tl.float32)
    _, at, there, _, s, _ = read(
        x, b, tile, across, frames, batch, channels, channel, ROWS, BLOCK, False
    )
    a, d = tl.load(scale + channel).to(tl.float32), tl.load(shift + channel).to(tl.float32)
    tl.store(out + at, s * a + d, there)


@triton.jit(do_not_specialize=_SHARED)
def sepfast_softplus_affine_backward(
    grad,
    x,
    bias,
    scale,
    out,
    sums,
    batch,
    channels,
    units,
    biased,
    share,
    shares,
    UNIT: tl.constexpr,
    ROWS: tl.constexpr,
    TILE: tl.constexpr,
):
    """Gradients of a share of a channel; `sums` (3, C, shares) of bias, scale and shift."""
    BLOCK: tl.constexpr = TILE // ROWS
    frames = units * UNIT
    channel, part = tl.program_id(0) // shares, tl.program_id(0) % shares
    across = tl.cdiv(frames, BLOCK)
    tiles = tl.cdiv(batch, ROWS) * across
    b = tl.load(bias + channel, biased > 0, other=0).to(tl.float32)
    a = tl.load(scale + channel).to(tl.float32)
    of_bias = tl.zeros((ROWS, BLOCK), tl.float32)
    of_scale = tl.zeros((ROWS, BLOCK), tl.float32)
    of_shift = tl.zeros((ROWS, BLOCK), tl.float32)
    for tile in range(part * share, tl.minimum((part + 1) * share, tiles)):
        _, at, there, z, s, e = read(
            x, b, tile, across, frames, batch, channels, channel, ROWS, BLOCK, False
        )
        g = tl.load(grad + at, there, other=0).to(tl.float32)
        dx = g * a * sigmoid(z, e)
        of_bias += dx
        of_scale += g * s
        of_shift += g
        tl.store(out + at, dx, there)
    at = sums + tl.program_id(0)
    row = channels * shares
    tl.store(at, tl.sum(of_bias))
    tl.store(at + row, tl.sum(of_scale))
    tl.store(at + 2 * row, tl.sum(of_shift))


def _variants() -> Iterator[dict[str, Any]]:
    for rows in _softplus.ROWS:
        yield {"UNIT": 8, "ROWS": rows}
    yield {"UNIT": 1, "ROWS": _softplus.ROWS[-1]}


FORWARD = launch.Kernel(
    sepfast_softplus_affine_forward,
    launch.signature("x bias scale shift out", _SIZES),
    _variants,
)
BACKWARD = launch.Kernel(
    sepfast_softplus_affine_backward,
    launch.signature("grad x bias scale out sums", _SHARED),
    _variants,
)
KERNELS = (FORWARD, BACKWARD)


def softplus_affine(x: Tensor, bias: Tensor | None, scale: Tensor, shift: Tensor) -> Tensor:
    """The result.

    Args:
        x: (B, C, T), contiguous.
        bias: (C,), contiguous, or None.
        scale: (C,), contiguous.
        shift: (C,), contiguous.

    Returns:
        (B, C, T) in the type of x.
    """
    config, out = FORWARD.config(x.device), launch.empty(x.shape, x)
    tiles, tiling = _softplus.tiling(x, config)
    tensors = x, _given(bias, x), scale, shift, out
    FORWARD.launch(x.shape[1] * tiles, *tensors, *_sizes(x, bias), config=config, **tiling)
    return out


def softplus_affine_backward(
    grad: Tensor, x: Tensor, bias: Tensor | None, scale: Tensor
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """The gradients.

    Args:
        grad: (B, C, T), contiguous, of the result.
        x, bias, scale: as in the forward.

    Returns:
        Gradients of x (B, C, T) in its type; of bias, scale and shift (C,) in float32.
    """
    config, out, channels = BACKWARD.config(x.device), launch.empty(x.shape, x), x.shape[1]
    tiles, tiling = _softplus.tiling(x, config)
    shares, share = launch.shares(tiles, 1, channels, x.device)
    sums = launch.empty((3, channels, shares), x, torch.float32)
    tensors = grad, x, _given(bias, x), scale, out, sums
    numbers = *_sizes(x, bias), share, shares
    BACKWARD.launch(channels * shares, *tensors, *numbers, config=config, **tiling)
    of_bias, of_scale, of_shift = sums  # three sums: results must not share their memory
    return out, of_bias.sum(-1), of_scale.sum(-1), of_shift.sum(-1)


def _given(bias: Tensor | None, x: Tensor) -> Tensor:
    """A tensor in the place of the bias, which is not looked at where there is none."""
    return x if bias is None else bias


def _sizes(x: Tensor, bias: Tensor | None) -> tuple[int, ...]:
    batch, channels, frames = x.shape
    return batch, channels, frames // _softplus.unit(frames), int(bias is not None)
