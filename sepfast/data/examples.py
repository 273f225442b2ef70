"""Training examples for models over contexts of magnitudes: excerpts of songs, in batches.

B examples a batch, N sources, C channels, T frames of context, F bins. An example is as many
samples as T frames cover; the magnitudes are made of it where the model is, so that a worker
reads and a device computes.

Every batch follows from its key (seed, epoch, item) alone. Which worker makes it, in what order
and after which interruption makes no difference.

A batch is read into one array, each excerpt at its place, and what the silence filter turns down is
overwritten by the next that is drawn.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Self

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import Dataset

from sepfast.data.augmented_examples import Augmentation, Draw, remixed_extrema
from sepfast.data.excerpts import Excerpts, Floats, Recording
from sepfast.errors import InputError
from sepfast.ops import stft_magnitude
from sepfast.reference import DeepConvSep, Framing

#: Excerpts looked at for each one wanted, before the data is said to be silent.
_TRIES = 100
#: Bins that B's silence filter looks at; above them lossy codecs leave nothing.
_FILTERED_BINS = 425
#: Frames that the statistics hold at once: about 200 MB with four stereo sources.
_BLOCK = 2048


@dataclass(frozen=True)
class SilenceFilter:
    """B's filter: an example counts if its scaled mixture's mean magnitude is above a threshold.

    The mixture is scaled as the model is given it, one that is remixed by its sources' extrema.

    Attributes:
        framing: the framing of an excerpt.
        scale: (2, C, 1, bins), one over the range of the mixture's magnitudes in the bins that are
            looked at; first of an excerpt, then of a remixed mixture.
        offset: (2,), the means of what brings the smallest of them to 0.
        threshold: the mean that must be passed; 0.02 in B.
    """

    framing: Framing
    scale: Floats
    offset: Floats
    threshold: float

    @classmethod
    def of(cls, model: DeepConvSep, threshold: float) -> Self:
        """The filter for a model, by its statistics."""
        factor, summand = model.scaling()
        floor, span = remixed_extrema(model)
        summands = [torch.zeros_like(factor) if summand is None else summand, -floor / span]
        scale, offset = (
            torch.stack(parts)[..., :_FILTERED_BINS].cpu().numpy()
            for parts in ([factor, 1 / span], summands)
        )
        return cls(excerpt_framing(model.framing), scale, offset.mean((1, 2, 3)), threshold)

    def __call__(self, mixture: Tensor) -> bool:
        """Whether an excerpt's mixture (C, samples) is loud enough."""
        return bool(self.passed(mixture[None], np.zeros(1, bool))[0])

    def passed(self, mixtures: Tensor, remixed: NDArray[np.bool_]) -> NDArray[np.bool_]:
        """Which of some mixtures, (B, C, samples), are loud enough, (B,).

        Args:
            mixtures: on the CPU.
            remixed: (B,), which are scaled as remixed ones.
        """
        # Most of an example's time may go in here, and more by the operator: numpy's magnitudes are
        # faster, and one mixture at a time takes so little memory that none is given back to the
        # system to be asked for again.
        f = self.framing
        window = f.window_on(mixtures) * f.scale
        overlapping = mixtures.unfold(-1, f.span, f.hop)  # (B, C, T, L)
        frames = torch.empty(overlapping.shape[1:])
        levels = np.empty((len(mixtures), *self.scale.shape[1:]), np.float32)  # (B, C, 1, bins)
        for level, own in zip(levels, overlapping, strict=True):
            torch.mul(own, window, out=frames)
            magnitudes = np.abs(torch.fft.rfft(frames, f.n_fft).numpy())[..., :_FILTERED_BINS]
            magnitudes.mean(-2, keepdims=True, out=level)
        rows = remixed.astype(np.intp)
        means = (levels * self.scale[rows]).mean((1, 2, 3)) + self.offset[rows]
        return means > self.threshold


@dataclass(frozen=True)
class Drawn:
    """A batch, and what it was made of.

    Attributes:
        waveforms: (B, 1 + N, C, samples), the mixture first.
        draws: what each example was drawn from.
    """

    waveforms: Tensor
    draws: tuple[Draw, ...]

    @property
    def remixed(self) -> Tensor:
        """Which examples are remixed, (B,) bool."""
        return torch.tensor([draw.remixed for draw in self.draws])


