"""Device code for the STFT at a small hop without a transform of each frame: sums that slide.

R rows, L samples, T frames of N = n_fft samples a hop H apart, H a divisor of N, B = N / 2 + 1
bins. A chunk is H samples, a segment 16 chunks; a frame is N / H chunks, SLOTS segments. Position
p of a line is its sample p - front, and frame t begins with chunk t. With e(x) = exp(2 pi i x):

    P_c[k] = sum_{j < H} x[c H + j] e(-k j / N)                a chunk, one real product
    S_t[k] = sum_{c = t}^{t + N / H - 1} e(-k (c - t) H / N) P_c[k]     a frame without a window
    X_t[k] = a0 S_t[k] - a1 / 2 (S_t[k - 1] + S_t[k + 1])      w[n] = a0 - a1 cos(2 pi n / N)

so that the window is a product in the spectrum, and the sum over chunks is shared by all frames
that have them. Frame 16 g + i is the chunks i, i + 1, ... of segment g, all of the segments
between, and the chunks before i of segment g + SLOTS, where the phases are those of segment g
again: a suffix sum, a sum and a prefix sum. Nothing is ever subtracted, so that a loud sound that
has left a frame leaves no rounding behind, and silence is 0.

A program has bins and walks along segments. It multiplies the chunks of the segment that leaves
and of the one that enters, both (16, H) by (H, bins), and keeps the sums of the SLOTS segments
between, each bin in one thread. A band is LANES bins, of which the outer ones are neighbours of
those that it gives; so bins below 0 and above B are among the columns of the tables, the first
of which is -2.

Operations of products 8 H B a frame, 0.13 million for 2048 and 16, against the 0.79 million of
`dft.py`; beside them about 40 for each bin. Bytes: samples once and results once.

Source: van Herk 1992 for the sums; the modulation theorem for the window.
"""

from __future__ import annotations

from functools import lru_cache

import numpy as np
import torch
import triton
import triton.language as tl
from torch import Tensor

from sepfast.kernels import dft, launch
from sepfast.kernels._frames import inside_line
from sepfast.kernels.tuning import Config, walk_length

#: Chunks of a segment, which is as tall as a product must be.
STEPS = 16
#: Bins of a band, with those at its ends that only neighbours need.
LANES = 32


