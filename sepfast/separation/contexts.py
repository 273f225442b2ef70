"""A track as a row of overlapping contexts.

N sources, C channels, T frames of a context, K contexts in a span.

A network hears T frames at once. Over a track its contexts lie `step` = T - overlap frames apart
and are cross-faded (`fades`). A span reads the samples that its contexts reach.
"""

from __future__ import annotations

from abc import abstractmethod
from typing import NamedTuple

from torch import Tensor

from sepfast.errors import InputError
from sepfast.reference import Framing
from sepfast.separation.fades import context_count, fades
from sepfast.separation.track import Span, Track


class Part(NamedTuple):
    """What a span reads.

    Attributes:
        samples: (channels, samples) of all frames of its contexts.
        weights: (K, T), the contexts' fades.
        start: the track's frame that the first context starts with.
        frames: counted from `start`, those to synthesise: the span's, and those before it that
            reach into its samples. In all of them the contexts' weights add up to one.
    """

    samples: Tensor
    weights: Tensor
    start: int
    frames: slice


class ContextTrack(Track):
    """A network that hears one context at a time.

    Every context fades in over what it shares with the one before. Where `last_takes_over`, a
    track's last one does not, and has only the frames that no other has: the published programs of
    A and B leave it out.

    Args:
        framing: the track's framing.
        context: T.
        overlap: frames that neighbouring contexts share, 0 to T - 1.
        frames: of a span, about.
        sources: N.

    Attributes:
        step: frames from one context to the next; every span but the last ends on a multiple.
    """

    last_takes_over = False

    def __init__(
        self, framing: Framing, context: int, overlap: int, frames: int, sources: int
    ) -> None:
        if not 0 <= overlap < context:
            raise InputError(
                f"overlap: got {overlap}, takes 0 to {context - 1} of the model's {context} frames"
            )
        self.context, self.overlap, self.step = context, overlap, context - overlap
        super().__init__(
            framing,
            span=-(-frames // self.step) * self.step,
            ahead=overlap,
            behind=context,
            tail=framing.covered(context + 3),
            sources=sources,
        )

    def _synthesised(self, line: Tensor, origin: int, span: Span, before: int) -> Tensor:
        return self._stems(self._part(line, origin, span, before), span)

    @abstractmethod
    def _stems(self, part: Part, span: Span) -> Tensor:
        """Samples of the sources, (N, channels, samples), of the frames `part.frames`."""

    def _part(self, line: Tensor, origin: int, span: Span, before: int) -> Part:
        first, stop, count = self._contexts(span.first - before, span)
        start, end = first * self.step, (stop - 1) * self.step + self.context
        begin = start * self.framing.hop - origin
        count = count if self.last_takes_over else None
        return Part(
            samples=line[:, begin : begin + self.framing.covered(end - start)],
            weights=fades(first, stop, count, self.context, self.overlap, line.device),
            start=start,
            frames=slice(span.first - before - start, span.stop - start),
        )

    def _contexts(self, first: int, span: Span) -> tuple[int, int, int | None]:
        """Contexts that weigh in frames `first` to the span's end, and how many a track has."""
        low = max(0, -(-(first - self.context + 1) // self.step))
        high = (span.stop - 1) // self.step + 1
        if span.frames is None:
            return low, high, None
        count = context_count(span.frames, self.context, self.overlap)
        return min(low, count - 1), min(high, count), count
