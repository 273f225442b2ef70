"""The decoders of DeepConvSep over a whole track: estimates, masks and cross-fade in one kernel.

K contexts of T frames, `step` frames apart, S sources, N1 features, C channels, F bins; a line of
L = (K - 1) step + T frames. Every bin of every channel is a column, C F of them.

    y_s[k, p, (c, f)] = max(b_s[c] + sum_n u_s[k, p, n] w_s[n, (c, f)], 1e-30)
    out_s[i, (c, f)] = sum_{k: 0 <= i - k step < T} fades[k, p] y_s / sum_r y_r,  p = i - k step
    backward, g the windowed gradient: dy_s = (g_s - sum_r g_r m_r) / sum_r y_r, 0 below 1e-30

with m the shares, u what the horizontal deconvolution gives (`convpair.py`). 1e-30 stands for 0, so
that silence is shared equally without asking.

A forward program has ROWS frames of the line and BINS columns, all sources: for each context that
covers a frame it gathers the features' rows, takes S products (ROWS, N1) x (N1, BINS), and adds
the faded shares up in registers, 2 S ROWS BINS of them. The estimates are never stored, and nothing
is added up in memory. With HELD, where a tile takes all features and the target has the room, the
weights are read before the contexts and stay in shared memory. A backward program has ROWS frames
of contexts, (k, p) one behind the other, and takes the estimates again. Programs of the same frames
follow each other, so that the features, which all columns read, come from the cache.

Bytes: 4 S K T N1 for the features and 4 S C F (L + N1) forward; backward 4 S C F (L + K T + N1).
Operations: 2 S K T N1 C F for the products either way; 34 G for 240 s of stereo, step 15 of 30.

Source: A and B, "inference".
"""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
import triton
import triton.language as tl
from torch import Tensor

from sepfast.kernels import convpair, launch

#: Stands for 0 in the estimates, so that where all are silent the shares are equal, not 0 / 0.
_SILENCE = tl.constexpr(1e-30)

#: Lengths: one compilation serves all their values.
_NUMBERS = ("contexts", "length", "step", "frames", "n1", "bins", "columns")


