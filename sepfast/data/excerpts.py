"""Excerpts of songs: which there are, and their samples.

N sources, C channels.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol, runtime_checkable

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from sepfast.data.songs import Song
from sepfast.errors import InputError

Floats = NDArray[np.float32]


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


@runtime_checkable
class RowRecording(Recording, Protocol):
    """A recording that reads into an array, and single rows; `SongAudio` is one."""

    def read_into(self, out: Floats, start: int) -> None:
        """Fill (1 + N, C, n) with what `read` gives from sample `start` on."""

    def read_row(self, out: Floats, row: int, start: int) -> None:
        """Fill (C, n) with one row of it."""


class Excerpts:
    """All excerpts of some songs, numbered through: one for each sample that it can start at.

    A song shorter than an excerpt counts as one, with silence behind it.

    Args:
        songs: the songs, at least one, all of as many sources and channels.
        samples: length of an excerpt.

    Attributes:
        shape: of an excerpt, (1 + N, C, samples).

    Raises:
        InputError: for no songs; when it is read, for a song of other sources or channels than
            the first.
    """

    def __init__(self, songs: Sequence[Recording], samples: int) -> None:
        if not songs:
            raise InputError("songs: got none, takes at least one")
        self.songs, self.samples = songs, samples
        rows, channels = songs[0].read(0, 0).shape[:2]
        self.shape = (rows, channels, samples)
        self._ends = np.cumsum([max(1, song.samples - samples + 1) for song in songs])
        self._by_row = [isinstance(song, RowRecording) for song in songs]

    def __len__(self) -> int:
        return int(self._ends[-1])

    def batches(self, batch_size: int) -> int:
        """Batches that the songs fill when excerpts are laid end to end, at least one."""
        whole = sum(-(-song.samples // self.samples) for song in self.songs)
        return max(1, -(-whole // batch_size))

    def __getitem__(self, number: int) -> tuple[Recording, Tensor]:
        """The song of an excerpt, and its samples (1 + N, C, samples)."""
        waveform = np.empty(self.shape, np.float32)
        self.read_into(waveform, number)
        return self.song(number), torch.from_numpy(waveform)

    def song(self, number: int) -> Recording:
        """The song of an excerpt."""
        return self.songs[self._place(number)[0]]

    def read_into(self, out: Floats, number: int) -> None:
        """Fill (1 + N, C, samples) with an excerpt."""
        index, start = self._place(number)
        song = self.songs[index]
        if self._by_row[index]:
            song.read_into(out, start)  # type: ignore[attr-defined]
        else:
            out[:] = self._read(song, start)

    def read_row(self, out: Floats, number: int, row: int) -> None:
        """Fill (C, samples) with one row of an excerpt, the mixture being row 0."""
        index, start = self._place(number)
        song = self.songs[index]
        if self._by_row[index]:
            song.read_row(out, row, start)  # type: ignore[attr-defined]
        else:
            out[:] = self._read(song, start)[row]

    def _place(self, number: int) -> tuple[int, int]:
        """The song, by its number, and the sample that an excerpt begins with."""
        index = int(np.searchsorted(self._ends, number, side="right"))
        return index, number - (int(self._ends[index - 1]) if index else 0)

    def _read(self, song: Recording, start: int) -> Floats:
        waveform = song.read(start, start + self.samples)
        if waveform.shape != self.shape:
            raise InputError(
                f"{song.song.name}: got {waveform.shape[:2]} sources and channels, the mixture "
                f"among them, takes {self.shape[:2]} as the first song has"
            )
        return waveform
