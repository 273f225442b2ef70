"""System D's loss under an amplitude mask and its gradient, from one read of the inputs each.

B batch, T frames, F bins, of which the first `lengths[b]` frames count. z scores, y the mixture, s
the target, g the gradient of L:

    p = 10 sigmoid(z),  d = p y - s,  L = sum d^2
    dz = 2 g d y 10 sigmoid(z) sigmoid(-z)

With e = exp(-|z|), sigmoid(z) is 1 / (1 + e), or e / (1 + e) for z < 0, and the slope of both
e / (1 + e)^2: nothing overflows, and no digits are lost where the sigmoid is next to 1.

A program has BLOCK of the T F elements of one sequence and writes one partial sum, so that the
order of summation is fixed: no atomics. Frames lie behind each other, so that what counts of a
sequence is its first lengths[b] F elements; of the others nothing is read, their partial sum and
their gradient are 0.

Bytes: forward 3 T F B elements, backward 4 T F B, as it reads the inputs again. A forward that
stored the slope for the backward to scale would move 6 instead of 7, and hold one more tensor
between the two, for every forward, also those that no backward follows. About 12 operations an
element forward, 18 backward.

Source: D, section 2.2.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor

from sepfast.kernels import launch

#: Lengths: one compilation serves all their values.
_NUMBERS = ("frames", "bins", "limited")


@triton.jit(do_not_specialize=_NUMBERS)
def sepfast_amplitude_mask_loss_forward(
    scores,
    mixture,
    target,
    lengths,
    partials,
    frames,
    bins,
    limited,
    BLOCK: tl.constexpr,
):
    """One partial sum of the loss."""
    first, column, end = _place(lengths, frames, bins, limited, BLOCK)
    z, y, s = _read(scores, mixture, target, first + column, column < end)
    share, _ = _sigmoid(z)
    d = 10 * share * y - s
    # What does not count is 0 in all three, and so is its part.
    tl.store(partials + tl.program_id(0), tl.sum(d * d))


@triton.jit(do_not_specialize=_NUMBERS)
def sepfast_amplitude_mask_loss_backward(
    grad,
    scores,
    mixture,
    target,
    lengths,
    out,
    frames,
    bins,
    limited,
    BLOCK: tl.constexpr,
):
    """The gradient of the scores, for an incoming gradient of one element."""
    first, column, end = _place(lengths, frames, bins, limited, BLOCK)
    counts = column < end
    z, y, s = _read(scores, mixture, target, first + column, counts)
    share, slope = _sigmoid(z)
    scale = 20 * tl.load(grad).to(tl.float32)
    result = scale * (10 * share * y - s) * y * slope
    inner = frames.to(tl.int64) * bins
    tl.store(out + first + column, tl.where(counts, result, 0), column < inner)


@triton.jit
def _place(lengths, frames, bins, limited, BLOCK: tl.constexpr):
    """A sequence's first element, this program's columns in it (BLOCK,), and how many count."""
    inner = frames.to(tl.int64) * bins
    per_row = tl.cdiv(inner, BLOCK)
    row = tl.program_id(0) // per_row
    column = (tl.program_id(0) % per_row) * BLOCK + tl.arange(0, BLOCK)
    given = tl.load(lengths + row, limited > 0, other=0)
    given = tl.minimum(tl.maximum(given, 0), frames)
    return row * inner, column, tl.where(limited > 0, given * bins, inner)


@triton.jit
def _read(scores, mixture, target, at, counts):
    """Scores, mixture and target (BLOCK,), 0 where they do not count."""
    z = tl.load(scores + at, counts, other=0).to(tl.float32)
    y = tl.load(mixture + at, counts, other=0).to(tl.float32)
    s = tl.load(target + at, counts, other=0).to(tl.float32)
    return z, y, s


@triton.jit
def _sigmoid(z):
    """sigmoid(z) and its slope."""
    e = tl.exp(-tl.abs(z))
    half = 1 / (1 + e)
    return tl.where(z < 0, e, 1) * half, e * half * half


def _variants() -> Iterator[dict[str, Any]]:
    yield {}


_TENSORS = {"scores": "*fp32", "mixture": "*fp32", "target": "*fp32", "lengths": "*i64"}
FORWARD = launch.Kernel(
    sepfast_amplitude_mask_loss_forward,
    {**_TENSORS, **launch.signature("partials", _NUMBERS)},
    _variants,
)
BACKWARD = launch.Kernel(
    sepfast_amplitude_mask_loss_backward,
    {"grad": "*fp32", **_TENSORS, **launch.signature("out", _NUMBERS)},
    _variants,
)
KERNELS = (FORWARD, BACKWARD)


def amplitude_mask_loss(
    scores: Tensor, mixture: Tensor, target: Tensor, lengths: Tensor | None
) -> Tensor:
    """The loss.

    Args:
        scores: (B, T, F), contiguous.
        mixture: (B, T, F), contiguous.
        target: (B, T, F), contiguous.
        lengths: (B,) of int64, or None.

    Returns:
        A scalar in float32.
    """
    config = FORWARD.config(scores.device)
    partials = launch.empty((_programs(scores, config),), scores, torch.float32)
    _launch(FORWARD, config, (), (scores, mixture, target, lengths), partials)
    return partials.sum()


def amplitude_mask_loss_backward(
    grad: Tensor, scores: Tensor, mixture: Tensor, target: Tensor, lengths: Tensor | None
) -> Tensor:
    """The gradient of the loss with respect to the scores.

    Args:
        grad: a scalar, the gradient of the loss.
        scores, mixture, target, lengths: as in the forward.

    Returns:
        (B, T, F) in the type of `scores`.
    """
    config, out = BACKWARD.config(scores.device), launch.empty(scores.shape, scores)
    _launch(BACKWARD, config, (grad,), (scores, mixture, target, lengths), out)
    return out


def _launch(
    kernel: launch.Kernel,
    config: launch.Config,
    first: tuple[Tensor, ...],
    inputs: tuple[Tensor, Tensor, Tensor, Tensor | None],
    result: Tensor,
) -> None:
    *tensors, lengths = inputs
    scores = inputs[0]
    counts = scores.new_empty(0, dtype=torch.int64) if lengths is None else lengths
    sizes = (*scores.shape[1:], int(lengths is not None))
    programs = _programs(scores, config)
    kernel.launch(programs, *first, *tensors, counts, result, *sizes, config=config)


def _programs(scores: Tensor, config: launch.Config) -> int:
    return scores.shape[0] * launch.blocks(scores.shape[1:].numel(), config["BLOCK"])
