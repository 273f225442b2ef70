"""Frames at a small hop back to samples, by the sums of `sliding.py` the other way round.

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
`masked` makes Y of the mixture's samples and a share, in the same program, so that no spectrum is
in memory; `inverse` reads it. Bins outside 0 ... N / 2 are the conjugates of others.

Operations of products 16 H B for a frame and source, and the forward's. Bytes: shares or spectra
once, a part of them again where a walk begins, samples once for each program across the bins.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple

import torch
import triton
import triton.language as tl
from torch import Tensor

from sepfast.kernels import dft, launch
from sepfast.kernels.precision import product_precision
from sepfast.kernels.sliding import (
    LANES,
    STEPS,
    constants,
    first_sums,
    next_frames,
    row_phase,
    slot_phase,
    tables,
    turned,
    upside_down,
    weighted,
)
from sepfast.kernels.tuning import Config, walk_length

#: Lengths that change from song to song: one compilation serves all their values.
_INVERSE_NUMBERS = ("length", "frames", "front", "segments")
_MASKED_NUMBERS = ("sources", "channels", *_INVERSE_NUMBERS)


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
    valid = inside(start, length, n, 16 * HOP) & (segment >= first)
    waits = valid & (segment >= begin + SLOTS) & (row < 15)
    samples += tl.load(out + start + n, waits, other=0)
    tl.store(out + start + n, samples, valid)
    start += (SLOTS * 16 - 1) * HOP
    to = segment + SLOTS
    valid = inside(start, length, n, 16 * HOP) & (to >= first) & (to < end) & (row > 0)
    tl.store(out + start + n, tail, valid)


@triton.jit
def inside(start, length, n, SIZE: tl.constexpr):
    """Which of the positions n below SIZE behind sample `start` lie in the line, in 32 bits."""
    low = tl.minimum(tl.maximum(-start, 0), SIZE).to(tl.int32)
    high = tl.maximum(tl.minimum(length - start, SIZE), 0).to(tl.int32)
    return (n >= low) & (n < high)


@triton.jit(do_not_specialize=_INVERSE_NUMBERS)
def sepfast_sliding_inverse(
    spectrum, table, out, length, frames, front, segments, center, side,
    BINS: tl.constexpr, COLUMNS: tl.constexpr, HOP: tl.constexpr, SLOTS: tl.constexpr,
    BANDS: tl.constexpr, LANES: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    """Spectra (R, T, B, 2) to samples of each group of bins (R, groups, L)."""
    chunks = tl.cdiv(front + length, HOP)
    group, line, first, count, at = place(chunks, BINS, segments, BANDS, LANES)
    k, mirrored, weight = bins_of(at, BINS, BANDS, LANES)
    sign = tl.where((k < 0) | (k >= BINS), -1.0, 1.0)
    real = (mirrored == 0) | (mirrored == BINS - 1)
    # Columns that no bin needs, behind the last band.
    known = mirrored >= 0
    i = tl.arange(0, 16)[:, None, None]
    spectrum += line * frames * (2 * BINS)
    out += (line * tl.cdiv(BINS, BANDS * (LANES - 4)) + group) * length

    sums_re = tl.zeros((SLOTS, BANDS, LANES), tl.float32)
    sums_im = tl.zeros((SLOTS, BANDS, LANES), tl.float32)
    begin = tl.maximum(first - SLOTS, 0)
    for done in tl.range(0, (first - begin).to(tl.int32) + count, disable_licm=True):
        t = (begin + done) * 16
        valid = known & (i < frames - t)
        of_bin = spectrum + t * (2 * BINS) + 2 * (i * BINS + mirrored)
        re = tl.load(of_bin, valid, other=0)
        im = tl.load(of_bin + 1, valid & (real == 0), other=0) * sign
        samples, tail, sums_re, sums_im = add_frames(
            re, im, weight, dft.again(table, done), COLUMNS, at, done % SLOTS,
            sums_re, sums_im, center, side, HOP, SLOTS, BANDS, LANES, PRECISION,
        )  # fmt: skip
        store_samples(
            out, samples, tail, begin + done, first, first + count, begin, front, length,
            HOP, SLOTS,
        )  # fmt: skip


@triton.jit(do_not_specialize=_MASKED_NUMBERS)
def sepfast_sliding_masked(
    shares, x, table, gain, out,
    sources, channels, length, frames, front, segments, center, side,
    LEVELS: tl.constexpr, BINS: tl.constexpr, COLUMNS: tl.constexpr, HOP: tl.constexpr,
    SLOTS: tl.constexpr, BANDS: tl.constexpr, LANES: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    """Shares (Z, S, C, T, B) and the mixture (Z, C, L) to samples (Z, S, C, groups, L)."""
    chunks = tl.cdiv(front + length, HOP)
    group, plane, first, count, at = place(chunks, BINS, segments, BANDS, LANES)
    _, mirrored, weight = bins_of(at, BINS, BANDS, LANES)
    known = mirrored >= 0
    i = tl.arange(0, 16)[:, None, None]
    batch, channel = plane // (sources * channels), plane % channels
    x += (batch * channels + channel) * length
    shares += plane * frames * BINS
    out += (plane * tl.cdiv(BINS, BANDS * (LANES - 4)) + group) * length
    gains = 1.0
    if LEVELS == 1:  # (S, C, B)
        of_gain = gain + plane % (sources * channels) * BINS + mirrored
        gains = tl.load(of_gain, known, other=0)

    begin = tl.maximum(first - SLOTS, 0)
    of_x_re, of_x_im = first_sums(
        x, begin * (16 * HOP) - front, length, table, COLUMNS, at,
        HOP, SLOTS, BANDS, LANES, PRECISION,
    )  # fmt: skip
    sums_re = tl.zeros((SLOTS, BANDS, LANES), tl.float32)
    sums_im = tl.zeros((SLOTS, BANDS, LANES), tl.float32)
    for done in tl.range(0, (first - begin).to(tl.int32) + count, disable_licm=True):
        again = dft.again(table, done)
        start = (begin + done) * (16 * HOP) - front
        re, im, of_x_re, of_x_im = next_frames(
            x, start, length, again, COLUMNS, at, done % SLOTS, of_x_re, of_x_im, center, side,
            HOP, SLOTS, BANDS, LANES, PRECISION,
        )  # fmt: skip
        t = (begin + done) * 16
        valid = known & (i < frames - t)
        share = tl.load(shares + t * BINS + i * BINS + mirrored, valid, other=0) * gains
        # Frames behind the last one see samples and have no share; where those are NaN, 0.
        re, im = tl.where(valid, share * re, 0), tl.where(valid, share * im, 0)
        samples, tail, sums_re, sums_im = add_frames(
            re, im, weight, dft.again(again, done + 1), COLUMNS, at, done % SLOTS, sums_re, sums_im,
            center, side, HOP, SLOTS, BANDS, LANES, PRECISION,
        )  # fmt: skip
        store_samples(
            out, samples, tail, begin + done, first, first + count, begin, front, length,
            HOP, SLOTS,
        )  # fmt: skip


def _variants(n_fft: int, hop: int, precision: str) -> Iterator[dict[str, Any]]:
    yield {**constants(n_fft, hop), "PRECISION": precision}


def _masked_variants(n_fft: int, hop: int, precision: str) -> Iterator[dict[str, Any]]:
    for levels in (0, 1):
        yield {"LEVELS": levels, **constants(n_fft, hop), "PRECISION": precision}


INVERSE = launch.Kernel(
    sepfast_sliding_inverse,
    launch.signature("spectrum table out", _INVERSE_NUMBERS, "center side"),
    _variants,
    dots=True,
)
MASKED = launch.Kernel(
    sepfast_sliding_masked,
    launch.signature("shares x table gain out", _MASKED_NUMBERS, "center side"),
    _masked_variants,
    dots=True,
)
KERNELS = (INVERSE, MASKED)


def inverse(
    spectrum: Tensor, n_fft: int, hop: int, front: int, length: int, window: tuple[float, float]
) -> Tensor:
    """Overlap-added samples of every row, before their normalisation.

    Args:
        spectrum: (R, T, B, 2), float32, contiguous.
        n_fft, hop, front: the framing.
        length: L, samples to give.
        window: a0 and - a1 / 2, times the framing's scale.

    Returns:
        (R, L).
    """
    rows, frames = spectrum.shape[:2]
    precision = product_precision(spectrum.device)
    config = INVERSE.config(spectrum.device, n_fft=n_fft, hop=hop, precision=precision)
    walk = _walk(rows, front + length, n_fft, hop, config, spectrum.device)
    out = launch.empty((rows, walk.groups, length), spectrum)
    INVERSE.launch(
        walk.programs if length else 0, spectrum, tables(n_fft, hop, spectrum.device), out,
        length, frames, front, walk.segments, *window,
        config=config, **constants(n_fft, hop), PRECISION=precision,
    )  # fmt: skip
    return out.sum(-2)


def masked(
    shares: Tensor,
    x: Tensor,
    n_fft: int,
    hop: int,
    front: int,
    window: tuple[float, float],
    gain: Tensor | None,
) -> Tensor:
    """Samples of the sources, before their normalisation.

    Args:
        shares: (Z, S, C, T, B), float32, contiguous.
        x: (Z, C, L), likewise, the mixture.
        n_fft, hop, front: the framing.
        window: a0 and - a1 / 2, times the framing's scale.
        gain: (S, C, B), likewise, what shares are multiplied by; None for 1.

    Returns:
        (Z, S, C, L).
    """
    batch, sources, channels, frames, _ = shares.shape
    length = x.shape[-1]
    precision, levels = product_precision(x.device), int(gain is not None)
    key = {"n_fft": n_fft, "hop": hop, "precision": precision}
    config = MASKED.config(x.device, **key)
    lines = batch * sources * channels
    walk = _walk(lines, front + length, n_fft, hop, config, x.device)
    out = launch.empty((batch, sources, channels, walk.groups, length), x)
    MASKED.launch(
        walk.programs if length else 0,
        shares, x, tables(n_fft, hop, x.device), x if gain is None else gain, out,
        sources, channels, length, frames, front, walk.segments, *window,
        config=config, LEVELS=levels, **constants(n_fft, hop), PRECISION=precision,
    )  # fmt: skip
    return out.sum(-2)


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


def _walk(
    lines: int, positions: int, n_fft: int, hop: int, config: Config, device: torch.device
) -> Walk:
    groups = launch.blocks(n_fft // 2 + 1, config["BANDS"] * (LANES - 4))
    total, slots = launch.blocks(positions, STEPS * hop), n_fft // hop // STEPS
    # A program repeats the segments of a frame before its own: that many are a block.
    most = max(1, config["SEGMENTS"] // slots)
    blocks = walk_length(
        launch.blocks(total, slots), lines * groups, most, launch.processors(device)
    )
    segments = blocks * slots
    return Walk(groups, segments, lines * groups * launch.blocks(total, segments))
