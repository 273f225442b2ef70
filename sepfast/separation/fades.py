"""Cross-fading context windows over a track, as the published programs do.

K contexts of T frames, `step` = T - overlap frames apart. The programs walk through the contexts
and let each one fade in over the first `overlap` frames of what is already there, linearly from
exactly 0 to exactly 1. Unrolled, context k weighs in its frame p

    in_k(p) * prod_{m >= 1} (1 - in_{k + m}(p - m * step))

with in_0 = 1 and in_k(p) = p / (overlap - 1) below `overlap`, 1 from there on. They stop before the
last context, so that the end of a track, up to `step` frames, is left silent. Here that context
follows and takes over just those frames (in = 0 below `overlap`): all that the programs give out
stays as it is, and the end is separated too. The weights of a frame add up to one.
Source: A and B, "inference".
"""

from __future__ import annotations

import torch
from torch import Tensor


def context_count(frames: int, context: int, overlap: int) -> int:
    """Contexts that cover `frames` frames, the one that the programs leave out included."""
    return max(0, -(-(frames - context) // (context - overlap))) + 1


def fades(
    first: int,
    stop: int,
    count: int | None,
    context: int,
    overlap: int,
    device: torch.device | None = None,
) -> Tensor:
    """The weights of contexts `first` to `stop` - 1 in their frames.

    Args:
        first: the first context.
        stop: one behind the last context.
        count: contexts of the whole track; None where its end is not in sight, that is behind
            `stop`.
        context: T, frames.
        overlap: frames that neighbours share, below T.
        device: where they are made, so that nothing waits for a copy; None for the CPU.

    Returns:
        (stop - first, T), float32.
    """
    rise = torch.ones(context, dtype=torch.float64, device=device)
    rise[:overlap] = torch.linspace(0, 1, overlap, dtype=torch.float64, device=device)
    rises = rise.repeat(stop - first, 1)
    if count is not None and stop == count:
        rises[-1, :overlap] = 0
    if first == 0:
        rises[0] = 1
    weights = rises.clone()
    step = context - overlap
    for m in range(1, -(-context // step)):
        covered = context - m * step
        weights[: max(0, stop - first - m), m * step :] *= 1 - rises[m:, :covered]
    return weights.float()
