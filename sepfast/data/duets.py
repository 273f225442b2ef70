"""What system E is judged by: mixtures whose clean target is known, and the manifest of them.

A duet is a snippet of the one who is to be heard and one of somebody else, at 0 dB; a pair is two
files, a mixture and its clean target (`pairs`).

Where the paper is silent: 0 dB is over the snippet, with whatever silence is in it; the target is
as loud as it was recorded and the other is scaled; the sum is neither clipped nor normalised.
Source: E (Venkataramani et al. 2019), section 4.1.
"""

from __future__ import annotations

import csv
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from sepfast.data.clips import (
    SAMPLE_RATE,
    Clip,
    Floats,
    Snippet,
    SnippetDraw,
    by_folder,
    find_audio,
    open_clip,
)
from sepfast.data.pairs import Pair, find_pairs, is_pair_folder
from sepfast.errors import InputError
from sepfast.files import PathLike, atomic

__all__ = [
    "Duet",
    "Pair",
    "at_equal_power",
    "draw_duets",
    "find_pairs",
    "is_duet_manifest",
    "is_pair_folder",
    "read_duets",
    "write_duets",
]

_HEADER = ("name", "target", "target start", "interferer", "interferer start", "samples", "seed")
#: First number of seeds, which sets these draws apart from those for training.
_DUETS = 5
_NAME = re.compile(r"\w[\w.-]*")
_NOT_IN_NAMES = re.compile(r"[^\w.-]+")


@dataclass(frozen=True)
class Duet:
    """A snippet of the target and one of an interferer.

    Attributes:
        name: what tells it apart from others, fit for a file name.
        target: whom it is to be separated from the rest.
        target_start: first sample of its snippet; negative where silence comes first.
        interferer: who else is heard.
        interferer_start: as of the target.
        samples: length of the snippets at 16 kHz.
        seed: what they were drawn with.
    """

    name: str
    target: Clip
    target_start: int
    interferer: Clip
    interferer_start: int
    samples: int
    seed: int

    def waveforms(self, cache_dir: PathLike | None = None) -> Floats:
        """What is heard at 16 kHz, (3, samples): the mixture, the target, the interferer.

        The mixture is the sum of the others, which have the same power.

        Args:
            cache_dir: where decoded audio is kept; None for the user's cache.

        Raises:
            InputError: where a file cannot be decoded, or a snippet is silent.
        """
        target = self.target.read(self.target_start, self.samples, cache_dir)
        interferer = self.interferer.read(self.interferer_start, self.samples, cache_dir)
        for clip, snippet in ((self.target, target), (self.interferer, interferer)):
            if not snippet.any():
                raise InputError(f"{clip.audio}: is silent in {self.name}, takes what is heard")
        return at_equal_power(target, interferer)


def at_equal_power(target: Floats, interferer: Floats) -> Floats:
    """Mixture, target and interferer, (3, samples), the interferer scaled to the target's power.

    Args:
        target: (samples,).
        interferer: (samples,), not silent.
    """
    powers = [float(np.square(each, dtype=np.float64).sum()) for each in (target, interferer)]
    scaled = (interferer * np.float64(np.sqrt(powers[0] / powers[1]))).astype(np.float32)
    return np.stack([target + scaled, target, scaled])


def draw_duets(
    targets: Sequence[Clip],
    interferers: Sequence[Clip],
    count: int,
    seed: int,
    seconds: float = 2.0,
    *,
    cache_dir: PathLike | None = None,
) -> list[Duet]:
    """Duets by the paper's rule: of each side a speaker at random, an utterance, a snippet of it.

    A speaker is whose recordings are in one folder. Silent snippets are drawn again, so that the
    recordings are read.

    Args:
        targets: recordings of those who are to be heard.
        interferers: recordings of those who are to be taken away.
        count: how many duets, at least 1.
        seed: of the draw, 0 or more. Equal seeds and recordings give equal duets.
        seconds: length of a snippet.
        cache_dir: where decoded audio is kept; None for the user's cache.

    Raises:
        InputError: for numbers out of range, where either side has no recordings, or where a file
            cannot be decoded or nothing but silence is drawn.
    """
    samples = round(seconds * SAMPLE_RATE)
    if count < 1 or seed < 0 or samples < 1:
        raise InputError(
            f"count, seed, seconds: got {count}, {seed}, {seconds}, take at least 1, 0 and a sample"
        )
    random = np.random.default_rng((_DUETS, seed))
    sides = [SnippetDraw(by_folder(clips), samples, cache_dir) for clips in (targets, interferers)]
    digits = len(str(count))
    return [
        _duet(f"{number:0{digits}}", sides[0].draw(random), sides[1].draw(random), seed)
        for number in range(1, count + 1)
    ]


