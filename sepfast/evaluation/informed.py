"""Scoring models of system C: a target and the rest of its mixture, with what attention looked at.

The paper scores mono at the model's sample rate, and side information made from the true target as
in training, its random numbers included.
Source: C (Schulze-Forster et al. 2019), sections 3, 4.1 and 4.3.
"""

from __future__ import annotations

import zlib
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import torch
from torch import nn

from sepfast.data.side_information import SideInformation, read_side_information
from sepfast.data.side_line import TrueLine
from sepfast.data.song_audio import SongAudio
from sepfast.data.songs import Song
from sepfast.errors import InputError
from sepfast.evaluation.alignment import alignment_figure
from sepfast.evaluation.songs import Estimator, Recording, from_separator
from sepfast.files import PathLike, file_called
from sepfast.reference import Denoiser, Informed, stft_magnitude
from sepfast.separation import Separator
from sepfast.separation.alignment import Alignment
from sepfast.separation.informed import track_framing

_SUFFIXES = (".csv", ".npy")


def from_model(
    model: nn.Module,
    *,
    device: torch.device | str | None = None,
    side_info: Path | None = None,
    denoisers: Mapping[str, Denoiser] | None = None,
) -> Estimator:
    """What a model makes of the mixture, told what it has to be told.

    Args:
        model: made by `create_model` or `load`.
        device: where to compute; None for where the model is.
        side_info: folder with SONG.csv or SONG.npy, as `read_side_information` takes them; None
            for side information made from the true target.
        denoisers: as `Separator` takes them.

    Raises:
        InputError: for a model that does not separate, a folder that is not there, or side
            information or denoisers for a model that takes none.
    """
    if side_info is not None and not side_info.is_dir():
        raise InputError(f"{side_info}: there is no such folder of side information")
    separator = Separator(model, denoisers=denoisers, device=device)
    if isinstance(model, Informed):
        return InformedEstimator(model, separator, side_info)
    if side_info is not None:
        separator.check_side(given=True)
    return from_separator(separator)


class InformedEstimator(Estimator):
    """What a model of system C makes of songs in mono, at its sample rate.

    Args:
        model: the model.
        separator: made of it.
        side_info: as in `from_model`.
        cache_dir: as in `SongAudio`.
    """

    def __init__(
        self,
        model: Informed,
        separator: Separator,
        side_info: Path | None = None,
        cache_dir: PathLike | None = None,
    ) -> None:
        if side_info is not None:
            separator.check_side(given=True)
        self._model, self._separator = model, separator
        self._folder, self._cache_dir = side_info, cache_dir
        self._alignment = Alignment() if model.attention is not None else None
        self._target, self._rest = model.sources
        self.needs = (self._target,)

    def open(self, song: Song) -> Recording:
        """Read the mixture and the target; the rest is what the target leaves of the mixture."""
        audio = SongAudio(
            song,
            sample_rate=self._model.sample_rate,
            channels=1,
            sources=self.needs,
            cache_dir=self._cache_dir,
        )
        mixture, target = audio.read(0, audio.samples)
        stems = {self._target: target, self._rest: mixture - target}
        return Recording(song.name, mixture, stems, audio.sample_rate)

    def __call__(self, recording: Recording) -> Mapping[str, np.ndarray]:
        """As `Estimator`; `draw` then draws this song's alignment."""
        stems = self._separator(
            recording.mixture,
            recording.sample_rate,
            side=self._side(recording) if self._separator.takes_side else None,
            alignment=self._alignment,
        )
        return {source: stem.numpy(force=True) for source, stem in stems.items()}

    def draw(self, song: Song, recording: Recording, output: Path) -> None:
        """Write `alignments/SONG.png`, the true target below the weights; see `Song.file_in`."""
        if self._alignment is None:
            return
        drawn = self._alignment.picture()
        cells, rate = len(drawn.side), recording.sample_rate
        size = round(drawn.seconds * rate / self._model.framing.hop / cells)
        alignment_figure(
            song.file_in(output / "alignments", ".png"),
            drawn.weights,
            drawn.side,
            _in_cells(self._magnitudes(recording), cells, size),
            seconds=drawn.seconds,
            rate=rate,
            steps=len(self._alignment.times),
            title=recording.name,
        )

    def _side(self, recording: Recording) -> SideInformation | TrueLine:
        if self._folder is None:
            # Each song has its own random numbers, the same in every run.
            seed = zlib.crc32(recording.name.encode())
            return TrueLine(recording.stems[self._target], recording.sample_rate, seed=seed)
        path = file_called(self._folder, recording.name, _SUFFIXES)
        if path is None:
            raise InputError(f"{self._folder}: holds no {recording.name}.csv or .npy")
        return read_side_information(path)

    def _magnitudes(self, recording: Recording) -> np.ndarray:
        """The true target's, (frames, F), in the frames of a whole track."""
        waveform = torch.from_numpy(recording.stems[self._target][0])
        framing = track_framing(self._model.framing)
        magnitudes: np.ndarray = stft_magnitude(waveform, framing).numpy()
        return magnitudes


def _in_cells(magnitudes: np.ndarray, cells: int, size: int) -> np.ndarray:
    """Means of magnitudes (frames, F) over cells of `size` frames, (cells, F)."""
    missing = cells * size - len(magnitudes)
    padded = np.pad(magnitudes, ((0, max(0, missing)), (0, 0)))[: cells * size]
    return padded.reshape(cells, size, -1).mean(1)
