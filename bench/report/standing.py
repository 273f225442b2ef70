"""How ours stands in each case of a report: beside eager, beside the best of the others, in error.

What figures and page say of a case is worked out here, once, from the rows of a results file alone.
Times are only ever divided by others of the same run, as those of a shared machine mean nothing
by themselves.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Literal, NamedTuple

from sepfast.bench.results import OURS, Report, Row
from sepfast.ops.accuracy import ACCURACY

#: A side that has less to compute than the others of its case; its name says so.
LESS = " without "

Verdict = Literal["wins", "level", "loses"]


class Ratio(NamedTuple):
    """How many times faster a row is than another one, above 1 where it is.

    Attributes:
        low: the other's p20 over this one's p80, the least that both spreads allow.
        middle: of the medians.
        high: the other's p80 over this one's p20, the most.
    """

    low: float
    middle: float
    high: float

    @property
    def verdict(self) -> Verdict:
        """Level where the two spreads, p20 to p80, overlap."""
        return "wins" if self.low > 1 else "loses" if self.high < 1 else "level"


def ratio(row: Row, other: Row) -> Ratio:
    """How many times faster a row is than another one of its run.

    >>> from types import SimpleNamespace as Times
    >>> fast, slow = Times(p20_ms=1, p50_ms=2, p80_ms=4), Times(p20_ms=8, p50_ms=10, p80_ms=12)
    >>> ratio(fast, slow)
    Ratio(low=2.0, middle=5.0, high=12.0)
    """
    return Ratio(other.p20_ms / row.p80_ms, other.p50_ms / row.p50_ms, other.p80_ms / row.p20_ms)


class Exactness(NamedTuple):
    """An error and what it had to stay below; None where the file does not tell."""

    error: float
    bound: float | None

    @property
    def share(self) -> float:
        """Of the bound; 0 where there is none."""
        return self.error / self.bound if self.bound else 0.0


def nearest(errors: Iterable[Exactness | None]) -> Exactness | None:
    """Of the errors that there are, the one that comes closest to its bound."""
    known = filter(None, errors)
    return max(known, key=lambda each: (each.share, each.error), default=None)


@dataclass(frozen=True)
class Standing:
    """A case at a precision, with its sides.

    Attributes:
        sides: side -> its row, "ours" among them.
        bounds: of result and gradients, where the case was verified with bounds that are kept.
    """

    sides: Mapping[str, Row]
    bounds: tuple[float, float] | None = None

    @property
    def case(self) -> str:
        """Its name, `workload/operator`."""
        return self.sides["ours"].case

    @property
    def operator(self) -> str:
        """The operator, "chain", or what kind of system."""
        return self.sides["ours"].operator

    @property
    def precision(self) -> str:
        """What PyTorch's knob said."""
        return self.sides["ours"].precision

    @property
    def system(self) -> bool:
        """Whether it is a whole system and not one of the operators."""
        return self.operator not in ACCURACY and self.operator != "chain"

    @property
    def ours(self) -> Row:
        """The faster one of ours."""
        return min((self.sides[name] for name in OURS if name in self.sides), key=_median)

    @property
    def best(self) -> Row | None:
        """The fastest of the others; None where there is no other."""
        others = [row for side, row in self.sides.items() if side not in OURS]
        return min(others, key=_median, default=None)

    def against(self, side: str, of: str = "") -> Ratio | None:
        """How many times faster than a side ours is, or the side `of`; None where one is not."""
        row = self.sides.get(of) if of else self.ours
        other = self.sides.get(side)
        return None if row is None or other is None else ratio(row, other)

    def against_best(self, of: str = "") -> Ratio | None:
        """The same beside the fastest of the others."""
        return None if self.best is None else self.against(self.best.side, of)

    def verdict(self, of: str = "") -> Verdict:
        """Whether ours, or the side `of`, wins against the fastest of the others."""
        beside = self.against_best(of)
        return "wins" if beside is None else beside.verdict

    def exactness(self) -> Exactness | None:
        """Of the errors of result and gradients, the one that comes closest to its bound."""
        row, bounds = self.sides["ours"], self.bounds or (None, None)
        errors = (row.error, row.gradient_error)
        pairs = zip(errors, bounds, strict=True)
        return nearest(Exactness(error, bound) for error, bound in pairs if error is not None)

    def memory(self, of: str = "ours") -> float | None:
        """A side's peak bytes over eager's, below 1 is leaner; None where one was not measured."""
        side, eager = (self.sides[name].peak_bytes if name in self.sides else None
                       for name in (of, "eager"))  # fmt: skip
        return None if side is None or not eager else side / eager


def standings(report: Report) -> list[Standing]:
    """The cases of a report that ours was timed in, in the order of the report."""
    bounds = {
        (each["case"], each.get("precision")): (each["bound"], each["gradient_bound"])
        for each in report.verification
        if each.get("side") == "ours" and "bound" in each and "gradient_bound" in each
    }
    return [
        Standing(sides, bounds.get(key)) for key, sides in _sides(report.rows) if "ours" in sides
    ]


def _sides(rows: Iterable[Row]) -> Iterable[tuple[tuple[str, str], dict[str, Row]]]:
    """(case, precision) and its sides."""
    found: dict[tuple[str, str], dict[str, Row]] = {}
    for row in rows:
        found.setdefault((row.case, row.precision), {})[row.side] = row
    return found.items()


def swept(report: Report) -> dict[tuple[str, str], list[Standing]]:
    """(case, precision) -> how ours stands in each of its sizes, the smallest one first.

    What has but one size is left out.
    """
    found: dict[tuple[str, str], dict[float, dict[str, Row]]] = {}
    for row in report.sweeps:
        sizes = found.setdefault((row.case, row.precision), {})
        sizes.setdefault(row.scale, {})[row.side] = row
    sweeps = {
        key: [Standing(sides) for _, sides in sorted(sizes.items()) if "ours" in sides]
        for key, sizes in found.items()
    }
    return {key: sizes for key, sizes in sweeps.items() if len(sizes) > 1}


def precisions(report: Report) -> list[str]:
    """The precisions of a report's rows, in their order."""
    return list(dict.fromkeys(row.precision for row in report.rows))


def device(report: Report) -> str:
    """Its name, as the report has it."""
    name: str = report.environment["device"]
    name = name.replace("(R)", "").replace("(TM)", "")
    return name if report.on_gpu or "CPU" in name else f"{name} CPU"


def machine(report: Report) -> str:
    """The device's name, and the threads of a CPU."""
    if report.on_gpu:
        return device(report)
    threads = report.environment["threads"]
    return f"{device(report)}, {threads} thread{'s' * (threads != 1)}"


def commit(report: Report) -> str:
    """The commit in ten digits, a plus behind them where files differ."""
    digits = report.environment["commit"]
    if not digits:
        return "no commit"
    return f"commit {digits[:10]}" + "+" * digits.endswith("-dirty")


def _median(row: Row) -> float:
    return row.p50_ms
