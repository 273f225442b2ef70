"""Device code that every STFT kernel shares: frames out of a line of samples, and back into one.

L samples, T frames of N samples, hop apart; frame t starts at line position t hop, and sample 0
lies at line position `front`. Tiles are those of `dft.py`: (R, N2, N1) samples, (R, N1, K2) bins.

Overlap-add without atomics and without storing frames: a program owns consecutive blocks of N
line positions and walks along them. A frame that starts at position s of its block is held
*rotated*, position m of the tile being line position m of the block for m >= s, and of the next
block for m < s. So the frames of a block add up in registers in one layout, part to this block and
part to the next one's start, and a block is written once, when no frame can reach it any more.
Rotation costs nothing where a spectrum is only weighed by real numbers: samples are read rotated,
and the rotation comes out again. A program repeats the block before its first one, for the ends of
its frames.

The loops say `disable_licm`: what they would keep in registers from frame to frame (tables,
offsets) is more than there are.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
import triton
import triton.language as tl
from torch import Tensor

from sepfast.kernels import launch
from sepfast.kernels.tuning import Config, walk_length


@triton.jit
def positions(R: tl.constexpr, N1: tl.constexpr, N2: tl.constexpr):
    """Sample n of each frame of a tile, (1, N2, N1), and the frame, (R, 1, 1)."""
    n = tl.arange(0, N2)[None, :, None] + N2 * tl.arange(0, N1)[None, None, :]
    return n, tl.arange(0, R)[:, None, None]


@triton.jit
def bins(N1: tl.constexpr, K2: tl.constexpr):
    """Bin k of each element of a tile, (1, N1, K2)."""
    return tl.arange(0, N1)[None, :, None] + N1 * tl.arange(0, K2)[None, None, :]


@triton.jit
def frames_at(
    line,
    window,
    start,
    samples,
    span,
    valid,
    hop,
    R: tl.constexpr,
    N1: tl.constexpr,
    N2: tl.constexpr,
):
    """Windowed frames, (R, N2, N1), the first at sample `start`, which may lie before the line.

    `valid` frames are read, the others are 0.
    """
    n, r = positions(R, N1, N2)
    offset = r * hop + n
    # Relative to `start`, so that the tile's arithmetic stays in 32 bits on lines of any length.
    low = tl.maximum(-start, 0).to(tl.int32)
    high = tl.minimum(samples - start, 2147483647).to(tl.int32)
    inside = (n < span) & (r < valid) & (offset >= low) & (offset < high)
    return tl.load(line + start + offset, inside, other=0) * tl.load(window + n)


@triton.jit
def weighted(x, weights):
    """A product that is 0 outside the window, where x may be NaN."""
    return tl.where(weights == 0, 0, x * weights)


@triton.jit
def inside_line(start, samples, n, N: tl.constexpr):
    """Which of the positions n = 0 ... N - 1 behind sample `start` lie in the line, in 32 bits."""
    low = tl.minimum(tl.maximum(-start, 0), N).to(tl.int32)
    high = tl.maximum(tl.minimum(samples - start, N), 0).to(tl.int32)
    return (n >= low) & (n < high)


@triton.jit
def rotated_window(window, shift, valid, R: tl.constexpr, N1: tl.constexpr, N2: tl.constexpr):
    """The window of each frame as it lies in a block, (R, N2, N1); 0 for frames not valid."""
    n, _ = positions(R, N1, N2)
    return tl.load(window + ((n - shift) & (N1 * N2 - 1)), valid, other=0)


@triton.jit
def rotated_frames(
    line, window, start, samples, shift, valid, R: tl.constexpr, N1: tl.constexpr, N2: tl.constexpr
):
    """Windowed frames, rotated, (R, N2, N1), of the block at sample `start` and the next one."""
    n, _ = positions(R, N1, N2)
    offset = n + tl.where(n < shift, N1 * N2, 0)
    weights = rotated_window(window, shift, valid, R, N1, N2)
    seen = inside_line(start, samples, offset, 2 * N1 * N2) & (weights != 0)
    return tl.load(line + start + offset, seen, other=0) * weights


@triton.jit
def inverse_norm(edges, start, n, frames, hop, full, size, valid):
    """One over the summed squared window at line positions start + n, from values that differ.

    `edges` are those of `full` frames, `size` positions: as many as reach one sample, so that what
    lies between its two ends is the value, hop by hop, of all positions between the line's.
    """
    position = start + n
    ramp, steady = (full - 1) * hop, frames.to(tl.int64) * hop
    phase = ((start - ramp) % hop + hop).to(tl.int32)  # not negative, in front of the ramp either
    at = tl.where(position < ramp, position, ramp + (phase + n) % hop)
    at = tl.where(position < steady, at, position - steady + full * hop)
    return tl.load(edges + at, valid & (at < size), other=0)


@triton.jit
def before(first):
    """Where a program begins that owns block `first`: one block earlier, if there is one."""
    return tl.where(first > 0, -1, 0)


@triton.jit
def starting_frames(start, frames, hop, N: tl.constexpr):
    """The first frame that starts in the block at line position `start`, and how many do."""
    first = (start + hop - 1) // hop
    stop = tl.minimum((start + N + hop - 1) // hop, frames)
    return first, tl.maximum(stop - first, 0).to(tl.int32)


class Norm(NamedTuple):
    """What overlap-added samples are multiplied by: the values at the ends of a line.

    Attributes:
        edges: one over the summed squared window at the positions that `full` frames cover.
        full: frames, as many as reach one sample, or all there are.
    """

    edges: Tensor
    full: int


class Walk(NamedTuple):
    """How lines are shared out to programs.

    Attributes:
        blocks: blocks of N samples that a program walks along.
        programs: programs for a line.
    """

    blocks: int
    programs: int


def walk(length: int, n_fft: int, lines: int, config: Config, device: torch.device) -> Walk:
    """How lines are shared out.

    Args:
        length: positions of a line.
        n_fft: N.
        lines: walks beside each other.
        config: its BLOCKS is the most that a program walks along.
        device: where they run.
    """
    total = launch.blocks(length, n_fft)
    blocks = walk_length(total, lines, config["BLOCKS"], launch.processors(device))
    return Walk(blocks, launch.blocks(total, blocks))
