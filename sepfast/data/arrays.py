"""Arrays that a user's program wrote."""

from __future__ import annotations

from pathlib import Path

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
