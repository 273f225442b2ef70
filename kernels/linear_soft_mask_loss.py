"""The last vertical deconvolution, its ReLU and system A's loss, with no estimate in memory.

B batch, S sources, T frames, N filters, C channels, F bins; R = B T rows, row r = b T + t.

    y_s[r, c, f] = relu(b_s[c] + sum_n h_s[r, n] w_s[n, c, f]),  h features, w weight, b bias
    L = the loss of y, as in `soft_mask_loss.py`, and dy its gradient, 0 where y is 0
    dh_s[r, n] = sum_cf dy_s[r, c, f] w_s[n, c, f]
    dw_s[n, c, f] = sum_r h_s[r, n] dy_s[r, c, f],  db_s[c] = sum_rf dy_s[r, c, f]

A tile is ROWS rows by BINS bins of one channel with all sources together, (SOURCES, ROWS, BINS):
S products of features (ROWS, N) and weight (N, BINS), taken in steps of STEP filters. What the
mask and the loss need of a tile is in its registers, so that nothing of the estimates' size is
ever written; both gradients compute their estimates again.
Sources are taken one after another, picked out of tiles and put into them by a mask, and loops say
`disable_licm`: the operands of several products at a time are more than there are registers.

Sums without atomics. A forward program has one tile and writes one partial sum. A program of the
features' gradient has ROWS rows and FILTERS filters and every `splits`-th tile along the bins, one
of the weight's gradient BINS bins and FILTERS filters and every `splits`-th tile along the rows;
partial sums of the splits are added up behind, in a fixed order. `splits` fills the device about
twice, so that the partial sums take two tiles a processor, whatever the sizes are.

Elements moved: (S + 1) R C F of targets and mixture for each of the three kernels, and features
and weight, which lie in the cache. Stored estimates and their gradient are written once and read
again, 2 S R C F forward and 4 S R C F backward, in place of one of the three reads. Operations:
2 S R N C F forward, four times as many backward.

Source: A, "deconvolution" and "loss"; B, section 4 c.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor

from sepfast.kernels import launch, soft_mask_loss
from sepfast.kernels.precision import product_precision

#: Lengths that change from batch to batch: one compilation serves all their values.
_NUMBERS = ("sources", "channels", "frames", "filters", "bins", "rows")
_SPLIT_NUMBERS = (*_NUMBERS, "splits")


@triton.jit(do_not_specialize=_NUMBERS)
def sepfast_linear_soft_mask_loss_forward(
    features, weight, bias, mixture, targets, partials,
    sources, channels, frames, filters, bins, rows, alpha, beta, beta_vocals,
    READING: tl.constexpr, SOURCES: tl.constexpr,
    ROWS: tl.constexpr, BINS: tl.constexpr, STEP: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    """One partial sum of the signed loss."""
    blocks = channels * tl.cdiv(bins, BINS)
    first = (tl.program_id(0) // blocks) * ROWS
    y, x, t = _tile(
        features, weight, bias, mixture, targets, first, tl.program_id(0) % blocks,
        sources, channels, frames, filters, bins, rows, SOURCES, ROWS, BINS, STEP, PRECISION,
    )  # fmt: skip
    source = tl.arange(0, SOURCES)[:, None, None]
    terms = soft_mask_loss.signed_terms(y, x, t, source, sources, alpha, beta, beta_vocals, READING)
    tl.store(partials + tl.program_id(0), tl.sum(terms))


@triton.jit(do_not_specialize=_SPLIT_NUMBERS)
def sepfast_linear_soft_mask_loss_features(
    grad, total_loss, features, weight, bias, mixture, targets, partials,
    sources, channels, frames, filters, bins, rows, splits, alpha, beta, beta_vocals,
    READING: tl.constexpr, SOURCES: tl.constexpr, ROWS: tl.constexpr, BINS: tl.constexpr,
    FILTERS: tl.constexpr, STEP: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    """Partial sums of the features' gradient, (splits, B, S, T, N)."""
    split, block = tl.program_id(0) % splits, tl.program_id(0) // splits
    steps = tl.cdiv(filters, FILTERS)
    first, from_filter = (block // steps) * ROWS, (block % steps) * FILTERS
    source = tl.arange(0, SOURCES)[:, None, None]
    scale = soft_mask_loss.slope_scale(grad, total_loss, READING)
    sums = tl.zeros((SOURCES, ROWS, FILTERS), tl.float32)
    for at in tl.range(split, channels * tl.cdiv(bins, BINS), splits, disable_licm=True):
        y, x, t = _tile(
            features, weight, bias, mixture, targets, first, at,
            sources, channels, frames, filters, bins, rows, SOURCES, ROWS, BINS, STEP, PRECISION,
        )  # fmt: skip
        dy = soft_mask_loss.slope(
            y, x, t, scale, source, sources, alpha, beta, beta_vocals, READING
        )
        for s in tl.range(0, sources, disable_licm=True):
            w = _weights(weight, s, from_filter, at, channels, filters, bins, FILTERS, BINS)
            of_source = tl.dot(_of_source(dy, source, s), tl.trans(w), input_precision=PRECISION)
            sums += tl.where(source == s, of_source[None, :, :], 0)
    partials += split.to(tl.int64) * rows * sources * filters
    for s in tl.range(0, sources, disable_licm=True):
        offset, inside = _features_at(
            s, first, from_filter, sources, frames, filters, rows, ROWS, FILTERS
        )
        tl.store(partials + offset, _of_source(sums, source, s), inside)


@triton.jit(do_not_specialize=_SPLIT_NUMBERS)
def sepfast_linear_soft_mask_loss_weights(
    grad, total_loss, features, weight, bias, mixture, targets, partials, bias_partials,
    sources, channels, frames, filters, bins, rows, splits, alpha, beta, beta_vocals,
    READING: tl.constexpr, SOURCES: tl.constexpr, ROWS: tl.constexpr, BINS: tl.constexpr,
    FILTERS: tl.constexpr, STEP: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    """Partial sums of the gradients of weight, (splits, S, N, C, F), and bias."""
    split, block = tl.program_id(0) % splits, tl.program_id(0) // splits
    steps = tl.cdiv(filters, FILTERS)
    at, from_filter = block // steps, (block % steps) * FILTERS
    source = tl.arange(0, SOURCES)[:, None, None]
    scale = soft_mask_loss.slope_scale(grad, total_loss, READING)
    bias_sum = tl.zeros((SOURCES, BINS), tl.float32)
    sums = tl.zeros((SOURCES, FILTERS, BINS), tl.float32)
    for first in tl.range(split * ROWS, rows, splits * ROWS, disable_licm=True):
        y, x, t = _tile(
            features, weight, bias, mixture, targets, first, at,
            sources, channels, frames, filters, bins, rows, SOURCES, ROWS, BINS, STEP, PRECISION,
        )  # fmt: skip
        dy = soft_mask_loss.slope(
            y, x, t, scale, source, sources, alpha, beta, beta_vocals, READING
        )
        bias_sum += tl.sum(dy, axis=1)
        for s in tl.range(0, sources, disable_licm=True):
            offset, inside = _features_at(
                s, first, from_filter, sources, frames, filters, rows, ROWS, FILTERS
            )
            h = tl.load(features + offset, inside, other=0).to(tl.float32)
            of_source = tl.dot(tl.trans(h), _of_source(dy, source, s), input_precision=PRECISION)
            sums += tl.where(source == s, of_source[None, :, :], 0)
    partials += split.to(tl.int64) * sources * filters * channels * bins
    for s in tl.range(0, sources, disable_licm=True):
        offset, inside = _weights_at(s, from_filter, at, channels, filters, bins, FILTERS, BINS)
        tl.store(partials + offset, _of_source(sums, source, s), inside)
    if from_filter == 0:  # else another program has the same sum
        all_sources = tl.arange(0, SOURCES)
        bias_partials += (split * channels * tl.cdiv(bins, BINS) + at) * sources
        tl.store(bias_partials + all_sources, tl.sum(bias_sum, axis=1), all_sources < sources)


@triton.jit
def _tile(
    features, weight, bias, mixture, targets, first, at,
    sources, channels, frames, filters, bins, rows,
    SOURCES: tl.constexpr,
    ROWS: tl.constexpr, BINS: tl.constexpr, STEP: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    """Estimates and targets, (SOURCES, ROWS, BINS), and mixture, (1, ROWS, BINS), of a tile.

    It begins at row `first`, and is block `at` of all channels' blocks of BINS bins. Outside the
    tensors mixture and targets are 0.
    """
    channel = at // tl.cdiv(bins, BINS)
    source = tl.arange(0, SOURCES)[:, None, None]
    y = tl.zeros((SOURCES, ROWS, BINS), tl.float32)
    for s in tl.range(0, sources, disable_licm=True):
        z = tl.zeros((ROWS, BINS), tl.float32)
        for n in tl.range(0, filters, STEP, disable_licm=True):
            offset, inside = _features_at(s, first, n, sources, frames, filters, rows, ROWS, STEP)
            h = tl.load(features + offset, inside, other=0).to(tl.float32)
            w = _weights(weight, s, n, at, channels, filters, bins, STEP, BINS)
            z = tl.dot(h, w, z, input_precision=PRECISION)
        z += tl.load(bias + s * channels + channel).to(tl.float32)
        y = tl.where(source == s, tl.where(z < 0, 0, z)[None, :, :], y)  # NaN stays

    row = first + tl.arange(0, ROWS)[None, :, None]
    bin = (at % tl.cdiv(bins, BINS)) * BINS + tl.arange(0, BINS)[None, None, :]
    inside = (row < rows) & (bin < bins)
    item = (row // frames).to(tl.int64)
    of_mixture = (item * channels + channel) * frames + row % frames  # (1, ROWS, 1)
    of_targets = ((item * sources + source) * channels + channel) * frames + row % frames
    x = tl.load(mixture + of_mixture * bins + bin, inside, other=0).to(tl.float32)
    t = tl.load(targets + of_targets * bins + bin, inside & (source < sources), other=0)
    return y, x, t.to(tl.float32)


@triton.jit
def _weights(
    weight, s, n, at, channels, filters, bins, FILTERS: tl.constexpr, BINS: tl.constexpr
):  # fmt: skip
    """Weights of source s from filter n on at the bins of a block, (FILTERS, BINS), 0 outside."""
    offset, inside = _weights_at(s, n, at, channels, filters, bins, FILTERS, BINS)
    return tl.load(weight + offset, inside, other=0).to(tl.float32)


@triton.jit
def _weights_at(
    s, n, at, channels, filters, bins, FILTERS: tl.constexpr, BINS: tl.constexpr
):  # fmt: skip
    """Where those weights lie, and whether they are any."""
    channel, block = at // tl.cdiv(bins, BINS), at % tl.cdiv(bins, BINS)
    filter = n + tl.arange(0, FILTERS)[:, None]
    bin = block * BINS + tl.arange(0, BINS)[None, :]
    offset = ((s * filters + filter).to(tl.int64) * channels + channel) * bins + bin
    return offset, (filter < filters) & (bin < bins)


@triton.jit
def _features_at(
    s, first, n, sources, frames, filters, rows, ROWS: tl.constexpr, FILTERS: tl.constexpr
):  # fmt: skip
    """Where features of source s lie, from row `first` and filter n on, and whether they are any.

    Both are (ROWS, FILTERS).
    """
    row = first + tl.arange(0, ROWS)[:, None]
    filter = n + tl.arange(0, FILTERS)[None, :]
    item = (row // frames).to(tl.int64)
    offset = ((item * sources + s) * frames + row % frames) * filters + filter
    return offset, (row < rows) & (filter < filters)


@triton.jit
def _of_source(tile, source, s):
    """Source s of a tile (SOURCES, ROWS, BINS), (ROWS, BINS)."""
    return tl.sum(tl.where(source == s, tile, 0), axis=0)


def _variants(precision: str, sources: int) -> Iterator[dict[str, Any]]:
    for reading in ("code", "paper"):
        yield {"READING": reading, "SOURCES": sources, "PRECISION": precision}


_INPUTS = "features weight bias mixture targets"
_WEIGHTS = "alpha beta beta_vocals"
FORWARD = launch.Kernel(
    sepfast_linear_soft_mask_loss_forward,
    launch.signature(f"{_INPUTS} partials", _NUMBERS, _WEIGHTS),
    _variants,
    dots=True,
)
FEATURES = launch.Kernel(
    sepfast_linear_soft_mask_loss_features,
    launch.signature(f"grad total_loss {_INPUTS} partials", _SPLIT_NUMBERS, _WEIGHTS),
    _variants,
    dots=True,
)
WEIGHTS = launch.Kernel(
    sepfast_linear_soft_mask_loss_weights,
    launch.signature(f"grad total_loss {_INPUTS} partials bias_partials", _SPLIT_NUMBERS, _WEIGHTS),
    _variants,
    dots=True,
)
KERNELS = (FORWARD, FEATURES, WEIGHTS)


def linear_soft_mask_loss(
    features: Tensor,
    weight: Tensor,
    bias: Tensor,
    mixture: Tensor,
    targets: Tensor,
    weights: tuple[float, float, float],
    reading: str,
) -> Tensor:
    """The signed loss, whose absolute value is the loss in the reading `code`.

    Args:
        features: (B, S, T, N), contiguous, and so are the others.
        weight: (S, N, C, F).
        bias: (S, C).
        mixture: (B, C, T, F).
        targets: (B, S, C, T, F).
        weights: alpha, beta and beta_vocals.
        reading: "code" or "paper".

    Returns:
        A scalar in float32.
    """
    inputs = (features, weight, bias, mixture, targets)
    config, constants = _choice(FORWARD, features, reading)
    programs = _row_blocks(features, config) * _bin_blocks(weight, config)
    partials = launch.empty((programs,), features, torch.float32)
    FORWARD.launch(
        programs, *inputs, partials, *_numbers(features, weight), *weights,
        config=config, **constants,
    )  # fmt: skip
    return partials.sum()


def linear_soft_mask_loss_backward(
    grad: Tensor,
    total: Tensor,
    features: Tensor,
    weight: Tensor,
    bias: Tensor,
    mixture: Tensor,
    targets: Tensor,
    weights: tuple[float, float, float],
    reading: str,
) -> tuple[Tensor, Tensor, Tensor]:
    """The gradients of the loss with respect to features, weight and bias.

    Args:
        grad: a scalar, the gradient of the loss.
        total: a scalar, the signed loss.
        features: as in the forward, and so are the others.
        weight: (S, N, C, F).
        bias: (S, C).
        mixture: (B, C, T, F).
        targets: (B, S, C, T, F).
        weights: alpha, beta and beta_vocals.
        reading: "code" or "paper".

    Returns:
        (B, S, T, N), (S, N, C, F) and (S, C) in the type of `features`.
    """
    given = (grad, total, features, weight, bias, mixture, targets)
    of_weight, of_bias = _weights_gradient(given, weights, reading)
    return _features_gradient(given, weights, reading), of_weight, of_bias


def _features_gradient(
    given: tuple[Tensor, ...], weights: tuple[float, float, float], reading: str
) -> Tensor:
    features, weight = given[2:4]
    config, constants = _choice(FEATURES, features, reading)
    owned = _row_blocks(features, config) * launch.blocks(features.shape[3], config["FILTERS"])
    splits, _ = launch.shares(_bin_blocks(weight, config), 1, owned, features.device)
    partials = launch.empty((splits, *features.shape), features, torch.float32)
    FEATURES.launch(
        owned * splits, *given, partials, *_numbers(features, weight), splits, *weights,
        config=config, **constants,
    )  # fmt: skip
    return partials.sum(0).to(features.dtype)


def _weights_gradient(
    given: tuple[Tensor, ...], weights: tuple[float, float, float], reading: str
) -> tuple[Tensor, Tensor]:
    features, weight, bias = given[2:5]
    config, constants = _choice(WEIGHTS, features, reading)
    blocks = _bin_blocks(weight, config)
    owned = blocks * launch.blocks(features.shape[3], config["FILTERS"])
    splits, _ = launch.shares(_row_blocks(features, config), 1, owned, features.device)
    partials = launch.empty((splits, *weight.shape), features, torch.float32)
    sources, channels = bias.shape
    per_channel = launch.blocks(weight.shape[3], config["BINS"])
    bias_partials = launch.empty((splits, channels, per_channel, sources), features, torch.float32)
    WEIGHTS.launch(
        owned * splits, *given, partials, bias_partials, *_numbers(features, weight), splits,
        *weights, config=config, **constants,
    )  # fmt: skip
    of_bias = bias_partials.sum((0, 2)).t().contiguous()
    return partials.sum(0).to(features.dtype), of_bias.to(features.dtype)


def _choice(
    kernel: launch.Kernel, features: Tensor, reading: str
) -> tuple[launch.Config, dict[str, Any]]:
    """A kernel's configuration, and its other compile-time arguments."""
    sources = triton.next_power_of_2(features.shape[1])
    precision = product_precision(features.device, features.dtype)
    config = kernel.config(features.device, precision=precision, sources=sources)
    return config, {"READING": reading, "SOURCES": sources, "PRECISION": precision}


def _numbers(features: Tensor, weight: Tensor) -> tuple[int, ...]:
    """What `_NUMBERS` names."""
    batch, sources, frames, filters = features.shape
    return sources, weight.shape[2], frames, filters, weight.shape[3], batch * frames


def _row_blocks(features: Tensor, config: launch.Config) -> int:
    return launch.blocks(features.shape[0] * features.shape[2], config["ROWS"])


def _bin_blocks(weight: Tensor, config: launch.Config) -> int:
    """Blocks of bins, of all channels."""
    return weight.shape[2] * launch.blocks(weight.shape[3], config["BINS"])
