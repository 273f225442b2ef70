"""The scores of a target taken out of mixtures: one mixture's, and what many come to.

Each mixture is scored twice: as it is ("mixture"), which is what would be had for nothing, and by
the target that was estimated from it. Source: E (Venkataramani et al. 2019), section 4.2, after
Vincent et al., "Performance measurement in blind audio source separation", 2006.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Self

import numpy as np

from sepfast.errors import InputError
from sepfast.evaluation.report import ScoreTable
from sepfast.evaluation.written import number, read_json, write_csv, write_json
from sepfast.files import PathLike
from sepfast.metrics import bss_eval, si_sdr, statistics

#: The scores, in the order of the paper's figure, with their headings; more is better.
TRANSFER_METRICS = {"si_sdr": "SI-SDR", "sir": "SIR", "sar": "SAR"}
#: What the mixture itself is called among the rows.
MIXTURE = "mixture"
#: dB; a ratio beyond it is that of the samples' rounding, near 140 dB in float32.
AUDIBLE = 100.0

_SIDES = ("mixture", "estimate")
_FORMAT = "sepfast-transfer-scores"

Scores = dict[str, float]


@dataclass(frozen=True)
class TransferScores:
    """The scores of one mixture in dB, NaN where there is none.

    Attributes:
        name: the mixture's.
        mixture: score -> that of the mixture as it is, taken for the target.
        estimate: score -> that of the estimated target.
    """

    name: str
    mixture: Mapping[str, float]
    estimate: Mapping[str, float]


@dataclass(frozen=True)
class Spread:
    """Mean, standard deviation (over n), median and quartiles, and the number of values.

    The quartiles are interpolated linearly, as those of a box plot are.
    """

    mean: float
    std: float
    median: float
    lower_quartile: float
    upper_quartile: float
    count: int


@dataclass
class TransferReport:
    """The scores of several mixtures.

    Attributes:
        label: what the estimates are called among the rows.
        mixtures: in the order in which they were scored.
    """

    label: str
    mixtures: list[TransferScores] = field(default_factory=list)

    def __post_init__(self) -> None:
        if self.label == MIXTURE:
            raise InputError(
                f"label: got {MIXTURE!r}, which the mixtures themselves are called, takes another"
            )

    @property
    def rows(self) -> dict[str, list[Mapping[str, float]]]:
        """Row -> the scores of all mixtures: "mixture", then the label."""
        return {
            MIXTURE: [one.mixture for one in self.mixtures],
            self.label: [one.estimate for one in self.mixtures],
        }

    def summary(self) -> dict[str, dict[str, Spread]]:
        """Row -> score -> what it comes to; NaN does not count, an infinity does."""
        return {
            row: {metric: spread([one[metric] for one in scores]) for metric in TRANSFER_METRICS}
            for row, scores in self.rows.items()
        }

    def to_json(self, path: PathLike) -> None:
        """Write all scores and the summary; NaN as null, infinities as "inf" and "-inf".

        Raises:
            InputError: where the file cannot be written.
        """
        summary = [
            {"row": row, "score": metric, "mixtures": len(self.mixtures)} | asdict(found)
            for row, scores in self.summary().items()
            for metric, found in scores.items()
        ]
        mixtures = [
            {"name": one.name} | {side: getattr(one, side) for side in _SIDES}
            for one in self.mixtures
        ]
        content = {"format": _FORMAT, "version": 1, "label": self.label}
        content |= {"summary": summary, "mixtures": mixtures}
        write_json(path, content)

    @classmethod
    def from_json(cls, path: PathLike) -> Self:
        """Read what `to_json` wrote.

        Raises:
            InputError: for a file that is missing or something else.
        """
        return cls(*read_json(path, _FORMAT, _content, "scores of targets"))

    def to_csv(self, path: PathLike) -> None:
        """Write a row for each mixture as it is, and one for its estimate.

        Cells without a score are empty.

        Raises:
            InputError: where the file cannot be written.
        """
        write_csv(path, ("mixture", "row", *TRANSFER_METRICS), self._csv_rows())

    def _csv_rows(self) -> Iterator[list[str | float]]:
        for one in self.mixtures:
            for row, scores in ((MIXTURE, one.mixture), (self.label, one.estimate)):
                cells = (scores[metric] for metric in TRANSFER_METRICS)
                yield [one.name, row, *cells]


def score_estimate(
    waveforms: np.ndarray, estimate: np.ndarray, sample_rate: int
) -> tuple[Scores, Scores]:
    """Score a mixture, and the target that was estimated from it, by the true target.

    SI-SDR is that of `sepfast.metrics.si_sdr`. SIR and SAR are those of BSS Eval in its classic
    form, which the field reports for speech: `bss_eval(..., mode="v3", kind="sources")` over the
    whole snippet as one frame. The references are the true target and the true rest, the estimates
    the estimated target and the mixture without it. Filters of 512 taps of the target are right,
    what filters of the rest explain is interference, and what no filter explains is artifacts. As
    the filters are fitted to the frame that they are applied to, "v4" would give the same numbers,
    and references that leave a band empty (see `sepfast.metrics.trustworthy`) do no harm.

    A mixture holds nothing but target and rest, so that its SAR is that of its samples' rounding.

    Args:
        waveforms: (3, samples) floats: the mixture, the true target and the true rest.
        estimate: the target as it is to be judged, (samples,) floats; never scaled, shifted,
            padded or cut.
        sample_rate: samples a second.

    Returns:
        Those of the mixture, then those of the estimate: each of `TRANSFER_METRICS` in dB. NaN
        where there is none: all of them where the target is silent, SIR and SAR where the estimate
        is (its SI-SDR is -inf), SIR where the rest is.

    Raises:
        InputError: for shapes that differ or samples that are not finite floats.
    """
    if np.ndim(waveforms) != 2 or len(waveforms) != 3:
        raise InputError(f"waveforms: got shape {np.shape(waveforms)}, takes (3, samples)")
    mixture = waveforms[0]
    if np.shape(estimate) != mixture.shape:
        raise InputError(
            f"estimate: got shape {np.shape(estimate)}, takes {mixture.shape} as the mixture"
        )
    as_is, estimated = (_scores(waveforms, heard, sample_rate) for heard in (mixture, estimate))
    return as_is, estimated


def _scores(waveforms: np.ndarray, heard: np.ndarray, sample_rate: int) -> Scores:
    mixture, target, rest = waveforms
    found = bss_eval(
        np.stack([target, rest])[:, None],
        np.stack([heard, mixture - heard])[:, None],
        sample_rate,
        window=math.inf,
        hop=math.inf,
        mode="v3",
        kind="sources",
    )
    sir = found.sir[0, 0] if rest.any() else math.nan  # of no interference there is no ratio
    ratio = si_sdr(target, heard)
    return {"si_sdr": float(ratio), "sir": float(sir), "sar": float(found.sar[0, 0])}


def spread(values: Sequence[float]) -> Spread:
    """Mean, deviation, median and quartiles of all values but NaN; NaN where there are none."""
    found = statistics(values)
    present = np.array([value for value in values if not math.isnan(value)])
    if not present.size:
        return Spread(math.nan, math.nan, math.nan, math.nan, math.nan, 0)
    with np.errstate(invalid="ignore"):  # between two infinities there is no quartile
        lower, upper = (float(np.quantile(present, share)) for share in (0.25, 0.75))
    return Spread(found.mean, found.std, found.median, lower, upper, found.count)


def transfer_table(report: TransferReport) -> ScoreTable:
    """Rows for the mixtures as they are and for the estimates: medians and quartiles in dB."""
    header = ["", *(f"{name} (dB)" for name in TRANSFER_METRICS.values())]
    mixtures = len(report.mixtures)
    rows = [
        [row, *(_cell(found, mixtures) for found in scores.values())]
        for row, scores in report.summary().items()
    ]
    return ScoreTable(header, rows, [_legend(mixtures)])


def _cell(found: Spread, mixtures: int) -> str:
    if not found.count:
        return "-"
    if found.lower_quartile > AUDIBLE:
        text = f"> {AUDIBLE:.0f}"
    else:
        text = f"{found.median:.2f} ({found.lower_quartile:.1f}, {found.upper_quartile:.1f})"
    return text + f", {found.count} of {mixtures}" * (found.count < mixtures)


def _legend(mixtures: int) -> str:
    return (
        f"{count_mixtures(mixtures)}: median, in brackets the quartiles, and how many have such a "
        "score, where not all do. SIR and SAR: BSS Eval's sources, the whole mixture as one frame; "
        f"beyond {AUDIBLE:.0f} dB there is nothing but rounding. More is better."
    )


def count_mixtures(count: int) -> str:
    """How many mixtures, in words: "1 mixture", "30 mixtures"."""
    return "1 mixture" if count == 1 else f"{count} mixtures"


def is_transfer_report(path: PathLike) -> bool:
    """Whether a file is what `TransferReport.to_json` wrote; False for one that cannot be read."""
    try:
        content = json.loads(Path(path).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return False
    return isinstance(content, dict) and content.get("format") == _FORMAT


def _content(content: Mapping[str, Any]) -> tuple[str, list[TransferScores]]:
    """The label and the mixtures of a report, read from JSON."""
    return content["label"], [
        TransferScores(one["name"], *(_scores_from(one[side]) for side in _SIDES))
        for one in content["mixtures"]
    ]


def _scores_from(plain: Mapping[str, float | str | None]) -> Scores:
    return {metric: number(plain[metric]) for metric in TRANSFER_METRICS}