def _duet(number: str, target: Snippet, interferer: Snippet, seed: int) -> Duet:
    """A duet of two snippets; its number tells it apart, the rest of its name is for people."""
    heard = ("-".join(each.clip.key.split("/")[-2:]) for each in (target, interferer))
    name = _NOT_IN_NAMES.sub("-", "_".join((number, *heard)))
    return Duet(
        name,
        target.clip,
        target.start,
        interferer.clip,
        interferer.start,
        len(target.waveform),
        seed,
    )


def write_duets(path: PathLike, duets: Sequence[Duet]) -> None:
    """Write a list of duets as CSV, a line for each.

    Recordings stand there by their keys, so that a data set can be moved.

    Raises:
        InputError: where there are no duets, or the file cannot be written.
    """
    if not duets:
        raise InputError("duets: got none, takes at least one")
    with atomic(path) as temporary, temporary.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(_HEADER)
        for each in duets:
            target, interferer = each.target.key, each.interferer.key
            starts = each.target_start, each.interferer_start
            numbers = each.samples, each.seed
            writer.writerow((each.name, target, starts[0], interferer, starts[1], *numbers))


def is_duet_manifest(path: PathLike) -> bool:
    """Whether a file is a list of duets, by its first line."""
    try:
        with Path(path).open(encoding="utf-8-sig") as file:
            return tuple(next(csv.reader([file.readline(1000)]), [])) == _HEADER
    except (OSError, UnicodeDecodeError, csv.Error):
        return False


def read_duets(path: PathLike, data: PathLike, *, cache_dir: PathLike | None = None) -> list[Duet]:
    """The duets of a manifest.

    Args:
        path: what `write_duets` wrote.
        data: the folder of the recordings, of the same layout as the one that they were found in;
            another copy may have its names in capitals or small letters.
        cache_dir: where a recording is decoded to that does not say how long it is.

    Raises:
        InputError: for a file that is missing or no manifest, or names a recording that is not
            there or cannot be read, with the line.
    """
    path = Path(path)
    if not Path(data).is_dir():
        raise InputError(f"{data}: there is no such folder")
    known = _Known(find_audio(data), cache_dir)
    duets: dict[str, Duet] = {}
    for line, fields in _rows(path):
        try:
            duet = _read_duet(fields, known)
        except KeyError as error:
            raise InputError(
                f"{path}: line {line} names {error.args[0]}, which is not in {data}"
            ) from error
        except InputError as error:
            raise InputError(f"{path}: line {line} names what cannot be read: {error}") from error
        except ValueError as error:
            raise InputError(f"{path}: line {line} takes {', '.join(_HEADER)}") from error
        if duet.name in duets:
            raise InputError(f"{path}: line {line} has the name of another, {duet.name}")
        duets[duet.name] = duet
    if not duets:
        raise InputError(f"{path}: holds no duets")
    return list(duets.values())


class _Known:
    """The recordings of a folder by their keys, each opened once."""

    def __init__(self, found: Mapping[str, Sequence[Path]], cache_dir: PathLike | None) -> None:
        self._found, self._cache_dir = found, cache_dir
        self._alike = {key.lower(): key for key in found}
        self._opened: dict[str, Clip] = {}

    def __getitem__(self, key: str) -> Clip:
        own = key if key in self._found else self._alike.get(key.lower())
        if own is None:
            raise KeyError(key)
        if own not in self._opened:
            self._opened[own] = open_clip(own, self._found[own], self._cache_dir)
        return self._opened[own]


def _rows(path: Path) -> Iterator[tuple[int, list[str]]]:
    """Every line behind the header that is not blank, with its number."""
    try:
        text = path.read_text("utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"{path}: cannot be read, takes a manifest of duets") from error
    rows = csv.reader(text.splitlines())
    if tuple(next(rows, [])) != _HEADER:
        raise InputError(f"{path}: is no manifest of duets, takes a first line {','.join(_HEADER)}")
    for fields in rows:
        if fields:
            yield rows.line_num, fields


def _read_duet(fields: list[str], known: _Known) -> Duet:
    """A line's duet; `ValueError`, `KeyError` or `InputError` where it is none."""
    name, target, target_start, interferer, interferer_start, samples, seed = fields
    starts, numbers = (int(target_start), int(interferer_start)), (int(samples), int(seed))
    if not _NAME.fullmatch(name) or numbers[0] < 1 or numbers[1] < 0:
        raise ValueError
    return Duet(name, known[target], starts[0], known[interferer], starts[1], *numbers)
