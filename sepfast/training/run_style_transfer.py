"""The recordings of a training run of system E, from TIMIT or from two folders."""

from __future__ import annotations

from functools import partial
from pathlib import Path

from sepfast.data.duets import write_duets
from sepfast.data.style_transfer import Part, find_parts
from sepfast.errors import InputError
from sepfast.files import PathLike
from sepfast.training.history import Report
from sepfast.training.options import TrainingOptions


def parts_of(
    data: PathLike,
    options: TrainingOptions,
    validation: float | PathLike | None,
    cache_dir: PathLike | None,
    manifests: PathLike | None,
    report: Report,
    *,
    paired: bool,
) -> tuple[list[Part], list[Part]]:
    """Recordings to train on, and recordings to validate on.

    Args:
        data: TIMIT, or a folder with `mixtures` and `clean` in it.
        options: the seed and the voice.
        validation: the fraction that is kept for validation; None for 0.2.
        cache_dir: where decoded audio is kept; None for the user's cache.
        manifests: where `train.csv` and `test.csv` are written, of TIMIT the mixtures to evaluate
            with; None for nowhere.
        report: is told how far it is and what was skipped.
        paired: whether each mixture has to have its own clean source.

    Raises:
        InputError: where there are none that can be used, or for a fraction out of range.
    """
    fraction = 0.2 if validation is None else validation
    if not isinstance(fraction, (int, float)) or not 0 <= fraction < 1:
        raise InputError(f"validation: got {validation}, takes a fraction below 1")
    found = find_parts(
        data,
        target=options.voice,
        seed=options.seed,
        validation=fraction,
        paired=paired,
        cache_dir=cache_dir,
        progress=partial(report.progress, "recordings"),
    )
    for note in found.notes:
        report.note(note)
    if manifests is not None:
        for name, duets in found.evaluation.items():
            write_duets(Path(manifests) / f"{name}.csv", duets)
    return found.training, found.validation
