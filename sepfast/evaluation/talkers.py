"""Scoring mixtures of talkers: the voice out of each, by a model or from a folder.

Source: D (Morrone et al. 2019), section 4.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import numpy as np
import torch
from torch import nn

from sepfast.data.audio import read
from sepfast.data.landmarks import Floats, read_landmarks
from sepfast.data.speaker_statistics import SpeakerStatistics, speaker_statistics
from sepfast.data.talker_mixtures import Mixture, read_manifest
from sepfast.data.talkers import SAMPLE_RATE, Utterance, find_utterances
from sepfast.errors import InputError
from sepfast.evaluation.speech_scores import (
    SpeechReport,
    TalkerScores,
    score_speech,
    unavailable,
)
from sepfast.files import PathLike, file_called
from sepfast.separation import Enhancer

_SUFFIXES = (".wav", ".flac")


class VoiceEstimator:
    """Gives the voice of a mixture's target.

    Attributes:
        label: what its rows are called.
    """

    label: str

    def prepare(self, utterances: Sequence[Utterance], mixtures: Sequence[Mixture]) -> None:
        """Look at all mixtures of a manifest before the first is estimated."""

    def __call__(self, mixture: Mixture, noisy: Floats) -> np.ndarray:
        """The voice, (samples,) as `noisy`, which is the mixture at 16 kHz."""
        raise NotImplementedError


class FolderEstimator(VoiceEstimator):
    """Voices as files: FOLDER/NAME.wav or .flac, NAME as `mixture_name` gives it.

    Raises:
        InputError: for a folder that is not there.
    """

    def __init__(self, folder: Path) -> None:
        if not folder.is_dir():
            raise InputError(f"{folder}: there is no such folder of estimates")
        self._folder, self.label = folder, folder.resolve().name

    def __call__(self, mixture: Mixture, noisy: Floats) -> np.ndarray:
        """As the file has it, which is mono, at 16 kHz and as long as the mixture."""
        name = mixture_name(mixture)
        path = file_called(self._folder, name, _SUFFIXES)
        if path is None:
            raise InputError(f"{self._folder}: holds no {name}.wav or .flac")
        wave, rate = read(path)
        if (*wave.shape, rate) != (1, noisy.size, SAMPLE_RATE):
            raise InputError(
                f"{path}: holds {wave.shape[0]} channels of {wave.shape[1]} samples at {rate} Hz, "
                f"takes 1 of {noisy.size} at {SAMPLE_RATE} Hz"
            )
        voice: np.ndarray = wave[0]
        return voice


class ModelEstimator(VoiceEstimator):
    """What a model of system D makes of a mixture and the target's face.

    Networks are given what training gave them: normalised by each target speaker's own mixtures,
    of the manifest, and by the motion of all of the speaker's utterances.

    Args:
        model: made by `create_model` or `load`.
        device: where to compute; None for where the model is.
        cache_dir: where statistics and resampled audio are kept; None for the user's cache.

    Raises:
        InputError: for a model that does not enhance.
    """

    def __init__(
        self,
        model: nn.Module,
        *,
        device: torch.device | str | None = None,
        cache_dir: PathLike | None = None,
    ) -> None:
        self._enhancer, self._cache_dir = Enhancer(model, device=device), cache_dir
        self._statistics: Mapping[str, SpeakerStatistics] = {}
        self.label = getattr(model, "model_name", "") or type(model).__name__

    def prepare(self, utterances: Sequence[Utterance], mixtures: Sequence[Mixture]) -> None:
        """Measure the speakers."""
        self._statistics = speaker_statistics(utterances, mixtures, cache_dir=self._cache_dir)

    def __call__(self, mixture: Mixture, noisy: Floats) -> np.ndarray:
        """The voice by the model."""
        target = mixture.target
        voice = self._enhancer(
            noisy[None],
            SAMPLE_RATE,
            read_landmarks(target.landmarks),
            target.video_rate,
            statistics=self._statistics[target.speaker],
        )
        return voice[0].numpy(force=True)


def mixture_name(mixture: Mixture) -> str:
    """A mixture's name as that of a file: s1_a+s2_b where a of s1 is heard among b of s2."""
    return "+".join(f"{each.speaker}_{each.name}" for each in mixture.utterances)


def evaluate_talkers(
    manifests: Sequence[Path],
    data: Path,
    estimator: VoiceEstimator,
    output: Path,
    *,
    video_rate: float | None = None,
    cache_dir: PathLike | None = None,
    progress: Callable[[float, float | None], None] = lambda done, total: None,
    note: Callable[[str], None] = lambda text: None,
) -> SpeechReport:
    """Score the mixtures of manifests, as they are and enhanced, and write what was found.

    Writes `scores.json` and `scores.csv`. A mixture that cannot be scored does not stop the others,
    and a score whose package is not installed is left out, with its reason.

    Args:
        manifests: what `write_manifest` wrote, such as `test.csv` of a run; of two talkers, of
            three, or both.
        data: the data set whose utterances they name, as `find_utterances` takes it.
        estimator: gives the voice of a mixture.
        output: folder of what is written.
        video_rate: as in `find_utterances`.
        cache_dir: where resampled audio is kept; None for the user's cache.
        progress: called with mixtures done and mixtures in all.
        note: called with sentences for a person.

    Returns:
        The scores, of the mixtures that could be scored.

    Raises:
        InputError: for a manifest or data set that cannot be used, two mixtures of one name, or
            where no mixture can be scored.
    """
    utterances, _ = find_utterances(data, video_rate=video_rate)
    listed = [read_manifest(path, utterances) for path in manifests]
    total = sum(map(len, listed))
    _check_names([mixture for mixtures in listed for mixture in mixtures])
    report, reasons = SpeechReport(estimator.label, unavailable()), []
    for mixtures in listed:
        estimator.prepare(utterances, mixtures)
        for mixture in mixtures:
            try:
                report.mixtures.append(_scores(mixture, estimator, report.metrics, cache_dir))
            except InputError as error:
                reasons.append(str(error))
                note(f"skipped: {error}")
            progress(len(report.mixtures) + len(reasons), total)
    if not report.mixtures:
        raise InputError(f"none of {total} mixtures could be scored, the first: {reasons[0]}")
    report.to_json(output / "scores.json")
    report.to_csv(output / "scores.csv")
    return report


def _scores(
    mixture: Mixture,
    estimator: VoiceEstimator,
    metrics: Sequence[str],
    cache_dir: PathLike | None,
) -> TalkerScores:
    noisy, target = mixture.waveforms(cache_dir)[:2]
    name = mixture_name(mixture)
    try:
        enhanced, plain = (
            score_speech(target, heard, SAMPLE_RATE, metrics)
            for heard in (estimator(mixture, noisy), noisy)
        )
    except InputError as error:
        raise InputError(f"{name}: {error}") from error
    return TalkerScores(name, len(mixture.utterances), plain, enhanced)


def _check_names(mixtures: Sequence[Mixture]) -> None:
    """Raise where two have one name."""
    names: set[str] = set()
    for name in map(mixture_name, mixtures):
        if name in names:
            raise InputError(f"manifests: hold {name} twice, take each mixture once")
        names.add(name)