@triton.jit
def segment(
    line, start, samples, table, columns: tl.constexpr, at, row,
    HOP: tl.constexpr, BANDS: tl.constexpr, LANES: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    """Chunks `row` (16,) of the segment at sample `start`: real and imaginary (16, BANDS, LANES).

    Their phases are those of the segment's first sample; `at` are the columns, (BANDS * LANES,).
    """
    STEPS: tl.constexpr = 16
    j = tl.arange(0, HOP)
    n = row[:, None] * HOP + j[None, :]
    x = tl.load(line + start + n, inside_line(start, samples, n, STEPS * HOP), other=0)
    of_table = table + j[:, None] * columns + at[None, :]
    re = tl.dot(x, tl.load(of_table), input_precision=PRECISION)
    im = tl.dot(x, tl.load(of_table + HOP * columns), input_precision=PRECISION)
    re = tl.reshape(re, (STEPS, BANDS, LANES))
    im = tl.reshape(im, (STEPS, BANDS, LANES))
    cos, sin = row_phase(table, columns, at, row[:, None, None], HOP, BANDS, LANES)
    return turned(re, im, cos, sin)


@triton.jit
def row_phase(
    table, columns: tl.constexpr, at, row,
    HOP: tl.constexpr, BANDS: tl.constexpr, LANES: tl.constexpr,
):  # fmt: skip
    """Cosine and sine of the phase of chunks `row` (16, 1, 1) of a segment, (16, BANDS, LANES)."""
    phase = table + (2 * HOP + row) * columns + tl.reshape(at, (1, BANDS, LANES))
    return tl.load(phase), tl.load(phase + 16 * columns)


@triton.jit
def turned(re, im, cos, sin):
    """A product of complex numbers."""
    return re * cos - im * sin, re * sin + im * cos


@triton.jit
def upside_down(x):
    """The rows of (16, BANDS, LANES) from the last to the first.

    The bits of the row one after the other, which only names registers, where all rows are in one
    thread; a scan in reverse would move lanes.
    """
    BANDS: tl.constexpr = x.shape[1]
    LANES: tl.constexpr = x.shape[2]
    x = tl.reshape(x, (2, 2, 2, 2, BANDS, LANES))
    for _ in tl.static_range(4):
        upper, lower = tl.split(tl.permute(x, (1, 2, 3, 4, 5, 0)))
        x = tl.join(lower, upper)
    return tl.reshape(tl.permute(x, (2, 3, 4, 5, 0, 1)), (16, BANDS, LANES))


@triton.jit
def neighbours(x, STEP: tl.constexpr):
    """The values of the bins STEP further, of (16, BANDS, LANES), around the end of a band."""
    lane = tl.arange(0, x.shape[2])[None, None, :]
    index = (lane + STEP) & (x.shape[2] - 1)
    return tl.gather(x, tl.broadcast_to(index, x.shape), axis=2)


@triton.jit
def weighted(x, center, side):
    """a0 S[k] - a1 / 2 (S[k - 1] + S[k + 1])."""
    return center * x + side * (neighbours(x, -1) + neighbours(x, 1))


@triton.jit
def slot_phase(
    table, columns: tl.constexpr, at, slot,
    HOP: tl.constexpr, SLOTS: tl.constexpr, BANDS: tl.constexpr, LANES: tl.constexpr,
):  # fmt: skip
    """Cosine and sine of the phase of the first sample of a segment, (1, BANDS, LANES)."""
    STEPS: tl.constexpr = 16
    phase = table + (2 * HOP + 2 * STEPS + slot) * columns + tl.reshape(at, (1, BANDS, LANES))
    return tl.load(phase), tl.load(phase + SLOTS * columns)


@triton.jit
def first_sums(
    line, start, samples, table, columns: tl.constexpr, at,
    HOP: tl.constexpr, SLOTS: tl.constexpr, BANDS: tl.constexpr, LANES: tl.constexpr,
    PRECISION: tl.constexpr,
):  # fmt: skip
    """The sums of SLOTS segments in slots 0, 1, ..., real and imaginary (SLOTS, BANDS, LANES)."""
    slots = tl.arange(0, SLOTS)[:, None, None]
    row = tl.arange(0, 16)
    sums_re = tl.zeros((SLOTS, BANDS, LANES), tl.float32)
    sums_im = tl.zeros((SLOTS, BANDS, LANES), tl.float32)
    for slot in tl.range(0, SLOTS, disable_licm=True):
        of_slot = dft.again(table, slot)
        re, im = segment(
            line, start + slot * (16 * HOP), samples, of_slot, columns, at, row,
            HOP, BANDS, LANES, PRECISION,
        )  # fmt: skip
        cos, sin = slot_phase(of_slot, columns, at, slot, HOP, SLOTS, BANDS, LANES)
        re, im = turned(tl.sum(re, 0, keep_dims=True), tl.sum(im, 0, keep_dims=True), cos, sin)
        sums_re = tl.where(slots == slot, re, sums_re)
        sums_im = tl.where(slots == slot, im, sums_im)
    return sums_re, sums_im


@triton.jit
def next_frames(
    line, start, samples, table, columns: tl.constexpr, at, slot, sums_re, sums_im, center, side,
    HOP: tl.constexpr, SLOTS: tl.constexpr, BANDS: tl.constexpr, LANES: tl.constexpr,
    PRECISION: tl.constexpr,
):  # fmt: skip
    """The spectra of 16 frames from `start` on, (16, BANDS, LANES), and the sums for the next."""
    row, slots = tl.arange(0, 16), tl.arange(0, SLOTS)[:, None, None]
    here = slots == slot
    cos, sin = slot_phase(table, columns, at, slot, HOP, SLOTS, BANDS, LANES)
    between_re = tl.sum(tl.where(here, 0, sums_re), 0, keep_dims=True)
    between_im = tl.sum(tl.where(here, 0, sums_im), 0, keep_dims=True)
    between_re, between_im = turned(between_re, between_im, cos, -sin)

    # The chunk before each frame's own; the first frame has none, and the last chunk in its place.
    re, im = segment(
        line, start + SLOTS * 16 * HOP, samples, table, columns, at, (row + 15) & 15,
        HOP, BANDS, LANES, PRECISION,
    )  # fmt: skip
    whole_re, whole_im = tl.sum(re, 0, keep_dims=True), tl.sum(im, 0, keep_dims=True)
    whole_re, whole_im = turned(whole_re, whole_im, cos, sin)
    sums_re, sums_im = tl.where(here, whole_re, sums_re), tl.where(here, whole_im, sums_im)
    later = row[:, None, None] > 0
    s_re = tl.cumsum(tl.where(later, re, 0), 0) + between_re
    s_im = tl.cumsum(tl.where(later, im, 0), 0) + between_im

    again = dft.again(table, slot + 1)  # not the tables of above, held all along
    re, im = segment(
        line, start, samples, again, columns, at, 15 - row, HOP, BANDS, LANES, PRECISION
    )
    s_re += upside_down(tl.cumsum(re, 0))
    s_im += upside_down(tl.cumsum(im, 0))
    cos, sin = row_phase(again, columns, at, row[:, None, None], HOP, BANDS, LANES)
    s_re, s_im = turned(s_re, s_im, cos, -sin)
    return weighted(s_re, center, side), weighted(s_im, center, side), sums_re, sums_im


@triton.jit
def place(frames, bins, segments, BANDS: tl.constexpr, LANES: tl.constexpr):
    """Row, first segment, segments to walk along and columns (BANDS * LANES,) of a program."""
    groups = tl.cdiv(bins, BANDS * (LANES - 2))
    all_segments = tl.cdiv(frames, 16)
    parts = tl.cdiv(all_segments, segments)
    index = tl.program_id(0).to(tl.int64)
    group, index = (index % groups).to(tl.int32), index // groups
    first = index % parts * segments
    band = group * BANDS + tl.arange(0, BANDS)[:, None]
    at = band * (LANES - 2) + tl.arange(0, LANES)[None, :] + 1
    at = tl.reshape(at, (BANDS * LANES,))
    return index // parts, first, tl.minimum(all_segments - first, segments).to(tl.int32), at


@triton.jit
def own_bins(at, BINS: tl.constexpr, BANDS: tl.constexpr, LANES: tl.constexpr):
    """Bin of each column, (1, BANDS, LANES), and whether the program gives it."""
    k = tl.reshape(at, (1, BANDS, LANES)) - 2
    lane = tl.arange(0, LANES)[None, None, :]
    return k, (lane > 0) & (lane < LANES - 1) & (k < BINS)


def constants(n_fft: int, hop: int) -> dict[str, int]:
    """What the kernels are compiled for, beside their configuration."""
    return {
        "BINS": n_fft // 2 + 1,
        "COLUMNS": columns(n_fft),
        "HOP": hop,
        "SLOTS": n_fft // hop // STEPS,
        "LANES": LANES,
    }


def columns(n_fft: int) -> int:
    """Columns of the tables: bins from -2 on, as far as the last band may reach."""
    return n_fft // 2 + 1 + 32 * LANES


@lru_cache(maxsize=32)
def tables(n_fft: int, hop: int, device: torch.device) -> Tensor:
    """Cosines, then sines, of - k n / N for k = -2, -1, ...: float32, one behind the other.

    First n = 0 ... hop - 1, a chunk; then 16 multiples of the hop, a segment; then the multiples of
    a segment. Made at the first call, which must not lie in the capture of a graph.
    """
    k = np.arange(columns(n_fft)) - 2
    steps = hop * np.arange(STEPS)
    parts = []
    for n in (np.arange(hop), steps, STEPS * hop * np.arange(n_fft // hop // STEPS)):
        turn = 2 * np.pi * (np.outer(n, -k) % n_fft) / n_fft
        parts += [np.cos(turn).ravel(), np.sin(turn).ravel()]
    values = np.concatenate(parts)
    values[np.abs(values) < 1e-12] = 0  # at multiples of a quarter turn
    return torch.from_numpy(values).to(device, torch.float32)


def walk(
    rows: int, frames: int, n_fft: int, hop: int, config: Config, device: torch.device
) -> tuple[int, int]:
    """Segments that a program walks along, and programs in all."""
    groups = launch.blocks(n_fft // 2 + 1, config["BANDS"] * (LANES - 2))
    total = launch.blocks(frames, STEPS)
    # What is made before the first frames costs about as much as half of as many segments.
    most = max(config["SEGMENTS"], n_fft // hop // STEPS)
    segments = walk_length(total, rows * groups, most, launch.processors(device))
    return segments, rows * groups * launch.blocks(total, segments)
