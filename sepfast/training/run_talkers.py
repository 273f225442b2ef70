"""The mixtures of a training run, from a folder of talkers.

No speaker is in two of training, validation and test, and none is mixed with one of another part.
Source: D (Morrone et al. 2019), section 3.1.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path

from sepfast.data.speaker_statistics import SpeakerStatistics, speaker_statistics
from sepfast.data.talker_mixtures import Mixture, draw_mixtures, write_manifest
from sepfast.data.talkers import Split, Utterance, find_utterances, split_speakers
from sepfast.errors import InputError
from sepfast.files import PathLike
from sepfast.training.course_audiovisual import Talk
from sepfast.training.history import Report
from sepfast.training.options import TrainingOptions


def talks_of(
    data: PathLike,
    options: TrainingOptions,
    validation: float | PathLike | None,
    video_rate: float | None,
    cache_dir: PathLike | None,
    manifests: PathLike | None,
    report: Report,
) -> tuple[list[Talk], list[Talk]]:
    """Mixtures to train on, and mixtures to validate on.

    Args:
        data: in a layout that `find_utterances` knows.
        options: the seed and the number of talkers.
        validation: the fraction of the speakers for validation, and as many for the test; None
            for the paper's.
        video_rate: video frames a second for landmarks with no `NAME.json` beside them.
        cache_dir: where statistics and resampled audio are kept; None for the user's cache.
        manifests: where `train.csv`, `validation.csv` and `test.csv` are written; None for
            nowhere.
        report: is told how far it is and what was skipped.

    Raises:
        InputError: where a part of the split has too few talkers to be mixed, or for a fraction
            out of range.
    """
    fractions = _fractions(validation)
    progress = partial(report.progress, "utterances")
    utterances, skipped = find_utterances(data, video_rate=video_rate, progress=progress)
    for reason in skipped:
        report.note(f"skipped: {reason}")
    split = split_speakers(utterances, options.seed, fractions=fractions)
    mixed = {name: _mixed(name, part, options, report) for name, part in split._asdict().items()}
    if manifests is not None:
        for name, mixtures in mixed.items():
            write_manifest(Path(manifests) / f"{name}.csv", mixtures)
    return _talks(split, mixed, cache_dir, report)


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


def _mixed(
    part: str, utterances: Sequence[Utterance], options: TrainingOptions, report: Report
) -> list[Mixture]:
    """The mixtures of a part of the split."""
    try:
        mixtures, reasons = draw_mixtures(utterances, options.seed, talkers=options.talkers)
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
