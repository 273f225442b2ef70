"""Device code for frames at a small hop back to samples, by the sums of `_sliding.py` reversed.

R lines, S sources, L samples, T frames of N = n_fft samples a hop H apart, B = N / 2 + 1 bins; a
segment is 16 chunks of H samples or 16 frames, a frame covers SLOTS segments. With Y the spectrum
of a source and c_k = 1 / N at 0 Hz and Nyquist and 2 / N elsewhere:

    Z_t[k] = a0 Y_t[k] - a1 / 2 (Y_t[k - 1] + Y_t[k + 1])             the window, in the spectrum
    A_c[k] = sum_{t = c - N / H + 1}^c e(k (c - t) H / N) Z_t[k]        all frames on chunk c
    y[c H + j] = sum_k c_k Re(e(k j / N) A_c[k]) norm[c H + j]          a chunk, once

instead of a transform of each frame and N / H additions to a sample. Frames 16 g + i reach the
chunks from i on of segment g by a prefix sum, all of the SLOTS - 1 segments behind it by one sum,
and the chunks before i of segment g + SLOTS by a suffix sum, at whose end the phases are the same.
Again nothing is subtracted.

A program has bins of one line and walks along segments, the SLOTS before its first included. It
has the samples that these bins add; those of all bins are added afterwards, in a fixed order.
`_masked_istft_sliding.py` makes Y of the mixture's samples and a share, so that no spectrum is in
memory; `stft.py` reads it. Bins outside 0 ... N / 2 are the conjugates of others.

Operations of products 16 H B for a frame and source, and the forward's. Bytes: shares or spectra
once, a part of them again where a walk begins, samples once for each program across the bins.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
import triton
import triton.language as tl

from sepfast.kernels import dft, launch
from sepfast.kernels._frames import inside_line
from sepfast.kernels._sliding import (
    LANES,
    STEPS,
    row_phase,
    slot_phase,
    turned,
    upside_down,
    weighted,
)
from sepfast.kernels.tuning import Config, walk_length


@triton.jit
def place(chunks, bins, segments, BANDS: tl.constexpr, LANES: tl.constexpr):
    """Group of bins, line, first segment, segments to walk along and columns of a program."""
    groups = tl.cdiv(bins, BANDS * (LANES - 4))
    all_segments = tl.cdiv(chunks, 16)
    parts = tl.cdiv(all_segments, segments)
    index = tl.program_id(0).to(tl.int64)
    group, index = (index % groups).to(tl.int32), index // groups
    first = index % parts * segments
    band = group * BANDS + tl.arange(0, BANDS)[:, None]
    at = tl.reshape(band * (LANES - 4) + tl.arange(0, LANES)[None, :], (BANDS * LANES,))
    count = tl.minimum(all_segments - first, segments).to(tl.int32)
    return group, index // parts, first, count, at


@triton.jit
def bins_of(at, BINS: tl.constexpr, BANDS: tl.constexpr, LANES: tl.constexpr):
    """Of each column (1, BANDS, LANES): the bin, the bin it mirrors, and its weight c_k."""
    N: tl.constexpr = 2 * (BINS - 1)
    k = tl.reshape(at, (1, BANDS, LANES)) - 2
    mirrored = tl.where(k < 0, -k, tl.where(k < BINS, k, N - k))
    lane = tl.arange(0, LANES)[None, None, :]
    own = (lane > 1) & (lane < LANES - 2) & (k < BINS)
    weight = tl.where(own, tl.where((k == 0) | (k == BINS - 1), 1 / N, 2 / N), 0)
    return k, mirrored, weight


@triton.jit
def chunk_samples(
    re, im, table, columns: tl.constexpr, at,
    HOP: tl.constexpr, BANDS: tl.constexpr, LANES: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    """sum_k Re(e(k j / N) A[k]) of A (16, BANDS, LANES): samples (16, H).

    With k = k_0 + l in a band, e(l j / N) is a product for all bands at once, one below the other,
    so that each warp has its own; e(k_0 j / N) is multiplied by what comes of it.
    """
    j = tl.arange(0, HOP)
    # Bin l is column l + 2; the tables have the sines of - k j / N.
    of_lane = table + j[None, :] * columns + tl.arange(0, LANES)[:, None] + 2
    cos, sin = tl.load(of_lane), tl.load(of_lane + HOP * columns)
    re = tl.reshape(tl.permute(re, (1, 0, 2)), (BANDS * 16, LANES))
    im = tl.reshape(tl.permute(im, (1, 0, 2)), (BANDS * 16, LANES))
    y_re = tl.dot(re, cos, input_precision=PRECISION)
    y_re = tl.dot(im, sin, y_re, input_precision=PRECISION)
    y_im = tl.dot(im, cos, input_precision=PRECISION)
    y_im -= tl.dot(re, sin, input_precision=PRECISION)
    first = tl.min(tl.reshape(at, (BANDS, LANES)), 1)
    of_band = table + j[None, None, :] * columns + first[:, None, None]
    y_re = tl.reshape(y_re, (BANDS, 16, HOP)) * tl.load(of_band)
    y_im = tl.reshape(y_im, (BANDS, 16, HOP)) * tl.load(of_band + HOP * columns)
    return tl.sum(y_re + y_im, 0)


@triton.jit
def add_frames(
    y_re, y_im, weight, table, columns: tl.constexpr, at, slot, sums_re, sums_im, center, side,
    HOP: tl.constexpr, SLOTS: tl.constexpr, BANDS: tl.constexpr, LANES: tl.constexpr,
    PRECISION: tl.constexpr,
):  # fmt: skip
    """Samples that frames y (16, BANDS, LANES) add to chunks, in two parts, and the sums anew.

    `sums` are the sums over the frames of the SLOTS segments before, (SLOTS, BANDS, LANES). The
    first part (16, H) is for the chunks of the segment where the frames begin, together with all
    of these sums; row i of the second one for chunk i - 1 SLOTS segments later, none for i = 0.
    """
    row, slots = tl.arange(0, 16)[:, None, None], tl.arange(0, SLOTS)[:, None, None]
    here = slots == slot
    z_re, z_im = weighted(y_re, center, side) * weight, weighted(y_im, center, side) * weight
    # Columns that are not the program's own are of neighbours elsewhere, and weigh nothing.
    z_re, z_im = tl.where(weight == 0, 0, z_re), tl.where(weight == 0, 0, z_im)
    cos, sin = row_phase(table, columns, at, row, HOP, BANDS, LANES)
    z_re, z_im = turned(z_re, z_im, cos, sin)

    # Frames from i on are on chunk i - 1, SLOTS segments later.
    a_re = upside_down(tl.cumsum(upside_down(z_re), 0))
    a_im = upside_down(tl.cumsum(upside_down(z_im), 0))
    before = tl.maximum(row - 1, 0)
    cos, sin = row_phase(table, columns, at, before, HOP, BANDS, LANES)
    a_re, a_im = turned(a_re, a_im, cos, -sin)
    tail = chunk_samples(a_re, a_im, table, columns, at, HOP, BANDS, LANES, PRECISION)

    again = dft.again(table, slot + 1)  # not the tables of above, held all along
    slot_cos, slot_sin = slot_phase(again, columns, at, slot, HOP, SLOTS, BANDS, LANES)
    a_re = tl.sum(tl.where(here, 0, sums_re), 0, keep_dims=True)
    a_im = tl.sum(tl.where(here, 0, sums_im), 0, keep_dims=True)
    a_re, a_im = turned(a_re, a_im, slot_cos, -slot_sin)
    whole_re, whole_im = tl.sum(z_re, 0, keep_dims=True), tl.sum(z_im, 0, keep_dims=True)
    whole_re, whole_im = turned(whole_re, whole_im, slot_cos, slot_sin)
    sums_re, sums_im = tl.where(here, whole_re, sums_re), tl.where(here, whole_im, sums_im)
    a_re, a_im = tl.cumsum(z_re, 0) + a_re, tl.cumsum(z_im, 0) + a_im
    cos, sin = row_phase(again, columns, at, row, HOP, BANDS, LANES)
    a_re, a_im = turned(a_re, a_im, cos, -sin)
    samples = chunk_samples(a_re, a_im, again, columns, at, HOP, BANDS, LANES, PRECISION)
    return samples, tail, sums_re, sums_im


@triton.jit
def store_samples(
    out, samples, tail, segment, first, end, begin, front, length,
    HOP: tl.constexpr, SLOTS: tl.constexpr,
):  # fmt: skip
    """What `add_frames` gave to a line: the second part is stored first, and found there later.

    Args of segments: this one, those that the program gives, and where its walk begins.
    """
    row = tl.arange(0, 16)[:, None]
    n = row * HOP + tl.arange(0, HOP)[None, :]
    start = segment * (16 * HOP) - front
    valid = inside_line(start, length, n, 16 * HOP) & (segment >= first)
    waits = valid & (segment >= begin + SLOTS) & (row < 15)
    samples += tl.load(out + start + n, waits, other=0)
    tl.store(out + start + n, samples, valid)
    start += (SLOTS * 16 - 1) * HOP
    to = segment + SLOTS
    valid = inside_line(start, length, n, 16 * HOP) & (to >= first) & (to < end) & (row > 0)
    tl.store(out + start + n, tail, valid)


class Walk(NamedTuple):
    """How lines are shared out to programs.

    Attributes:
        groups: of bins.
        segments: that a program walks along.
        programs: in all.
    """

    groups: int
    segments: int
    programs: int


def walk(
    lines: int, positions: int, n_fft: int, hop: int, config: Config, device: torch.device
) -> Walk:
    """How lines are shared out.

    Args:
        lines: walks beside each other, each of all groups of bins.
        positions: of a line, those in front of its samples included.
        n_fft, hop: the framing.
        config: its SEGMENTS is the most that a program walks along.
        device: where they run.
    """
    groups = launch.blocks(n_fft // 2 + 1, config["BANDS"] * (LANES - 4))
    total, slots = launch.blocks(positions, STEPS * hop), n_fft // hop // STEPS
    # A program repeats the segments of a frame before its own: that many are a block.
    most = max(1, config["SEGMENTS"] // slots)
    blocks = walk_length(
        launch.blocks(total, slots), lines * groups, most, launch.processors(device)
    )
    segments = blocks * slots
    return Walk(groups, segments, lines * groups * launch.blocks(total, segments))