@triton.jit(do_not_specialize=_NUMBERS)
def sepfast_overlap_decode_forward(
    features, vertical, bias, fades, out, contexts, length, step, frames, n1, bins, columns,
    HELD: tl.constexpr, SOURCES: tl.constexpr, ROWS: tl.constexpr, BINS: tl.constexpr,
    FEATURES: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    """Features (K, S, T, N1) to faded shares (S, C, L, F)."""
    first, column, known = _place(columns, ROWS, BINS)
    r = tl.arange(0, ROWS)
    start = first // step  # the newest context at the first row
    ahead = first % step + r
    newer, position = ahead // step, ahead % step  # contexts behind `start`, frames in theirs
    shares, held = (), ()
    for s in tl.static_range(SOURCES):
        shares += (tl.zeros((ROWS, BINS), tl.float32),)  # type: ignore[assignment]
        if HELD:
            held += (_weights(vertical, s, 0, column, known, n1, columns, FEATURES),)  # type: ignore[assignment]
    for j in tl.range(0, tl.cdiv(length, step), disable_licm=True):
        k, p = start - j + newer, position + j * step
        inside = (first + r < frames) & (k >= 0) & (k < contexts) & (p < length)
        fade = tl.load(fades + k.to(tl.int64) * length + p, inside, other=0).to(tl.float32)
        context = (start - j).to(tl.int64) * SOURCES * length * n1
        row = (newer * SOURCES * length + p) * n1
        y, total = _estimates(
            features + context, vertical, held, bias, row, inside, column, known,
            length, n1, bins, columns, HELD, SOURCES, ROWS, BINS, FEATURES, PRECISION,
        )  # fmt: skip
        scale = fade[:, None] / total
        added = ()
        for s in tl.static_range(SOURCES):
            added += (shares[s] + y[s] * scale,)  # type: ignore[assignment]
        shares = added
    plane = frames.to(tl.int64) * bins
    channels = columns // bins
    out += first.to(tl.int64) * bins
    at = r[:, None] * bins + (column // bins * plane + column % bins)[None, :]  # (ROWS, BINS)
    valid = (first + r < frames)[:, None] & known[None, :]
    for s in tl.static_range(SOURCES):
        tl.store(out + s * channels * plane + at, shares[s], valid)


@triton.jit(do_not_specialize=_NUMBERS)
def sepfast_overlap_decode_backward(
    grads, features, vertical, bias, fades, out,
    contexts, length, step, frames, n1, bins, columns,
    SOURCES: tl.constexpr, ROWS: tl.constexpr, BINS: tl.constexpr, FEATURES: tl.constexpr,
    PRECISION: tl.constexpr,
):  # fmt: skip
    """Gradients of faded shares (S, C, L, F) to those of estimates (K, S, C, T, F)."""
    first, column, known = _place(columns, ROWS, BINS)
    r = tl.arange(0, ROWS)
    start = first // length  # the context of the first row
    ahead = first % length + r
    newer, p = ahead // length, ahead % length
    inside = start + newer < contexts
    fade = tl.load(fades + first.to(tl.int64) + r, inside, other=0).to(tl.float32)
    base = start.to(tl.int64) * SOURCES * length
    row = (newer * SOURCES * length + p) * n1
    y, total = _estimates(
        features + base * n1, vertical, (), bias, row, inside, column, known,
        length, n1, bins, columns, False, SOURCES, ROWS, BINS, FEATURES, PRECISION,
    )  # fmt: skip

    plane = frames.to(tl.int64) * bins
    channels = columns // bins
    valid = inside[:, None] & known[None, :]
    channel, bin_ = column // bins, column % bins
    grads += start.to(tl.int64) * step * bins
    at = ((newer * step + p) * bins)[:, None] + (channel * plane + bin_)[None, :]  # (ROWS, BINS)
    slopes = ()
    common = tl.zeros((ROWS, BINS), tl.float32)
    for s in tl.static_range(SOURCES):
        grad = tl.load(grads + s * channels * plane + at, valid, other=0).to(tl.float32)
        slopes += (grad,)  # type: ignore[assignment]
        common += grad * y[s]
    common /= total
    scale = fade[:, None] / total
    out += base * columns
    at = ((newer * SOURCES * columns * length + p * bins)[:, None]
          + (channel * length * bins + bin_)[None, :])  # fmt: skip
    for s in tl.static_range(SOURCES):
        slope = tl.where(y[s] > _SILENCE, (slopes[s] - common) * scale, 0)
        tl.store(out + s * columns * length + at, slope, valid)


@triton.jit
def _place(columns, ROWS: tl.constexpr, BINS: tl.constexpr):
    """First row of this program, its columns (BINS,) and which of them there are."""
    blocks = tl.cdiv(columns, BINS)
    column = tl.program_id(0) % blocks * BINS + tl.arange(0, BINS)
    return tl.program_id(0) // blocks * ROWS, column, column < columns


@triton.jit
def _weights(vertical, source, begin, column, known, n1, columns, FEATURES: tl.constexpr):
    """A source's weights of FEATURES features from `begin` on, (FEATURES, BINS)."""
    n = begin + tl.arange(0, FEATURES)
    at = (source * n1 + n)[:, None] * columns + column[None, :]
    return tl.load(vertical + at, (n < n1)[:, None] & known[None, :], other=0).to(tl.float32)


@triton.jit
def _rows(rows, begin, inside, n1, FEATURES: tl.constexpr):
    """FEATURES features from `begin` on, (ROWS, FEATURES), 0 outside."""
    n = begin + tl.arange(0, FEATURES)[None, :]
    return tl.load(rows + n, inside[:, None] & (n < n1), other=0).to(tl.float32)


@triton.jit
def _estimates(
    features, vertical, held, bias, row, inside, column, known, length, n1, bins, columns,
    HELD: tl.constexpr, SOURCES: tl.constexpr, ROWS: tl.constexpr, BINS: tl.constexpr,
    FEATURES: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    """Estimates of every source, (ROWS, BINS) each, and their sum.

    `features` are those of a context, `row` the offsets of its first source's rows from there,
    (ROWS,); `held` the weights where one tile holds all features, () where they are to be read.
    """
    estimates = ()
    total = tl.zeros((ROWS, BINS), tl.float32)
    for s in tl.static_range(SOURCES):
        biases = bias + s * (columns // bins) + column // bins
        y = tl.zeros((ROWS, BINS), tl.float32)
        y += tl.load(biases, known, other=0).to(tl.float32)[None, :]
        rows = features + s * length * n1 + row[:, None]
        if HELD:
            u = _rows(rows, 0, inside, n1, FEATURES)
            y = tl.dot(u, held[s], y, input_precision=PRECISION)
        else:
            for begin in tl.range(0, n1, FEATURES, disable_licm=True):
                u = _rows(rows, begin, inside, n1, FEATURES)
                w = _weights(vertical, s, begin, column, known, n1, columns, FEATURES)
                y = tl.dot(u, w, y, input_precision=PRECISION)
        y = tl.where(y < _SILENCE, _SILENCE, y)  # NaN stays
        estimates += (y,)  # type: ignore[assignment]
        total += y
    return estimates, total


def _variants(sources: int, precision: str, features: str = "") -> list[dict[str, Any]]:
    return [{"SOURCES": sources, "PRECISION": precision}]


FORWARD = launch.Kernel(
    sepfast_overlap_decode_forward,
    launch.signature("features vertical bias fades out", _NUMBERS),
    _variants,
    dots=True,
)
BACKWARD = launch.Kernel(
    sepfast_overlap_decode_backward,
    launch.signature("grads features vertical bias fades out", _NUMBERS),
    _variants,
    dots=True,
)
KERNELS = (FORWARD, BACKWARD)

#: Features that the tiles of configurations with HELD take at once.
_FEW = 64


class Gradients(NamedTuple):
    """The gradients of `overlap_decode`, in float32.

    Attributes:
        codes: (K, S, N2, T').
        horizontal: (S, N2, N1, t2).
        horizontal_bias: (S, N1).
        vertical: (S, N1, C, F).
        vertical_bias: (S, C).
    """

    codes: Tensor
    horizontal: Tensor
    horizontal_bias: Tensor
    vertical: Tensor
    vertical_bias: Tensor


class Weights(NamedTuple):
    """The deconvolutions of all sources, contiguous float32.

    Attributes:
        horizontal: (S, N2, N1, t2).
        horizontal_bias: (S, N1), or None.
        vertical: (S, N1, C, F).
        vertical_bias: (S, C), or None.
    """

    horizontal: Tensor
    horizontal_bias: Tensor | None
    vertical: Tensor
    vertical_bias: Tensor | None

    def bias(self) -> Tensor:
        """The vertical bias, 0 where there is none."""
        sources, _, channels, _ = self.vertical.shape
        given = self.vertical_bias
        return self.vertical.new_zeros(sources, channels) if given is None else given


def overlap_decode(
    codes: Tensor,
    weights: Weights,
    fades: Tensor,
    step: int,
    dtype: torch.dtype,
    precision: str,
) -> Tensor:
    """Cross-faded shares.

    Args:
        codes: (K, S, N2, T'), contiguous, float32; K at least 1.
        weights: the deconvolutions.
        fades: (K, T), contiguous, of any type that kernels take.
        step: frames from one context to the next.
        dtype: of the result.
        precision: `input_precision` of the products with the vertical weights.

    Returns:
        (S, C, L, F).
    """
    features = convpair.horizontal_transposed(codes, weights.horizontal, weights.horizontal_bias)
    sources, n1, channels, bins = weights.vertical.shape
    contexts, length = fades.shape
    frames = (contexts - 1) * step + length
    out = launch.empty((sources, channels, frames, bins), codes, dtype)
    config = FORWARD.config(
        codes.device,
        precision=precision,
        sources=triton.next_power_of_2(sources),
        features="few" if n1 <= _FEW else "many",
    )
    FORWARD.launch(
        _programs(frames, channels * bins, config),
        features, weights.vertical, weights.bias(), fades, out,
        contexts, length, step, frames, n1, bins, channels * bins,
        config=config, SOURCES=sources, PRECISION=precision,
    )  # fmt: skip
    return out


def overlap_decode_backward(
    grad: Tensor, codes: Tensor, weights: Weights, fades: Tensor, step: int, precision: str
) -> Gradients:
    """The gradients of `overlap_decode`.

    Args:
        grad: (S, C, L, F), contiguous, in any type that kernels take.
        codes: as in the forward, and so are the others.
        weights: the deconvolutions.
        fades: (K, T).
        step: frames from one context to the next.
        precision: likewise.
    """
    features = convpair.horizontal_transposed(codes, weights.horizontal, weights.horizontal_bias)
    sources, n1, channels, bins = weights.vertical.shape
    contexts, length = fades.shape
    slopes = launch.empty((contexts, sources, channels, length, bins), codes)
    config = BACKWARD.config(
        codes.device, precision=precision, sources=triton.next_power_of_2(sources)
    )
    BACKWARD.launch(
        _programs(contexts * length, channels * bins, config),
        grad, features, weights.vertical, weights.bias(), fades, slopes,
        contexts, length, step, grad.shape[2], n1, bins, channels * bins,
        config=config, SOURCES=sources, PRECISION=precision,
    )  # fmt: skip
    of_features = convpair.vertical(slopes, weights.vertical)
    return Gradients(
        convpair.horizontal(of_features, weights.horizontal),
        convpair.horizontal_slope(codes, of_features),
        of_features.sum((0, 2)),
        convpair.vertical_slope(features, slopes),
        slopes.sum((0, 3, 4)),
    )


def _programs(rows: int, columns: int, config: launch.Config) -> int:
    return launch.blocks(rows, config["ROWS"]) * launch.blocks(columns, config["BINS"])
