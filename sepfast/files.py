"""Files by their names, and files that are either whole or not there."""

from __future__ import annotations

import errno
import os
import secrets
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

from sepfast.errors import InputError

PathLike = str | os.PathLike[str]

#: What writing alone can fail with: no room on the disk, in the quota, or for so long a file.
_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


def file_called(folder: Path, name: str, suffixes: Iterable[str]) -> Path | None:
    """The file of a name in a folder, by the first of some suffixes that there is; None for none.

    Not `with_suffix`: a name may hold a dot.
    """
    paths = (folder / f"{name}{suffix}" for suffix in suffixes)
    return next((path for path in paths if path.is_file()), None)


@contextmanager
def atomic(path: PathLike) -> Iterator[Path]:
    """Write a file under a temporary name beside it, renamed when the block ends well.

    Whatever ends the block otherwise, Ctrl-C included, removes the temporary file and leaves
    what stood at `path` as it was. The temporary name keeps the suffix, which some writers go by.

    Args:
        path: the file to write; its folder is made where it is missing.

    Yields:
        The temporary path.

    Raises:
        InputError: where the folder cannot be written, `path` is a folder, or the disk is full.
    """
    path = Path(path)
    if path.is_dir():  # as "." is, which has no name to put another beside
        raise InputError(f"{path}: is a folder, takes the name of a file")
    temporary = path.with_name(f".sepfast-{secrets.token_hex(8)}{path.suffix}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary.touch()
    except OSError as error:
        raise InputError(f"{path}: cannot be written ({error.strerror})") from error
    try:
        yield temporary
        temporary.replace(path)
    except OSError as error:
        if error.errno in _FULL:
            raise InputError(f"{path}: cannot be written ({error.strerror})") from error
        raise
    finally:
        temporary.unlink(missing_ok=True)
