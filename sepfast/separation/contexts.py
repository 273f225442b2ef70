"""A track as a row of overlapping contexts, in spans that know nothing of each other.

N sources, C channels, T frames of a context, K contexts in a span.

A network hears T frames at once. Over a track its contexts lie `step` = T - overlap frames apart
and are cross-faded (`fades`). A span is a stretch of the track: it reads the samples that its
contexts reach, and gives back those between its first frame and the next span's, so that a track in
spans is the track at once.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import replace
from typing import NamedTuple

import torch
from torch import Tensor

from sepfast.errors import InputError
from sepfast.reference import Framing
from sepfast.separation.fades import context_count, fades


class Span(NamedTuple):
    """A stretch of a track: its frames `first` to `stop` - 1.

    `frames` is how many the whole track has, None while its end is not in sight.
    """

    first: int
    stop: int
    frames: int | None

    @property
    def last(self) -> bool:
        """Whether the track ends with it."""
        return self.stop == self.frames


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


class ContextTrack(ABC):
    """A network over a track of any length.

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
        sources: N.
        framing: the track's framing.
        step: frames from one context to the next; every span but the last ends on a multiple.
        ahead: frames behind a span that its contexts reach.
        behind: frames before a span that it reads.
        tail: zeros behind a track that its last contexts may reach, in samples.
        span: frames that make a good span, a multiple of `step`.
    """

    last_takes_over = False

    def __init__(
        self, framing: Framing, context: int, overlap: int, frames: int, sources: int
    ) -> None:
        if not 0 <= overlap < context:
            raise InputError(
                f"overlap: got {overlap}, takes 0 to {context - 1} of the model's {context} frames"
            )
        self.framing, self.context, self.overlap = framing, context, overlap
        self.sources = sources
        self.step = context - overlap
        self._reach = (framing.span - 1) // framing.hop
        self.ahead, self.behind = overlap, self._reach + context
        self.tail = framing.covered(context + 3)
        self.span = -(-frames // self.step) * self.step
        # Of samples that begin with a frame and end with one.
        self._inner = replace(framing, front=0, rule="valid")

    @torch.inference_mode()
    def separate(self, line: Tensor, origin: int, span: Span) -> Tensor:
        """Separate a span.

        Args:
            line: (channels, samples), the track with its zeros in front, from position `origin`
                on; behind a track's end with `tail` zeros.
            origin: position of the line's first sample.
            span: the frames wanted.

        Returns:
            (N, channels, samples), from where frame `span.first` starts to where frame
            `span.stop` would, and to the end of the last frame where the track ends.
        """
        # Frames before the span that still reach into its samples.
        before = min(span.first, self._reach)
        stems = self._stems(self._part(line, origin, span, before), span)
        length = (span.stop - span.first) * self.framing.hop
        return stems[..., before * self.framing.hop :][..., : None if span.last else length]

    def ended(self, seconds: float) -> None:
        """Hear how long the track is, when its last sample has come in.

        Raises:
            InputError: where what else is known of the track does not fit.
        """
        del seconds  # most know nothing else

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
