"""A track that arrives in blocks and is separated in spans."""

from __future__ import annotations

from collections.abc import Iterator

import torch
import torch.nn.functional as F
from torch import Tensor

from sepfast.separation.track import Span, Track


class Line:
    """The samples of a track that its next spans need, and the spans that can be separated.

    Positions count the zeros in front of the first sample, frames start at multiples of the hop.

    Args:
        track: what the spans are for.

    Attributes:
        origin: position of the first sample that is still held.
        samples: samples that have arrived.
    """

    def __init__(self, track: Track) -> None:
        self._track, self._framing = track, track.framing
        self._blocks: list[Tensor] = []
        self._next = 0
        self.origin = self.samples = 0

    def append(self, block: Tensor) -> None:
        """Take in a block, (channels, any number of samples)."""
        if not self._blocks:
            self._blocks.append(block.new_zeros(block.shape[0], self._framing.front))
        self._blocks.append(block)
        self.samples += block.shape[-1]

    def ready(self) -> Iterator[Span]:
        """Spans that the samples so far suffice for, whatever follows them."""
        framing = self._framing
        while True:
            stop = self._next + self._track.span
            reach = stop + self._track.ahead
            arrived = framing.covered(reach) <= framing.front + self.samples
            if not arrived or reach >= framing.frames(self.samples):
                return
            yield self._advance(stop, None)

    def rest(self) -> Iterator[Span]:
        """What is left of the track, now that all samples are there; nothing of an empty one."""
        frames = self._framing.frames(self.samples) if self.samples else 0
        if frames:
            last = self._blocks[-1]
            self._blocks.append(last.new_zeros(last.shape[0], self._track.tail))
        while self._next < frames:
            yield self._advance(min(self._next + self._track.span, frames), frames)

    def samples_around(self, span: Span) -> Tensor:
        """All samples that are held, after those before the span's reach are dropped."""
        line = torch.cat(self._blocks, dim=-1)
        reach = max(0, span.first - self._track.behind) * self._framing.hop
        line = line[:, reach - self.origin :]
        self._blocks, self.origin = [line], reach
        return line

    def crop(self, piece: Tensor, span: Span) -> Tensor:
        """Cut the zeros in front, and what lies behind the last sample, off a span's samples."""
        begin = span.first * self._framing.hop - self._framing.front
        piece = piece[..., max(0, -begin) :]
        return fit(piece, self.samples - max(0, begin)) if span.last else piece

    def _advance(self, stop: int, frames: int | None) -> Span:
        span = Span(self._next, stop, frames)
        self._next = stop
        return span


def fit(line: Tensor, length: int) -> Tensor:
    """The first `length` samples of (..., samples), zeros behind where there are fewer."""
    return F.pad(line, (0, length - line.shape[-1]))
