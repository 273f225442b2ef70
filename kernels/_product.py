"""What the kernels of attention and convolutions share: tiles of products, and a plain product.

A (rows, depth) by B (depth, columns), or several such beside each other; a program has ROWS by
COLUMNS of one result and takes DEPTH of its terms at a time. Programs that follow each other have
the same rows, so long as there are columns.

`product` has nothing in its ends. It is PyTorch's, which keeps away from tensor cores in float32
"highest"; where three TF32 products beat it, there are configurations of a kernel. A gradient's
tiles are few and its terms many, so programs share them: each has a part of the sum, and these are
added up in a fixed order.

Bytes of `product`: A, B and the result once, and parts twice where there are any; operations, 2
rows columns depth.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor

from sepfast.kernels import launch
from sepfast.kernels.tuning import has_config

#: Lengths: one compilation serves all their values.
_NUMBERS = ("rows", "columns", "depth", "share")

#: Rows that large tiles would be too few for: 128 contexts of 30 frames, 16 fragments of 256.
FEW = 4096


@triton.jit
def place(high, wide, ROWS: tl.constexpr, COLUMNS: tl.constexpr):
    """This program's matrix, its first row and its first column."""
    across, down = tl.cdiv(wide, COLUMNS), tl.cdiv(high, ROWS)
    column, index = tl.program_id(0) % across, tl.program_id(0) // across
    return (index // down).to(tl.int64), index % down * ROWS, column * COLUMNS


@triton.jit
def indices(high, wide, ROWS: tl.constexpr, COLUMNS: tl.constexpr):
    """This program's matrix, its rows (ROWS,) and its columns (COLUMNS,)."""
    matrix, row, column = place(high, wide, ROWS, COLUMNS)
    return matrix, row + tl.arange(0, ROWS), column + tl.arange(0, COLUMNS)


@triton.jit
def offsets(stride, ROWS: tl.constexpr, COLUMNS: tl.constexpr):
    """Offsets of a tile from its first element, in 32 bits, as registers are few."""
    return tl.arange(0, ROWS)[:, None] * stride + tl.arange(0, COLUMNS)[None, :]


@triton.jit
def load(tile, rows, columns):
    """A tile in float32, 0 outside."""
    return tl.load(tile, rows[:, None] & columns[None, :], other=0).to(tl.float32)


@triton.jit
def biases(bias, biased, column, columns):
    """Biases (1, COLUMNS), 0 where there are none."""
    given = tl.load(bias + column, (column < columns) & (biased > 0), other=0)
    return given.to(tl.float32)[None, :]


@triton.jit
def transposed(
    a, b, known, inside, depth,
    ROWS: tl.constexpr, COLUMNS: tl.constexpr, DEPTH: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    """A (rows, depth) by B (columns, depth), (ROWS, COLUMNS); nothing is read for no column.

    `a` and `b` are first rows, `known` and `inside` say which of the rows behind them there are.
    """
    k = tl.arange(0, DEPTH)
    at_a = offsets(depth, ROWS, DEPTH)
    at_b = k[:, None] + (tl.arange(0, COLUMNS) * depth)[None, :]
    total = tl.zeros((ROWS, COLUMNS), tl.float32)
    some = tl.max(inside.to(tl.int32), 0)
    for first in tl.range(0, some * depth, DEPTH):
        left = k < depth - first
        x = load(a + first + at_a, known, left)
        y = load(b + first + at_b, left, inside)
        total = tl.dot(x, y, total, input_precision=PRECISION)
    return total


@triton.jit(do_not_specialize=_NUMBERS)
def sepfast_bilinear_attention_product(
    a, b, out, rows, columns, depth, share, TURNED: tl.constexpr,
    ROWS: tl.constexpr, COLUMNS: tl.constexpr, DEPTH: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    """A (rows, depth), with TURNED (depth, rows), by B (depth, columns) to parts (P, ...)."""
    part, r, c = place(rows, columns, ROWS, COLUMNS)
    known, inside = tl.arange(0, ROWS) < rows - r, tl.arange(0, COLUMNS) < columns - c
    begin = part * share
    count = tl.minimum(depth - begin, share).to(tl.int32)
    k, line = tl.arange(0, DEPTH), tl.arange(0, ROWS)
    along = rows.to(tl.int64) if TURNED else 1
    a += begin * along + (r if TURNED else r.to(tl.int64) * depth)
    at_a = k[None, :] * rows + line[:, None] if TURNED else offsets(depth, ROWS, DEPTH)
    across = columns.to(tl.int64)
    b += begin * across + c
    at_b = offsets(columns, DEPTH, COLUMNS)
    total = tl.zeros((ROWS, COLUMNS), tl.float32)
    for first in tl.range(0, count, DEPTH):
        left = k < count - first
        x = load(a + first * along + at_a, known, left)
        y = load(b + first * across + at_b, left, inside)
        total = tl.dot(x, y, total, input_precision=PRECISION)
    to = out + (part * rows + r) * columns + c + offsets(columns, ROWS, COLUMNS)
    tl.store(to, total, known[:, None] & inside[None, :])


def _variants(precision: str) -> Iterator[dict[str, Any]]:
    for turned in (False, True):
        yield {"PRECISION": precision, "TURNED": turned}


PRODUCT = launch.Kernel(
    sepfast_bilinear_attention_product,
    launch.signature("a b out", _NUMBERS),
    _variants,
    dots=True,
)


def product(a: Tensor, b: Tensor, precision: str) -> Tensor:
    """A matrix product.

    Args:
        a: (rows, depth), contiguous or the transpose of what is.
        b: (depth, columns), contiguous.
        precision: `input_precision` of the kernel, where one is shipped for it.

    Returns:
        (rows, columns).
    """
    if not has_config(PRODUCT.name, a.device, precision=precision):
        return a @ b
    (rows, depth), columns = a.shape, b.shape[1]
    config, turned = PRODUCT.config(a.device, precision=precision), not a.is_contiguous()
    tiles = programs(1, rows, columns, config)
    # A gradient's tiles are few and deep: several rounds of shares, lest the last one is half idle.
    rounds = 4 if turned else 1
    count, share = launch.shares(depth, config["DEPTH"], tiles // rounds, a.device)
    out = launch.empty((count, rows, columns), a, torch.float32)
    PRODUCT.launch(
        count * tiles, a.mT if turned else a, b, out, rows, columns, depth, share,
        config=config, TURNED=turned, PRECISION=precision,
    )  # fmt: skip
    return out[0] if count == 1 else out.sum(0)


def extent(rows: int) -> str:
    """The word for a number of rows, by which configurations differ: "few" take small tiles."""
    return "few" if rows <= FEW else "many"


def programs(matrices: int, rows: int, columns: int, config: launch.Config) -> int:
    """Programs for so many results of so many rows and columns, each a tile."""
    tiles = launch.blocks(rows, config["ROWS"]) * launch.blocks(columns, config["COLUMNS"])
    return matrices * tiles
