"""Mixtures of talkers: an utterance with those of other speakers, and the manifest that lists them.

Rules, one set for both data sets: of each speaker, up to 200 utterances at random; of each, three
mixtures, with utterances of other speakers that differ from it by 2 s at most (all of GRID's last
3 s). The other utterance is cut at its end where it is longer, and has silence on both sides
evenly where it is shorter. Three talkers are three speakers.

Where the text is silent: the levels are as they were recorded, and the sum is neither scaled nor
clipped. The other speakers are drawn from the utterances given, so that a split that is mixed by
itself stays disjoint. No utterance interferes with the same target twice.
Source: D (Morrone et al. 2019), section 3.1.
"""

from __future__ import annotations

import csv
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from sepfast.data.landmarks import Floats
from sepfast.data.talkers import SAMPLE_RATE, Utterance, by_speaker, speaker_random
from sepfast.errors import InputError
from sepfast.files import PathLike, atomic


@dataclass(frozen=True)
class Mixture:
    """An utterance among others.

    Attributes:
        target: who is to be heard; the mixture is as long.
        interferers: who else talks, each another speaker.
        offsets: the sample of the mixture at which each of them starts.
        seed: what they were drawn with.
    """

    target: Utterance
    interferers: tuple[Utterance, ...]
    offsets: tuple[int, ...]
    seed: int

    @property
    def key(self) -> str:
        """The names of all, which tells mixtures apart."""
        others = zip(self.interferers, self.offsets, strict=True)
        return " + ".join((self.target.key, *(f"{other.key}@{at}" for other, at in others)))

    @property
    def utterances(self) -> tuple[Utterance, ...]:
        """The target, then the others."""
        return (self.target, *self.interferers)

    def waveforms(self, cache_dir: PathLike | None = None) -> Floats:
        """What is heard at 16 kHz: (1 + talkers, samples), the mixture, the target, the others.

        The mixture is the sum of the other rows.

        Args:
            cache_dir: where resampled audio is kept; None for the user's cache.

        Raises:
            InputError: where a file cannot be decoded.
        """
        parts = np.zeros((1 + len(self.utterances), self.target.samples), np.float32)
        for row, utterance, offset in zip(
            parts[1:], self.utterances, (0, *self.offsets), strict=True
        ):
            heard = utterance.waveform(cache_dir)[: max(0, len(row) - offset)]
            row[offset : offset + len(heard)] = heard
        parts[0] = parts[1:].sum(axis=0)
        return parts


