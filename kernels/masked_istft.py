"""Shares of a mixture back to samples, and their gradient, without a spectrum in memory.

Z batch, S sources, C channels, L samples, T frames, N = n_fft, B = N / 2 + 1 bins; a the window
times the framing's scale; X the mixture's STFT, m the shares, u = X / |X|, 1 where X is 0.

    forward   S_n = m_n gain_n X,  or  (m_n (|X| - floor) gain_n + base_n) u;  y_n = istft(S_n)
    backward  with H_n = dL / dS_n, the inverse's transpose of dy_n:
              dm_n = gain_n Re(conj(X) H_n),  or  (|X| - floor) gain_n Re(conj(u) H_n)

A forward program walks along some blocks of N samples of one channel (`_frames.py`) for SOURCES
sources: it reads the mixture's samples once, transforms FRAMES frames, weighs their bins by the
shares of each source and transforms those back; all phases come from the samples. The frames are
held rotated and m is real, so the rotation cancels. A backward program has FRAMES frames of one
channel and SOURCES sources, of the mixture and of the incoming gradients.

Bytes for S sources of a channel: 4 L (1 + S + S B / hop), and a part of the shares again.
Operations: those of `dft.py`, 1 + S times for each frame. Small hops: `_masked_istft_sliding.py`.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple

import triton
import triton.language as tl
from torch import Tensor, float16

from sepfast.kernels import _frames, dft, launch
from sepfast.kernels.precision import product_precision

#: Lengths that change from song to song: one compilation serves all their values.
_FORWARD_NUMBERS = (
    "sources", "channels", "samples", "frames", "hop", "front", "full", "reached", "blocks",
)  # fmt: skip
_BACKWARD_NUMBERS = ("sources", "channels", "samples", "frames", "hop", "front", "span")


@triton.jit
def _program(channels, sources, per_line, SOURCES: tl.constexpr):
    """Which batch, channel and sources a program has, and which part of the line; int64."""
    groups = tl.cdiv(sources, SOURCES)
    index = tl.program_id(0).to(tl.int64)
    part, index = index % per_line, index // per_line
    group, index = index % groups, index // groups
    return index // channels, index % channels, group * SOURCES, part


@triton.jit
def _weigh(share, re, im, loud, gain, floor, base, LEVELS: tl.constexpr):
    """The spectrum of a source: shares, levels and the unit phase or the mixture, one shape."""
    if LEVELS == 2:
        share = share * ((loud - floor) * gain) + base
    elif LEVELS == 1:
        share *= gain
    return share * re, share * im


@triton.jit
def _slope(re, im, h_re, h_im, loud, gain, floor, LEVELS: tl.constexpr):
    """The gradient of a share, from the unit phase or the mixture and the spectrum's gradient."""
    slope = re * h_re + im * h_im
    if LEVELS == 2:
        slope *= (loud - floor) * gain
    elif LEVELS == 1:
        slope *= gain
    return slope


@triton.jit
def _unit(re, im, zero_re, zero_im):
    """X / |X| and |X|; the given phase where X is 0."""
    loud = tl.sqrt(re * re + im * im)
    safe = tl.where(loud == 0, 1, loud)
    return tl.where(loud == 0, zero_re, re / safe), tl.where(loud == 0, zero_im, im / safe), loud


