"""A run in TensorBoard: curves of its epochs, and what it sounds and looks like."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import numpy as np

from sepfast.errors import InputError
from sepfast.training.history import Epoch


class Board:
    """Events of a run for `tensorboard --logdir`; for a `with` block.

    Args:
        folder: where they are kept; made where it is missing.
        first: the epoch that is to come; events of it and of later ones, which a run had that
            was killed in it, no longer count.

    Raises:
        InputError: where TensorBoard is not installed.
    """

    def __init__(self, folder: Path, first: int) -> None:
        check_board()
        from torch.utils.tensorboard import SummaryWriter

        self._writer: Any = SummaryWriter(str(folder), purge_step=first if first > 1 else None)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._writer.close()

    def epoch(self, epoch: Epoch) -> None:
        """Add an epoch to the curves."""
        curves = {
            "loss/training": epoch.training_loss,
            "loss/validation": epoch.validation_loss,
            "learning rate": epoch.learning_rate,
            "seconds": epoch.seconds,
            "gradient norm": epoch.gradient_norm,
        }
        for name, value in curves.items():
            if value is not None:
                self._writer.add_scalar(name, value, epoch.epoch)
        self._writer.flush()

    def sound(self, name: str, waveform: np.ndarray, sample_rate: int, epoch: int) -> None:
        """Add a waveform (channels, samples), as the mean of its channels."""
        mono = np.clip(waveform.mean(0), -1, 1)  # it would print a warning of its own
        self._writer.add_audio(name, mono, epoch, sample_rate)

    def picture(self, name: str, path: Path, epoch: int) -> None:
        """Add a PNG file."""
        from matplotlib.image import imread

        self._writer.add_image(name, imread(path)[..., :3], epoch, dataformats="HWC")


def check_board() -> None:
    """Raise `InputError` where TensorBoard is not installed."""
    if importlib.util.find_spec("tensorboard") is None:
        raise InputError("tensorboard: is not installed, takes `pip install 'sepfast[log]'`")
