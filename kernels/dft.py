"""The DFT of real frames as matrix products small enough for tensor cores: shared device code.

R frames of N = n_fft samples, N = N1 N2 a power of two. A tile of samples is (R, N2, N1), sample
n = N2 n1 + n2; a tile of bins is (R, N1, K2), bin k = k1 + N1 k2, K2 = N2 / 2; the Nyquist bin is
kept beside it, (R,), as it would fill a tile of its own.

    forward   A[n2, k1] = sum_n1 e(-n1 k1 / N1) x[n2, n1]               2 real products
              X[k1, k2] = sum_n2 e(-n2 k2 / N2) e(-k1 n2 / N) A[n2, k1]   4
    inverse   P[k1, n2] = sum_k2 e(n2 k2 / N2) S[k1, k2]                  4
              y[n2, n1] = sum_k1 Re(e(n1 k1 / N1) e(k1 n2 / N) P[k1, n2])   2

with e(x) = exp(2 pi i x); the caller puts weights and 1 / N into S. For N = 1024 that is 0.26
million operations a frame, an eighth of one dense product. Data are the left, tall operand of each
product and tables the right one: Hopper reads that from shared memory, so that no table takes
registers. The tables lie in memory one behind the other, 8 (2 N1^2 + 2 N + N2 K2) bytes, which
the caches keep; the inverse has its own copy of the first, because a tile that both used would be
held in registers from the one to the other. `twiddles` is the table again, to be given as `again`
gives it within a loop.

Source: Cooley and Tukey 1965, as two factors.
"""

from __future__ import annotations

from functools import lru_cache

import numpy as np
import torch
import triton
import triton.language as tl
from torch import Tensor

#: n_fft -> (N1, N2). A dot takes tiles of at least 16; K2 is padded to that for n_fft 256.
FACTORS = {256: (16, 16), 512: (16, 32), 1024: (32, 32), 2048: (32, 64), 4096: (64, 64)}


