"""TIMIT: finding the utterances of its speakers by dialect and sex.

Layout, in capitals or small letters, in any folder beneath the one that is given: DR1 to DR8, with
or without TRAIN or TEST above them, and in them SPEAKER/NAME.WAV. A speaker's folder starts with F
or M, the sex. Files are NIST SPHERE, or RIFF under the same name, or converted copies beside them
(NAME.WAV.wav).
"""

from __future__ import annotations

import re
from collections.abc import Callable, Collection
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from sepfast.data.clips import Clip, find_audio, open_clip, original_first
from sepfast.data.usable import usable
from sepfast.errors import InputError
from sepfast.files import PathLike

Sex = Literal["f", "m"]

_DIALECT = re.compile(r"dr([1-8])", re.IGNORECASE)
#: What tells an utterance apart: dialect, speaker and name, in capitals.
_Place = tuple[int, str, str]


@dataclass(frozen=True)
class TimitUtterance:
    """A sentence of one speaker.

    Attributes:
        clip: the recording.
        dialect: region of the speaker, 1 to 8.
        speaker: who, in capitals, as FCJF0.
        name: the sentence, in capitals, as SA1.
    """

    clip: Clip
    dialect: int
    speaker: str
    name: str

    @property
    def sex(self) -> Sex:
        """Of the speaker."""
        return "f" if self.speaker.startswith("F") else "m"


def find_timit(
    root: PathLike,
    *,
    dialects: Collection[int] | None = None,
    cache_dir: PathLike | None = None,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> tuple[list[TimitUtterance], list[str]]:
    """The utterances beneath a folder by dialect, speaker and name, and the reason of each skipped.

    Those of TRAIN and TEST are taken alike; no speaker is in both. Of copies of an utterance one is
    taken, the original before a converted one, if it can be read.

    Args:
        root: TIMIT's folder, or one that holds it, in the layout above.
        dialects: those that are looked at; None for all.
        cache_dir: where a file is decoded to that does not say how long it is.
        progress: is told how many utterances are looked at, and of how many.

    Raises:
        InputError: `root` does not exist, or there is no usable utterance; it says what was
            looked for.
    """
    root = Path(root)
    if not root.is_dir():
        raise InputError(f"{root}: there is no such folder")
    placed, reasons = _placed(root, dialects)
    utterances, unusable = usable(
        sorted(placed.items()), lambda one: _utterance(*one, cache_dir), progress
    )
    reasons += unusable
    if not utterances:
        wanted = f" of {', '.join(f'DR{one}' for one in sorted(dialects))}" if dialects else ""
        first = f"; skipped {len(reasons)}, the first because {reasons[0]}" if reasons else ""
        raise InputError(
            f"{root}: holds no utterances of TIMIT{wanted}; looked for DR1/SPEAKER/NAME.WAV to "
            f"DR8/…, also in TRAIN/ and TEST/ and in folders above, in any case{first}"
        )
    return utterances, reasons


def _placed(
    root: Path, dialects: Collection[int] | None
) -> tuple[dict[_Place, list[tuple[str, Path]]], list[str]]:
    """The files of each utterance with their keys; and for each folder of nobody, the reason."""
    placed: dict[_Place, list[tuple[str, Path]]] = {}
    nobody: set[Path] = set()
    for key, paths in find_audio(root).items():
        folder = paths[0].absolute().parent
        region = _DIALECT.fullmatch(folder.parent.name)
        if not region or (dialects is not None and int(region[1]) not in dialects):
            continue
        speaker = folder.name.upper()
        if not speaker.startswith(("F", "M")):
            nobody.add(paths[0].parent)
            continue
        place = int(region[1]), speaker, key.rpartition("/")[2].upper()
        placed.setdefault(place, []).extend((key, path) for path in paths)
    reasons = [f"{folder} is no speaker's, takes a name with F or M first" for folder in nobody]
    return placed, sorted(reasons)


def _utterance(
    place: _Place, copies: list[tuple[str, Path]], cache_dir: PathLike | None
) -> TimitUtterance:
    """The utterance in the first of its files that can be read; `InputError` where none can."""
    keys = {path: key for key, path in copies}
    paths = sorted(keys, key=original_first)
    clip = open_clip("", paths, cache_dir)
    return TimitUtterance(Clip(keys[clip.audio], clip.audio, clip.samples), *place)
