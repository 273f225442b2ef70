"""What system E learns from: mixtures, and clean sounds that need not be in them.

TIMIT: the mixtures are of two speakers of DR1, one of either sex; the clean sounds are of DR2, of
the target's sex; the test is DR3. Any other data: two folders, mixtures/ and clean/.

Where the paper is silent: TRAIN and TEST of a dialect are one; mixtures are drawn anew in every
step, so that there is no number of them; speakers, or in folders recordings, are held out for
validation; in folders each recording is as likely, however long it is.
Source: E (Venkataramani et al. 2019), section 4.1.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal, NamedTuple

import numpy as np

from sepfast.data.clips import Clip
from sepfast.data.duets import Duet, draw_duets
from sepfast.data.pairs import CLEAN, MIXTURES, find_clips, find_pairs, name_of
from sepfast.data.timit import Sex, TimitUtterance, find_timit
from sepfast.errors import InputError
from sepfast.files import PathLike

Role = Literal["mixture", "target", "interferer", "clean"]
Progress = Callable[[int, int], None]

#: Dialects of the mixtures, of the clean sounds and of the test.
_MIXED, _CLEAN, _TEST = 1, 2, 3
#: Mixtures of a test, as in figure 3.
_TEST_DUETS = 30
#: First number of seeds, which sets what is held out apart from other draws.
_HELD_OUT = 6
_SEXES = {"f": "female", "m": "male"}


@dataclass(frozen=True)
class Part:
    """A recording, and what it is for.

    Attributes:
        clip: the recording.
        role: "mixture"; "target" or "interferer" of mixtures that are made; or "clean".
        speaker: who, in TIMIT; in folders the recording's name, which its partner has too.
    """

    clip: Clip
    role: Role
    speaker: str


@dataclass(frozen=True)
class StyleTransferParts:
    """The data of a run; no recording of one part is in another.

    Attributes:
        training: to learn from.
        validation: to tell the best epoch by.
        evaluation: to judge by; of TIMIT "train", mixtures of training speakers, and "test", of
            another dialect; of folders nothing.
        notes: what was skipped or is missing, a sentence each.
    """

    training: list[Part]
    validation: list[Part]
    evaluation: dict[str, list[Duet]] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)


def find_parts(
    data: PathLike,
    *,
    target: Sex = "f",
    seed: int = 0,
    validation: float = 0.2,
    paired: bool = False,
    cache_dir: PathLike | None = None,
    progress: Progress = lambda done, total: None,
) -> StyleTransferParts:
    """The recordings of a run by what they are for.

    Args:
        data: TIMIT, or a folder that holds mixtures/ and clean/.
        target: "f" or "m", whom of TIMIT's speakers a model is to separate from the other sex.
        seed: of what is held out and of the duets, 0 or more.
        validation: the fraction of the speakers of each role, or of the recordings in folders, that
            is held out: at least one of each role; 0 for none.
        paired: for the supervised system: of folders only the mixtures whose clean target is
            there, of TIMIT no clean sounds, since the mixtures' own targets are known.
        cache_dir: where decoded audio is kept; None for the user's cache.
        progress: is told how many files are looked at, and of how many.

    Raises:
        InputError: for arguments out of range, where there is no recording for a role, or too few
            to hold one out.
    """
    if target not in _SEXES:
        raise InputError(f"target: got {target!r}, takes 'f' or 'm'")
    if not 0 <= validation < 1 or seed < 0:
        raise InputError(
            f"validation, seed: got {validation}, {seed}, take 0 or more and below 1, and 0 or more"
        )
    data = Path(data)
    if not data.is_dir():
        raise InputError(f"{data}: there is no such folder")
    folders = [name for name in (MIXTURES, CLEAN) if (data / name).is_dir()]
    if len(folders) == 1:
        missing = CLEAN if folders[0] == MIXTURES else MIXTURES
        raise InputError(f"{data}: holds {folders[0]}/ but no {missing}/ beside it, takes both")
    search = _Search(data, seed, validation, paired, cache_dir, progress)
    return search.folders() if folders else search.timit(target)


class _Wanted(NamedTuple):
    """Whose recordings have a role."""

    role: Role
    dialect: int
    sex: Sex


@dataclass(frozen=True)
class _Search:
    """The arguments of `find_parts` that hold for any layout."""

    data: Path
    seed: int
    validation: float
    paired: bool
    cache_dir: PathLike | None
    progress: Progress

    def timit(self, target: Sex) -> StyleTransferParts:
        """The parts of TIMIT."""
        other: Sex = "m" if target == "f" else "f"
        roles = [_Wanted("target", _MIXED, target), _Wanted("interferer", _MIXED, other)]
        if not self.paired:
            roles.append(_Wanted("clean", _CLEAN, target))
        spoken, notes = find_timit(
            self.data,
            dialects=(_MIXED, _CLEAN, _TEST),
            cache_dir=self.cache_dir,
            progress=self.progress,
        )
        found = StyleTransferParts([], [], {}, notes)
        for number, role in enumerate(roles):
            self._assign(role, number, spoken, found)
        test = {role: _clips(spoken, _TEST, sex) for role, _, sex in roles[:2]}
        found.evaluation["train"] = self._duets(
            {role: _in_role(found.training, role) for role in test}
        )
        missing = [_SEXES[sex] for role, _, sex in roles[:2] if not test[role]]
        if missing:
            notes.append(
                f"{self.data}: DR{_TEST} has no {' and no '.join(missing)} speakers, so that there "
                "are no test mixtures"
            )
        else:
            found.evaluation["test"] = self._duets(test)
        return found

    def _assign(
        self,
        role: _Wanted,
        number: int,
        spoken: Sequence[TimitUtterance],
        found: StyleTransferParts,
    ) -> None:
        """Put the recordings of a role where they belong, speaker by speaker."""
        own = [each for each in spoken if (each.dialect, each.sex) == role[1:]]
        speakers = sorted({each.speaker for each in own})
        where = f"{_SEXES[role.sex]} speakers in DR{role.dialect}"
        if not speakers:
            raise InputError(
                f"{self.data}: holds no {where} for the role {role.role}, takes "
                f"DR{role.dialect}/{role.sex.upper()}…/NAME.WAV"
            )
        count = self._held(len(speakers), where)
        random = np.random.default_rng((_HELD_OUT, self.seed, number))
        held = {speakers[i] for i in random.permutation(len(speakers))[:count]}
        for each in own:
            part = found.validation if each.speaker in held else found.training
            part.append(Part(each.clip, role.role, each.speaker))

    def _duets(self, clips: Mapping[Role, Sequence[Clip]]) -> list[Duet]:
        return draw_duets(
            clips["target"],
            clips["interferer"],
            _TEST_DUETS,
            self.seed,
            cache_dir=self.cache_dir,
        )

    def folders(self) -> StyleTransferParts:
        """The parts of mixtures/ and clean/."""
        parts, notes = self._paired() if self.paired else self._unpaired()
        held = self._held_names(parts)
        return StyleTransferParts(
            [part for part in parts if part.speaker not in held],
            [part for part in parts if part.speaker in held],
            {},
            notes,
        )

    def _paired(self) -> tuple[list[Part], list[str]]:
        pairs, notes = find_pairs(self.data, cache_dir=self.cache_dir, progress=self.progress)
        mixtures = [_part(pair.mixture, "mixture") for pair in pairs]
        return mixtures + [_part(pair.target, "clean") for pair in pairs], notes

    def _unpaired(self) -> tuple[list[Part], list[str]]:
        parts: list[Part] = []
        notes: list[str] = []
        roles: dict[str, Role] = {MIXTURES: "mixture", CLEAN: "clean"}
        for folder, role in roles.items():
            clips, reasons = find_clips(
                self.data, folder, cache_dir=self.cache_dir, progress=self.progress
            )
            if not clips:
                first = f"; the first was skipped because {reasons[0]}" if reasons else ""
                raise InputError(
                    f"{self.data / folder}: holds no audio files that can be read{first}"
                )
            parts += [_part(clip, role) for clip in clips]
            notes += reasons
        return parts, notes

    def _held_names(self, parts: Sequence[Part]) -> set[str]:
        """The names that are held out; as many of both, in proportion, of mixtures and of clean."""
        named = [
            {part.speaker for part in parts if part.role == role} for role in ("mixture", "clean")
        ]
        wanted = [
            self._held(len(names), f"recordings in {folder}/")
            for names, folder in zip(named, (MIXTURES, CLEAN), strict=True)
        ]
        both = named[0] & named[1]
        alone = [names - both for names in named]
        # What a role cannot hold out alone it holds out with its partner.
        short = [want - len(names) for want, names in zip(wanted, alone, strict=True)]
        together = max(round(self.validation * len(both)), *short, 0)
        together = min(together, *wanted)
        counts = [together, *(want - together for want in wanted)]
        held: set[str] = set()
        for number, (names, count) in enumerate(zip((both, *alone), counts, strict=True)):
            random = np.random.default_rng((_HELD_OUT, self.seed, number))
            ordered = sorted(names)
            held.update(ordered[i] for i in random.permutation(len(ordered))[:count])
        return held

    def _held(self, total: int, what: str) -> int:
        """How many of `total` are held out."""
        count = max(1, round(self.validation * total)) if self.validation else 0
        if total <= count:
            raise InputError(
                f"validation: got {self.validation} for {total} {what}, takes 2 or more of them "
                "and a fraction that leaves one, or 0"
            )
        return count


def _part(clip: Clip, role: Role) -> Part:
    return Part(clip, role, name_of(clip))


def _clips(spoken: Iterable[TimitUtterance], dialect: int, sex: Sex) -> list[Clip]:
    return [each.clip for each in spoken if (each.dialect, each.sex) == (dialect, sex)]


def _in_role(parts: Iterable[Part], role: Role) -> list[Clip]:
    return [part.clip for part in parts if part.role == role]
