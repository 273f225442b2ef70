"""The layers of the convolution pair and of its transposed twin, and their weights' gradients.

B batch, S sources, C channels, T frames, F bins, N1 vertical and N2 horizontal filters, t2 frames a
horizontal filter spans, T' = T - t2 + 1; a vertical filter spans all bins. Six matrix products,
with rows (b, t) of all contexts of a source, so that short contexts waste nothing:

    vertical              v[bt, n1]  = sum_(c,f)   x[bt, cf]     W1[n1, cf]       (B, S, T, N1)
    horizontal            z[bt', n2] = sum_(tau,n1) v[bt'+tau, n1] W2[n2, n1, tau]  (B, S, N2, T')
    horizontal transposed u[bt, n1]  = sum_(n2,tau) z[bt-tau, n2] W2[n2, n1, tau]  (B, S, T, N1)
    vertical transposed   y[bt, cf]  = sum_n1      u[bt, n1]     W1[n1, cf]       (B, S, C, T, F)
    vertical slope        dW1[n1, cf]      = sum_bt  v[bt, n1]  x[bt, cf]
    horizontal slope      dW2[n2, n1, tau] = sum_bt' z[bt', n2] v[bt'+tau, n1]

A layer is the gradient of its transpose: the two pairs and both their backwards are made of these.
No copy of windows is made: t2 rows of v on end are one row of z's product, as they lie in memory.
The layers stay apart, as v is a tenth of what it comes from and is needed for the gradients; each
source has weights of its own, all in one launch.

A slope's sum over rows is shared by as many programs as keep the GPU busy, each with a partial
sum, and these are added up in a fixed order: no atomics.

Bytes: what goes in, what comes out and the weights; operations, two for each term of a sum. At
B 30 x 2 x 30 x 513 vertical reads 3.7 MB for 92 MFLOP, at 41,346 frames 170 MB for 4.2 GFLOP.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor

from sepfast.kernels import launch
from sepfast.kernels._product import biases, extent, indices, programs
from sepfast.kernels.precision import product_precision

#: Lengths: one compilation serves all their values.
_VERTICAL = ("batch", "sources", "channels", "frames", "bins", "filters")
_HORIZONTAL = ("batch", "sources", "frames", "span", "n1", "n2")


@triton.jit(do_not_specialize=(*_VERTICAL, "biased"))
def sepfast_conv_pair_vertical(
    x, weight, bias, out, batch, sources, channels, frames, bins, filters, biased,
    ROWS: tl.constexpr, COLUMNS: tl.constexpr, DEPTH: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    """Bins (B, S, C, T, F) by filters (S, N1, C, F) to features (B, S, T, N1)."""
    rows = batch * frames
    source, r, n = indices(rows, filters, ROWS, COLUMNS)
    plane, t = (r // frames) * sources + source, r % frames
    image = frames.to(tl.int64) * bins  # of a channel
    line = x + plane * (image * channels) + t * bins
    column = weight + (source * filters + n) * (channels * bins)
    known_r, known_n = (r < rows)[:, None], (n < filters)[None, :]

    blocks = tl.cdiv(bins, DEPTH)
    total = tl.zeros((ROWS, COLUMNS), tl.float32)
    for block in tl.range(channels * blocks):
        channel, f = block // blocks, block % blocks * DEPTH + tl.arange(0, DEPTH)
        inside = f < bins
        a = tl.load((line + channel * image)[:, None] + f[None, :], known_r & inside[None, :], 0)
        b = tl.load((column + channel * bins)[None, :] + f[:, None], known_n & inside[:, None], 0)
        total = tl.dot(a.to(tl.float32), b.to(tl.float32), total, input_precision=PRECISION)
    total += biases(bias + source * filters, biased, n, filters)
    to = out + ((plane * frames + t) * filters)[:, None] + n[None, :]
    tl.store(to, total, known_r & known_n)


@triton.jit(do_not_specialize=(*_HORIZONTAL, "biased"))
def sepfast_conv_pair_horizontal(
    v, weight, bias, out, batch, sources, frames, span, n1, n2, biased,
    ROWS: tl.constexpr, COLUMNS: tl.constexpr, DEPTH: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    """Features (B, S, T, N1) by filters (S, N2, N1, t2) to codes (B, S, N2, T')."""
    reach = frames - span + 1
    rows, depth = batch * reach, span * n1
    source, r, n = indices(rows, n2, ROWS, COLUMNS)
    plane, t = (r // reach) * sources + source, r % reach
    line = v + (plane * frames + t) * n1
    column = weight + (source * n2 + n) * depth
    known_r, known_n = (r < rows)[:, None], (n < n2)[None, :]

    total = tl.zeros((ROWS, COLUMNS), tl.float32)
    for first in tl.range(0, depth, DEPTH):
        k = first + tl.arange(0, DEPTH)
        inside = k < depth
        a = tl.load(line[:, None] + k[None, :], known_r & inside[None, :], 0)
        at = k % n1 * span + k // n1
        b = tl.load(column[None, :] + at[:, None], known_n & inside[:, None], 0)
        total = tl.dot(a.to(tl.float32), b.to(tl.float32), total, input_precision=PRECISION)
    total += biases(bias + source * n2, biased, n, n2)
    to = out + (plane * n2 * reach + t)[:, None] + (n * reach)[None, :]
    tl.store(to, total, known_r & known_n)


@triton.jit(do_not_specialize=(*_HORIZONTAL, "biased"))
def sepfast_deconv_pair_horizontal(
    z, weight, bias, out, batch, sources, frames, span, n1, n2, biased,
    ROWS: tl.constexpr, COLUMNS: tl.constexpr, DEPTH: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    """Codes (B, S, N2, T') by filters (S, N2, N1, t2) to features (B, S, T, N1)."""
    reach = frames - span + 1
    rows, depth = batch * frames, n2 * span
    source, r, n = indices(rows, n1, ROWS, COLUMNS)
    plane, t = (r // frames) * sources + source, r % frames
    line = z + plane * n2 * reach
    column = weight + source * n1 * depth + n * span
    known_r, known_n = (r < rows)[:, None], (n < n1)[None, :]

    total = tl.zeros((ROWS, COLUMNS), tl.float32)
    for first in tl.range(0, depth, DEPTH):
        k = first + tl.arange(0, DEPTH)
        row, tau = k // span, k % span
        inside = k < depth
        late = t[:, None] - tau[None, :]
        heard = known_r & inside[None, :] & (late >= 0) & (late < reach)
        a = tl.load(line[:, None] + (row * reach)[None, :] + late, heard, 0)
        at = row * n1 * span + tau
        b = tl.load(column[None, :] + at[:, None], known_n & inside[:, None], 0)
        total = tl.dot(a.to(tl.float32), b.to(tl.float32), total, input_precision=PRECISION)
    total += biases(bias + source * n1, biased, n, n1)
    to = out + ((plane * frames + t) * n1)[:, None] + n[None, :]
    tl.store(to, total, known_r & known_n)


@triton.jit(do_not_specialize=(*_VERTICAL, "biased"))
def sepfast_deconv_pair_vertical(
    u, weight, bias, out, batch, sources, channels, frames, bins, filters, biased,
    ROWS: tl.constexpr, COLUMNS: tl.constexpr, DEPTH: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    """Features (B, S, T, N1) by filters (S, N1, C, F) to bins (B, S, C, T, F)."""
    rows = batch * frames
    index, r, f = indices(rows, bins, ROWS, COLUMNS)
    channel, source = index % channels, index // channels
    plane, t = (r // frames) * sources + source, r % frames
    line = u + (plane * frames + t) * filters
    column = weight + source * filters * (channels * bins) + channel * bins + f
    known_r, known_f = (r < rows)[:, None], (f < bins)[None, :]

    total = tl.zeros((ROWS, COLUMNS), tl.float32)
    for first in tl.range(0, filters, DEPTH):
        k = first + tl.arange(0, DEPTH)
        inside = k < filters
        a = tl.load(line[:, None] + k[None, :], known_r & inside[None, :], 0)
        at = k * (channels * bins)
        b = tl.load(column[None, :] + at[:, None], known_f & inside[:, None], 0)
        total = tl.dot(a.to(tl.float32), b.to(tl.float32), total, input_precision=PRECISION)
    each = bias + source * channels + channel
    total += tl.load(each, biased > 0, other=0).to(tl.float32)
    to = out + ((plane * channels + channel) * frames + t)[:, None] * bins + f[None, :]
    tl.store(to, total, known_r & known_f)


@triton.jit(do_not_specialize=(*_VERTICAL, "share"))
def sepfast_conv_pair_verticalslope(
    v, x, out, batch, sources, channels, frames, bins, filters, share,
    ROWS: tl.constexpr, COLUMNS: tl.constexpr, DEPTH: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    """Features (B, S, T, N1) and bins (B, S, C, T, F) to parts (P, S, N1, C, F), `share` rows each.

    Its rows are filters, its depth what are rows elsewhere.
    """
    index, n, f = indices(filters, bins, ROWS, COLUMNS)
    channel, index = index % channels, index // channels
    source, part = index % sources, index // sources
    known_n, known_f = (n < filters)[:, None], (f < bins)[None, :]
    begin = (part * share).to(tl.int32)
    end = tl.minimum(begin + share, batch * frames)

    total = tl.zeros((ROWS, COLUMNS), tl.float32)
    for first in tl.range(0, share, DEPTH):
        r = begin + first + tl.arange(0, DEPTH)
        inside = r < end
        row = (r // frames * sources + source) * frames  # of a channel's image
        line, image = v + (row + r % frames) * filters, x + row * (channels * bins)
        a = tl.load(line[None, :] + n[:, None], known_n & inside[None, :], 0)
        image += (channel * frames + r % frames) * bins
        b = tl.load(image[:, None] + f[None, :], known_f & inside[:, None], 0)
        total = tl.dot(a.to(tl.float32), b.to(tl.float32), total, input_precision=PRECISION)
    filter_ = (part * sources + source) * filters + n
    to = out + ((filter_ * channels + channel) * bins)[:, None] + f[None, :]
    tl.store(to, total, known_n & known_f)


@triton.jit(do_not_specialize=(*_HORIZONTAL, "share"))
def sepfast_conv_pair_horizontalslope(
    z, v, out, batch, sources, frames, span, n1, n2, share,
    ROWS: tl.constexpr, COLUMNS: tl.constexpr, DEPTH: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    """Codes (B, S, N2, T') and features (B, S, T, N1) to parts (P, S, N2, N1, t2)."""
    reach = frames - span + 1
    index, m, n = indices(n2, n1, ROWS, COLUMNS)
    tau, index = index % span, index // span
    source, part = index % sources, index // sources
    known_m, known_n = (m < n2)[:, None], (n < n1)[None, :]
    begin = (part * share).to(tl.int32)
    end = tl.minimum(begin + share, batch * reach)

    total = tl.zeros((ROWS, COLUMNS), tl.float32)
    for first in tl.range(0, share, DEPTH):
        r = begin + first + tl.arange(0, DEPTH)
        inside = r < end
        plane, t = r // reach * sources + source, r % reach
        code, line = z + plane * n2 * reach + t, v + (plane * frames + t + tau) * n1
        a = tl.load(code[None, :] + (m * reach)[:, None], known_m & inside[None, :], 0)
        b = tl.load(line[:, None] + n[None, :], known_n & inside[:, None], 0)
        total = tl.dot(a.to(tl.float32), b.to(tl.float32), total, input_precision=PRECISION)
    filter_ = (part * sources + source) * n2 + m
    to = out + (filter_ * n1 * span)[:, None] + (n * span + tau)[None, :]
    tl.store(to, total, known_m & known_n)


def _variants(precision: str, rows: str) -> Iterator[dict[str, Any]]:
    yield {"PRECISION": precision}


def _kernel(function: Any, pointers: str, numbers: tuple[str, ...]) -> launch.Kernel:
    return launch.Kernel(function, launch.signature(pointers, numbers), _variants, dots=True)


VERTICAL = _kernel(sepfast_conv_pair_vertical, "x weight bias out", (*_VERTICAL, "biased"))
HORIZONTAL = _kernel(sepfast_conv_pair_horizontal, "v weight bias out", (*_HORIZONTAL, "biased"))
HORIZONTAL_TRANSPOSED = _kernel(
    sepfast_deconv_pair_horizontal, "z weight bias out", (*_HORIZONTAL, "biased")
)
VERTICAL_TRANSPOSED = _kernel(
    sepfast_deconv_pair_vertical, "u weight bias out", (*_VERTICAL, "biased")
)
VERTICAL_SLOPE = _kernel(sepfast_conv_pair_verticalslope, "v x out", (*_VERTICAL, "share"))
HORIZONTAL_SLOPE = _kernel(sepfast_conv_pair_horizontalslope, "z v out", (*_HORIZONTAL, "share"))
KERNELS = (
    VERTICAL,
    HORIZONTAL,
    HORIZONTAL_TRANSPOSED,
    VERTICAL_TRANSPOSED,
    VERTICAL_SLOPE,
    HORIZONTAL_SLOPE,
)


def vertical(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """Features of bins.

    Args:
        x: (B, S, C, T, F), contiguous, as all are.
        weight: (S, N1, C, F).
        bias: (S, N1), or None.

    Returns:
        (B, S, T, N1).
    """
    batch, sources, channels, frames, bins = x.shape
    filters = weight.shape[1]
    out = launch.empty((batch, sources, frames, filters), x)
    sizes = (batch, sources, channels, frames, bins, filters)
    _layer(VERTICAL, (x, weight, bias, out), batch * frames, filters, sources, sizes)
    return out


def horizontal(v: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """Codes of features.

    Args:
        v: (B, S, T, N1).
        weight: (S, N2, N1, t2).
        bias: (S, N2), or None.

    Returns:
        (B, S, N2, T').
    """
    batch, sources, frames, n1 = v.shape
    n2, span = weight.shape[1], weight.shape[-1]
    reach = frames - span + 1
    out = launch.empty((batch, sources, n2, reach), v)
    sizes = (batch, sources, frames, span, n1, n2)
    _layer(HORIZONTAL, (v, weight, bias, out), batch * reach, n2, sources, sizes)
    return out


def horizontal_transposed(z: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """Features of codes.

    Args:
        z: (B, S, N2, T').
        weight: (S, N2, N1, t2).
        bias: (S, N1), or None.

    Returns:
        (B, S, T, N1).
    """
    batch, sources, n2, reach = z.shape
    n1, span = weight.shape[2:]
    frames = reach + span - 1
    out = launch.empty((batch, sources, frames, n1), z)
    sizes = (batch, sources, frames, span, n1, n2)
    _layer(HORIZONTAL_TRANSPOSED, (z, weight, bias, out), batch * frames, n1, sources, sizes)
    return out


def vertical_transposed(u: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """Bins of features.

    Args:
        u: (B, S, T, N1).
        weight: (S, N1, C, F).
        bias: (S, C), or None.

    Returns:
        (B, S, C, T, F).
    """
    batch, sources, frames, filters = u.shape
    channels, bins = weight.shape[2:]
    out = launch.empty((batch, sources, channels, frames, bins), u)
    sizes = (batch, sources, channels, frames, bins, filters)
    planes = sources * channels
    _layer(VERTICAL_TRANSPOSED, (u, weight, bias, out), batch * frames, bins, planes, sizes)
    return out


def vertical_slope(v: Tensor, x: Tensor) -> Tensor:
    """The gradient of a vertical layer's weight.

    Args:
        v: (B, S, T, N1), the features, or their gradient.
        x: (B, S, C, T, F), the bins' gradient, or the bins.

    Returns:
        (S, N1, C, F).
    """
    batch, sources, channels, frames, bins = x.shape
    filters = v.shape[-1]
    sizes = (batch, sources, channels, frames, bins, filters)
    shape, rows = (sources, filters, channels, bins), batch * frames
    return _slope(VERTICAL_SLOPE, (v, x), shape, rows, filters, bins, sources * channels, sizes)


def horizontal_slope(z: Tensor, v: Tensor) -> Tensor:
    """The gradient of a horizontal layer's weight.

    Args:
        z: (B, S, N2, T'), the codes, or their gradient.
        v: (B, S, T, N1), the features' gradient, or the features.

    Returns:
        (S, N2, N1, t2).
    """
    batch, sources, n2, reach = z.shape
    frames, n1 = v.shape[2:]
    span = frames - reach + 1
    sizes = (batch, sources, frames, span, n1, n2)
    shape, rows = (sources, n2, n1, span), batch * reach
    return _slope(HORIZONTAL_SLOPE, (z, v), shape, rows, n2, n1, sources * span, sizes)


def _layer(
    kernel: launch.Kernel,
    tensors: tuple[Tensor, Tensor, Tensor | None, Tensor],
    rows: int,
    columns: int,
    planes: int,
    sizes: tuple[int, ...],
) -> None:
    """Launch a layer, whose result has `planes` products of `rows` by `columns`."""
    x, weight, bias, out = tensors
    precision = product_precision(x.device, x.dtype)
    config = kernel.config(x.device, precision=precision, rows=extent(rows))
    kernel.launch(
        programs(planes, rows, columns, config),
        x, weight, weight if bias is None else bias, out, *sizes, int(bias is not None),
        config=config, PRECISION=precision,
    )  # fmt: skip


def _slope(
    kernel: launch.Kernel,
    tensors: tuple[Tensor, Tensor],
    shape: tuple[int, ...],
    depth: int,
    rows: int,
    columns: int,
    planes: int,
    sizes: tuple[int, ...],
) -> Tensor:
    """Launch a slope, `planes` products of `rows` by `columns`, each a sum over `depth`."""
    first = tensors[0]
    precision = product_precision(first.device, first.dtype)
    config = kernel.config(first.device, precision=precision, rows=extent(depth))
    tiles = programs(planes, rows, columns, config)
    parts, share = launch.shares(depth, config["DEPTH"], tiles, first.device)
    out = launch.empty((parts, *shape), first, torch.float32)
    kernel.launch(parts * tiles, *tensors, out, *sizes, share, config=config, PRECISION=precision)
    return (out[0] if parts == 1 else out.sum(0)).to(first.dtype)
