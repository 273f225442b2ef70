"""Scoring targets taken out of mixtures: by a model, or from a folder.

Source: E (Venkataramani et al. 2019), section 4.2.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Protocol

import numpy as np
import torch
from torch import nn

from sepfast.data.audio import read
from sepfast.data.clips import SAMPLE_RATE
from sepfast.data.resampling import resample
from sepfast.errors import InputError
from sepfast.evaluation.transfer_plots import report_plot
from sepfast.evaluation.transfer_scores import (
    TransferReport,
    TransferScores,
    count_mixtures,
    score_estimate,
)
from sepfast.files import PathLike, file_called
from sepfast.separation import Separator

_SUFFIXES = (".wav", ".flac")


class Item(Protocol):
    """A mixture of which the clean target is known."""

    @property
    def name(self) -> str:
        """What it is called, fit for a file's name."""

    def waveforms(self, cache_dir: PathLike | None = None) -> np.ndarray:
        """The mixture, the target and the rest at 16 kHz, float32 (3, samples)."""


class TargetEstimator:
    """Gives the target of a mixture.

    Attributes:
        label: what its rows are called.
    """

    label: str

    def __call__(self, name: str, mixture: np.ndarray) -> np.ndarray:
        """The target, (samples,) as `mixture`, which is at 16 kHz and called `name`."""
        raise NotImplementedError


class FolderTargets(TargetEstimator):
    """Targets as files: FOLDER/NAME.wav or .flac, or FOLDER/NAME/target.wav or .flac.

    The second is what `sepfast separate` writes. Of several channels the mean is taken, and other
    rates are resampled to 16 kHz, as is done with the mixture.

    Raises:
        InputError: for a folder that is not there.
    """

    def __init__(self, folder: Path) -> None:
        if not folder.is_dir():
            raise InputError(f"{folder}: there is no such folder of estimates")
        self._folder, self.label = folder, folder.resolve().name

    def __call__(self, name: str, mixture: np.ndarray) -> np.ndarray:
        """What the file holds, which lasts as long as the mixture."""
        path = self._find(name)
        wave, rate = read(path)
        target: np.ndarray = wave.mean(0, keepdims=True)
        if rate != SAMPLE_RATE:
            target = resample(target, rate, SAMPLE_RATE)
        if target.shape[1] != mixture.size:
            raise InputError(
                f"{path}: holds {target.shape[1]} samples at {SAMPLE_RATE} Hz, takes "
                f"{mixture.size} as the mixture"
            )
        return target[0]

    def _find(self, name: str) -> Path:
        path = file_called(self._folder, name, _SUFFIXES)
        path = path or file_called(self._folder / name, "target", _SUFFIXES)
        if path is None:
            raise InputError(f"{self._folder}: holds no {name}.wav or .flac, nor {name}/target.wav")
        return path


class ModelTargets(TargetEstimator):
    """The first source that a model separates a mixture into, "target" of system E.

    Args:
        model: made by `create_model` or `load`; it hears the mixture at its own sample rate.
        device: where to compute; None for where the model is.

    Raises:
        InputError: for a model that does not separate, or has to be told more than the mixture.
    """

    def __init__(self, model: nn.Module, *, device: torch.device | str | None = None) -> None:
        self._separator = Separator(model, device=device)
        self.label = getattr(model, "model_name", "") or type(model).__name__
        if self._separator.takes_side:
            raise InputError(
                f"model: got {self.label}, which takes side information, takes one that is told "
                "the mixture alone"
            )

    def __call__(self, name: str, mixture: np.ndarray) -> np.ndarray:
        """The target by the model."""
        sources = self._separator(mixture[None], SAMPLE_RATE)
        return sources[self._separator.sources[0]][0].numpy(force=True)


def evaluate_transfer(
    items: Sequence[Item],
    estimator: TargetEstimator,
    output: Path,
    *,
    cache_dir: PathLike | None = None,
    progress: Callable[[float, float | None], None] = lambda done, total: None,
    note: Callable[[str], None] = lambda text: None,
) -> TransferReport:
    """Score mixtures, as they are and by their estimated targets, and write what was found.

    Writes `scores.json`, `scores.csv` and, as box plots, `scores.png`. A mixture that cannot be
    scored does not stop the others.

    Args:
        items: the mixtures with their clean targets.
        estimator: gives the target of a mixture.
        output: folder of what is written.
        cache_dir: where resampled audio is kept; None for the user's cache.
        progress: called with mixtures done and mixtures in all.
        note: called with sentences for a person.

    Returns:
        The scores, of the mixtures that could be scored.

    Raises:
        InputError: where there is no mixture, two have one name, or none can be scored.
    """
    _check_names(items)
    report, reasons = TransferReport(estimator.label), []
    for done, item in enumerate(items, 1):
        try:
            report.mixtures.append(_scores(item, estimator, cache_dir))
        except InputError as error:
            reasons.append(str(error))
            note(f"skipped: {error}")
        progress(done, len(items))
    if not report.mixtures:
        raise InputError(
            f"none of {count_mixtures(len(items))} could be scored, the first: {reasons[0]}"
        )
    report.to_json(output / "scores.json")
    report.to_csv(output / "scores.csv")
    report_plot(report, output / "scores.png")
    return report


def _scores(item: Item, estimator: TargetEstimator, cache_dir: PathLike | None) -> TransferScores:
    try:
        waveforms = item.waveforms(cache_dir)
        estimate = estimator(item.name, waveforms[0])
        return TransferScores(item.name, *score_estimate(waveforms, estimate, SAMPLE_RATE))
    except InputError as error:
        raise InputError(f"{item.name}: {error}") from error


def _check_names(items: Sequence[Item]) -> None:
    """Raise where there is no item, or two have one name."""
    if not items:
        raise InputError("items: got no mixtures, takes at least one")
    names: set[str] = set()
    for item in items:
        if item.name in names:
            raise InputError(f"items: hold {item.name} twice, take each mixture once")
        names.add(item.name)
