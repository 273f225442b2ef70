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

`project` has no ends to fuse. It is PyTorch's, which keeps away from tensor cores in float32
"highest"; where three TF32 products beat it, there are configurations of `product` below.

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
from sepfast.kernels.tuning import has_config

#: Lengths: one compilation serves all their values.
_NUMBERS = ("queries", "frames", "features", "limited")
_PRODUCT = ("rows", "columns", "depth", "share")

#: Rows of a batch that large tiles would be too few for.
_FEW = 4096


@triton.jit(do_not_specialize=(*_NUMBERS, "blocks"))
def sepfast_bilinear_attention_scores(
    projected, memory, lengths, scores, peaks, sums, queries, frames, features, limited, blocks,
    ROWS: tl.constexpr, COLUMNS: tl.constexpr, DEPTH: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    """Query (B, N, J) by memory (B, M, J) to scores (B, N, M), peaks and sums (B, blocks, N)."""
    batch, n, m = _place(queries, frames, ROWS, COLUMNS)
    known = tl.arange(0, ROWS) < queries - n
    heard = tl.arange(0, COLUMNS) < _limit(lengths, limited, batch, frames) - m
    row = batch * queries + n
    s = _by_memory(
        projected + row * features, memory + (batch * frames + m) * features, known, heard,
        features, ROWS, COLUMNS, DEPTH, PRECISION,
    )  # fmt: skip
    to = scores + row * frames + m + _tile(frames, ROWS, COLUMNS)
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
    batch, n, j = _place(queries, features, ROWS, COLUMNS)
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
    at_s, at_x = _tile(frames, ROWS, DEPTH), _tile(features, DEPTH, COLUMNS)
    m = tl.arange(0, DEPTH)
    writes = known & (j == 0)
    found = tl.zeros((ROWS, COLUMNS), tl.float32)
    for first in tl.range(0, tl.where(j == 0, frames, limit), DEPTH):
        heard = m < limit - first
        s = tl.load(scores + first + at_s, known[:, None] & heard[None, :], other=float("-inf"))
        w = tl.exp(s - base[:, None]) * scale[:, None]
        tl.store(weights + first + at_s, w, writes[:, None] & (m < frames - first)[None, :])
        x = _load(memory + first * stride + at_x, heard, inside)
        found = tl.dot(w, x, found, input_precision=PRECISION)
    to = context + row * features + j + _tile(features, ROWS, COLUMNS)
    tl.store(to, found, known[:, None] & inside[None, :])


@triton.jit(do_not_specialize=(*_NUMBERS, "blocks", "given"))
def sepfast_bilinear_attention_slope(
    of_context, of_weights, weights, memory, lengths, slope, parts,
    queries, frames, features, limited, blocks, given,
    ROWS: tl.constexpr, COLUMNS: tl.constexpr, DEPTH: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    """Gradients of context and weights to that of the weights in all, and its parts of d."""
    batch, n, m = _place(queries, frames, ROWS, COLUMNS)
    known = tl.arange(0, ROWS) < queries - n
    heard = tl.arange(0, COLUMNS) < _limit(lengths, limited, batch, frames) - m
    row = batch * queries + n
    t = _by_memory(
        of_context + row * features, memory + (batch * frames + m) * features, known, heard,
        features, ROWS, COLUMNS, DEPTH, PRECISION,
    )  # fmt: skip
    tile = row * frames + m + _tile(frames, ROWS, COLUMNS)
    t += _load(of_weights + tile, known & (given > 0), heard)
    tl.store(slope + tile, t, known[:, None] & heard[None, :])
    share = tl.sum(_load(weights + tile, known, heard) * t, 1)
    at = (batch * blocks + m // COLUMNS) * queries + n + tl.arange(0, ROWS)
    tl.store(parts + at, share, known)


@triton.jit(do_not_specialize=_NUMBERS)
def sepfast_bilinear_attention_query(
    weights, slope, means, memory, lengths, out, queries, frames, features, limited,
    ROWS: tl.constexpr, COLUMNS: tl.constexpr, DEPTH: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    """The gradient of the projected query (B, N, J)."""
    batch, n, j = _place(queries, features, ROWS, COLUMNS)
    limit = _limit(lengths, limited, batch, frames)
    known, inside = tl.arange(0, ROWS) < queries - n, tl.arange(0, COLUMNS) < features - j
    row = batch * queries + n
    mean = tl.load(means + row + tl.arange(0, ROWS), known, other=0)
    weights += row * frames
    slope += row * frames
    stride = features.to(tl.int64)
    memory += batch * frames * stride + j
    at_w, at_x = _tile(frames, ROWS, DEPTH), _tile(features, DEPTH, COLUMNS)
    total = tl.zeros((ROWS, COLUMNS), tl.float32)
    for first in tl.range(0, limit, DEPTH):
        heard = tl.arange(0, DEPTH) < limit - first
        w = _load(weights + first + at_w, known, heard)
        t = _load(slope + first + at_w, known, heard)
        x = _load(memory + first * stride + at_x, heard, inside)
        total = tl.dot(w * (t - mean[:, None]), x, total, input_precision=PRECISION)
    to = out + row * features + j + _tile(features, ROWS, COLUMNS)
    tl.store(to, total, known[:, None] & inside[None, :])


@triton.jit(do_not_specialize=_NUMBERS)
def sepfast_bilinear_attention_memory(
    weights, slope, means, projected, of_context, lengths, out, queries, frames, features, limited,
    ROWS: tl.constexpr, COLUMNS: tl.constexpr, DEPTH: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    """The gradient of the memory (B, M, J); its depth are the frames of the query."""
    batch, m, j = _place(frames, features, ROWS, COLUMNS)
    limit = _limit(lengths, limited, batch, frames)
    heard, inside = tl.arange(0, ROWS) < limit - m, tl.arange(0, COLUMNS) < features - j
    stride, long = features.to(tl.int64), frames.to(tl.int64)
    means += batch * queries
    weights += batch * queries * long + m
    slope += batch * queries * long + m
    projected += batch * queries * stride + j
    of_context += batch * queries * stride + j
    n = tl.arange(0, DEPTH)
    at_w, at_x = n[None, :] * frames + tl.arange(0, ROWS)[:, None], _tile(features, DEPTH, COLUMNS)
    total = tl.zeros((ROWS, COLUMNS), tl.float32)
    for first in tl.range(0, tl.where(m < limit, queries, 0), DEPTH):
        known = n < queries - first
        mean = tl.load(means + first + n, known, other=0)
        w = _load(weights + first * long + at_w, heard, known)
        t = _load(slope + first * long + at_w, heard, known)
        p = _load(projected + first * stride + at_x, known, inside)
        total = tl.dot(w * (t - mean[None, :]), p, total, input_precision=PRECISION)
        g = _load(of_context + first * stride + at_x, known, inside)
        total = tl.dot(w, g, total, input_precision=PRECISION)
    there = tl.arange(0, ROWS) < frames - m
    to = out + (batch * frames + m) * features + j + _tile(features, ROWS, COLUMNS)
    tl.store(to, total, there[:, None] & inside[None, :])


@triton.jit(do_not_specialize=_PRODUCT)
def sepfast_bilinear_attention_product(
    a, b, out, rows, columns, depth, share, TURNED: tl.constexpr,
    ROWS: tl.constexpr, COLUMNS: tl.constexpr, DEPTH: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    """A (rows, depth), with TURNED (depth, rows), by B (depth, columns) to parts (P, ...)."""
    part, r, c = _place(rows, columns, ROWS, COLUMNS)
    known, inside = tl.arange(0, ROWS) < rows - r, tl.arange(0, COLUMNS) < columns - c
    begin = part * share
    count = tl.minimum(depth - begin, share).to(tl.int32)
    k, line = tl.arange(0, DEPTH), tl.arange(0, ROWS)
    along = rows.to(tl.int64) if TURNED else 1
    a += begin * along + (r if TURNED else r.to(tl.int64) * depth)
    at_a = k[None, :] * rows + line[:, None] if TURNED else _tile(depth, ROWS, DEPTH)
    across = columns.to(tl.int64)
    b += begin * across + c
    at_b = _tile(columns, DEPTH, COLUMNS)
    total = tl.zeros((ROWS, COLUMNS), tl.float32)
    for first in tl.range(0, count, DEPTH):
        left = k < count - first
        x = _load(a + first * along + at_a, known, left)
        y = _load(b + first * across + at_b, left, inside)
        total = tl.dot(x, y, total, input_precision=PRECISION)
    to = out + (part * rows + r) * columns + c + _tile(columns, ROWS, COLUMNS)
    tl.store(to, total, known[:, None] & inside[None, :])


@triton.jit
def _place(high, wide, ROWS: tl.constexpr, COLUMNS: tl.constexpr):
    """This program's matrix, its first row and its first column."""
    across, down = tl.cdiv(wide, COLUMNS), tl.cdiv(high, ROWS)
    column, index = tl.program_id(0) % across, tl.program_id(0) // across
    return (index // down).to(tl.int64), index % down * ROWS, column * COLUMNS


@triton.jit
def _tile(stride, ROWS: tl.constexpr, COLUMNS: tl.constexpr):
    """Offsets of a tile from its first element, in 32 bits, as registers are few."""
    return tl.arange(0, ROWS)[:, None] * stride + tl.arange(0, COLUMNS)[None, :]


@triton.jit
def _load(tile, rows, columns):
    """A tile in float32, 0 outside."""
    return tl.load(tile, rows[:, None] & columns[None, :], other=0).to(tl.float32)


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


@triton.jit
def _by_memory(
    rows, memory, known, heard, features,
    ROWS: tl.constexpr, COLUMNS: tl.constexpr, DEPTH: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    """Rows (N, J) by memory (M, J), (ROWS, COLUMNS); nothing is read where none is heard."""
    j = tl.arange(0, DEPTH)
    at_a = _tile(features, ROWS, DEPTH)
    at_b = j[:, None] + (tl.arange(0, COLUMNS) * features)[None, :]
    total = tl.zeros((ROWS, COLUMNS), tl.float32)
    some = tl.max(heard.to(tl.int32), 0)
    for first in tl.range(0, some * features, DEPTH):
        inside = j < features - first
        a = _load(rows + first + at_a, known, inside)
        b = _load(memory + first + at_b, inside, heard)
        total = tl.dot(a, b, total, input_precision=PRECISION)
    return total


def _variants(precision: str, rows: str = "") -> Iterator[dict[str, Any]]:
    yield {"PRECISION": precision}


def _product_variants(precision: str) -> Iterator[dict[str, Any]]:
    for turned in (False, True):
        yield {"PRECISION": precision, "TURNED": turned}


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
PRODUCT = launch.Kernel(
    sepfast_bilinear_attention_product,
    launch.signature("a b out", _PRODUCT),
    _product_variants,
    dots=True,
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
    projected = _product(query.flatten(0, 1), weight, precision).view(batch, queries, features)
    sizes = (queries, frames, features, int(lengths is not None))
    counts = memory.new_empty(0, dtype=torch.int64) if lengths is None else lengths

    rows = _extent(batch * queries)
    config = SCORES.config(query.device, precision=precision, rows=rows)
    blocks = launch.blocks(frames, config["COLUMNS"])
    scores = launch.empty((batch, queries, frames), query, torch.float32)
    peaks, sums = (launch.empty((batch, blocks, queries), scores) for _ in range(2))
    SCORES.launch(
        _programs(batch, queries, frames, config),
        projected, memory, counts, scores, peaks, sums, *sizes, blocks,
        config=config, PRECISION=precision,
    )  # fmt: skip
    config = CONTEXT.config(query.device, precision=precision, rows=rows)
    weights = launch.empty(scores.shape, query)
    context = launch.empty(projected.shape, query)
    CONTEXT.launch(
        _programs(batch, queries, features, config),
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

    rows = _extent(batch * queries)
    config = SLOPE.config(query.device, precision=precision, rows=rows)
    blocks = launch.blocks(frames, config["COLUMNS"])
    slope = launch.empty(weights.shape, weights, torch.float32)
    parts = launch.empty((batch, blocks, queries), slope)
    SLOPE.launch(
        _programs(batch, queries, frames, config),
        of_context, weights if of_weights is None else of_weights, weights, memory, counts, slope,
        parts, *sizes, blocks, int(of_weights is not None), config=config, PRECISION=precision,
    )  # fmt: skip
    means = parts.sum(1)
    config = QUERY.config(query.device, precision=precision, rows=rows)
    of_projected = launch.empty(projected.shape, projected)
    QUERY.launch(
        _programs(batch, queries, features, config),
        weights, slope, means, memory, counts, of_projected, *sizes,
        config=config, PRECISION=precision,
    )  # fmt: skip
    config = MEMORY.config(query.device, precision=precision, rows=_extent(batch * frames))
    of_memory = launch.empty(memory.shape, memory)
    MEMORY.launch(
        _programs(batch, frames, features, config),
        weights, slope, means, projected, of_context, counts, of_memory, *sizes,
        config=config, PRECISION=precision,
    )  # fmt: skip
    flat = of_projected.flatten(0, 1)
    of_query = _product(flat, weight.mT.contiguous(), precision).view(query.shape)
    return Gradients(of_query, of_memory, _product(query.flatten(0, 1).mT, flat, precision))


def _extent(rows: int) -> str:
    """The word for a number of rows: small batches have few, and take small tiles."""
    return "few" if rows <= _FEW else "many"


def _product(a: Tensor, b: Tensor, precision: str) -> Tensor:
    """A matrix product, `a` contiguous or the transpose of what is."""
    if not has_config(PRODUCT.name, a.device, precision=precision):
        return a @ b
    (rows, depth), columns = a.shape, b.shape[1]
    config, turned = PRODUCT.config(a.device, precision=precision), not a.is_contiguous()
    tiles = _programs(1, rows, columns, config)
    # A gradient's tiles are few and deep: several rounds of shares, lest the last one is half idle.
    rounds = 4 if turned else 1
    count, share = launch.shares(depth, config["DEPTH"], tiles // rounds, a.device)
    out = launch.empty((count, rows, columns), a, torch.float32)
    PRODUCT.launch(
        count * tiles, a.mT if turned else a, b, out, rows, columns, depth, share,
        config=config, TURNED=turned, PRECISION=precision,
    )  # fmt: skip
    return out[0] if count == 1 else out.sum(0)


def _programs(matrices: int, rows: int, columns: int, config: launch.Config) -> int:
    tiles = launch.blocks(rows, config["ROWS"]) * launch.blocks(columns, config["COLUMNS"])
    return matrices * tiles