class Examples(Dataset[Tensor]):
    """Batches of random excerpts, each excerpt of the data as likely as any other.

    `examples[epoch, item]` is batch `item` of an epoch, (B, 1 + N, C, samples) float32, drawn with
    `numpy.random.default_rng((seed, epoch, item))`.

    Args:
        excerpts: what is drawn from.
        batch_size: B.
        seed: of all draws, 0 or more.
        keep: which mixtures are used; what is not is drawn again. None for all.
        augmentation: how often an example is remixed, and sources are dropped.

    Raises:
        InputError: for an augmentation that takes more sources.
    """

    def __init__(
        self,
        excerpts: Excerpts,
        batch_size: int,
        seed: int,
        keep: SilenceFilter | None = None,
        augmentation: Augmentation | None = None,
    ) -> None:
        self.excerpts, self.batch_size, self.seed, self.keep = excerpts, batch_size, seed, keep
        self.augmentation = augmentation or Augmentation()
        self._sources = excerpts.shape[0] - 1
        self.augmentation.check_sources(self._sources)

    def __getitem__(self, key: tuple[int, int]) -> Tensor:
        """A batch by its epoch and item.

        Raises:
            InputError: where the songs are nearly silent, so that the batch cannot be filled.
        """
        return self.drawn(key).waveforms

    def names(self, epoch: int, item: int) -> list[str]:
        """The songs that a batch is drawn from, each once."""
        draws = self.drawn((epoch, item)).draws
        numbers = {number for draw in draws for number in draw.excerpts}
        return sorted({self.excerpts.song(number).song.name for number in numbers})

    @property
    def shape(self) -> tuple[int, int, int, int]:
        """Of a batch, (B, 1 + N, C, samples)."""
        return (self.batch_size, *self.excerpts.shape)

    def drawn(self, key: tuple[int, int], out: Tensor | None = None) -> Drawn:
        """A batch by its epoch and item, with what it was made of.

        Args:
            key: epoch and item.
            out: what to fill, of `shape`, float32; None for a new one.

        Raises:
            InputError: as above.
        """
        random = np.random.default_rng((self.seed, *key))
        batch = torch.empty(self.shape) if out is None else out
        waveforms, draws = batch.numpy(), list[Draw]()
        left = self.batch_size * _TRIES
        while len(draws) < self.batch_size and left:
            begin = len(draws)
            fresh = [self._draw(random) for _ in range(min(self.batch_size - begin, left))]
            left -= len(fresh)
            for place, draw in enumerate(fresh, begin):
                self._make(waveforms[place], draw)
            for place in self._passed(batch[begin : begin + len(fresh), 0], fresh):
                if begin + place != len(draws):
                    waveforms[len(draws)] = waveforms[begin + place]
                draws.append(fresh[place])
        if len(draws) < self.batch_size:
            raise InputError(
                f"data: is nearly silent, only {len(draws)} of {self.batch_size * _TRIES} excerpts "
                "pass the silence filter; a lower `silence` lets more pass, 0 all"
            )
        return Drawn(batch, tuple(draws))

    def _draw(self, random: np.random.Generator) -> Draw:
        return self.augmentation.draw(random, len(self.excerpts), self._sources)

    def _make(self, out: Floats, draw: Draw) -> None:
        """Fill (1 + N, C, samples) with an example."""
        if draw.plain:
            self.excerpts.read_into(out, draw.excerpts[0])
            return
        kept = range(self._sources) if draw.kept is None else draw.kept
        out[0] = 0
        for source in range(self._sources):
            row = out[1 + source]
            if source in kept:
                number = draw.excerpts[source if draw.remixed else 0]
                self.excerpts.read_row(row, number, 1 + source)
                out[0] += row
            else:
                row[:] = 0

    def _passed(self, mixtures: Tensor, draws: Sequence[Draw]) -> Sequence[int]:
        """The places of those that the silence filter lets pass."""
        if self.keep is None:
            return range(len(draws))
        remixed = np.array([draw.remixed for draw in draws])
        return np.flatnonzero(self.keep.passed(mixtures, remixed)).tolist()


