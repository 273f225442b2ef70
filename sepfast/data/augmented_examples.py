"""Examples that are in no song: mixtures of fewer sources, and of sources from anywhere.

N sources, C channels, F bins. Two things may befall an example, each with a probability of its
own, so that both may befall the same one:

    source drop  some sources, at least one and not all, are taken out of the mixture, their targets
                 become silence; the last source, the rest of the mixture, is never left alone
    remix        every source is an excerpt of its own, of any song and any time

Behind either, the mixture is the sum of the sources that are kept. A mixture that is no excerpt of
the training set is not scaled by the training set's mixtures: one that is remixed is scaled by the
sums of its sources' extrema,

    (|X| - sum_n min_n) / (sum_n max_n - sum_n min_n),    n = 1 ... N,

for each bin and channel, over all sources, kept or not; with what is dropped from a song's own
mixture, the song's scaling stays. Targets are scaled by their own extrema always. A model without
statistics scales all magnitudes by one factor; there are no extrema then, and that factor stays.

Where the text is silent: it says that the number of sources taken out is random, not how; here it
is uniform, and of sets of that size each is as likely. It changes the song of some sources and the
time of some; here each source is drawn as an example is, from all excerpts.
Source: B (the stereo thesis), sections 5.3 and 6.2.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from sepfast.errors import InputError
from sepfast.reference import DeepConvSep


@dataclass(frozen=True)
class Draw:
    """What an example is made of.

    Attributes:
        excerpts: the number of an excerpt, or of one for each source where it is remixed.
        kept: the sources that are kept, from 0 in ascending order; None for all, and for the
            mixture as the song has it unless it is remixed.
    """

    excerpts: tuple[int, ...]
    kept: tuple[int, ...] | None = None

    @property
    def remixed(self) -> bool:
        """Whether the sources come from excerpts of their own."""
        return len(self.excerpts) > 1

    @property
    def plain(self) -> bool:
        """Whether it is an excerpt as it is."""
        return self.kept is None and not self.remixed


@dataclass(frozen=True)
class Augmentation:
    """How often examples are remixed, and sources dropped.

    Attributes:
        remix: the probability of the one, 0 to 1.
        source_drop: the probability of the other, 0 to 1.

    Raises:
        InputError: for a probability out of range.
    """

    remix: float = 0.0
    source_drop: float = 0.0

    def __post_init__(self) -> None:
        for name in ("remix", "source_drop"):
            value = getattr(self, name)
            if not 0 <= value <= 1:
                raise InputError(f"{name}: got {value!r}, takes a probability, 0 to 1")

    def __bool__(self) -> bool:
        return self.remix > 0 or self.source_drop > 0

    def check_sources(self, sources: int) -> None:
        """Raise `InputError` where there are too few sources for it."""
        for name, value in (("remix", self.remix), ("source_drop", self.source_drop)):
            if value > 0 and sources < 2:
                raise InputError(f"{name}: got {value!r}, takes 0 with fewer than 2 sources")

    def draw(self, random: np.random.Generator, excerpts: int, sources: int) -> Draw:
        """Draw an example; without augmentation one number is taken from `random`.

        Args:
            random: what is drawn from.
            excerpts: how many there are.
            sources: N, at least 2 unless nothing is augmented.
        """
        numbers = (int(random.integers(excerpts)),)
        if not self:
            return Draw(numbers)
        if random.random() < self.remix:
            numbers = tuple(random.integers(excerpts, size=sources).tolist())
        if random.random() < self.source_drop:
            return Draw(numbers, _kept(random, sources))
        return Draw(numbers)


def _kept(random: np.random.Generator, sources: int) -> tuple[int, ...]:
    """The sources that are left when some are dropped."""
    count = int(random.integers(1, sources))
    if count == 1:
        return (int(random.integers(sources - 1)),)  # any but the last
    return tuple(sorted(random.permutation(sources)[:count].tolist()))


def remixed_extrema(model: DeepConvSep) -> tuple[Tensor, Tensor]:
    """What the magnitudes of a remixed mixture are scaled by: (|X| - floor) / span.

    Args:
        model: by its statistics. Nothing waits for the device that they are on.

    Returns:
        Floor and span, each (C, 1, F); a span of 0 becomes 1.
    """
    shape = (len(model.sources) + 1, model.channels)
    low, high = model.minimum.unflatten(0, shape), model.maximum.unflatten(0, shape)
    one_factor = (low == 0).all() & (high == high[0, 0, 0]).all()
    floor = torch.where(one_factor, low[-1], low[:-1].sum(0))
    peak = torch.where(one_factor, high[-1], high[:-1].sum(0))
    span = torch.where(peak > floor, peak - floor, 1)
    return floor[:, None], span[:, None]
