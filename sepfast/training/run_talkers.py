"""The mixtures of a training run, from a folder of talkers.

No utterance is in two of training, validation and test, and none is mixed with one of another
part; nor is any speaker, unless every one is to be in all parts, the speaker-dependent setting.
Source: D (Morrone et al. 2019), section 3.1.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Literal, get_args

from sepfast.data.speaker_statistics import SpeakerStatistics, speaker_statistics
from sepfast.data.talker_mixtures import Mixture, draw_mixtures, write_manifest
from sepfast.data.talkers import (
    PARTS,
    Split,
    Utterance,
    find_utterances,
    split_speakers,
    split_utterances,
)
from sepfast.errors import InputError
from sepfast.files import PathLike
from sepfast.training.course_audiovisual import Talk
from sepfast.training.history import Report
from sepfast.training.options import TrainingOptions

SplitBy = Literal["speakers", "utterances"]

#: Utterances of a speaker that are targets, in all parts together.
_TARGETS = 200


def talks_of(
    data: PathLike,
    options: TrainingOptions,
    validation: float | PathLike | None,
    video_rate: float | None,
    cache_dir: PathLike | None,
    manifests: PathLike | None,
    report: Report,
    *,
    split: SplitBy = "speakers",
    test_talkers: int | None = None,
) -> tuple[list[Talk], list[Talk]]:
    """Mixtures to train on, and mixtures to validate on.

    Args:
        data: in a layout that `find_utterances` knows.
        options: the seed and the number of talkers.
        validation: the fraction of the speakers, or of each one's utterances, for validation, and
            as many for the test; None for the paper's.
        video_rate: video frames a second for landmarks with no `NAME.json` beside them.
        cache_dir: where statistics and resampled audio are kept; None for the user's cache.
        manifests: where `train.csv`, `validation.csv` and `test.csv` are written; None for
            nowhere.
        report: is told how far it is and what was skipped.
        split: "speakers" for no speaker in two parts, "utterances" for each in all.
        test_talkers: in the mixtures of one more manifest of the test, such as `test-3.csv`.

    Raises:
        InputError: where a part of the split has too few talkers to be mixed, or for a fraction
            out of range.
    """
    fractions = _fractions(validation)
    progress = partial(report.progress, "utterances")
    utterances, skipped = find_utterances(data, video_rate=video_rate, progress=progress)
    for reason in skipped:
        report.note(f"skipped: {reason}")
    if split not in get_args(SplitBy):
        raise InputError(f"split: got {split!r}, takes {' or '.join(get_args(SplitBy))}")
    divided = split_speakers if split == "speakers" else split_utterances
    parts = divided(utterances, options.seed, fractions=fractions)
    most = _most(split, fractions)
    drawn = {
        name: _mixed(name, part, most[name], options, report)
        for name, part in parts._asdict().items()
    }
    if manifests is not None:
        others = {}
        if test_talkers is not None and test_talkers != options.talkers:
            more = replace(options, talkers=test_talkers)
            others[f"test-{test_talkers}"] = _mixed("test", parts.test, most["test"], more, report)
        for name, mixtures in {**drawn, **others}.items():
            write_manifest(Path(manifests) / f"{name}.csv", mixtures)
    return _talks(parts, drawn, cache_dir, report)


def _talks(
    split: Split,
    mixed: Mapping[str, Sequence[Mixture]],
    cache_dir: PathLike | None,
    report: Report,
) -> tuple[list[Talk], list[Talk]]:
    """Training and validation, with their speakers' statistics."""
    statistics: dict[str, SpeakerStatistics] = speaker_statistics(
        [*split.train, *split.validation],
        [*mixed["train"], *mixed["validation"]],
        cache_dir=cache_dir,
        progress=partial(report.progress, "speakers"),
    )
    training, validating = (
        [Talk(mixture, statistics[mixture.target.speaker]) for mixture in mixed[name]]
        for name in ("train", "validation")
    )
    return training, validating


def _fractions(validation: float | PathLike | None) -> tuple[float, float, float] | None:
    """Speakers for training, validation and test; None for the paper's."""
    if validation is None:
        return None
    if not isinstance(validation, (int, float)) or not 0 < validation < 0.5:
        raise InputError(
            f"validation: got {validation}, takes of talkers a fraction above 0 and below 0.5"
        )
    return 1 - 2 * validation, validation, validation


def _most(split: SplitBy, fractions: tuple[float, float, float] | None) -> dict[str, int]:
    """How many utterances of a speaker are targets in each part: of those in all, the share."""
    shares = (1.0, 1.0, 1.0) if split == "speakers" else fractions or PARTS
    names = Split._fields
    return {
        name: max(1, round(_TARGETS * share)) for name, share in zip(names, shares, strict=True)
    }


def _mixed(
    part: str,
    utterances: Sequence[Utterance],
    most: int,
    options: TrainingOptions,
    report: Report,
) -> list[Mixture]:
    """The mixtures of a part of the split, with so many of a speaker's utterances at most."""
    try:
        mixtures, reasons = draw_mixtures(
            utterances, options.seed, talkers=options.talkers, utterances_per_speaker=most
        )
    except InputError as error:
        speakers = len({utterance.speaker for utterance in utterances})
        raise InputError(
            f"{part}: got {speakers} of the speakers, takes {options.talkers} or more with "
            "utterances as long, within 2 s; a larger fraction for validation gives it more"
        ) from error
    if reasons:
        report.note(
            f"{part}: {len(reasons)} utterances are in fewer mixtures; the first is {reasons[0]}"
        )
    return mixtures
