"""Frames back into one line: each is added `hop` behind the one before.

K frames, L samples a frame. A frame is cut into pieces of one hop, and the j-th pieces of all
frames, laid end to end, are added at once: ceil(L / hop) additions, whatever K is. It serves the
inverse STFT (samples) and the cross-fade of context windows (frames of masks) alike.
"""

from __future__ import annotations

import torch
from torch import Tensor


def overlap_add(frames: Tensor, hop: int) -> Tensor:
    """Add frames that lie `hop` apart.

    Args:
        frames: (..., K, L), K at least 1.
        hop: positions from one frame's start to the next one's.

    Returns:
        (..., (K - 1) * hop + L) in the type of `frames`.
    """
    count, length = frames.shape[-2:]
    pieces = -(-length // hop)
    out = frames.new_zeros(*frames.shape[:-2], count + pieces - 1, hop)
    for j in range(pieces):
        piece = frames[..., j * hop : (j + 1) * hop]
        out[..., j : j + count, : piece.shape[-1]] += piece
    return out.flatten(-2)[..., : (count - 1) * hop + length]


def overlapping(line: Tensor, length: int, hop: int) -> Tensor:
    """View a line as frames: the transpose of `overlap_add`.

    Args:
        line: (..., samples).
        length: positions a frame spans.
        hop: positions from one frame's start to the next one's.

    Returns:
        (..., K, length), a view; K = 0 where the line is shorter than a frame.
    """
    if line.shape[-1] < length:
        return line.new_zeros(*line.shape[:-1], 0, length)
    return line.unfold(-1, length, hop)


def squared_window_sum(window: Tensor, frames: int, hop: int) -> Tensor:
    """What overlap-add must be divided by: the summed squared window, 1 where it is 0.

    Args:
        window: (L,).
        frames: frames added.
        hop: samples from one frame to the next.

    Returns:
        ((frames - 1) * hop + L,).
    """
    total = overlap_add((window * window).expand(frames, -1), hop)
    return torch.where(total == 0, 1, total)
