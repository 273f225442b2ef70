"""The STFT of lines of samples and its inverse; each serves as the other's gradient.

R rows, L samples, T frames, N = n_fft, B = N / 2 + 1 bins; a the window times the framing's
scale, (N,), 0 behind its span.

    forward   X[t, k] = c_k sum_n a[n] x[t hop + n - front] exp(-2 pi i k n / N)
    inverse   y[m] = sum_t a[n] sum_k Re(c_k X[t, k] exp(2 pi i k n / N)),  n = m - t hop + front

with c_k `edge` at 0 Hz and Nyquist and `interior` elsewhere. With 1 and 1 they are the STFT and
its transpose; with 1 / N and 2 / N, and y times `norm` = 1 / sum_t a^2, the inverse STFT and its
transpose (whose samples the caller multiplies).

A forward program has FRAMES frames, an inverse one walks along blocks of N samples (`_frames.py`);
at small hops both slide (`_sliding.py`). Bytes: samples and spectrum once, 4 L (1 + 2 B / hop) a
row, and a part of the spectrum again in the inverse. Operations: those of `dft.py`, each frame.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import triton
import triton.language as tl
from torch import Tensor

from sepfast.kernels import _frames, _sliding, _sliding_back, dft, launch
from sepfast.kernels.precision import product_precision

#: Lengths that change from song to song: one compilation serves all their values.
_FORWARD_NUMBERS = ("samples", "frames", "hop", "front", "span")
_INVERSE_NUMBERS = ("frames", "length", "hop", "front", "full", "reached", "blocks")


@triton.jit(do_not_specialize=_FORWARD_NUMBERS)
def sepfast_stft_forward(
    x, window, table, out, samples, frames, hop, front, span, interior, edge,
    FRAMES: tl.constexpr,
    N1: tl.constexpr, N2: tl.constexpr, K2: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    """Samples (R, L) to spectra (R, T, B, 2)."""
    BINS: tl.constexpr = N1 * N2 // 2 + 1
    per_row = tl.cdiv(frames, FRAMES)
    row = (tl.program_id(0) // per_row).to(tl.int64)
    first = (tl.program_id(0) % per_row) * FRAMES
    start = first.to(tl.int64) * hop - front
    tile = _frames.frames_at(
        x + row * samples, window, start, samples, span, frames - first, hop, FRAMES, N1, N2
    )
    re, im, nyquist = dft.rdft(tile, table, table, FRAMES, N1, N2, K2, PRECISION)

    k, r = _frames.bins(N1, K2), tl.arange(0, FRAMES)
    weight = tl.where(k == 0, edge, interior)
    base = out + 2 * (row * frames + first) * BINS
    at = r[:, None, None] * BINS + k
    valid = (r[:, None, None] < frames - first) & (k < BINS - 1)
    both = tl.join(re * weight, im * weight)  # (FRAMES, N1, K2, 2)
    part = tl.arange(0, 2)[None, None, None, :]
    tl.store(base + 2 * at[:, :, :, None] + part, both, valid[:, :, :, None])
    last = base + 2 * (r * BINS + BINS - 1)
    tl.store(last, nyquist * edge, r < frames - first)
    tl.store(last + 1, nyquist * 0, r < frames - first)


@triton.jit(do_not_specialize=_INVERSE_NUMBERS)
def sepfast_stft_inverse(
    spectrum, window, norm, table, out,
    frames, length, hop, front, full, reached, blocks, interior, edge,
    FRAMES: tl.constexpr, NORMALISE: tl.constexpr,
    N1: tl.constexpr, N2: tl.constexpr, K2: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    """Spectra (R, T, B, 2) to samples (R, L)."""
    N: tl.constexpr = N1 * N2
    BINS: tl.constexpr = N // 2 + 1
    all_blocks = tl.cdiv(front + length, N)
    per_row = tl.cdiv(all_blocks, blocks)
    row = (tl.program_id(0) // per_row).to(tl.int64)
    first = (tl.program_id(0) % per_row).to(tl.int64) * blocks
    spectrum += row * frames * BINS * 2
    out += row * length

    n, r = _frames.positions(FRAMES, N1, N2)
    k, frame = _frames.bins(N1, K2), tl.arange(0, FRAMES)
    weight = tl.where(k == 0, edge, interior)
    line = tl.zeros((1, N2, N1), tl.float32)
    for block in tl.range(
        _frames.before(first), tl.minimum(all_blocks - first, blocks), disable_licm=True
    ):
        start = (first + block) * N
        begin, count = _frames.starting_frames(start, frames, hop, N)
        next_line = tl.zeros_like(line)
        for done in tl.range(0, count, FRAMES, disable_licm=True):
            t, left = begin + done, count - done
            late = (t * hop - start).to(tl.int32)
            shift = late + r * hop  # (FRAMES, 1, 1)
            of_frame = spectrum + 2 * t * BINS
            at = 2 * (r * BINS + k)
            valid = (r < left) & (k < BINS - 1)
            re = tl.load(of_frame + at, valid, other=0) * weight
            im = tl.load(of_frame + at + 1, valid, other=0) * weight
            nyquist = tl.load(of_frame + 2 * (frame * BINS + BINS - 1), frame < left, other=0)
            cos, sin = dft.delay(table, k, shift, N1, N2, K2)
            turn = 1 - 2 * ((late + frame * hop) & 1)  # the delay at Nyquist
            y = dft.irdft(
                re * cos + im * sin, im * cos - re * sin, nyquist * edge * turn,
                table, dft.again(table, done), FRAMES, N1, N2, K2, PRECISION,
            )  # fmt: skip
            weights = _frames.rotated_window(window, shift, r < left, FRAMES, N1, N2)
            here = n >= shift
            y = _frames.weighted(y, weights)
            line += tl.sum(tl.where(here, y, 0), axis=0, keep_dims=True)
            next_line += tl.sum(tl.where(here, 0, y), axis=0, keep_dims=True)
        owned = _frames.inside_line(start - front, length, n, N) & (block >= 0)
        if NORMALISE:
            line *= _frames.inverse_norm(norm, start, n, frames, hop, full, reached, owned)
        tl.store(out + (start - front) + n, line, owned)
        line = next_line


#: The same of the kernels that slide.
_SLIDING_NUMBERS = ("samples", "frames", "front", "segments")
_SLIDING_BACK_NUMBERS = ("length", "frames", "front", "segments")


@triton.jit(do_not_specialize=_SLIDING_NUMBERS)
def sepfast_stft_sliding(
    x, table, out, samples, frames, front, segments, center, side,
    BINS: tl.constexpr, COLUMNS: tl.constexpr, HOP: tl.constexpr, SLOTS: tl.constexpr,
    BANDS: tl.constexpr, LANES: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    """Samples (R, L) to spectra (R, T, B, 2)."""
    row, first, count, at = _sliding.place(frames, BINS, segments, BANDS, LANES)
    line = x + row * samples
    start = first * (16 * HOP) - front
    k, wanted = _sliding.own_bins(at, BINS, BANDS, LANES)
    i = tl.arange(0, 16)[:, None, None]
    out += row * frames * (2 * BINS)
    left = (frames - first * 16).to(tl.int32)

    sums_re, sums_im = _sliding.first_sums(
        line, start, samples, table, COLUMNS, at, HOP, SLOTS, BANDS, LANES, PRECISION
    )
    for done in tl.range(0, count, disable_licm=True):
        re, im, sums_re, sums_im = _sliding.next_frames(
            line, (first + done) * (16 * HOP) - front, samples, dft.again(table, done), COLUMNS,
            at, done % SLOTS, sums_re, sums_im, center, side,
            HOP, SLOTS, BANDS, LANES, PRECISION,
        )  # fmt: skip
        to = out + (first + done) * (32 * BINS) + 2 * (i * BINS + k)
        valid = wanted & (done * 16 + i < left)
        tl.store(to, re, valid)
        tl.store(to + 1, im, valid)


@triton.jit(do_not_specialize=_SLIDING_BACK_NUMBERS)
def sepfast_istft_sliding(
    spectrum, table, out, length, frames, front, segments, center, side,
    BINS: tl.constexpr, COLUMNS: tl.constexpr, HOP: tl.constexpr, SLOTS: tl.constexpr,
    BANDS: tl.constexpr, LANES: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    """Spectra (R, T, B, 2) to samples of each group of bins (R, groups, L)."""
    chunks = tl.cdiv(front + length, HOP)
    group, line, first, count, at = _sliding_back.place(chunks, BINS, segments, BANDS, LANES)
    k, mirrored, weight = _sliding_back.bins_of(at, BINS, BANDS, LANES)
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
        samples, tail, sums_re, sums_im = _sliding_back.add_frames(
            re, im, weight, dft.again(table, done), COLUMNS, at, done % SLOTS,
            sums_re, sums_im, center, side, HOP, SLOTS, BANDS, LANES, PRECISION,
        )  # fmt: skip
        _sliding_back.store_samples(
            out, samples, tail, begin + done, first, first + count, begin, front, length,
            HOP, SLOTS,
        )  # fmt: skip


def _variants(n_fft: int, precision: str) -> Iterator[dict[str, Any]]:
    yield {**dft.constants(n_fft), "PRECISION": precision}


def _inverse_variants(n_fft: int, precision: str) -> Iterator[dict[str, Any]]:
    for normalise in (False, True):
        yield {"NORMALISE": normalise, **dft.constants(n_fft), "PRECISION": precision}


def _sliding_variants(n_fft: int, hop: int, precision: str) -> Iterator[dict[str, Any]]:
    yield {**_sliding.constants(n_fft, hop), "PRECISION": precision}


FORWARD = launch.Kernel(
    sepfast_stft_forward,
    launch.signature("x window table out", _FORWARD_NUMBERS, "interior edge"),
    _variants,
    dots=True,
)
INVERSE = launch.Kernel(
    sepfast_stft_inverse,
    launch.signature("spectrum window norm table out", _INVERSE_NUMBERS, "interior edge"),
    _inverse_variants,
    dots=True,
)
SLIDING = launch.Kernel(
    sepfast_stft_sliding,
    launch.signature("x table out", _SLIDING_NUMBERS, "center side"),
    _sliding_variants,
    dots=True,
)
SLIDING_BACK = launch.Kernel(
    sepfast_istft_sliding,
    launch.signature("spectrum table out", _SLIDING_BACK_NUMBERS, "center side"),
    _sliding_variants,
    dots=True,
)
KERNELS = (FORWARD, INVERSE, SLIDING, SLIDING_BACK)


def forward(
    x: Tensor,
    window: Tensor,
    hop: int,
    front: int,
    frames: int,
    span: int,
    interior: float,
    edge: float,
) -> Tensor:
    """Weighted spectra of every row.

    Args:
        x: (R, L), float32, contiguous.
        window: (N,), the window times the scale, 0 behind its span.
        hop, front, frames, span: the framing.
        interior, edge: weights of the bins.

    Returns:
        (R, T, B, 2).
    """
    n_fft = window.shape[0]
    out = launch.empty((x.shape[0], frames, n_fft // 2 + 1, 2), x)
    precision = product_precision(x.device)
    config = FORWARD.config(x.device, n_fft=n_fft, precision=precision)
    programs = x.shape[0] * launch.blocks(frames, config["FRAMES"])
    FORWARD.launch(
        programs, x, window, dft.tables(n_fft, x.device), out,
        x.shape[1], frames, hop, front, span, interior, edge,
        config=config, **dft.constants(n_fft), PRECISION=precision,
    )  # fmt: skip
    return out


def inverse(
    spectrum: Tensor,
    window: Tensor,
    norm: _frames.Norm | None,
    hop: int,
    front: int,
    length: int,
    interior: float,
    edge: float,
) -> Tensor:
    """Overlap-added samples of every row.

    Args:
        spectrum: (R, T, B, 2), float32, contiguous.
        window: (N,), as in `forward`.
        norm: what samples are multiplied by; None for 1.
        hop, front: the framing.
        length: L, samples to give.
        interior, edge: weights of the bins.

    Returns:
        (R, L); 0 where no frame reaches.
    """
    n_fft = window.shape[0]
    rows, frames = spectrum.shape[:2]
    out = launch.empty((rows, length), spectrum)
    precision = product_precision(out.device)
    config = INVERSE.config(out.device, n_fft=n_fft, precision=precision)
    walk = _frames.walk(front + length, n_fft, rows, config, out.device)
    edges, full = norm or _frames.Norm(window, 1)
    INVERSE.launch(
        rows * walk.programs if length else 0,
        spectrum, window, edges, dft.tables(n_fft, out.device), out,
        frames, length, hop, front, full, edges.shape[0], walk.blocks, interior, edge,
        config=config, NORMALISE=norm is not None, **dft.constants(n_fft), PRECISION=precision,
    )  # fmt: skip
    return out


def sliding(
    x: Tensor, n_fft: int, hop: int, front: int, frames: int, window: tuple[float, float]
) -> Tensor:
    """Spectra of every row, by sums that slide.

    Args:
        x: (R, L), float32, contiguous.
        n_fft, hop, front, frames: the framing.
        window: a0 and - a1 / 2, times the framing's scale.

    Returns:
        (R, T, B, 2).
    """
    out = launch.empty((x.shape[0], frames, n_fft // 2 + 1, 2), x)
    precision = product_precision(x.device)
    config = SLIDING.config(x.device, n_fft=n_fft, hop=hop, precision=precision)
    segments, programs = _sliding.walk(x.shape[0], frames, n_fft, hop, config, x.device)
    SLIDING.launch(
        programs, x, _sliding.tables(n_fft, hop, x.device), out,
        x.shape[1], frames, front, segments, *window,
        config=config, **_sliding.constants(n_fft, hop), PRECISION=precision,
    )  # fmt: skip
    return out


def sliding_back(
    spectrum: Tensor, n_fft: int, hop: int, front: int, length: int, window: tuple[float, float]
) -> Tensor:
    """Overlap-added samples of every row, by sums that slide, before their normalisation.

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
    config = SLIDING_BACK.config(spectrum.device, n_fft=n_fft, hop=hop, precision=precision)
    walk = _sliding_back.walk(rows, front + length, n_fft, hop, config, spectrum.device)
    out = launch.empty((rows, walk.groups, length), spectrum)
    SLIDING_BACK.launch(
        walk.programs if length else 0, spectrum, _sliding.tables(n_fft, hop, spectrum.device), out,
        length, frames, front, walk.segments, *window,
        config=config, **_sliding.constants(n_fft, hop), PRECISION=precision,
    )  # fmt: skip
    return out.sum(-2)
