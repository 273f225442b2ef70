"""A track in spans that know nothing of each other.

N sources. A span is a stretch of the track: it reads the samples that it depends on, and gives
back those between its first frame and the next span's, so that a track in spans is the track at
once, in bounded memory.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import replace
from typing import NamedTuple

import torch
from torch import Tensor

from sepfast.reference import Framing


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


class Track(ABC):
    """A network over a track of any length.

    Args:
        framing: the track's framing.
        span: frames that make a good span.
        ahead: frames behind a span that it depends on.
        behind: frames before those that it synthesises that it depends on.
        tail: zeros behind a track that its last span may reach, in samples.
        sources: N.

    Attributes:
        framing, span, ahead, tail, sources: as given.
        behind: frames before a span that it reads.
    """

    def __init__(
        self, framing: Framing, *, span: int, ahead: int, behind: int, tail: int, sources: int
    ) -> None:
        self.framing, self.span, self.sources = framing, span, sources
        self._reach = (framing.span - 1) // framing.hop
        self.ahead, self.behind, self.tail = ahead, self._reach + behind, tail
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
        stems = self._synthesised(line, origin, span, before)
        length = (span.stop - span.first) * self.framing.hop
        return stems[..., before * self.framing.hop :][..., : None if span.last else length]

    def ended(self, seconds: float) -> None:
        """Hear how long the track is, when its last sample has come in.

        Raises:
            InputError: where what else is known of the track does not fit.
        """
        del seconds  # most know nothing else

    @abstractmethod
    def _synthesised(self, line: Tensor, origin: int, span: Span, before: int) -> Tensor:
        """Samples of the sources, (N, channels, samples), from `before` frames before a span on.

        They are made of these frames and the span's; `line` and `origin` as in `separate`.
        """