@triton.jit(do_not_specialize=_FORWARD_NUMBERS)
def sepfast_masked_istft_forward(
    shares, x, window, norm, table, gain, floor, base, out,
    sources, channels, samples, frames, hop, front, full, reached, blocks,
    LEVELS: tl.constexpr, SOURCES: tl.constexpr, FRAMES: tl.constexpr,
    N1: tl.constexpr, N2: tl.constexpr, K2: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    """Shares (Z, S, C, T, B) and the mixture (Z, C, L) to samples (Z, S, C, L)."""
    N: tl.constexpr = N1 * N2
    BINS: tl.constexpr = N // 2 + 1
    COLUMNS: tl.constexpr = FRAMES * SOURCES
    all_blocks = tl.cdiv(front + samples, N)
    batch, channel, source, part = _program(channels, sources, tl.cdiv(all_blocks, blocks), SOURCES)
    first = part * blocks
    x += (batch * channels + channel) * samples
    plane = (batch * sources + source) * channels + channel  # of the first source
    shares += plane * frames * BINS
    out += plane * samples
    # gain and base are (S, C, B), floor is (C, B).
    gain += (source * channels + channel) * BINS
    base += (source * channels + channel) * BINS
    floor += channel * BINS

    n, r = _frames.positions(FRAMES, N1, N2)
    k = _frames.bins(N1, K2)
    s = tl.arange(0, SOURCES)
    flat = tl.arange(0, FRAMES)
    inner = k < BINS - 1
    known = s < sources - source
    # Of tiles (FRAMES, SOURCES, N1, K2), and of their Nyquist bins (FRAMES, SOURCES).
    per_share = s * (channels * frames * BINS)
    per_level = s * (channels * BINS)
    share_at = per_share[None, :, None, None] + (r * BINS + k)[:, None, :, :]
    level_at = per_level[None, :, None, None] + k[:, None, :, :]
    last_at = per_share[None, :] + flat[:, None] * BINS + BINS - 1
    wanted = inner[:, None, :, :] & known[None, :, None, None]

    begin_block = _frames.before(first)
    line = tl.zeros((SOURCES, N2, N1), tl.float32)
    for block in tl.range(begin_block, tl.minimum(all_blocks - first, blocks), disable_licm=True):
        start = (first + block) * N
        begin, count = _frames.starting_frames(start, frames, hop, N)
        next_line = tl.zeros_like(line)
        for done in tl.range(0, count, FRAMES, disable_licm=True):
            t, left = begin + done, count - done
            late = (t * hop - start).to(tl.int32)
            shift = late + r * hop  # (FRAMES, 1, 1)
            tile = _frames.rotated_frames(
                x, window, start - front, samples, shift, r < left, FRAMES, N1, N2
            )
            re, im, nyquist = dft.rdft(
                tile, table, dft.again(table, done), FRAMES, N1, N2, K2, PRECISION
            )
            nyquist_im, loud, last_loud = nyquist, re, nyquist
            if LEVELS == 2:
                cos, sin = dft.delay(table, k, shift, N1, N2, K2)
                re, im, loud = _unit(re, im, cos, -sin)
                turn = (1 - 2 * ((late + flat * hop) & 1)).to(tl.float32)
                nyquist, nyquist_im, last_loud = _unit(nyquist, nyquist * 0, turn, turn * 0)

            of_frame = shares + t * BINS
            share = tl.load(of_frame + share_at, wanted & (r < left)[:, None, :, :], other=0)
            last_wanted = (flat < left)[:, None] & known[None, :]
            last = tl.load(of_frame + last_at, last_wanted, other=0)
            gains, floors, bases = 1.0, 0.0, 0.0  # of (1, SOURCES, N1, K2)
            last_gain, last_floor, last_base = 1.0, 0.0, 0.0  # of (1, SOURCES)
            if LEVELS >= 1:
                end = (per_level + BINS - 1)[None, :]
                gains = tl.load(gain + level_at, wanted, other=0)
                last_gain = tl.load(gain + end, known[None, :], other=0)
                if LEVELS == 2:
                    bases = tl.load(base + level_at, wanted, other=0)
                    last_base = tl.load(base + end, known[None, :], other=0)
                    floors = tl.load(floor + k, inner, other=0)[:, None, :, :]
                    last_floor = tl.load(floor + BINS - 1)
            s_re, s_im = _weigh(
                share, re[:, None, :, :], im[:, None, :, :], loud[:, None, :, :],
                gains, floors, bases, LEVELS,
            )  # fmt: skip
            last, _ = _weigh(
                last, nyquist[:, None], nyquist_im[:, None], last_loud[:, None],
                last_gain, last_floor, last_base, LEVELS,
            )  # fmt: skip
            weight = tl.where(k == 0, 1 / N, tl.where(inner & (r < left), 2 / N, 0))[:, None, :, :]
            y = dft.irdft(
                tl.reshape(s_re * weight, (COLUMNS, N1, K2)),
                tl.reshape(s_im * weight, (COLUMNS, N1, K2)),
                tl.reshape(last * (1 / N), (COLUMNS,)),
                table, dft.again(table, done), COLUMNS, N1, N2, K2, PRECISION,
            )  # fmt: skip
            weights = _frames.rotated_window(window, shift, r < left, FRAMES, N1, N2)
            y = tl.reshape(y, (FRAMES, SOURCES, N2, N1))
            y = _frames.weighted(y, weights[:, None, :, :])
            early = n >= shift  # (FRAMES, N2, N1)
            line += tl.sum(tl.where(early[:, None, :, :], y, 0), axis=0)
            next_line += tl.sum(tl.where(early[:, None, :, :], 0, y), axis=0)
        owned = _frames.inside_line(start - front, samples, n, N) & (block >= 0)
        line *= _frames.inverse_norm(norm, start, n, frames, hop, full, reached, owned)
        to = s[:, None, None] * (channels * samples) + n  # (SOURCES, N2, N1)
        tl.store(out + (start - front) + to, line, owned & known[:, None, None])
        line = next_line


@triton.jit(do_not_specialize=_BACKWARD_NUMBERS)
def sepfast_masked_istft_backward(
    grads, x, window, table, gain, floor, out,
    sources, channels, samples, frames, hop, front, span,
    LEVELS: tl.constexpr, SOURCES: tl.constexpr, FRAMES: tl.constexpr,
    N1: tl.constexpr, N2: tl.constexpr, K2: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    """Normalised gradients (Z, S, C, L) and the mixture (Z, C, L) to gradients (Z, S, C, T, B)."""
    N: tl.constexpr = N1 * N2
    BINS: tl.constexpr = N // 2 + 1
    batch, channel, source, part = _program(channels, sources, tl.cdiv(frames, FRAMES), SOURCES)
    first = part * FRAMES
    start, left = first * hop - front, (frames - first).to(tl.int32)
    x += (batch * channels + channel) * samples
    tile = _frames.frames_at(x, window, start, samples, span, left, hop, FRAMES, N1, N2)
    re, im, nyquist = dft.rdft(tile, table, table, FRAMES, N1, N2, K2, PRECISION)
    nyquist_im, loud, last_loud = nyquist * 0, re, nyquist
    if LEVELS == 2:
        re, im, loud = _unit(re, im, 1.0, 0.0)
        nyquist, nyquist_im, last_loud = _unit(nyquist, nyquist_im, 1.0, 0.0)

    k, r = _frames.bins(N1, K2), tl.arange(0, FRAMES)
    frame, inner = r[:, None, None], k < BINS - 1
    weight = tl.where(k == 0, 1 / N, 2 / N)
    for s in tl.range(0, tl.minimum(sources - source, SOURCES), disable_licm=True):
        plane = (batch * sources + source + s) * channels + channel
        level = ((source + s) * channels + channel) * BINS
        tile = _frames.frames_at(
            grads + plane * samples, window, start, samples, span, left, hop, FRAMES, N1, N2
        )
        h_re, h_im, h_last = dft.rdft(
            tile, table, dft.again(table, s), FRAMES, N1, N2, K2, PRECISION
        )
        gains, floors, last_gain, last_floor = 1.0, 0.0, 1.0, 0.0
        if LEVELS >= 1:
            gains = tl.load(gain + level + k, inner, other=0)
            last_gain = tl.load(gain + level + BINS - 1)
            if LEVELS == 2:
                floors = tl.load(floor + channel * BINS + k, inner, other=0)
                last_floor = tl.load(floor + channel * BINS + BINS - 1)
        slope = _slope(re, im, h_re, h_im, loud, gains, floors, LEVELS) * weight
        last = _slope(
            nyquist, nyquist_im, h_last, h_last * 0, last_loud, last_gain, last_floor, LEVELS
        )
        base = out + (plane * frames + first) * BINS
        tl.store(base + frame * BINS + k, slope, (frame < left) & inner)
        tl.store(base + r * BINS + BINS - 1, last * (1 / N), r < left)


@triton.jit(do_not_specialize=_FORWARD_NUMBERS)
def sepfast_masked_istft_compact(
    shares, x, window, norm, table, gain, floor, base, out,
    sources, channels, samples, frames, hop, front, full, reached, blocks,
    LEVELS: tl.constexpr, SOURCES: tl.constexpr, FRAMES: tl.constexpr,
    N1: tl.constexpr, N2: tl.constexpr, K2: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    """The forward kernel for shares in float16, as it takes registers of its own."""
    sepfast_masked_istft_forward(
        shares, x, window, norm, table, gain, floor, base, out,
        sources, channels, samples, frames, hop, front, full, reached, blocks,
        LEVELS, SOURCES, FRAMES, N1, N2, K2, PRECISION,
    )  # fmt: skip


#: The third word of a configuration's key -> LEVELS.
_LEVELS = {"none": 0, "gain": 1, "floor": 2}


def _variants(n_fft: int, precision: str, levels: str) -> Iterator[dict[str, Any]]:
    yield {"LEVELS": _LEVELS[levels], **dft.constants(n_fft), "PRECISION": precision}


FORWARD = launch.Kernel(
    sepfast_masked_istft_forward,
    launch.signature("shares x window norm table gain floor base out", _FORWARD_NUMBERS),
    _variants,
    dots=True,
)
BACKWARD = launch.Kernel(
    sepfast_masked_istft_backward,
    launch.signature("grads x window table gain floor out", _BACKWARD_NUMBERS),
    _variants,
    dots=True,
)
COMPACT = launch.Kernel(
    sepfast_masked_istft_compact,
    {**FORWARD.signature, "shares": "*fp16"},
    _variants,
    dots=True,
)
KERNELS = (FORWARD, BACKWARD, COMPACT)


class Levels(NamedTuple):
    """How shares become magnitudes, contiguous float32.

    Attributes:
        gain: (S, C, B), or None for 1.
        floor: (C, B), or None for 0.
        base: (S, C, B), None together with `floor`.
    """

    gain: Tensor | None = None
    floor: Tensor | None = None
    base: Tensor | None = None

    @property
    def kind(self) -> str:
        """What configurations are shipped for: "none", "gain" alone, or "floor" for all three."""
        return "none" if self.gain is None else "gain" if self.floor is None else "floor"


def forward(
    shares: Tensor,
    x: Tensor,
    window: Tensor,
    norm: _frames.Norm,
    hop: int,
    front: int,
    levels: Levels,
) -> Tensor:
    """Samples of the sources.

    Args:
        shares: (Z, S, C, T, B), float32 or float16, contiguous.
        x: (Z, C, L), float32, contiguous, the mixture.
        window: (N,), the window times the scale, 0 behind its span.
        norm: what samples are multiplied by.
        hop, front: the framing.
        levels: the scaling.

    Returns:
        (Z, S, C, L).
    """
    n_fft = window.shape[0]
    batch, sources, channels, frames, _ = shares.shape
    samples = x.shape[-1]
    out = launch.empty((batch, sources, channels, samples), x)
    precision = product_precision(x.device)
    kernel = COMPACT if shares.dtype == float16 else FORWARD
    config = dict(kernel.config(x.device, n_fft=n_fft, precision=precision, levels=levels.kind))
    together = max(1, min(config.pop("SOURCES"), triton.next_power_of_2(sources)))
    if together * channels * max(samples, frames * (n_fft // 2 + 1)) > 2**31:
        together = 1  # so that no offset within a program passes 32 bits
    groups = launch.blocks(sources, together)
    lines = batch * channels * groups
    walk = _frames.walk(front + samples, n_fft, lines, config, x.device)
    gain, floor, base = (window if part is None else part for part in levels)
    kernel.launch(
        lines * walk.programs if samples else 0,
        shares, x, window, norm.edges, dft.tables(n_fft, x.device), gain, floor, base, out,
        sources, channels, samples, frames, hop, front, norm.full, norm.edges.shape[0], walk.blocks,
        config=config, LEVELS=_LEVELS[levels.kind], SOURCES=together,
        **dft.constants(n_fft), PRECISION=precision,
    )  # fmt: skip
    return out


def backward(
    grad: Tensor,
    x: Tensor,
    window: Tensor,
    hop: int,
    front: int,
    frames: int,
    span: int,
    levels: Levels,
) -> Tensor:
    """The gradient of `forward` with respect to the shares.

    Args:
        grad: (Z, S, C, L), float32, contiguous, already divided by the summed squared window.
        x: (Z, C, L), likewise, the mixture.
        window, hop, front, frames, span: the framing.
        levels: as in `forward`.

    Returns:
        (Z, S, C, T, B).
    """
    n_fft = window.shape[0]
    batch, sources, channels, samples = grad.shape
    out = launch.empty((batch, sources, channels, frames, n_fft // 2 + 1), x)
    precision = product_precision(x.device)
    config = BACKWARD.config(x.device, n_fft=n_fft, precision=precision, levels=levels.kind)
    groups = launch.blocks(sources, config["SOURCES"])
    gain, floor = (window if part is None else part for part in levels[:2])
    BACKWARD.launch(
        batch * channels * groups * launch.blocks(frames, config["FRAMES"]),
        grad, x, window, dft.tables(n_fft, x.device), gain, floor, out,
        sources, channels, samples, frames, hop, front, span,
        config=config, LEVELS=_LEVELS[levels.kind], **dft.constants(n_fft), PRECISION=precision,
    )  # fmt: skip
    return out