def constants(n_fft: int) -> dict[str, int]:
    """The constants of the device functions below, for a transform of `n_fft` samples."""
    n1, n2 = FACTORS[n_fft]
    return {"N1": n1, "N2": n2, "K2": max(16, n2 // 2)}


@lru_cache(maxsize=32)
def tables(n_fft: int, device: torch.device) -> Tensor:
    """Cosines and sines of the three factors and of all n / N, one behind the other, float32.

    Made at the first call for a size and device, which must not lie in the capture of a graph.
    """
    n1, n2 = FACTORS[n_fft]
    k2 = constants(n_fft)["K2"]
    turns = [
        np.outer(np.arange(n1), np.arange(n1)) / n1,  # n1 k1 / N1, symmetric
        np.outer(np.arange(n2), np.arange(n1)) / n_fft,  # k1 n2 / N
        np.outer(np.arange(n2), np.arange(k2)) / n2,  # n2 k2 / N2
        np.arange(n_fft) / n_fft,  # n / N
        np.outer(np.arange(n1), np.arange(n1)) / n1,  # again, for the inverse
    ]
    parts = [part(2 * np.pi * (turn % 1)).ravel() for turn in turns for part in (np.cos, np.sin)]
    return torch.from_numpy(np.concatenate(parts)).to(device, torch.float32)


@triton.jit
def _table(
    table, ROWS: tl.constexpr, COLUMNS: tl.constexpr, STRIDE: tl.constexpr, STEP: tl.constexpr
):
    """A cosine matrix of the table and the sine matrix behind it, (ROWS, COLUMNS) each."""
    at = tl.arange(0, ROWS)[:, None] * STRIDE + tl.arange(0, COLUMNS)[None, :] * STEP
    return tl.load(table + at), tl.load(table + ROWS * COLUMNS + at)


@triton.jit
def rdft(
    x,
    table,
    twiddles,
    R: tl.constexpr,
    N1: tl.constexpr,
    N2: tl.constexpr,
    K2: tl.constexpr,
    PRECISION: tl.constexpr,
):
    """Windowed frames x (R, N2, N1) to bins: real and imaginary (R, N1, K2), Nyquist (R,)."""
    c, s = _table(table, N1, N1, N1, 1)
    flat = tl.reshape(x, (R * N2, N1))
    a_re = tl.dot(flat, c, input_precision=PRECISION)  # (R * N2, N1)
    a_im = tl.dot(flat, s, input_precision=PRECISION)  # minus the imaginary part
    c, s = _table(twiddles + 2 * N1 * N1, N2, N1, N1, 1)
    c, s = c[None, :, :], s[None, :, :]
    a_re, a_im = tl.reshape(a_re, (R, N2, N1)), tl.reshape(a_im, (R, N2, N1))
    b_re = tl.reshape(tl.permute(a_re * c - a_im * s, (0, 2, 1)), (R * N1, N2))
    b_im = tl.reshape(tl.permute(a_im * c + a_re * s, (0, 2, 1)), (R * N1, N2))
    c, s = _table(table + 2 * N1 * (N1 + N2), N2, K2, K2, 1)
    # One table after the other, so that only one is held at a time.
    re = tl.dot(b_re, c, input_precision=PRECISION)
    im = tl.dot(b_im, c, input_precision=PRECISION)
    im = tl.dot(b_re, s, im, input_precision=PRECISION)
    re -= tl.dot(b_im, s, input_precision=PRECISION)
    nyquist = tl.sum(tl.sum(x, axis=2) * alternate(N2)[None, :], axis=1)
    return tl.reshape(re, (R, N1, K2)), -tl.reshape(im, (R, N1, K2)), nyquist


@triton.jit
def irdft(
    re,
    im,
    nyquist,
    table,
    twiddles,
    R: tl.constexpr,
    N1: tl.constexpr,
    N2: tl.constexpr,
    K2: tl.constexpr,
    PRECISION: tl.constexpr,
):
    """Weighted bins (R, N1, K2) and Nyquist (R,) to frames (R, N2, N1) before their window."""
    c, s = _table(table + 2 * N1 * (N1 + N2), K2, N2, 1, K2)
    re, im = tl.reshape(re, (R * N1, K2)), tl.reshape(im, (R * N1, K2))
    p_re = tl.dot(re, c, input_precision=PRECISION)
    p_im = tl.dot(im, c, input_precision=PRECISION)
    p_im = tl.dot(re, s, p_im, input_precision=PRECISION)
    p_re -= tl.dot(im, s, input_precision=PRECISION)
    p_re = tl.permute(tl.reshape(p_re, (R, N1, N2)), (0, 2, 1))
    p_im = tl.permute(tl.reshape(p_im, (R, N1, N2)), (0, 2, 1))
    c, s = _table(twiddles + 2 * N1 * N1, N2, N1, N1, 1)
    c, s = c[None, :, :], s[None, :, :]
    q_re = tl.reshape(p_re * c - p_im * s, (R * N2, N1))
    q_im = tl.reshape(p_im * c + p_re * s, (R * N2, N1))
    c, s = _table(table + 2 * (N1 * N1 + 2 * N1 * N2 + N2 * K2), N1, N1, N1, 1)
    y = tl.dot(q_re, c, input_precision=PRECISION)
    y -= tl.dot(q_im, s, input_precision=PRECISION)
    return tl.reshape(y, (R, N2, N1)) + (nyquist[:, None] * alternate(N2)[None, :])[:, :, None]


@triton.jit
def delay(table, k, shift, N1: tl.constexpr, N2: tl.constexpr, K2: tl.constexpr):
    """Cosine and sine of 2 pi k shift / N, by which a spectrum is delayed; both are ints."""
    at = 2 * (N1 * N1 + N1 * N2 + N2 * K2) + ((k * shift) & (N1 * N2 - 1))
    return tl.load(table + at), tl.load(table + N1 * N2 + at)


@triton.jit
def again(table, step):
    """The table, for the iteration `step` of a loop, below 2^30.

    The compiler does not know that it is the same each time, and so loads twiddles where they are
    used; it would keep them all along, in 64 registers.
    """
    return table + tl.multiple_of(step >> 30, 16)


@triton.jit
def alternate(N: tl.constexpr):
    """(-1)^n for n = 0 ... N - 1, (N,)."""
    return (1 - 2 * (tl.arange(0, N) & 1)).to(tl.float32)
