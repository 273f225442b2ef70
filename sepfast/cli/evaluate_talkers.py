"""`sepfast evaluate` of manifests: mixtures of talkers, by a model or from a folder."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from sepfast.cli.console import bar, say
from sepfast.errors import InputError

if TYPE_CHECKING:
    from sepfast.evaluation import ScoreTable
    from sepfast.evaluation.talkers import VoiceEstimator


def are_manifests(references: list[Path]) -> bool:
    """Whether these are manifests of mixtures, rather than a folder of songs."""
    return all(path.suffix.lower() == ".csv" for path in references)


def score_manifests(
    manifests: list[Path],
    data: Path | None,
    output: Path,
    *,
    estimates: Path | None,
    model: Path | None,
    video_rate: float | None,
    device: str | None,
) -> ScoreTable:
    """Score, write what was found, and give it as a table."""
    if (estimates is None) == (model is None):
        raise InputError("evaluate: takes of manifests one of --estimates and --model")
    if data is None:
        raise InputError("evaluate: takes --data with a manifest, the folder of its talkers")
    from sepfast.evaluation.speech_scores import speech_table
    from sepfast.evaluation.talkers import evaluate_talkers

    estimator = _estimator(estimates, model, device)
    with bar("scoring") as progress:
        report = evaluate_talkers(
            manifests,
            data,
            estimator,
            output,
            video_rate=video_rate,
            progress=progress,
            note=say,
        )
    return speech_table(report)


def _estimator(estimates: Path | None, model: Path | None, device: str | None) -> VoiceEstimator:
    from sepfast.evaluation.talkers import FolderEstimator, ModelEstimator

    if estimates is not None:
        return FolderEstimator(estimates)
    from sepfast.checkpoint import load
    from sepfast.device import pick_device

    assert model is not None
    return ModelEstimator(load(model), device=pick_device(device))
