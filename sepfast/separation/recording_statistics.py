"""What is usual for a speaker, as far as enhancing needs it: two sets of means and deviations.

F bins, 136 values of motion. Of the three sets that training has (`sepfast.data.SpeakerStatistics`)
a network is normalised by two, neither of which takes clean speech: they are measured on any
recordings in which the speaker is filmed, or on the one alone that is to be enhanced.
"""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple, Protocol

import numpy as np

from sepfast.data.arrays import read_arrays
from sepfast.data.landmarks import COLUMNS
from sepfast.data.speaker_statistics import Moments
from sepfast.errors import InputError
from sepfast.files import PathLike, atomic


class Statistics(Protocol):
    """Whatever has the two sets, such as `sepfast.data.SpeakerStatistics`."""

    @property
    def mixtures(self) -> Moments:
        """Of the compressed magnitudes of what is heard while the speaker talks, (F,)."""

    @property
    def motion(self) -> Moments:
        """Of the motion of the speaker's landmarks, (136,)."""


class RecordingStatistics(NamedTuple):
    """The two sets alone; see `Statistics`."""

    mixtures: Moments
    motion: Moments


def write_statistics(path: PathLike, statistics: Statistics) -> None:
    """Write both sets: an .npz of mixtures_mean, mixtures_deviation, motion_mean, motion_deviation.

    Args:
        path: the file, `*.npz`.
        statistics: of `Enhancer.statistics` or `sepfast.data.speaker_statistics`.

    Raises:
        InputError: for another suffix, or where the file cannot be written.
    """
    path = Path(path)
    if path.suffix.lower() != ".npz":
        raise InputError(f"{path}: takes a name that ends in .npz for statistics")
    mixtures, motion = statistics.mixtures, statistics.motion
    with atomic(path) as temporary, temporary.open("wb") as file:
        np.savez(
            file,
            mixtures_mean=mixtures.mean,
            mixtures_deviation=mixtures.deviation,
            motion_mean=motion.mean,
            motion_deviation=motion.deviation,
        )


def read_statistics(path: PathLike) -> RecordingStatistics:
    """Read what `write_statistics` wrote; whether it fits a model is seen when it is used.

    Raises:
        InputError: for a file that is missing, broken or holds something else.
    """
    path = Path(path)
    if not path.is_file():
        raise InputError(f"{path}: there is no such file; takes statistics, .npz")
    try:
        mixtures, motion = (
            Moments(*read_arrays(path, [f"{name}_{part}" for part in Moments._fields]))
            for name in RecordingStatistics._fields
        )
    except InputError as error:
        raise InputError(
            f"{path}: is no file of statistics, takes what write_statistics wrote"
        ) from error
    return RecordingStatistics(mixtures, motion)


def check_statistics(statistics: Statistics, bins: int) -> None:
    """Raise `InputError` for statistics that nothing can be normalised by.

    Args:
        statistics: the two sets.
        bins: F.
    """
    sets = {"mixtures": (statistics.mixtures, bins), "motion": (statistics.motion, COLUMNS)}
    for name, (moments, features) in sets.items():
        for part, values in zip(Moments._fields, moments, strict=True):
            if values.shape != (features,) or values.dtype.kind != "f":
                raise InputError(
                    f"statistics: got {name} with a {part} of shape {values.shape} and type "
                    f"{values.dtype}, takes floats ({features},)"
                )
        if not (np.isfinite(moments.mean).all() and np.isfinite(moments.deviation).all()):
            raise InputError(f"statistics: got {name} with NaN or infinity, takes finite values")
        if not (moments.deviation > 0).all():
            raise InputError(f"statistics: got {name} with a deviation of 0 or less, takes above 0")
