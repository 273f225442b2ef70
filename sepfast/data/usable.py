"""Looking through a data set: what can be used, and why the rest cannot."""

from __future__ import annotations

from collections.abc import Callable, Collection
from pathlib import Path
from typing import TypeVar

from sepfast.errors import InputError

Place = TypeVar("Place")
Found = TypeVar("Found")


def usable(
    places: Collection[Place], make: Callable[[Place], Found], progress: Callable[[int, int], None]
) -> tuple[list[Found], list[str]]:
    """What can be made of places, in their order, and the reason of each that is skipped.

    Args:
        places: files, or whatever stands for one recording each.
        make: looks at one; raises `InputError` where it cannot be used.
        progress: is told how many have been looked at, and of how many.
    """
    found: list[Found] = []
    reasons: list[str] = []
    for done, place in enumerate(places, 1):
        try:
            found.append(make(place))
        except InputError as error:
            reasons.append(str(error))
        progress(done, len(places))
    return found, reasons


def visible(folder: Path) -> list[Path]:
    """What is in a folder, sorted, less what is hidden; nothing where there is no folder."""
    if not folder.is_dir():
        return []
    return sorted(entry for entry in folder.iterdir() if not entry.name.startswith("."))
