"""A walk along the frames of an STFT in blocks, so that few of them are in memory at a time.

At a hop of 16 frames of 2048 hold 128 times the samples that they overlap. What is made of
frames, or adds up to a line of samples, is therefore made for `_TOGETHER` samples of frames at a
time, each of which has a spectrum of as many numbers: tens of megabytes, whatever the length is.
What that is enough for is one block, and so is all that autograd or the compiler records, as they
would keep every block; on other devices each block would cost launches.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from sepfast.reference.overlap_add import overlap_add

#: Samples of all frames of a block; of float32 they fit the caches of most processors.
_TOGETHER = 1 << 19

#: Makes what is wanted of the frames of a slice.
Make = Callable[[slice], Tensor]


def of_frames(make: Make, frames: int, frame_samples: int, axis: int, *inputs: Tensor) -> Tensor:
    """What is made of every frame.

    Args:
        make: gives (..., frames of the slice, ...) with the frames on `axis`.
        frames: T.
        frame_samples: samples of a frame, of all rows that `make` has at a time.
        axis: negative.
        *inputs: what `make` reads.

    Returns:
        All frames, joined on `axis`.
    """
    first, *others = _blocks(frames, frame_samples, inputs)
    part = make(first)
    if not others:
        return part
    shape = list(part.shape)
    shape[axis] = frames
    out = part.new_empty(shape)
    out.narrow(axis, 0, first.stop).copy_(part)
    for block in others:
        out.narrow(axis, block.start, block.stop - block.start).copy_(make(block))
    return out


def overlap_added(make: Make, frames: int, frame_samples: int, hop: int, *inputs: Tensor) -> Tensor:
    """A line of all frames, added up.

    Args:
        make: gives (..., frames of the slice, L).
        frames: T.
        frame_samples: as in `of_frames`.
        hop: samples from one frame to the next.
        *inputs: what `make` reads.

    Returns:
        (..., (T - 1) * hop + L); without frames (..., 0).
    """
    first, *others = _blocks(frames, frame_samples, inputs)
    part = make(first)
    if frames == 0:
        return part.new_zeros(*part.shape[:-2], 0)
    line = overlap_add(part, hop)
    if not others:
        return line
    out = line.new_zeros(*line.shape[:-1], (frames - 1) * hop + part.shape[-1])
    out[..., : line.shape[-1]] = line
    for block in others:
        line = overlap_add(make(block), hop)
        out[..., block.start * hop :][..., : line.shape[-1]] += line
    return out


def _blocks(frames: int, frame_samples: int, inputs: tuple[Tensor, ...]) -> list[slice]:
    """Slices of frames, at least one."""
    recorded = torch.is_grad_enabled() and any(x.requires_grad for x in inputs)
    if torch.compiler.is_compiling() or recorded or inputs[0].device.type != "cpu":
        return [slice(0, frames)]
    step = max(1, _TOGETHER // max(1, frame_samples))
    return [slice(i, min(i + step, frames)) for i in range(0, max(1, frames), step)]
