"""Training examples for models over contexts of magnitudes: excerpts of songs, in batches.

B examples a batch, N sources, C channels, T frames of context, F bins. An example is as many
samples as T frames cover; the magnitudes are made of it where the model is, so that a worker
reads and a device computes.

Every batch follows from its key (seed, epoch, item) alone. Which worker makes it, in what order
and after which interruption makes no difference.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import islice
from typing import Protocol, Self

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor
from torch.utils.data import Dataset

from sepfast.data.songs import Song
from sepfast.errors import InputError
from sepfast.ops import stft_magnitude
from sepfast.reference import DeepConvSep, Framing

#: Excerpts looked at for each one wanted, before the data is said to be silent.
_TRIES = 100
#: Bins that B's silence filter looks at; above them lossy codecs leave nothing.
_FILTERED_BINS = 425
#: Frames that the statistics hold at once: about 200 MB with four stereo sources.
_BLOCK = 2048


class Recording(Protocol):
    """A song with its sources, read piece by piece; `SongAudio` is one."""

    @property
    def song(self) -> Song:
        """Where it comes from; its name is for people."""

    @property
    def samples(self) -> int:
        """The song's length, in samples of each channel."""

    def read(self, start: int, stop: int) -> np.ndarray:
        """Samples: (1 + N, C, stop - start) float32, the mixture first, zeros behind the end."""


class Excerpts:
    """All excerpts of some songs, numbered through: one for each sample that it can start at.

    A song shorter than an excerpt counts as one, with silence behind it.

    Args:
        songs: the songs, at least one.
        samples: length of an excerpt.
    """

    def __init__(self, songs: Sequence[Recording], samples: int) -> None:
        if not songs:
            raise InputError("songs: got none, takes at least one")
        self.songs, self.samples = songs, samples
        self._ends = np.cumsum([max(1, song.samples - samples + 1) for song in songs])

    def __len__(self) -> int:
        return int(self._ends[-1])

    def batches(self, batch_size: int) -> int:
        """Batches that the songs fill when excerpts are laid end to end, at least one."""
        whole = sum(-(-song.samples // self.samples) for song in self.songs)
        return max(1, -(-whole // batch_size))

    def __getitem__(self, number: int) -> tuple[Recording, Tensor]:
        """The song of an excerpt, and its samples (1 + N, C, samples)."""
        index = int(np.searchsorted(self._ends, number, side="right"))
        start = number - (int(self._ends[index - 1]) if index else 0)
        song = self.songs[index]
        return song, torch.from_numpy(song.read(start, start + self.samples))


@dataclass(frozen=True)
class SilenceFilter:
    """B's filter: an example counts if its scaled mixture's mean magnitude is above a threshold.

    Attributes:
        framing: the framing of an excerpt.
        scale: (C, 1, F), one over the range of the mixture's magnitudes.
        offset: (C, 1, F), what brings the smallest of them to 0.
        threshold: the mean that must be passed; 0.02 in B.
    """

    framing: Framing
    scale: Tensor
    offset: Tensor
    threshold: float

    @classmethod
    def of(cls, model: DeepConvSep, threshold: float) -> Self:
        """The filter for a model, by its statistics of the mixture."""
        floor, peak = (
            rows[-model.channels :, None].cpu().clone() for rows in (model.minimum, model.maximum)
        )
        scale = 1 / torch.where(peak > floor, peak - floor, 1)
        return cls(excerpt_framing(model.framing), scale, -floor * scale, threshold)

    def __call__(self, mixture: Tensor) -> bool:
        """Whether a mixture (C, samples) is loud enough."""
        scaled = stft_magnitude(mixture, self.framing, scale=self.scale, offset=self.offset)
        return float(scaled[..., :_FILTERED_BINS].mean()) > self.threshold


class Examples(Dataset[Tensor]):
    """Batches of random excerpts, each excerpt of the data as likely as any other.

    `examples[epoch, item]` is batch `item` of an epoch, (B, 1 + N, C, samples) float32, drawn with
    `numpy.random.default_rng((seed, epoch, item))`.

    Args:
        excerpts: what is drawn from.
        batch_size: B.
        seed: of all draws, 0 or more.
        keep: tells of a mixture (C, samples) whether it is used; what is not is drawn again.
    """

    def __init__(
        self,
        excerpts: Excerpts,
        batch_size: int,
        seed: int,
        keep: Callable[[Tensor], bool] | None = None,
    ) -> None:
        self.excerpts, self.batch_size, self.seed, self.keep = excerpts, batch_size, seed, keep

    def __getitem__(self, key: tuple[int, int]) -> Tensor:
        """A batch by its epoch and item.

        Raises:
            InputError: where the songs are nearly silent, so that the batch cannot be filled.
        """
        return torch.stack([waveform for _, waveform in self._drawn(key)])

    def names(self, epoch: int, item: int) -> list[str]:
        """The songs that a batch is drawn from, each once."""
        return sorted({song.song.name for song, _ in self._drawn((epoch, item))})

    def _drawn(self, key: tuple[int, int]) -> list[tuple[Recording, Tensor]]:
        drawn = list(islice(self._kept(key), self.batch_size))
        if len(drawn) < self.batch_size:
            raise InputError(
                f"data: is nearly silent, only {len(drawn)} of {self.batch_size * _TRIES} excerpts "
                "pass the silence filter; a lower `silence` lets more pass, 0 all"
            )
        return drawn

    def _kept(self, key: tuple[int, int]) -> Iterator[tuple[Recording, Tensor]]:
        random = np.random.default_rng((self.seed, *key))
        for _ in range(self.batch_size * _TRIES):
            song, waveform = self.excerpts[int(random.integers(len(self.excerpts)))]
            if self.keep is None or self.keep(waveform[0]):
                yield song, waveform


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
    model: DeepConvSep, waveforms: Tensor, *, target_slope: float = 0.0
) -> tuple[Tensor, Tensor]:
    """What a model is trained on, from samples.

    Args:
        model: gives the framing and the scaling.
        waveforms: (B, 1 + N, C, samples), the mixture first, on the model's device.
        target_slope: how far the targets are turned down along the bins, in a line from 1 at
            0 Hz to 1 - target_slope at half the sample rate; 0.5 in B.

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
