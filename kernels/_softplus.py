"""Device code that the kernels of softplus share: a channel's tiles, softplus, dropout's bits.

B batch, C channels, T frames. A channel is B lines of T elements, T C apart. A tile is ROWS lines
by BLOCK = TILE / ROWS frames; tiles follow each other along the lines. ROWS goes by the shape, so
that little of a tile is empty: many frames take few lines.
"""

from __future__ import annotations

import triton
import triton.language as tl
from torch import Tensor

from sepfast.kernels import launch

#: Lines that a tile can have, and the frames that it must have, as eight share a counter.
ROWS = (1, 4, 8, 16, 32)
_LEAST = 8

#: Frames are counted by these, the first where they are even so: then accesses are of 16 bytes.
_UNITS = (8, 1)


@triton.jit
def read(
    x,
    bias,
    tile,
    across,
    frames,
    batch,
    channels,
    channel,
    ROWS: tl.constexpr,
    BLOCK: tl.constexpr,
    AGAIN: tl.constexpr,
):
    """A channel's tile, of `across` in a line: where it lies, and z = x + bias with its softplus.

    AGAIN says that the caches are to keep it. log(1 + e) / e is a polynomial that was fitted on
    0 to 1 for the least relative error, 5e-9.

    Returns:
        Lines (ROWS, 1), places in memory (ROWS, BLOCK) and which there are; z, log(1 + e^z) and
        e^-|z|, of 0 where there is none.
    """
    row = (tile // across) * ROWS + tl.arange(0, ROWS)[:, None]
    time = (tile % across) * BLOCK + tl.arange(0, BLOCK)[None, :]
    line, there = row.to(tl.int64) * channels + channel, (row < batch) & (time < frames)
    at = line * frames + time
    if AGAIN:
        given = tl.load(x + at, there, other=0, eviction_policy="evict_last")
    else:
        given = tl.load(x + at, there, other=0, eviction_policy="evict_first")
    z = given.to(tl.float32) + bias
    e = tl.exp(-tl.abs(z))
    p = 0.0198512628 - 0.00324398091 * e
    p = p * e - 0.0569591595
    p = p * e + 0.106036169
    p = p * e - 0.153055701
    p = p * e + 0.196759315
    p = p * e - 0.249541321
    p = p * e + 0.333299623
    p = p * e - 0.499999024
    p = p * e + 0.999999995
    return line, at, there, z, tl.maximum(z, 0) + p * e, e


@triton.jit
def sigmoid(x, e):
    """The slope of softplus, from e^-|x|."""
    return tl.where(x < 0, e, 1) / (1 + e)


@triton.jit
def kept(seed, line, block, threshold, ROWS: tl.constexpr, BLOCK: tl.constexpr):
    """What dropout leaves of a tile (ROWS, BLOCK), its line's `block`th; see `reference.philox`.

    One call of Philox is for eight frames: ten rounds of four products, at half the rate of other
    operations, and four exclusive ors are about 130, 16 an element.
    """
    eighth = block * (BLOCK // 8) + tl.arange(0, BLOCK // 8)[None, :]
    low, high = (line & 0xFFFFFFFF).to(tl.uint32), (line >> 32).to(tl.uint32)
    a, b, c, d = tl.philox(tl.load(seed), eighth.to(tl.uint32), low, high, 0)
    # The last join is what runs fastest: words by their high bit, their low bit, then halves.
    words = tl.join(tl.join(a, c), tl.join(b, d))
    halves = tl.join(words & 0xFFFF, words >> 16)
    return tl.reshape(halves, (ROWS, BLOCK)).to(tl.int32) >= threshold


def tiling(x: Tensor, config: launch.Config) -> tuple[int, dict[str, int]]:
    """Tiles of each channel of (B, C, T), and the constants of the least empty tiling."""
    batch, _, frames = x.shape
    tile = config["TILE"]

    def tiles(rows: int) -> int:
        return launch.blocks(batch, rows) * launch.blocks(frames, tile // rows)

    rows = min((rows for rows in ROWS if tile // rows >= _LEAST), key=tiles)
    return tiles(rows), {"UNIT": unit(frames), "ROWS": rows}


def unit(frames: int) -> int:
    """What frames are counted by."""
    return next(unit for unit in _UNITS if frames % unit == 0)