def mix(target: Utterance, interferers: Sequence[Utterance], seed: int = 0) -> Mixture:
    """An utterance with others, each cut at its end, or with silence evenly on both sides.

    Where the silence is odd, the sample more is at the end.

    Raises:
        InputError: where there are no others, or two of all are the same speaker's.
    """
    speakers = [target.speaker, *(other.speaker for other in interferers)]
    if len(speakers) < 2 or len(set(speakers)) < len(speakers):
        raise InputError(f"interferers: got {', '.join(speakers)}, takes different speakers")
    offsets = tuple(max(0, target.samples - other.samples) // 2 for other in interferers)
    return Mixture(target, tuple(interferers), offsets, seed)


def draw_mixtures(
    utterances: Sequence[Utterance],
    seed: int,
    *,
    talkers: int = 2,
    utterances_per_speaker: int = 200,
    mixtures_per_utterance: int = 3,
    tolerance: float = 2.0,
) -> tuple[list[Mixture], list[str]]:
    """Mixtures by the paper's rules, and for each utterance with too few, the reason.

    Args:
        utterances: of several speakers, in any order.
        seed: of the draw, 0 or more. Equal seeds and utterances give equal mixtures.
        talkers: in a mixture, the target included.
        utterances_per_speaker: how many are targets, or all where there are fewer.
        mixtures_per_utterance: how many there are of each.
        tolerance: seconds by which an utterance may be longer or shorter than the target.

    Raises:
        InputError: for numbers out of range, or where nothing can be mixed.
    """
    counts = (talkers - 1, utterances_per_speaker, mixtures_per_utterance)
    if min(counts) < 1 or seed < 0 or not tolerance >= 0:
        raise InputError(
            "talkers, utterances_per_speaker, mixtures_per_utterance, seed, tolerance: got "
            f"{talkers}, {utterances_per_speaker}, {mixtures_per_utterance}, {seed}, {tolerance}, "
            "take at least 2, 1, 1, 0 and 0"
        )
    pool = _Pool(by_speaker(utterances), round(tolerance * SAMPLE_RATE))
    mixtures: list[Mixture] = []
    reasons: list[str] = []
    for speaker, own in pool.spoken.items():
        random = speaker_random(seed, speaker)
        for i in sorted(random.permutation(len(own))[:utterances_per_speaker]):
            used: set[str] = set()
            for done in range(mixtures_per_utterance):
                others = pool.draw(own[i], talkers - 1, used, random)
                if not others:
                    reasons.append(
                        f"{own[i].key}: got {done} of {mixtures_per_utterance} mixtures, since no "
                        f"{talkers - 1} other speakers have another utterance within {tolerance:g} "
                        "s of it"
                    )
                    break
                used.update(other.key for other in others)
                mixtures.append(mix(own[i], others, seed))
    if not mixtures:
        first = f"; the first because {reasons[0]}" if reasons else ""
        raise InputError(f"utterances: nothing can be mixed{first}")
    return mixtures, reasons


class _Pool:
    """Who can be heard beside somebody else."""

    def __init__(self, spoken: Mapping[str, list[Utterance]], tolerance: int) -> None:
        self.spoken, self._tolerance = spoken, tolerance
        self._lengths = {
            speaker: np.array([each.samples for each in own]) for speaker, own in spoken.items()
        }

    def draw(
        self, target: Utterance, count: int, used: set[str], random: np.random.Generator
    ) -> list[Utterance]:
        """Utterances of as many other speakers, none of them used; none where there are too few."""
        others = [speaker for speaker in self.spoken if speaker != target.speaker]
        drawn: list[Utterance] = []
        for i in random.permutation(len(others)):
            drawn += self._one_of(others[i], target.samples, used, random)
            if len(drawn) == count:
                return drawn
        return []

    def _one_of(
        self, speaker: str, samples: int, used: set[str], random: np.random.Generator
    ) -> list[Utterance]:
        """One of a speaker's utterances that are nearly as long; none where all are used."""
        near = np.flatnonzero(np.abs(self._lengths[speaker] - samples) <= self._tolerance)
        while len(near):
            at = int(random.integers(len(near)))
            found = self.spoken[speaker][near[at]]
            if found.key not in used:
                return [found]
            near = np.delete(near, at)
        return []


def write_manifest(path: PathLike, mixtures: Sequence[Mixture]) -> None:
    """Write a list of mixtures as CSV: the target, the seed, then each interferer and its offset.

    Utterances stand there by their keys, SPEAKER/NAME, so that a data set can be moved.

    Raises:
        InputError: where there are no mixtures, or the file cannot be written.
    """
    if not mixtures:
        raise InputError("mixtures: got none, takes at least one")
    most = max(len(mixture.interferers) for mixture in mixtures)
    numbered = (f"{name} {i}" for i in range(1, most + 1) for name in ("interferer", "offset"))
    with atomic(path) as temporary, temporary.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(("target", "seed", *numbered))
        for mixture in mixtures:
            others = zip(mixture.interferers, mixture.offsets, strict=True)
            pairs = (field for other, at in others for field in (other.key, at))
            writer.writerow((mixture.target.key, mixture.seed, *pairs))


def read_manifest(path: PathLike, utterances: Sequence[Utterance]) -> list[Mixture]:
    """The mixtures of a manifest.

    Args:
        path: what `write_manifest` wrote.
        utterances: of the data set, at least all that the manifest names.

    Raises:
        InputError: for a file that is missing or no manifest, or names an utterance that is not
            there, with the line.
    """
    path = Path(path)
    known = {utterance.key: utterance for utterance in utterances}
    mixtures = []
    for line, fields in _rows(path):
        try:
            mixtures.append(_mixture(fields, known))
        except KeyError as error:
            raise InputError(
                f"{path}: line {line} names {error.args[0]}, which is not among the utterances"
            ) from error
        except ValueError as error:
            raise InputError(
                f"{path}: line {line} takes a target, a seed, and pairs of an interferer and its "
                "offset"
            ) from error
    if not mixtures:
        raise InputError(f"{path}: holds no mixtures")
    return mixtures


def _rows(path: Path) -> Iterator[tuple[int, list[str]]]:
    """Every line behind the header that is not blank, with its number."""
    try:
        text = path.read_text("utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"{path}: cannot be read, takes a manifest of mixtures") from error
    rows = csv.reader(text.splitlines())
    if next(rows, [])[:2] != ["target", "seed"]:
        raise InputError(f"{path}: is no manifest, takes a first line target,seed,interferer 1,…")
    for fields in rows:
        if fields:
            yield rows.line_num, fields


def _mixture(fields: list[str], known: Mapping[str, Utterance]) -> Mixture:
    """A line's mixture; `ValueError` or `KeyError` where it is none."""
    target, seed, *pairs = fields
    while pairs and not pairs[-1]:  # a mixture of fewer talkers than another line's
        pairs.pop()
    offsets = tuple(int(at) for at in pairs[1::2])
    if len(pairs) < 2 or len(pairs) % 2 or min(offsets) < 0 or int(seed) < 0:
        raise ValueError
    interferers = tuple(known[key] for key in pairs[::2])
    return Mixture(known[target], interferers, offsets, int(seed))
