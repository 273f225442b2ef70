"""The scores of enhanced speech: what many mixtures come to, as files and as the paper's table.

Each mixture is scored twice: as it is ("noisy"), which is what would be had for nothing, and what
became of it. Source: D (Morrone et al. 2019), section 4.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from sepfast.errors import InputError
from sepfast.evaluation.report import ScoreTable
from sepfast.evaluation.written import write_csv, write_json
from sepfast.files import PathLike
from sepfast.metrics import Statistics, bss_eval, pesq, statistics, visqol
from sepfast.speech import PACKAGES, missing

#: The scores, in the order of tables, with their headings; more is better.
SPEECH_METRICS = {"sdr": "SDR (dB)", "pesq": "PESQ", "visqol": "ViSQOL"}
#: What the mixture itself is called among the rows.
NOISY = "noisy"

_SIDES = ("noisy", "enhanced")
_FORMAT = "sepfast-speech-scores"

Scores = dict[str, float]


@dataclass(frozen=True)
class TalkerScores:
    """The scores of one mixture, NaN where there is none.

    Attributes:
        name: the mixture's.
        talkers: in it, the target included.
        noisy: score -> that of the mixture as it is.
        enhanced: score -> that of what became of it.
    """

    name: str
    talkers: int
    noisy: Mapping[str, float]
    enhanced: Mapping[str, float]


@dataclass
class SpeechReport:
    """The scores of several mixtures.

    Attributes:
        label: what the enhanced ones are called among the rows.
        missing: score -> why it could not be computed; it is in no mixture's scores.
        mixtures: in the order in which they were scored.
    """

    label: str
    missing: Mapping[str, str] = field(default_factory=dict)
    mixtures: list[TalkerScores] = field(default_factory=list)

    def __post_init__(self) -> None:
        if self.label == NOISY:
            raise InputError(
                f"label: got {NOISY!r}, which the mixtures themselves are called, takes another"
            )

    @property
    def metrics(self) -> list[str]:
        """The scores that could be computed, in the order of tables."""
        return [metric for metric in SPEECH_METRICS if metric not in self.missing]

    @property
    def talkers(self) -> list[int]:
        """The numbers of talkers in a mixture that there are, rising."""
        return sorted({mixture.talkers for mixture in self.mixtures})

    def of(self, talkers: int) -> dict[str, list[Mapping[str, float]]]:
        """Row -> the scores of all mixtures of so many talkers."""
        mixtures = [mixture for mixture in self.mixtures if mixture.talkers == talkers]
        return {NOISY: [m.noisy for m in mixtures], self.label: [m.enhanced for m in mixtures]}

    def summary(self) -> dict[int, dict[str, dict[str, Statistics]]]:
        """Talkers -> row -> score -> what it comes to; NaN does not count."""
        return {
            talkers: {
                row: {m: statistics([one[m] for one in scores]) for m in self.metrics}
                for row, scores in self.of(talkers).items()
            }
            for talkers in self.talkers
        }

    def to_json(self, path: PathLike) -> None:
        """Write all scores and the summary; NaN as null, infinities as "inf" and "-inf".

        Raises:
            InputError: where the file cannot be written.
        """
        summary = [
            {
                "talkers": talkers,
                "row": row,
                "score": metric,
                "mixtures": len(self.of(talkers)[row]),
            }
            | vars(found)
            for talkers, rows in self.summary().items()
            for row, scores in rows.items()
            for metric, found in scores.items()
        ]
        mixtures = [
            {"name": m.name, "talkers": m.talkers} | {side: getattr(m, side) for side in _SIDES}
            for m in self.mixtures
        ]
        content = {"format": _FORMAT, "version": 1, "label": self.label}
        content |= {"missing": dict(self.missing), "summary": summary, "mixtures": mixtures}
        write_json(path, content)

    def to_csv(self, path: PathLike) -> None:
        """Write a row for each mixture as it is, and one for what became of it.

        Cells without a score are empty.

        Raises:
            InputError: where the file cannot be written.
        """
        write_csv(path, ("mixture", "talkers", "row", *SPEECH_METRICS), self._rows())

    def _rows(self) -> Iterator[list[Any]]:
        for mixture in self.mixtures:
            for row, scores in ((NOISY, mixture.noisy), (self.label, mixture.enhanced)):
                cells = (scores.get(metric, math.nan) for metric in SPEECH_METRICS)
                yield [mixture.name, mixture.talkers, row, *cells]


def unavailable() -> dict[str, str]:
    """Score -> why it cannot be computed here, of those whose package is not installed."""
    reasons = {metric: missing(metric) for metric in PACKAGES}
    return {metric: reason for metric, reason in reasons.items() if reason is not None}


def _sdr(target: np.ndarray, heard: np.ndarray, sample_rate: int) -> float:
    whole = bss_eval(
        target[None, None],
        heard[None, None],
        sample_rate,
        window=math.inf,
        hop=math.inf,
        kind="sources",
    )
    return float(whole.sdr[0, 0])


# Each score of `SPEECH_METRICS` as a function of target, heard and sample rate.
_MEASURES = {"sdr": _sdr, "pesq": pesq, "visqol": visqol}


def score_speech(
    target: np.ndarray, heard: np.ndarray, sample_rate: int, metrics: Sequence[str]
) -> Scores:
    """Score speech against what it should be.

    SDR is that of BSS Eval's sources, over the whole utterance as one frame. It sets what a filter
    of the target explains against all the rest, whatever that comes from: the interferers, which
    BSS Eval takes to tell interference from artifacts, change nothing in it and are not needed.

    Args:
        target: clean speech, (samples,) floats.
        heard: what is to be judged, of the same shape; never scaled, shifted, padded or cut.
        sample_rate: samples a second.
        metrics: of `SPEECH_METRICS`.

    Returns:
        Score -> its value, NaN where there is none: either is silent, or see `sepfast.metrics`.

    Raises:
        InputError: for shapes that differ or samples that are not finite floats.
    """
    return {metric: _MEASURES[metric](target, heard, sample_rate) for metric in metrics}


def speech_table(report: SpeechReport) -> ScoreTable:
    """Rows for the mixtures as they are and enhanced, columns for each number of talkers."""
    columns = [(talkers, metric) for talkers in report.talkers for metric in report.metrics]
    header = ["", *(f"{talkers} speakers: {SPEECH_METRICS[m]}" for talkers, m in columns)]
    summary = report.summary()
    rows = [
        [row, *(_cell(summary[talkers][row][metric]) for talkers, metric in columns)]
        for row in (NOISY, report.label)
    ]
    return ScoreTable(header, rows, [_legend(report), *report.missing.values()])


def _cell(found: Statistics) -> str:
    return f"{found.mean:.2f} ({found.count})" if found.count else "- (0)"


def _legend(report: SpeechReport) -> str:
    counts = (f"{len(report.of(n)[NOISY])} of {n} speakers" for n in report.talkers)
    return (
        f"Mixtures scored: {', '.join(counts)}. Mean over mixtures, in brackets how many have such "
        "a score. SDR: BSS Eval's sources; PESQ: narrow band; ViSQOL: wide band; more is better."
    )
