"""Magnitudes straight from samples, and their gradient, without a spectrum in memory.

R rows, C of them a period of the scaling, L samples, T frames, N = n_fft, B = N / 2 + 1 bins; a
the window times the framing's scale; X the STFT.

    forward   Y[t, k] = |X[t, k]|^p scale[k] + offset[k]
    backward  dX = G scale p |X|^(p - 1) X / |X|, 0 where X is 0;  dx = the STFT's transpose of dX

A forward program has FRAMES frames, or slides at small hops (`_sliding.py`). A backward one walks
along blocks of N samples (`_frames.py`): it reads the samples once, transforms each frame, weighs
its bins and transforms it back, all in registers. Bytes a row: forward 4 L (1 + B / hop), backward
4 L (2 + B / hop), and a part of them again. Operations: those of `dft.py` a frame, twice backward.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple

import triton
import triton.language as tl
from torch import Tensor

from sepfast.kernels import _frames, _sliding, dft, launch
from sepfast.kernels.precision import product_precision

#: Lengths that change from song to song: one compilation serves all their values.
_FORWARD_NUMBERS = ("samples", "frames", "hop", "front", "span", "channels")
_BACKWARD_NUMBERS = ("samples", "frames", "hop", "front", "channels", "blocks")


@triton.jit
def _magnitude(re, im, power, POWER: tl.constexpr):
    """|X|^p, for p = 1, 2 or any."""
    squared = re * re + im * im
    if POWER == 1:
        return tl.sqrt(squared)
    if POWER == 2:
        return squared
    safe = tl.where(squared == 0, 1, squared)
    return tl.where(squared == 0, 0, tl.exp2(0.5 * power * tl.log2(safe)))


@triton.jit
def _slope(re, im, power, POWER: tl.constexpr):
    """p |X|^(p - 2), by which X is multiplied; 0 where X is 0."""
    squared = re * re + im * im
    safe = tl.where(squared == 0, 1, squared)
    if POWER == 1:
        slope = tl.rsqrt(safe)
    elif POWER == 2:
        slope = tl.full(squared.shape, 2, tl.float32)
    else:
        slope = power * tl.exp2((0.5 * power - 1) * tl.log2(safe))
    return tl.where(squared == 0, 0, slope)


@triton.jit(do_not_specialize=_FORWARD_NUMBERS)
def sepfast_stft_magnitude_forward(
    x, window, table, scale, offset, out, samples, frames, hop, front, span, channels, power,
    POWER: tl.constexpr, SCALE: tl.constexpr, OFFSET: tl.constexpr, FRAMES: tl.constexpr,
    N1: tl.constexpr, N2: tl.constexpr, K2: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    """Samples (R, L) to magnitudes (R, T, B)."""
    BINS: tl.constexpr = N1 * N2 // 2 + 1
    per_row = tl.cdiv(frames, FRAMES)
    row = (tl.program_id(0) // per_row).to(tl.int64)
    first = (tl.program_id(0) % per_row) * FRAMES
    start = first.to(tl.int64) * hop - front
    left = frames - first
    tile = _frames.frames_at(
        x + row * samples, window, start, samples, span, left, hop, FRAMES, N1, N2
    )
    re, im, nyquist = dft.rdft(tile, table, table, FRAMES, N1, N2, K2, PRECISION)

    k, r = _frames.bins(N1, K2), tl.arange(0, FRAMES)
    inner = k < BINS - 1
    levels = _magnitude(re, im, power, POWER)
    last = _magnitude(nyquist, nyquist * 0, power, POWER)
    per_bin = row % channels * BINS
    if SCALE:
        levels *= tl.load(scale + per_bin + k, inner, other=0)
        last *= tl.load(scale + per_bin + BINS - 1)
    if OFFSET:
        levels += tl.load(offset + per_bin + k, inner, other=0)
        last += tl.load(offset + per_bin + BINS - 1)
    base = out + (row * frames + first) * BINS
    frame = r[:, None, None]
    tl.store(base + frame * BINS + k, levels, (frame < left) & inner)
    tl.store(base + r * BINS + BINS - 1, last, r < left)


@triton.jit(do_not_specialize=_BACKWARD_NUMBERS)
def sepfast_stft_magnitude_backward(
    grads, x, window, table, scale, out, samples, frames, hop, front, channels, blocks, power,
    POWER: tl.constexpr, SCALE: tl.constexpr, FRAMES: tl.constexpr,
    N1: tl.constexpr, N2: tl.constexpr, K2: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    """Gradients of magnitudes (R, T, B) to those of samples (R, L)."""
    N: tl.constexpr = N1 * N2
    BINS: tl.constexpr = N // 2 + 1
    all_blocks = tl.cdiv(front + samples, N)
    per_row = tl.cdiv(all_blocks, blocks)
    row = (tl.program_id(0) // per_row).to(tl.int64)
    first = (tl.program_id(0) % per_row).to(tl.int64) * blocks
    grads += row * frames * BINS
    x += row * samples
    out += row * samples
    scale += row % channels * BINS

    n, r = _frames.positions(FRAMES, N1, N2)
    k, frame = _frames.bins(N1, K2), tl.arange(0, FRAMES)
    begin_block = _frames.before(first)
    line = tl.zeros((1, N2, N1), tl.float32)
    for block in tl.range(begin_block, tl.minimum(all_blocks - first, blocks), disable_licm=True):
        start = (first + block) * N
        begin, count = _frames.starting_frames(start, frames, hop, N)
        next_line = tl.zeros_like(line)
        for done in tl.range(0, count, FRAMES, disable_licm=True):
            t, left = begin + done, count - done
            shift = (t * hop - start).to(tl.int32) + r * hop  # (FRAMES, 1, 1)
            tile = _frames.rotated_frames(
                x, window, start - front, samples, shift, r < left, FRAMES, N1, N2
            )
            re, im, nyquist = dft.rdft(
                tile, table, dft.again(table, done), FRAMES, N1, N2, K2, PRECISION
            )
            of_frame = grads + t * BINS
            inner = (r < left) & (k < BINS - 1)
            slope = _slope(re, im, power, POWER) * tl.load(of_frame + r * BINS + k, inner, other=0)
            last = _slope(nyquist, nyquist * 0, power, POWER)
            last *= tl.load(of_frame + frame * BINS + BINS - 1, frame < left, other=0)
            if SCALE:
                slope *= tl.load(scale + k, k < BINS - 1, other=0)
                last *= tl.load(scale + BINS - 1)
            y = dft.irdft(
                re * slope,
                im * slope,
                nyquist * last,
                table,
                dft.again(table, done),
                FRAMES,
                N1,
                N2,
                K2,
                PRECISION,
            )
            weights = _frames.rotated_window(window, shift, r < left, FRAMES, N1, N2)
            y = _frames.weighted(y, weights)
            line += tl.sum(tl.where(n >= shift, y, 0), axis=0, keep_dims=True)
            next_line += tl.sum(tl.where(n >= shift, 0, y), axis=0, keep_dims=True)
        owned = _frames.inside_line(start - front, samples, n, N) & (block >= 0)
        tl.store(out + (start - front) + n, line, owned)
        line = next_line


#: The same of the kernel that slides.
_SLIDING_NUMBERS = ("samples", "frames", "front", "segments", "channels")


@triton.jit(do_not_specialize=_SLIDING_NUMBERS)
def sepfast_stft_magnitude_sliding(
    x, table, scale, offset, out,
    samples, frames, front, segments, channels, center, side, power,
    POWER: tl.constexpr, SCALE: tl.constexpr, OFFSET: tl.constexpr,
    BINS: tl.constexpr, COLUMNS: tl.constexpr, HOP: tl.constexpr, SLOTS: tl.constexpr,
    BANDS: tl.constexpr, LANES: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    """Samples (R, L) to magnitudes (R, T, B)."""
    row, first, count, at = _sliding.place(frames, BINS, segments, BANDS, LANES)
    line = x + row * samples
    start = first * (16 * HOP) - front
    i = tl.arange(0, 16)[:, None, None]
    k, wanted = _sliding.own_bins(at, BINS, BANDS, LANES)
    per_bin = row % channels * BINS + k
    out += row * frames * BINS
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
        levels = _magnitude(re, im, power, POWER)
        if SCALE:
            levels *= tl.load(scale + per_bin, wanted, other=0)
        if OFFSET:
            levels += tl.load(offset + per_bin, wanted, other=0)
        to = out + (first + done) * (16 * BINS) + i * BINS + k
        tl.store(to, levels, wanted & (done * 16 + i < left))


def _variants(n_fft: int, precision: str) -> Iterator[dict[str, Any]]:
    for power, scale, offset in (
        (1, False, False),
        (1, True, True),
        (2, True, False),
        (0, True, True),
    ):
        constants = {"POWER": power, "SCALE": scale, "OFFSET": offset}
        yield {**constants, **dft.constants(n_fft), "PRECISION": precision}


def _backward_variants(n_fft: int, precision: str) -> Iterator[dict[str, Any]]:
    for power, scale in ((1, False), (0, True)):
        yield {"POWER": power, "SCALE": scale, **dft.constants(n_fft), "PRECISION": precision}


def _sliding_variants(n_fft: int, hop: int, precision: str) -> Iterator[dict[str, Any]]:
    for power, levels in ((0, False), (1, True), (2, False)):
        constants = {"POWER": power, "SCALE": levels, "OFFSET": levels}
        yield {**constants, **_sliding.constants(n_fft, hop), "PRECISION": precision}


FORWARD = launch.Kernel(
    sepfast_stft_magnitude_forward,
    launch.signature("x window table scale offset out", _FORWARD_NUMBERS, "power"),
    _variants,
    dots=True,
)
BACKWARD = launch.Kernel(
    sepfast_stft_magnitude_backward,
    launch.signature("grads x window table scale out", _BACKWARD_NUMBERS, "power"),
    _backward_variants,
    dots=True,
)
SLIDING = launch.Kernel(
    sepfast_stft_magnitude_sliding,
    launch.signature("x table scale offset out", _SLIDING_NUMBERS, "center side power"),
    _sliding_variants,
    dots=True,
)
KERNELS = (FORWARD, BACKWARD, SLIDING)


class Levels(NamedTuple):
    """What is done with |X|.

    Attributes:
        power: its exponent.
        scale: (C, B), or None for 1; rows r, r + C ... take row r % C.
        offset: likewise, or None for 0.
    """

    power: float
    scale: Tensor | None
    offset: Tensor | None

    @property
    def constants(self) -> dict[str, Any]:
        """What of it the kernels are compiled for."""
        power = int(self.power) if self.power in (1, 2) else 0
        return {"POWER": power, "SCALE": self.scale is not None}

    @property
    def channels(self) -> int:
        """C, 1 where nothing depends on it."""
        rows = [part.shape[0] for part in (self.scale, self.offset) if part is not None]
        return max(rows, default=1)


def forward(
    x: Tensor, window: Tensor, hop: int, front: int, frames: int, span: int, levels: Levels
) -> Tensor:
    """Magnitudes of every row.

    Args:
        x: (R, L), float32, contiguous.
        window: (N,), the window times the scale, 0 behind its span.
        hop, front, frames, span: the framing.
        levels: what is done with |X|.

    Returns:
        (R, T, B).
    """
    n_fft = window.shape[0]
    out = launch.empty((x.shape[0], frames, n_fft // 2 + 1), x)
    precision = product_precision(x.device)
    config = FORWARD.config(x.device, n_fft=n_fft, precision=precision)
    scale, offset = (window if part is None else part for part in levels[1:])
    FORWARD.launch(
        x.shape[0] * launch.blocks(frames, config["FRAMES"]),
        x, window, dft.tables(n_fft, x.device), scale, offset, out,
        x.shape[1], frames, hop, front, span, levels.channels, levels.power,
        config=config, **levels.constants, OFFSET=levels.offset is not None,
        **dft.constants(n_fft), PRECISION=precision,
    )  # fmt: skip
    return out


def backward(
    grad: Tensor, x: Tensor, window: Tensor, hop: int, front: int, levels: Levels
) -> Tensor:
    """The gradient of `forward` with respect to the samples.

    Args:
        grad: (R, T, B), float32, contiguous.
        x: (R, L), likewise.
        window, hop, front, levels: as in `forward`.

    Returns:
        (R, L).
    """
    n_fft = window.shape[0]
    rows, samples = x.shape
    out = launch.empty((rows, samples), x)
    precision = product_precision(x.device)
    config = BACKWARD.config(x.device, n_fft=n_fft, precision=precision)
    scale = window if levels.scale is None else levels.scale
    walk = _frames.walk(front + samples, n_fft, rows, config, x.device)
    BACKWARD.launch(
        rows * walk.programs if samples else 0,
        grad, x, window, dft.tables(n_fft, x.device), scale, out,
        samples, grad.shape[1], hop, front, levels.channels, walk.blocks, levels.power,
        config=config, **levels.constants, **dft.constants(n_fft), PRECISION=precision,
    )  # fmt: skip
    return out


def sliding(
    x: Tensor,
    n_fft: int,
    hop: int,
    front: int,
    frames: int,
    window: tuple[float, float],
    levels: Levels,
) -> Tensor:
    """Magnitudes of every row, by sums that slide.

    Args:
        x: (R, L), float32, contiguous.
        n_fft, hop, front, frames: the framing.
        window: a0 and - a1 / 2, times the framing's scale.
        levels: what is done with |X|.

    Returns:
        (R, T, B).
    """
    out = launch.empty((x.shape[0], frames, n_fft // 2 + 1), x)
    precision = product_precision(x.device)
    config = SLIDING.config(x.device, n_fft=n_fft, hop=hop, precision=precision)
    segments, programs = _sliding.walk(x.shape[0], frames, n_fft, hop, config, x.device)
    scale, offset = (x if part is None else part for part in levels[1:])
    SLIDING.launch(
        programs, x, _sliding.tables(n_fft, hop, x.device), scale, offset, out,
        x.shape[1], frames, front, segments, levels.channels, *window, levels.power,
        config=config, **levels.constants, OFFSET=levels.offset is not None,
        **_sliding.constants(n_fft, hop), PRECISION=precision,
    )  # fmt: skip
    return out
