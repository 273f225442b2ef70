"""Bilinear attention: matrix products with the softmax in their ends.

B batch, N frames of the query with E features, M frames of memory with J features, of which the
first `lengths[b]` count.

    project   p[bn, j] = sum_e query[bn, e] weight[e, j]                             (B, N, J)
    scores    s[n, m] = sum_j p[n, j] memory[m, j], and per block of m its maximum
              and sum of exp(s - maximum)                                            (B, N, M)
    context   w[n, m] = exp(s[n, m] - maximum) / sum, 0 for m >= lengths[b];
              c[n, j] = sum_m w[n, m] memory[m, j]                                   (B, N, J)
    slope     t[n, m] = gw[n, m] + sum_j gc[n, j] memory[m, j], and per block of m
              its share of d[n] = sum_m w[n, m] t[n, m]                              (B, N, M)
    query     dp[n, j] = sum_m w[n, m] (t[n, m] - d[n]) memory[m, j]                 (B, N, J)
    memory    dmemory[m, j] = sum_n w (t - d) p[n, j] + w gc[n, j]                   (B, M, J)
    project   dquery = dp weight^T,  dweight = query^T dp

What is (B, N, M) is read by the products that need it and by nothing else: the softmax is finished
where the context reads its scores, whose first block of columns writes the weights, and the
gradient of the scores is made where it is read, twice, and never stored. Memory that does not
count is neither read nor multiplied. A program has a tile of a result: even B 1 makes enough of
them. Scores and their slope stay in float32, whatever the type of the rest.

`project` has no ends to fuse: it is `product` of `_product.py`, PyTorch's unless the kernel there
beats it, and its tiles are those of the kernels here.

Bytes: 4 B (N E + 3 N J + 3 N M + 2 M J) forward and 4 B (2 N E + 6 N J + 7 N M + 3 M J) backward,
but for the weight's; 1.0 and 1.8 GB at B 128, N 256, M 300, E = J = 1026. Operations:
2 B N J (E + 2 M) and twice as many, 109 and 218 G there.

Source: C, "attention".
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple

import torch
import triton
import triton.language as tl
from torch import Tensor

from sepfast.kernels import launch
from sepfast.kernels._product import (
    PRODUCT,
    extent,
    load,
    offsets,
    place,
    product,
    programs,
    transposed,
)

#: Lengths: one compilation serves all their values.
_NUMBERS = ("queries", "frames", "features", "limited")


@triton.jit(do_not_specialize=(*_NUMBERS, "blocks"))
def sepfast_bilinear_attention_scores(
    projected, memory, lengths, scores, peaks, sums, queries, frames, features, limited, blocks,
    ROWS: tl.constexpr, COLUMNS: tl.constexpr, DEPTH: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    """Query (B, N, J) by memory (B, M, J) to scores (B, N, M), peaks and sums (B, blocks, N)."""
    batch, n, m = place(queries, frames, ROWS, COLUMNS)
    known = tl.arange(0, ROWS) < queries - n
    heard = tl.arange(0, COLUMNS) < _limit(lengths, limited, batch, frames) - m
    row = batch * queries + n
    s = transposed(
        projected + row * features, memory + (batch * frames + m) * features, known, heard,
        features, ROWS, COLUMNS, DEPTH, PRECISION,
    )  # fmt: skip
    to = scores + row * frames + m + offsets(frames, ROWS, COLUMNS)
    tl.store(to, s, known[:, None] & heard[None, :])
    s = tl.where(heard[None, :], s, float("-inf"))
    peak = tl.max(s, 1)
    total = tl.sum(tl.exp(s - _base(peak)[:, None]), 1)
    at = (batch * blocks + m // COLUMNS) * queries + n + tl.arange(0, ROWS)
    tl.store(peaks + at, peak, known)
    tl.store(sums + at, total, known)


@triton.jit(do_not_specialize=(*_NUMBERS, "blocks"))
def sepfast_bilinear_attention_context(
    scores, peaks, sums, memory, lengths, weights, context,
    queries, frames, features, limited, blocks,
    ROWS: tl.constexpr, COLUMNS: tl.constexpr, DEPTH: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    """Scores (B, N, M) and memory (B, M, J) to weights (B, N, M) and context (B, N, J)."""
    batch, n, j = place(queries, features, ROWS, COLUMNS)
    limit = _limit(lengths, limited, batch, frames)
    known, inside = tl.arange(0, ROWS) < queries - n, tl.arange(0, COLUMNS) < features - j
    peak = tl.full((ROWS,), float("-inf"), tl.float32)
    total = tl.zeros((ROWS,), tl.float32)
    for part in tl.range(0, blocks):
        at = (batch * blocks + part) * queries + n + tl.arange(0, ROWS)
        other = tl.load(peaks + at, known, other=float("-inf"))
        higher = tl.maximum(peak, other)
        base = _base(higher)
        total = total * tl.exp(peak - base)
        total += tl.load(sums + at, known, other=0) * tl.exp(other - base)
        peak = higher
    base, scale = _base(peak), 1 / tl.where(total == 0, 1, total)

    row = batch * queries + n
    scores += row * frames
    weights += row * frames
    stride = features.to(tl.int64)
    memory += batch * frames * stride + j
    at_s, at_x = offsets(frames, ROWS, DEPTH), offsets(features, DEPTH, COLUMNS)
    m = tl.arange(0, DEPTH)
    writes = known & (j == 0)
    found = tl.zeros((ROWS, COLUMNS), tl.float32)
    for first in tl.range(0, tl.where(j == 0, frames, limit), DEPTH):
        heard = m < limit - first
        s = tl.load(scores + first + at_s, known[:, None] & heard[None, :], other=float("-inf"))
        w = tl.exp(s - base[:, None]) * scale[:, None]
        tl.store(weights + first + at_s, w, writes[:, None] & (m < frames - first)[None, :])
        x = load(memory + first * stride + at_x, heard, inside)
        found = tl.dot(w, x, found, input_precision=PRECISION)
    to = context + row * features + j + offsets(features, ROWS, COLUMNS)
    tl.store(to, found, known[:, None] & inside[None, :])


@triton.jit(do_not_specialize=(*_NUMBERS, "blocks", "given"))
def sepfast_bilinear_attention_slope(
    of_context, of_weights, weights, memory, lengths, slope, parts,
    queries, frames, features, limited, blocks, given,
    ROWS: tl.constexpr, COLUMNS: tl.constexpr, DEPTH: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    """Gradients of context and weights to that of the weights in all, and its parts of d."""
    batch, n, m = place(queries, frames, ROWS, COLUMNS)
    known = tl.arange(0, ROWS) < queries - n
    heard = tl.arange(0, COLUMNS) < _limit(lengths, limited, batch, frames) - m
    row = batch * queries + n
    t = transposed(
        of_context + row * features, memory + (batch * frames + m) * features, known, heard,
        features, ROWS, COLUMNS, DEPTH, PRECISION,
    )  # fmt: skip
    tile = row * frames + m + offsets(frames, ROWS, COLUMNS)
    t += load(of_weights + tile, known & (given > 0), heard)
    tl.store(slope + tile, t, known[:, None] & heard[None, :])
    share = tl.sum(load(weights + tile, known, heard) * t, 1)
    at = (batch * blocks + m // COLUMNS) * queries + n + tl.arange(0, ROWS)
    tl.store(parts + at, share, known)


@triton.jit(do_not_specialize=_NUMBERS)
def sepfast_bilinear_attention_query(
    weights, slope, means, memory, lengths, out, queries, frames, features, limited,
    ROWS: tl.constexpr, COLUMNS: tl.constexpr, DEPTH: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    """The gradient of the projected query (B, N, J)."""
    batch, n, j = place(queries, features, ROWS, COLUMNS)
    limit = _limit(lengths, limited, batch, frames)
    known, inside = tl.arange(0, ROWS) < queries - n, tl.arange(0, COLUMNS) < features - j
    row = batch * queries + n
    mean = tl.load(means + row + tl.arange(0, ROWS), known, other=0)
    weights += row * frames
    slope += row * frames
    stride = features.to(tl.int64)
    memory += batch * frames * stride + j
    at_w, at_x = offsets(frames, ROWS, DEPTH), offsets(features, DEPTH, COLUMNS)
    total = tl.zeros((ROWS, COLUMNS), tl.float32)
    for first in tl.range(0, limit, DEPTH):
        heard = tl.arange(0, DEPTH) < limit - first
        w = load(weights + first + at_w, known, heard)
        t = load(slope + first + at_w, known, heard)
        x = load(memory + first * stride + at_x, heard, inside)
        total = tl.dot(w * (t - mean[:, None]), x, total, input_precision=PRECISION)
    to = out + row * features + j + offsets(features, ROWS, COLUMNS)
    tl.store(to, total, known[:, None] & inside[None, :])


@triton.jit(do_not_specialize=_NUMBERS)
def sepfast_bilinear_attention_memory(
    weights, slope, means, projected, of_context, lengths, out, queries, frames, features, limited,
    ROWS: tl.constexpr, COLUMNS: tl.constexpr, DEPTH: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    """The gradient of the memory (B, M, J); its depth are the frames of the query."""
    batch, m, j = place(frames, features, ROWS, COLUMNS)
    limit = _limit(lengths, limited, batch, frames)
    heard, inside = tl.arange(0, ROWS) < limit - m, tl.arange(0, COLUMNS) < features - j
    stride, long = features.to(tl.int64), frames.to(tl.int64)
    means += batch * queries
    weights += batch * queries * long + m
    slope += batch * queries * long + m
    projected += batch * queries * stride + j
    of_context += batch * queries * stride + j
    n = tl.arange(0, DEPTH)
    at_w = n[None, :] * frames + tl.arange(0, ROWS)[:, None]
    at_x = offsets(features, DEPTH, COLUMNS)
    total = tl.zeros((ROWS, COLUMNS), tl.float32)
    for first in tl.range(0, tl.where(m < limit, queries, 0), DEPTH):
        known = n < queries - first
        mean = tl.load(means + first + n, known, other=0)
        w = load(weights + first * long + at_w, heard, known)
        t = load(slope + first * long + at_w, heard, known)
        p = load(projected + first * stride + at_x, known, inside)
        total = tl.dot(w * (t - mean[None, :]), p, total, input_precision=PRECISION)
        g = load(of_context + first * stride + at_x, known, inside)
        total = tl.dot(w, g, total, input_precision=PRECISION)
    there = tl.arange(0, ROWS) < frames - m
    to = out + (batch * frames + m) * features + j + offsets(features, ROWS, COLUMNS)
    tl.store(to, total, there[:, None] & inside[None, :])


@triton.jit
def _limit(lengths, limited, batch, frames):
    """Frames of memory that count."""
    given = tl.load(lengths + batch, limited > 0, other=0)
    given = tl.minimum(tl.maximum(given, 0), frames).to(tl.int32)
    return tl.where(limited > 0, given, frames)


@triton.jit
def _base(peak):
    """A maximum as what is taken off before exp; nothing where there is none."""
    return tl.where(peak == float("-inf"), 0, peak)


def _variants(precision: str, rows: str = "") -> Iterator[dict[str, Any]]:
    yield {"PRECISION": precision}


def _kernel(function: Any, pointers: str, numbers: tuple[str, ...] = _NUMBERS) -> launch.Kernel:
    types = launch.signature(pointers, numbers)
    types |= {"lengths": "*i64"} if "lengths" in types else {}
    return launch.Kernel(function, types, _variants, dots=True)


SCORES = _kernel(
    sepfast_bilinear_attention_scores,
    "projected memory lengths scores peaks sums",
    (*_NUMBERS, "blocks"),
)
CONTEXT = _kernel(
    sepfast_bilinear_attention_context,
    "scores peaks sums memory lengths weights context",
    (*_NUMBERS, "blocks"),
)
SLOPE = _kernel(
    sepfast_bilinear_attention_slope,
    "of_context of_weights weights memory lengths slope parts",
    (*_NUMBERS, "blocks", "given"),
)
QUERY = _kernel(sepfast_bilinear_attention_query, "weights slope means memory lengths out")
MEMORY = _kernel(
    sepfast_bilinear_attention_memory, "weights slope means projected of_context lengths out"
)
KERNELS = (SCORES, CONTEXT, SLOPE, QUERY, MEMORY, PRODUCT)


class Gradients(NamedTuple):
    """The gradients of `bilinear_attention`, each shaped as what it is of.

    Attributes:
        query: (B, N, E).
        memory: (B, M, J).
        weight: (E, J).
    """

    query: Tensor
    memory: Tensor
    weight: Tensor


def bilinear_attention(
    query: Tensor, memory: Tensor, weight: Tensor, lengths: Tensor | None, precision: str
) -> tuple[Tensor, Tensor, Tensor]:
    """Context, weights and the projected query.

    Args:
        query: (B, N, E), contiguous, as all are; no axis is empty.
        memory: (B, M, J).
        weight: (E, J).
        lengths: (B,) of int64, or None.
        precision: `input_precision` of the products.

    Returns:
        (B, N, J), (B, N, M) and (B, N, J).
    """
    (batch, queries, _), (_, frames, features) = query.shape, memory.shape
    projected = product(query.flatten(0, 1), weight, precision).view(batch, queries, features)
    sizes = (queries, frames, features, int(lengths is not None))
    counts = memory.new_empty(0, dtype=torch.int64) if lengths is None else lengths

    rows = extent(batch * queries)
    config = SCORES.config(query.device, precision=precision, rows=rows)
    blocks = launch.blocks(frames, config["COLUMNS"])
    scores = launch.empty((batch, queries, frames), query, torch.float32)
    peaks, sums = (launch.empty((batch, blocks, queries), scores) for _ in range(2))
    SCORES.launch(
        programs(batch, queries, frames, config),
        projected, memory, counts, scores, peaks, sums, *sizes, blocks,
        config=config, PRECISION=precision,
    )  # fmt: skip
    config = CONTEXT.config(query.device, precision=precision, rows=rows)
    weights = launch.empty(scores.shape, query)
    context = launch.empty(projected.shape, query)
    CONTEXT.launch(
        programs(batch, queries, features, config),
        scores, peaks, sums, memory, counts, weights, context, *sizes, blocks,
        config=config, PRECISION=precision,
    )  # fmt: skip
    return context, weights, projected


def bilinear_attention_backward(
    of_context: Tensor,
    of_weights: Tensor | None,
    query: Tensor,
    memory: Tensor,
    weight: Tensor,
    lengths: Tensor | None,
    projected: Tensor,
    weights: Tensor,
    precision: str,
) -> Gradients:
    """The gradients of `bilinear_attention`.

    Args:
        of_context: (B, N, J).
        of_weights: (B, N, M), or None.
        query: as in the forward, and so are the others.
        memory: (B, M, J).
        weight: (E, J).
        lengths: (B,) of int64, or None.
        projected: (B, N, J), a result of the forward.
        weights: (B, N, M), likewise.
        precision: `input_precision` of the products.
    """
    (batch, queries, _), (_, frames, features) = query.shape, memory.shape
    sizes = (queries, frames, features, int(lengths is not None))
    counts = memory.new_empty(0, dtype=torch.int64) if lengths is None else lengths

    rows = extent(batch * queries)
    config = SLOPE.config(query.device, precision=precision, rows=rows)
    blocks = launch.blocks(frames, config["COLUMNS"])
    slope = launch.empty(weights.shape, weights, torch.float32)
    parts = launch.empty((batch, blocks, queries), slope)
    SLOPE.launch(
        programs(batch, queries, frames, config),
        of_context, weights if of_weights is None else of_weights, weights, memory, counts, slope,
        parts, *sizes, blocks, int(of_weights is not None), config=config, PRECISION=precision,
    )  # fmt: skip
    means = parts.sum(1)
    config = QUERY.config(query.device, precision=precision, rows=rows)
    of_projected = launch.empty(projected.shape, projected)
    QUERY.launch(
        programs(batch, queries, features, config),
        weights, slope, means, memory, counts, of_projected, *sizes,
        config=config, PRECISION=precision,
    )  # fmt: skip
    config = MEMORY.config(query.device, precision=precision, rows=extent(batch * frames))
    of_memory = launch.empty(memory.shape, memory)
    MEMORY.launch(
        programs(batch, frames, features, config),
        weights, slope, means, projected, of_context, counts, of_memory, *sizes,
        config=config, PRECISION=precision,
    )  # fmt: skip
    flat = of_projected.flatten(0, 1)
    of_query = product(flat, weight.mT.contiguous(), precision).view(query.shape)
    return Gradients(of_query, of_memory, product(query.flatten(0, 1).mT, flat, precision))
