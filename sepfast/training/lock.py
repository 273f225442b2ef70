"""One training in a folder at a time.

The folder itself is locked, by the kernel and for the process, so that nothing is left to clear
away behind one that was killed. Processes of one machine see each other's locks; over a network
file system those of other machines may not be seen, and where a folder cannot be locked at all,
training goes on without, and says so.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from sepfast.errors import InputError
from sepfast.files import PathLike

try:
    import fcntl
except ImportError:  # not on Windows
    fcntl = None  # type: ignore[assignment]

#: Device and inode of a folder -> the descriptor that holds its lock, and the thread that took it.
_HELD: dict[tuple[int, int], tuple[int, int]] = {}


@contextmanager
def locked(path: PathLike, note: Callable[[str], None] = lambda text: None) -> Iterator[None]:
    """Keep other processes and threads from training in a folder while the block runs.

    The thread that has the lock may take it again.

    Args:
        path: the folder; made where it is missing, and removed again where it ends empty.
        note: is told where it cannot be locked.

    Raises:
        InputError: where another has the lock, or the folder cannot be made.
    """
    path = Path(path)
    made = not path.exists()
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(f"{path}: cannot be written ({error.strerror})") from error
    try:
        with _lock(path, note):
            yield
    finally:
        if made:
            with suppress(OSError):  # as soon as anything is in it
                path.rmdir()


@contextmanager
def _lock(path: Path, note: Callable[[str], None]) -> Iterator[None]:
    about = path.stat()
    folder = about.st_dev, about.st_ino
    if fcntl is None or _HELD.get(folder, (0, 0))[1] == threading.get_ident():
        yield
        return
    descriptor = os.open(path, os.O_RDONLY)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise InputError(
                f"{path}: another process is training there, takes a folder of its own"
            ) from None
        except OSError as error:
            note(f"{path}: cannot be locked against a second training ({error.strerror})")
        _HELD[folder] = descriptor, threading.get_ident()
        yield
    finally:
        if _HELD.get(folder, (None, 0))[0] == descriptor:
            del _HELD[folder]
        os.close(descriptor)


def _let_go() -> None:
    """Close a forked child's copies: the workers of a run that is killed outlive it by seconds."""
    for descriptor, _ in _HELD.values():
        os.close(descriptor)
    _HELD.clear()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_let_go)