def validation_batches(excerpts: Excerpts, batch_size: int, count: int) -> list[Tensor]:
    """Fixed batches of excerpts that lie evenly over the songs, the same in every epoch.

    Args:
        excerpts: what is taken from.
        batch_size: B.
        count: how many batches.

    Returns:
        `count` times (B, 1 + N, C, samples).
    """
    wanted = batch_size * count
    numbers = [(2 * i + 1) * len(excerpts) // (2 * wanted) for i in range(wanted)]
    waveforms = torch.stack([excerpts[number][1] for number in numbers])
    return list(waveforms.split(batch_size))


def excerpt_framing(framing: Framing) -> Framing:
    """The framing of an excerpt: whole frames only, nothing in front."""
    return replace(framing, front=0, rule="valid")


@torch.no_grad()
def batch_features(
    model: DeepConvSep,
    waveforms: Tensor,
    *,
    target_slope: float = 0.0,
    remixed: Tensor | None = None,
) -> tuple[Tensor, Tensor]:
    """What a model is trained on, from samples.

    Args:
        model: gives the framing and the scaling.
        waveforms: (B, 1 + N, C, samples), the mixture first, on the model's device.
        target_slope: how far the targets are turned down along the bins, in a line from 1 at
            0 Hz to 1 - target_slope at half the sample rate; 0.5 in B.
        remixed: (B,) bool, whose mixtures are scaled by their sources' extrema; None for none.

    Returns:
        The mixture (B, C, T, F) and the targets (B, N, C, T, F), scaled.

    Raises:
        InputError: for waveforms with other sources or channels than the model's.
    """
    expected = (1 + len(model.sources), model.channels)
    if tuple(waveforms.shape[1:3]) != expected:
        raise InputError(
            f"waveforms: got shape {tuple(waveforms.shape)}, takes "
            f"(batch, {expected[0]}, {expected[1]}, samples) for this model"
        )
    magnitudes = stft_magnitude(waveforms, excerpt_framing(model.framing))
    mixture, targets = model.scale(magnitudes[:, 0]), model.scale_targets(magnitudes[:, 1:])
    if remixed is not None:
        floor, span = remixed_extrema(model)
        scaled = (magnitudes[:, 0] - floor) / span
        mixture = torch.where(remixed[:, None, None, None], scaled, mixture)
    if target_slope:
        # Made where it is needed: a copy from the host would be waited for.
        slope = torch.linspace(
            1, 1 - target_slope, targets.shape[-1], dtype=targets.dtype, device=targets.device
        )
        targets = targets * slope
    return mixture, targets


def statistics(
    songs: Sequence[Recording],
    framing: Framing,
    progress: Callable[[int, int], None] = lambda done, total: None,
    device: torch.device | str = "cpu",
) -> tuple[Tensor, Tensor]:
    """The smallest and the largest magnitude of each bin over all frames of all songs.

    The songs are read in blocks, whose frames are those of the whole song.

    Args:
        songs: at least one.
        framing: the model's framing.
        progress: is told how many frames are done, and of how many.
        device: where the magnitudes are made.

    Returns:
        Minimum and maximum, each (N * C + C, F) on the CPU: source by source, channel by channel,
        the mixture last, which is what `DeepConvSep.set_statistics` takes.

    Raises:
        InputError: for no songs, or a file of a song that cannot be read.
    """
    if not songs:
        raise InputError("songs: got none, takes at least one")
    total, done = sum(framing.frames(song.samples) for song in songs), 0
    lowest, highest = torch.tensor(torch.inf), torch.tensor(-torch.inf)
    for song in songs:
        for magnitudes in _magnitudes(song, framing, device):
            lowest = torch.minimum(lowest, magnitudes.amin(-2).cpu())
            highest = torch.maximum(highest, magnitudes.amax(-2).cpu())
            done += magnitudes.shape[-2]
            progress(done, total)
    # The mixture comes first in a song and last in the statistics.
    return lowest.roll(-1, 0).flatten(0, 1), highest.roll(-1, 0).flatten(0, 1)


def _magnitudes(song: Recording, framing: Framing, device: torch.device | str) -> Iterator[Tensor]:
    """All frames of a song in blocks, (1 + N, C, up to _BLOCK, F)."""
    total = framing.frames(song.samples)
    for first in range(0, total, _BLOCK):
        start = first * framing.hop - framing.front
        stop = start + framing.covered(min(_BLOCK, total - first))
        samples = torch.from_numpy(song.read(max(0, start), stop)).to(device)
        samples = F.pad(samples, (max(0, -start), 0))
        yield stft_magnitude(samples, excerpt_framing(framing))
