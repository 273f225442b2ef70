"""Two results of one suite held against each other: what got slower, less exact or larger.

What is compared, and what makes a difference:

- On a GPU, medians of time. On a CPU, which others may share, times of two runs say nothing of each
  other, and medians are compared as ratios to "eager" of the same run, which took turns with them.
- A difference counts where the spreads from the 20th to the 80th percentile do not overlap *and*
  the medians are more than `THRESHOLDS` apart. The spread of a ratio is the widest that the two
  spreads allow.
- An error grew where it is above `ERROR` times what it was, a peak of memory where it is above
  `PEAK` times and 1 MB; neither is compared between devices.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Literal

from sepfast.bench.report.standing import ratio
from sepfast.bench.results import OURS, Report, Row
from sepfast.errors import InputError

#: Times, and ratios to eager, that are apart by less are the same.
THRESHOLDS = {"times": 0.05, "ratios": 0.10}

ERROR, PEAK = 1.5, 1.05
_MEGABYTE, _ROUNDING = 2**20, 1e-8

By = Literal["times", "ratios"]
Verdict = Literal["slower", "faster", "same"]

#: What a row is known by: whether it is of a sweep, case, side, precision and scale.
_Key = tuple[bool, str, str, str, float]


@dataclass(frozen=True)
class Change:
    """A row of both results.

    Attributes:
        row: of the later results.
        before, after: milliseconds, or times as fast as eager.
        factor: how much longer it takes than it did, by what is compared.
        verdict: what that amounts to.
        grew: "error", "gradient error" and "peak memory", with the numbers.
    """

    row: Row
    before: float
    after: float
    factor: float
    verdict: Verdict
    grew: tuple[str, ...]

    @property
    def is_ours(self) -> bool:
        """Whether it is our own that changed."""
        return self.row.side in OURS


@dataclass(frozen=True)
class Comparison:
    """All that two results have in common, and what they have not.

    Attributes:
        by: what was compared.
        changes: a change for each row that is in both.
        only_before, only_after: cases with the sides that are in one of them.
        apart: rows that are in both and cannot be compared, and why.
        notes: what else tells the runs apart.
    """

    by: By
    changes: tuple[Change, ...]
    only_before: tuple[str, ...]
    only_after: tuple[str, ...]
    apart: tuple[str, ...]
    notes: tuple[str, ...]

    @property
    def slower(self) -> tuple[Change, ...]:
        """Rows of ours that got slower."""
        return tuple(each for each in self.changes if each.is_ours and each.verdict == "slower")


def compare_reports(before: Report, after: Report, across: bool = False) -> Comparison:
    """Hold results against earlier ones.

    Args:
        before: the earlier results.
        after: the later ones.
        across: whether they may be of two devices; only ratios to eager are compared then.

    Raises:
        InputError: for results of two devices, unless `across`; where nothing can be compared.
    """
    devices = [f"{each.environment['device']}" for each in (before, after)]
    alike = devices[0] == devices[1] and before.on_gpu == after.on_gpu
    if not (alike or across):
        raise InputError(
            f"compare: got results of {devices[0]} and of {devices[1]}, takes those of one device, "
            "or --across for ratios to eager alone"
        )
    by: By = "times" if alike and before.on_gpu and not across else "ratios"
    earlier, later = _by_key(before), _by_key(after)
    both = [key for key in earlier if key in later]
    apart = dict(filter(None, (_obstacle(key, earlier, later, by) for key in both)))
    changes = [
        _change(key, earlier, later, by, alike)
        for key in both
        if key not in apart and (by == "times" or key[2] != "eager")
    ]
    if not changes:
        raise InputError("compare: got results without a row in common, takes runs of one suite")
    return Comparison(
        by,
        tuple(changes),
        tuple(_alone(earlier, later)),
        tuple(_alone(later, earlier)),
        tuple(f"{_named(key)}, {key[2]}: {why}" for key, why in apart.items()),
        tuple(_notes(before, after)),
    )


def _alone(rows: Mapping[_Key, Row], others: Mapping[_Key, Row]) -> Iterator[str]:
    """What rows there are alone, the sides of a case together."""
    sides: dict[str, list[str]] = {}
    for key in rows:
        if key not in others:
            sides.setdefault(_named(key), []).append(key[2])
    return (f"{name}: {', '.join(each)}" for name, each in sides.items())


def _named(key: _Key) -> str:
    swept, case, _, precision, scale = key
    return f"{case}, scale {scale:.3g}, {precision}" if swept else f"{case}, {precision}"


def _by_key(report: Report) -> dict[_Key, Row]:
    return {
        (swept, row.case, row.side, row.precision, row.scale): row
        for swept, rows in ((False, report.rows), (True, report.sweeps))
        for row in rows
    }


def _obstacle(
    key: _Key, earlier: Mapping[_Key, Row], later: Mapping[_Key, Row], by: By
) -> tuple[_Key, str] | None:
    """Why two rows cannot be compared; None where they can."""
    if earlier[key].shapes != later[key].shapes:
        return key, "other shapes"
    if by == "ratios" and not all(_eager(key) in rows for rows in (earlier, later)):
        return key, "no eager beside it"
    return None


def _eager(key: _Key) -> _Key:
    return (*key[:2], "eager", *key[3:])


def _change(
    key: _Key, earlier: Mapping[_Key, Row], later: Mapping[_Key, Row], by: By, alike: bool
) -> Change:
    old, new = earlier[key], later[key]
    if by == "times":
        was, now = (old.p20_ms, old.p50_ms, old.p80_ms), (new.p20_ms, new.p50_ms, new.p80_ms)
        factor = now[1] / was[1]
    else:
        was, now = ratio(old, earlier[_eager(key)]), ratio(new, later[_eager(key)])
        factor = was[1] / now[1]
    apart = was[2] < now[0] or now[2] < was[0]
    verdict: Verdict = "same"
    if apart and max(factor, 1 / factor) > 1 + THRESHOLDS[by]:
        verdict = "slower" if factor > 1 else "faster"
    return Change(new, was[1], now[1], factor, verdict, tuple(_grown(old, new)) if alike else ())


def _grown(old: Row, new: Row) -> Iterator[str]:
    errors = {
        "error": (old.error, new.error),
        "gradient error": (old.gradient_error, new.gradient_error),
    }
    for name, (was, now) in errors.items():
        if was is not None and now is not None and now > max(ERROR * was, was + _ROUNDING):
            yield f"{name} {was:.1e} to {now:.1e}"
    if old.peak_bytes is not None and new.peak_bytes is not None:
        was, now = old.peak_bytes, new.peak_bytes
        if now > max(PEAK * was, was + _MEGABYTE):
            yield f"peak memory {was / 1e6:.0f} to {now / 1e6:.0f} MB"


def _notes(before: Report, after: Report) -> Iterator[str]:
    """What makes runs unlike besides the device."""
    for name in ("threads", "versions"):
        old, new = before.environment[name], after.environment[name]
        if old != new:
            yield f"{name}: {_told(old)} before, {_told(new)} after"
    for which, report in (("earlier", before), ("later", after)):
        if not report.complete:
            yield f"the {which} results are of a run that ran out of time"


def _told(value: object) -> str:
    if not isinstance(value, Mapping):
        return str(value)
    return " ".join(f"{name} {each}" for name, each in value.items() if each is not None)
