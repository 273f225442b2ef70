"""The STFT of lines of samples and its inverse; each serves as the other's gradient.

R rows, L samples, T frames, N = n_fft, B = N / 2 + 1 bins; a the window times the framing's
scale, (N,), 0 behind its span.

    forward   X[t, k] = c_k sum_n a[n] x[t hop + n - front] exp(-2 pi i k n / N)
    inverse   y[m] = sum_t a[n] sum_k Re(c_k X[t, k] exp(2 pi i k n / N)),  n = m - t hop + front

with c_k `edge` at 0 Hz and Nyquist and `interior` elsewhere. With 1 and 1 they are the STFT and
its transpose; with 1 / N and 2 / N, and y divided by sum_t a^2, the inverse STFT and its
transpose (whose samples the caller divides).

A forward program has FRAMES frames; an inverse one walks along BLOCKS blocks of N samples
(`_frames.py`). Bytes: samples once and spectrum once, 4 L (1 + 2 B / hop) a row, and 1 / BLOCKS of
the spectrum again in the inverse. Operations: those of `dft.py`, for each frame.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import triton
import triton.language as tl
from torch import Tensor

from sepfast.kernels import _frames, dft, launch
from sepfast.kernels.precision import stft_precision


@triton.jit
def sepfast_stft_forward(
    x, window, table, out, samples, frames, hop, front, span, interior, edge,
    FRAMES: tl.constexpr, N1: tl.constexpr, N2: tl.constexpr, K2: tl.constexpr, PRECISION: tl.constexpr,
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
    re, im, nyquist = dft.rdft(tile, table, FRAMES, N1, N2, K2, PRECISION)

    k, r = _frames.bins(N1, K2), tl.arange(0, FRAMES)
    weight = tl.where(k == 0, edge, interior)
    base = out + 2 * (row * frames + first) * BINS
    at = r[None, :, None] * BINS + k
    valid = (r[None, :, None] < frames - first) & (k < BINS - 1)
    both = tl.join(re * weight, im * weight)  # (N1, FRAMES, K2, 2)
    part = tl.arange(0, 2)[None, None, None, :]
    tl.store(base + 2 * at[:, :, :, None] + part, both, valid[:, :, :, None])
    last = base + 2 * (r * BINS + BINS - 1)
    tl.store(last, nyquist * edge, r < frames - first)
    tl.store(last + 1, nyquist * 0, r < frames - first)


@triton.jit
def sepfast_stft_inverse(
    spectrum, window, table, out, frames, length, hop, front, interior, edge,
    FRAMES: tl.constexpr, BLOCKS: tl.constexpr, NORMALISE: tl.constexpr,
    N1: tl.constexpr, N2: tl.constexpr, K2: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    """Spectra (R, T, B, 2) to samples (R, L)."""
    N: tl.constexpr = N1 * N2
    BINS: tl.constexpr = N // 2 + 1
    all_blocks = tl.cdiv(front + length, N)
    per_row = tl.cdiv(all_blocks, BLOCKS)
    row = (tl.program_id(0) // per_row).to(tl.int64)
    first = (tl.program_id(0) % per_row).to(tl.int64) * BLOCKS
    spectrum += row * frames * BINS * 2
    out += row * length

    n, r = _frames.positions(FRAMES, N1, N2)
    k = _frames.bins(N1, K2)
    weight = tl.where(k == 0, edge, interior)
    line, norm = tl.zeros((N1, 1, N2), tl.float32), tl.zeros((N1, 1, N2), tl.float32)
    for block in range(_frames.before(first), tl.minimum(all_blocks - first, BLOCKS)):
        start = (first + block) * N
        begin, count = _frames.starting_frames(start, frames, hop, N)
        next_line, next_norm = tl.zeros_like(line), tl.zeros_like(norm)
        for done in range(0, count, FRAMES):
            t, left = begin + done, count - done
            late = (t * hop - start).to(tl.int32)
            shift = late + r * hop  # (1, FRAMES, 1)
            at = 2 * (t * BINS + r * BINS + k)
            valid = (r < left) & (k < BINS - 1)
            re = tl.load(spectrum + at, valid, other=0) * weight
            im = tl.load(spectrum + at + 1, valid, other=0) * weight
            cos, sin = dft.delay(table, k, shift, N1, N2, K2)
            frame = tl.arange(0, FRAMES)
            nyquist = tl.load(
                spectrum + 2 * (t * BINS + frame * BINS + BINS - 1), frame < left, other=0
            )
            turn = 1 - 2 * ((late + frame * hop) & 1)  # the delay at Nyquist
            y = dft.irdft(
                re * cos + im * sin, im * cos - re * sin, nyquist * edge * turn,
                table, FRAMES, N1, N2, K2, PRECISION,
            )  # fmt: skip
            weights = _frames.rotated_window(window, shift, r < left, FRAMES, N1, N2)
            here = n >= shift
            y *= weights
            line += tl.sum(tl.where(here, y, 0), axis=1, keep_dims=True)
            next_line += tl.sum(tl.where(here, 0, y), axis=1, keep_dims=True)
            if NORMALISE:
                weights *= weights
                norm += tl.sum(tl.where(here, weights, 0), axis=1, keep_dims=True)
                next_norm += tl.sum(tl.where(here, 0, weights), axis=1, keep_dims=True)
        if NORMALISE:
            line /= tl.where(norm == 0, 1, norm)
        sample = start - front + n
        tl.store(out + sample, line, (sample >= 0) & (sample < length) & (block >= 0))
        line, norm = next_line, next_norm


def _variants(n_fft: int, precision: str) -> Iterator[dict[str, Any]]:
    yield {**dft.constants(n_fft), "PRECISION": precision}


def _inverse_variants(n_fft: int, precision: str) -> Iterator[dict[str, Any]]:
    for normalise in (False, True):
        yield {"NORMALISE": normalise, **dft.constants(n_fft), "PRECISION": precision}


_POINTERS = {"window": "*fp32", "table": "*fp32", "out": "*fp32"}
_WEIGHTS = {"interior": "fp32", "edge": "fp32"}
FORWARD = launch.Kernel(
    sepfast_stft_forward,
    {
        "x": "*fp32",
        **_POINTERS,
        **dict.fromkeys(("samples", "frames", "hop", "front", "span"), "i32"),
        **_WEIGHTS,
    },
    _variants,
    dots=True,
)
INVERSE = launch.Kernel(
    sepfast_stft_inverse,
    {
        "spectrum": "*fp32",
        **_POINTERS,
        **dict.fromkeys(("frames", "length", "hop", "front"), "i32"),
        **_WEIGHTS,
    },
    _inverse_variants,
    dots=True,
)
KERNELS = (FORWARD, INVERSE)


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
    precision = stft_precision(x.device)
    config = FORWARD.config(x.device, n_fft=n_fft, precision=precision)
    programs = x.shape[0] * launch.blocks(frames, config["FRAMES"])
    FORWARD.launch(
        programs, x, window, dft.tables(n_fft, x.device), out, x.shape[1], frames, hop, front, span, interior, edge,
        config=config, **dft.constants(n_fft), PRECISION=precision,
    )  # fmt: skip
    return out


def inverse(
    spectrum: Tensor,
    window: Tensor,
    hop: int,
    front: int,
    length: int,
    interior: float,
    edge: float,
    normalise: bool,
) -> Tensor:
    """Overlap-added samples of every row.

    Args:
        spectrum: (R, T, B, 2), float32, contiguous.
        window: (N,), as in `forward`.
        hop, front: the framing.
        length: L, samples to give.
        interior, edge: weights of the bins.
        normalise: whether to divide by the summed squared window.

    Returns:
        (R, L); 0 where no frame reaches.
    """
    n_fft = window.shape[0]
    rows, frames = spectrum.shape[:2]
    out = launch.empty((rows, length), spectrum)
    precision = stft_precision(out.device)
    config = INVERSE.config(out.device, n_fft=n_fft, precision=precision)
    INVERSE.launch(
        rows * _frames.stretch_count(front + length, n_fft, config["BLOCKS"]) if length else 0,
        spectrum, window, dft.tables(n_fft, out.device), out, frames, length, hop, front, interior, edge,
        config=config, NORMALISE=normalise, **dft.constants(n_fft), PRECISION=precision,
    )  # fmt: skip
    return out
