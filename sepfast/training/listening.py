"""What a model sounds like while it learns: one excerpt, separated every few epochs.

    RUN/validation/epoch-0010/vocals.wav …      the estimates
    RUN/validation/epoch-0010/spectrograms.png  targets and estimates

The excerpt is the middle of the first validation song, the same for the whole run. Nothing here
changes what is trained: random numbers, modes and weights are left as they were.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch

from sepfast.data.audio import write
from sepfast.data.excerpts import Recording
from sepfast.data.side_line import TrueLine
from sepfast.evaluation.plots import spectrograms
from sepfast.reference import Denoiser, Model
from sepfast.separation import Separator
from sepfast.training.board import Board
from sepfast.training.course import Course, SongCourse
from sepfast.training.history import Epoch

_SECONDS = 6.0


class Listening:
    """Separates an excerpt of a song every few epochs.

    Args:
        model: one that separates songs; read anew each time.
        song: at the model's rate and with its channels.
        every: how many epochs.
        folder: where the files are kept.
        board: gets them too; None for no board.
    """

    def __init__(
        self, model: Any, song: Recording, every: int, folder: Path, board: Board | None
    ) -> None:
        self._model, self._every, self._folder, self._board = model, every, folder, board
        # A denoiser is heard on the stem of the separator that it learns from.
        denoises = isinstance(model, Denoiser)
        self._heard = model.attached if denoises else model
        self._denoisers = {model.source: model} if denoises else None
        wanted = min(song.samples, round(_SECONDS * self._heard.sample_rate))
        start = (song.samples - wanted) // 2
        self._mixture, *self._stems = song.read(start, start + wanted)  # (C, samples) each

    def epoch(self, epoch: Epoch) -> None:
        """Listen, where it is time for it.

        Raises:
            InputError: for files that cannot be written.
        """
        if epoch.epoch % self._every:
            return
        rate, number = self._heard.sample_rate, epoch.epoch
        folder = self._folder / f"epoch-{number:04d}"
        estimates = self._estimates()
        for source, waveform in estimates.items():
            write(folder / f"{source}.wav", waveform, rate)
        picture = folder / "spectrograms.png"
        spectrograms(picture, self._targets(), estimates, rate)
        if self._board is not None:
            for source, waveform in estimates.items():
                self._board.sound(source, waveform, rate, number)
            self._board.picture("spectrograms", picture, number)

    def _estimates(self) -> dict[str, np.ndarray]:
        """Source -> (C, samples)."""
        with _undisturbed(self._model):
            separator = Separator(self._heard, denoisers=self._denoisers)
            side = None
            if separator.takes_side:
                side = TrueLine(self._stems[0], self._heard.sample_rate)
            stems = separator(self._mixture, self._heard.sample_rate, side=side)
            return {source: stem.numpy(force=True) for source, stem in stems.items()}

    def _targets(self) -> dict[str, np.ndarray]:
        """Source -> (C, samples); the last source may be the rest of the mixture."""
        rest = self._mixture - np.sum(self._stems, axis=0)
        return dict(zip(self._heard.sources, [*self._stems, rest], strict=False))


def listening(
    model: Model,
    course: Course[Any],
    validation: Sequence[Any],
    every: int,
    folder: Path,
    board: Board | None,
    note: Callable[[str], None],
) -> Listening | None:
    """What listens in a run.

    Args:
        model: as `Listening`.
        course: of the run.
        validation: what it is validated on.
        every: how many epochs; 0 for never.
        folder: as `Listening`.
        board: likewise.
        note: is told why there is nothing to listen to.

    Returns:
        None where it is not asked for, and where there is nothing to listen to.
    """
    if not every:
        return None
    if not isinstance(course, SongCourse):
        note(f"listen: nothing is written, {type(model).__name__} does not learn from whole songs")
        return None
    if not validation:
        note("listen: nothing is written, there is no validation song")
        return None
    return Listening(model, validation[0], every, folder, board)


@contextmanager
def _undisturbed(model: Model) -> Iterator[None]:
    """Leave random numbers and every module's mode behind as they were."""
    modes = {module: module.training for module in model.modules()}
    device = next(model.parameters()).device
    with torch.random.fork_rng([device] if device.type == "cuda" else []):
        try:
            yield
        finally:
            for module, training in modes.items():
                module.training = training
