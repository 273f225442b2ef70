"""Statistics of songs, made once and kept.

N sources, C channels, F bins. They are kept in a file whose name follows from all that they depend
on: the framing, and of each song the files with their sizes and times of change, the sample rate,
the channels, the sources and the span. In what order the songs come makes no difference to them.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Protocol, runtime_checkable

import numpy as np
import torch
from torch import Tensor

from sepfast.data.arrays import read_arrays
from sepfast.data.examples import statistics
from sepfast.data.excerpts import Recording
from sepfast.data.song_audio import cache_folder
from sepfast.errors import InputError
from sepfast.files import PathLike, atomic
from sepfast.reference import Framing

#: Of the files; to be raised when what is computed changes.
_FORMAT = 1


@runtime_checkable
class KnownRecording(Recording, Protocol):
    """A recording that says what its samples follow from; `SongAudio` is one."""

    def fingerprint(self) -> tuple[str, ...]:
        """What changes whenever the samples may have changed."""


def kept_statistics(
    songs: Sequence[Recording],
    framing: Framing,
    *,
    cache_dir: PathLike | None = None,
    progress: Callable[[int, int], None] = lambda done, total: None,
    note: Callable[[str], None] = lambda text: None,
    device: torch.device | str = "cpu",
) -> tuple[Tensor, Tensor]:
    """What `statistics` gives, read from a file where it has been made before.

    Args:
        songs: at least one. Where one of them has no `fingerprint`, nothing is kept.
        framing: the model's framing.
        cache_dir: the files are in its folder `statistics`; None for the user's cache.
        progress: as in `statistics`; of what is kept, it is told once that all is done.
        note: is told of a file that is broken, and of one that cannot be written.
        device: as in `statistics`.

    Returns:
        Minimum and maximum, each (N * C + C, F), as `statistics` gives them.

    Raises:
        InputError: for no songs, or a file of a song that cannot be read.
    """
    known = [song for song in songs if isinstance(song, KnownRecording)]
    if not songs or len(known) < len(songs):
        return statistics(songs, framing, progress, device)
    path = cache_folder(cache_dir) / "statistics" / f"{_key(known, framing)}.npz"
    found = _found(path, framing.bins, note)
    if found is not None:
        total = sum(framing.frames(song.samples) for song in songs)
        progress(total, total)
        return found
    made = statistics(songs, framing, progress, device)
    _keep(made, path, note)
    return made


def _key(songs: Sequence[KnownRecording], framing: Framing) -> str:
    """A name that changes with the songs, and with what is made of them."""
    about = sorted("|".join(song.fingerprint()) for song in songs)
    text = "\n".join((str(_FORMAT), framing.to_text(), *about))
    return hashlib.sha256(os.fsencode(text)).hexdigest()[:32]


def _found(path: Path, bins: int, note: Callable[[str], None]) -> tuple[Tensor, Tensor] | None:
    """What is kept at `path`; None where there is nothing, or, with a note, nothing of use."""
    if not os.path.exists(path):
        return None
    try:
        minimum, maximum = read_arrays(path, ("minimum", "maximum"))
    except InputError:
        note(f"{path}: is broken, the statistics are made anew")
        return None
    right = minimum.shape == maximum.shape and minimum.shape[1:] == (bins,)
    right = right and minimum.dtype == maximum.dtype == np.float32
    right = right and bool(np.isfinite([minimum, maximum]).all())
    if right and bool((minimum <= maximum).all()):
        return torch.from_numpy(minimum), torch.from_numpy(maximum)
    note(f"{path}: holds no statistics, they are made anew")
    return None


def _keep(made: tuple[Tensor, Tensor], path: Path, note: Callable[[str], None]) -> None:
    """Write statistics; a run that has them goes on without, too."""
    try:
        with atomic(path) as temporary:
            np.savez(temporary, minimum=made[0].numpy(), maximum=made[1].numpy())
    except (InputError, OSError) as error:
        reason = error.strerror if isinstance(error, OSError) else error
        note(f"{path}: statistics cannot be kept, the next run will make them anew ({reason})")
