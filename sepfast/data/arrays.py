"""Arrays in files, read so that nothing in them is run."""

from __future__ import annotations

import tokenize
import zipfile
import zlib
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sepfast.errors import InputError

#: What numpy raises for a broken array, whose header is read as Python is.
_BROKEN = (OSError, EOFError, ValueError, SyntaxError, tokenize.TokenError)
#: And for a broken archive; RuntimeError where it seems encrypted, or packed in an unknown way.
_BROKEN_ARCHIVE = (*_BROKEN, KeyError, RuntimeError, zipfile.BadZipFile, zlib.error)


def read_array(path: Path) -> NDArray[np.generic]:
    """The real numbers of a `.npy` file, in their own shape and type; nothing is unpickled.

    Args:
        path: the file.

    Raises:
        InputError: for a file that is broken, or holds anything but real numbers.
    """
    try:
        with path.open("rb") as file:
            array: NDArray[np.generic] = np.lib.format.read_array(file, allow_pickle=False)
    except _BROKEN as error:
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
            # Of a part that is no array numpy gives the bytes; they become one of no dimension.
            return [np.asarray(arrays[name]) for name in names]
    # TypeError: of a file with one array, which numpy gives as it is, in no `with` block.
    except (*_BROKEN_ARCHIVE, TypeError) as error:
        raise InputError(f"{path}: is broken or no .npz file of these arrays") from error
