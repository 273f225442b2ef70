"""Shares of a mixture back to samples at a small hop, by sums that slide.

Z batch, S sources, C channels, L samples, T frames of N = n_fft samples a hop H apart, and
B = N / 2 + 1 bins; X the mixture's STFT (`_sliding.py`), m the shares. Of Y_n come the samples of a
source before their normalisation (`_sliding_back.py`).

    Y_n = m_n gain_n X

A program has bins of one source and channel and walks along segments. It makes X of the mixture's
samples, so that no spectrum is in memory, and has the samples that its bins add; those of all bins
are added afterwards. Levels with a floor, and the gradient, are those of `masked_istft.py`.

Operations of products 24 H B for a frame, source and channel. Bytes: shares once, a part of them
again where a walk begins, and the samples, the mixture's and the source's, for each program across
the bins.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import triton
import triton.language as tl
from torch import Tensor

from sepfast.kernels import _sliding, _sliding_back, dft, launch
from sepfast.kernels.precision import product_precision

#: Lengths that change from song to song: one compilation serves all their values.
_NUMBERS = ("sources", "channels", "length", "frames", "front", "segments")


@triton.jit(do_not_specialize=_NUMBERS)
def sepfast_masked_istft_sliding(
    shares, x, table, gain, out,
    sources, channels, length, frames, front, segments, center, side,
    LEVELS: tl.constexpr, BINS: tl.constexpr, COLUMNS: tl.constexpr, HOP: tl.constexpr,
    SLOTS: tl.constexpr, BANDS: tl.constexpr, LANES: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    """Shares (Z, S, C, T, B) and the mixture (Z, C, L) to samples (Z, S, C, groups, L)."""
    chunks = tl.cdiv(front + length, HOP)
    group, plane, first, count, at = _sliding_back.place(chunks, BINS, segments, BANDS, LANES)
    _, mirrored, weight = _sliding_back.bins_of(at, BINS, BANDS, LANES)
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
    of_x_re, of_x_im = _sliding.first_sums(
        x, begin * (16 * HOP) - front, length, table, COLUMNS, at,
        HOP, SLOTS, BANDS, LANES, PRECISION,
    )  # fmt: skip
    sums_re = tl.zeros((SLOTS, BANDS, LANES), tl.float32)
    sums_im = tl.zeros((SLOTS, BANDS, LANES), tl.float32)
    for done in tl.range(0, (first - begin).to(tl.int32) + count, disable_licm=True):
        again = dft.again(table, done)
        start = (begin + done) * (16 * HOP) - front
        re, im, of_x_re, of_x_im = _sliding.next_frames(
            x, start, length, again, COLUMNS, at, done % SLOTS, of_x_re, of_x_im, center, side,
            HOP, SLOTS, BANDS, LANES, PRECISION,
        )  # fmt: skip
        t = (begin + done) * 16
        valid = known & (i < frames - t)
        share = tl.load(shares + t * BINS + i * BINS + mirrored, valid, other=0) * gains
        # Frames behind the last one see samples and have no share; where those are NaN, 0.
        re, im = tl.where(valid, share * re, 0), tl.where(valid, share * im, 0)
        samples, tail, sums_re, sums_im = _sliding_back.add_frames(
            re, im, weight, dft.again(again, done + 1), COLUMNS, at, done % SLOTS, sums_re, sums_im,
            center, side, HOP, SLOTS, BANDS, LANES, PRECISION,
        )  # fmt: skip
        _sliding_back.store_samples(
            out, samples, tail, begin + done, first, first + count, begin, front, length,
            HOP, SLOTS,
        )  # fmt: skip


def _variants(n_fft: int, hop: int, precision: str) -> Iterator[dict[str, Any]]:
    for levels in (0, 1):
        yield {"LEVELS": levels, **_sliding.constants(n_fft, hop), "PRECISION": precision}


FORWARD = launch.Kernel(
    sepfast_masked_istft_sliding,
    launch.signature("shares x table gain out", _NUMBERS, "center side"),
    _variants,
    dots=True,
)
KERNELS = (FORWARD,)


def forward(
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
    config = FORWARD.config(x.device, **key)
    lines = batch * sources * channels
    walk = _sliding_back.walk(lines, front + length, n_fft, hop, config, x.device)
    out = launch.empty((batch, sources, channels, walk.groups, length), x)
    FORWARD.launch(
        walk.programs if length else 0,
        shares, x, _sliding.tables(n_fft, hop, x.device), x if gain is None else gain, out,
        sources, channels, length, frames, front, walk.segments, *window,
        config=config, LEVELS=levels, **_sliding.constants(n_fft, hop), PRECISION=precision,
    )  # fmt: skip
    return out.sum(-2)
