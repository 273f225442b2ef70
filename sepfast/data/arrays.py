"""Arrays in files, read so that nothing in them is run."""

from __future__ import annotations

import zipfile
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sepfast.errors import InputError


def read_array(path: Path) -> NDArray[np.generic]:
    """The real numbers of a `.npy` file, in their own shape and type; nothing is unpickled.

    Args:
        path: the file.

    Raises:
        InputError: for a file that is broken, or holds anything but real numbers.
    """
    try:
        array: NDArray[np.generic] = np.load(path, allow_pickle=False)
    except (ValueError, EOFError, OSError) as error:
        raise InputError(f"{path}: is broken or no .npy file of numbers") from error
    if array.dtype.kind not in "biuf":
        raise InputError(f"{path}: holds {array.dtype} values, takes real numbers")
    return array


def read_arrays(path: Path, names: Iterable[str]) -> list[NDArray[Any]]:
    """Arrays of a `.npz` file, in the order of their names; nothing is unpickled.

    Args:
        path: the file.
        names: of the arrays that are wanted; there may be others.

    Raises:
        InputError: for a file that is missing or broken, or lacks one of them.
    """
    try:
        # Opened here, since numpy leaves a broken archive open.
        with path.open("rb") as file, np.load(file, allow_pickle=False) as arrays:
            return [arrays[name] for name in names]
    # TypeError: of a file with one array, which numpy gives as it is, in no `with` block.
    except (OSError, ValueError, TypeError, KeyError, EOFError, zipfile.BadZipFile) as error:
        raise InputError(f"{path}: is broken or no .npz file of these arrays") from error
