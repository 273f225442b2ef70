"""Softplus, batch normalisation and dropout, and their gradient, in one launch each way.

B batch, C channels, T frames, n = B T; s, m, v, r, h, g as in `reference/softplus_norm.py`:

    s = log(1 + exp(x + b)),  h = (s - m) r,  y = (h w + o) keep / (1 - p)
    g = dy keep / (1 - p),  dx = w r (g - mean g - h mean(g h)) sigmoid(x + b)

A program has a channel. It walks along its tiles for the statistics (backward: the two sums), and
then back from the last tile, which the caches still hold, for the result. Tiles are combined by
their counts, means and squared distances (Chan et al. 1983), so that no digits cancel. Where
there are too few channels for the GPU, several programs share one: a launch for the partial
statistics and a second one that combines them and writes. Either way the order is fixed, there are
no atomics. The last loop says `disable_licm`: what it would keep from tile to tile spills.

Bytes: forward 2 B C T elements through the memory, backward 3, as far as the second read comes from
a cache. On average half of what a program reads still waits for that. At B 32, T 2000 in float32 a
channel is 256 kB: forward, with registers for two programs a processor, 132 x 2 x 256 kB / 2 or
34 MB wait, backward, of two tensors and with one program a processor, as much; the L2 of an H200
has 50 MB. At B 8 it is a quarter of that, and backward fits into the L1s. Nothing but x, the
vectors and the seed is kept for the backward, which takes softplus and dropout again.

Operations an element: 14 for softplus, 16 for a mask of dropout. Forward two softplus, 8 for the
statistics, 4 for the result and a mask: about 56. Backward two of both, 6 for the sums, 14 for the
result: about 80. At 4.3 TB/s and 30 T operations a second an H200 has time for 56 and 84.

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
from sepfast.kernels._softplus import kept, read, sigmoid

#: Lengths and the threshold, and whether there are bias (1), weight (2) and offset (4), as bits:
#: one compilation serves all their values.
_NUMBERS = ("batch", "channels", "units", "share", "shares", "flags", "threshold")

#: Tiles below which a channel is not shared out: a launch takes as long.
_TILES = 8

#: Shares of a channel that a program can combine, at least twice the processors of any GPU.
_MOST = 1024


@triton.jit(do_not_specialize=_NUMBERS)
def sepfast_softplus_norm_forward(
    x,
    bias,
    weight,
    offset,
    seed,
    out,
    means,
    variances,
    partials,
    batch,
    channels,
    units,
    share,
    shares,
    flags,
    threshold,
    eps,
    scale,
    STAGE: tl.constexpr,
    DROP: tl.constexpr,
    UNIT: tl.constexpr,
    ROWS: tl.constexpr,
    TILE: tl.constexpr,
    SHARES: tl.constexpr,
):
    """Statistics and result of a channel: STAGE "whole"; or of a share, "statistics", "apply"."""
    BLOCK: tl.constexpr = TILE // ROWS
    frames = units * UNIT
    channel, part = tl.program_id(0) // shares, tl.program_id(0) % shares
    across = tl.cdiv(frames, BLOCK)
    begin = part * share
    end = tl.minimum(begin + share, tl.cdiv(batch, ROWS) * across)
    b = tl.load(bias + channel, (flags & 1) > 0, other=0).to(tl.float32)
    mean, spread, count = 0.0, 0.0, 0.0
    if STAGE != "apply":
        for tile in range(begin, end):
            _, _, there, _, s, _ = read(
                x, b, tile, across, frames, batch, channels, channel, ROWS, BLOCK, True
            )
            # Lines and frames of this tile that there are, (ROWS, BLOCK) at most.
            lines = tl.minimum(ROWS, batch - (tile // across) * ROWS)
            heard = (lines * tl.minimum(BLOCK, frames - (tile % across) * BLOCK)).to(tl.float32)
            centre = tl.sum(tl.where(there, s, 0)) / heard
            apart = tl.where(there, s - centre, 0)
            weighed = heard / (count + heard)
            distance = centre - mean
            mean += distance * weighed
            spread += tl.sum(apart * apart) + distance * distance * count * weighed
            count += heard
    if STAGE == "statistics":
        own = partials + tl.program_id(0) * 3
        tl.store(own, count)
        tl.store(own + 1, mean)
        tl.store(own + 2, spread)
    else:
        if STAGE == "apply":
            j = tl.arange(0, SHARES)
            of_share = partials + (channel * shares + j) * 3
            counts = tl.load(of_share, j < shares, other=0)
            centres = tl.load(of_share + 1, j < shares, other=0)
            count = tl.sum(counts)
            mean = tl.sum(counts * centres) / count
            distances = centres - mean
            spreads = tl.load(of_share + 2, j < shares, other=0)
            spread = tl.sum(spreads + counts * distances * distances)
        variance = spread / count
        if part == 0:
            tl.store(means + channel, mean)
            tl.store(variances + channel, variance)
        w = tl.load(weight + channel, (flags & 2) > 0, other=1).to(tl.float32)
        o = tl.load(offset + channel, (flags & 4) > 0, other=0).to(tl.float32)
        gain = w * tl.rsqrt(variance + eps)
        for back in range(begin, end):
            tile = begin + end - 1 - back
            line, at, there, _, s, _ = read(
                x, b, tile, across, frames, batch, channels, channel, ROWS, BLOCK, False
            )
            y = (s - mean) * gain + o
            if DROP:
                keep = kept(seed, line, tile % across, threshold, ROWS, BLOCK)
                y = tl.where(keep, y * scale, 0)
            tl.store(out + at, y, there)


@triton.jit(do_not_specialize=_NUMBERS)
def sepfast_softplus_norm_backward(
    grad,
    x,
    bias,
    weight,
    means,
    variances,
    seed,
    out,
    of_bias,
    of_weight,
    of_offset,
    partials,
    batch,
    channels,
    units,
    share,
    shares,
    flags,
    threshold,
    eps,
    scale,
    STAGE: tl.constexpr,
    DROP: tl.constexpr,
    UNIT: tl.constexpr,
    ROWS: tl.constexpr,
    TILE: tl.constexpr,
    SHARES: tl.constexpr,
):
    """Gradients of a channel: STAGE "whole"; or of a share, "statistics" for the sums, "apply"."""
    BLOCK: tl.constexpr = TILE // ROWS
    frames = units * UNIT
    channel, part = tl.program_id(0) // shares, tl.program_id(0) % shares
    across = tl.cdiv(frames, BLOCK)
    begin = part * share
    end = tl.minimum(begin + share, tl.cdiv(batch, ROWS) * across)
    b = tl.load(bias + channel, (flags & 1) > 0, other=0).to(tl.float32)
    mean = tl.load(means + channel)
    rate = tl.rsqrt(tl.load(variances + channel) + eps)
    if STAGE == "apply":
        j = tl.arange(0, SHARES)
        of_share = partials + (channel * shares + j) * 2
        total = tl.sum(tl.load(of_share, j < shares, other=0))
        product = tl.sum(tl.load(of_share + 1, j < shares, other=0))
    else:
        sums = tl.zeros((ROWS, BLOCK), tl.float32)
        products = tl.zeros((ROWS, BLOCK), tl.float32)
        for tile in range(begin, end):
            line, at, there, _, s, _ = read(
                x, b, tile, across, frames, batch, channels, channel, ROWS, BLOCK, True
            )
            g = tl.load(grad + at, there, other=0, eviction_policy="evict_last").to(tl.float32)
            if DROP:
                keep = kept(seed, line, tile % across, threshold, ROWS, BLOCK)
                g = tl.where(keep, g * scale, 0)
            sums += g
            products += g * (s - mean)
        total, product = tl.sum(sums), tl.sum(products) * rate
    if STAGE == "statistics":
        own = partials + tl.program_id(0) * 2
        tl.store(own, total)
        tl.store(own + 1, product)
    else:
        if part == 0:
            tl.store(of_offset + channel, total)
            tl.store(of_weight + channel, product)
        w = tl.load(weight + channel, (flags & 2) > 0, other=1).to(tl.float32)
        count = batch.to(tl.float32) * frames.to(tl.float32)
        level, slope, gain = total / count, product / count * rate, w * rate
        # dx / sigmoid sums to 0, so that sigmoid less a constant, its value at the mean, gives the
        # same db without the roundings that all elements share.
        middle = 1 - tl.exp(-mean)
        of_line = tl.zeros((ROWS, BLOCK), tl.float32)
        for back in tl.range(begin, end, disable_licm=True):
            tile = begin + end - 1 - back
            line, at, there, z, s, e = read(
                x, b, tile, across, frames, batch, channels, channel, ROWS, BLOCK, False
            )
            g = tl.load(grad + at, there, other=0, eviction_policy="evict_first").to(tl.float32)
            if DROP:
                keep = kept(seed, line, tile % across, threshold, ROWS, BLOCK)
                g = tl.where(keep, g * scale, 0)
            inner = (g - level - (s - mean) * slope) * gain
            steep = sigmoid(z, e)
            of_line += tl.where(there, inner * (steep - middle), 0)
            tl.store(out + at, inner * steep, there)
        tl.store(of_bias + tl.program_id(0), tl.sum(of_line))


def _variants() -> Iterator[dict[str, Any]]:
    """Every tiling of what is usual in training, and each of the other branches."""
    usual = {"STAGE": "whole", "DROP": True, "UNIT": 8, "ROWS": 32, "SHARES": _MOST}
    for rows in _softplus.ROWS:
        yield usual | {"ROWS": rows}
    yield usual | {"DROP": False}
    yield usual | {"UNIT": 1}
    yield usual | {"STAGE": "statistics"}
    for rows in (_softplus.ROWS[0], _softplus.ROWS[-1]):
        yield usual | {"STAGE": "apply", "ROWS": rows}


_NUMERIC = launch.signature("", _NUMBERS, "eps scale")
FORWARD = launch.Kernel(
    sepfast_softplus_norm_forward,
    {
        **launch.signature("x bias weight offset", ()),
        "seed": "*i64",
        **launch.signature("out means variances partials", ()),
        **_NUMERIC,
    },
    _variants,
)
BACKWARD = launch.Kernel(
    sepfast_softplus_norm_backward,
    {
        **launch.signature("grad x bias weight means variances", ()),
        "seed": "*i64",
        **launch.signature("out of_bias of_weight of_offset partials", ()),
        **_NUMERIC,
    },
    _variants,
)
KERNELS = (FORWARD, BACKWARD)


def softplus_norm(
    x: Tensor,
    bias: Tensor | None,
    weight: Tensor | None,
    offset: Tensor | None,
    seed: Tensor | None,
    eps: float,
    dropout: float,
    threshold: int,
) -> tuple[Tensor, Tensor, Tensor]:
    """The result and the statistics.

    Args:
        x: (B, C, T), contiguous.
        bias: (C,), contiguous, or None.
        weight: (C,), likewise.
        offset: (C,), likewise.
        seed: (1,) of int64, or None where nothing is dropped.
        eps: added to the variance.
        dropout: probability, below 1.
        threshold: halves of words below it drop an element.

    Returns:
        (B, C, T) in the type of x; mean and biased variance (C,) in float32.
    """
    out, channels = launch.empty(x.shape, x), x.shape[1]
    if x.numel() == 0:
        nothing = x.new_full((channels,), torch.nan, dtype=torch.float32)
        return out, nothing, nothing.clone()
    mean, variance = (launch.empty((channels,), x, torch.float32) for _ in range(2))
    run = _Run(FORWARD, x, (bias, weight, offset), seed, 3)
    vectors = (x if v is None else v for v in (bias, weight, offset))
    results = out, mean, variance, run.partials
    run((x, *vectors, run.seed, *results), threshold, eps, dropout)
    return out, mean, variance


def softplus_norm_backward(
    grad: Tensor,
    x: Tensor,
    bias: Tensor | None,
    weight: Tensor | None,
    mean: Tensor,
    variance: Tensor,
    seed: Tensor | None,
    eps: float,
    dropout: float,
    threshold: int,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """The gradients.

    Args:
        grad: (B, C, T), contiguous, of the result.
        x, bias, weight, seed, eps, dropout, threshold: as in the forward.
        mean, variance: what it gave.

    Returns:
        Gradients of x (B, C, T) in its type; of bias, weight and offset (C,) in float32.
    """
    out, channels = launch.empty(x.shape, x), x.shape[1]
    if x.numel() == 0:
        nothing = x.new_zeros(channels, dtype=torch.float32)
        return out, nothing, nothing.clone(), nothing.clone()
    run = _Run(BACKWARD, x, (bias, weight, None), seed, 2)
    of_bias = launch.empty((channels, run.shares), x, torch.float32)
    of_weight, of_offset = (launch.empty((channels,), x, torch.float32) for _ in range(2))
    vectors = (x if v is None else v for v in (bias, weight))
    results = out, of_bias, of_weight, of_offset, run.partials
    run((grad, x, *vectors, mean, variance, run.seed, *results), threshold, eps, dropout)
    of_bias = of_bias[:, 0] if run.shares == 1 else of_bias.sum(1)
    return out, of_bias, of_weight, of_offset


class _Run:
    """How one of the two kernels goes over x: in one launch, or in two.

    Attributes:
        shares: programs of a channel.
        seed: a tensor, which is not looked at where nothing is dropped.
        partials: (C, shares, numbers of a share), not looked at where there is one share.
    """

    def __init__(
        self,
        kernel: launch.Kernel,
        x: Tensor,
        vectors: tuple[Tensor | None, ...],
        seed: Tensor | None,
        numbers: int,
    ) -> None:
        batch, channels, frames = x.shape
        self._kernel, self._config = kernel, kernel.config(x.device)
        tiles, tiling = _softplus.tiling(x, self._config)
        self.shares, share = launch.shares(tiles, _TILES, channels, x.device)
        flags = sum(1 << at for at, vector in enumerate(vectors) if vector is not None)
        units = frames // tiling["UNIT"]
        self._sizes = batch, channels, units, share, self.shares, flags
        self._constants = {**tiling, "DROP": seed is not None, "SHARES": _MOST}
        self._programs = channels * self.shares
        self.seed = x if seed is None else seed
        size = self._programs * numbers if self.shares > 1 else 1
        self.partials = launch.empty((size,), x, torch.float32)

    def __call__(
        self, tensors: tuple[Tensor, ...], threshold: int, eps: float, dropout: float
    ) -> None:
        """Launch it."""
        numbers = (*self._sizes, threshold, eps, 1 / (1 - dropout))
        for stage in ("whole",) if self.shares == 1 else ("statistics", "apply"):
            constants = self._constants | {"STAGE": stage}
            self._kernel.launch(
                self._programs, *tensors, *numbers, config=self._config, **constants
            )
