"""The report's tables: a line for each operator, and one for each case."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from statistics import median

from sepfast.bench.report.drawing import TIMES, multiples, short
from sepfast.bench.report.standing import (
    Exactness,
    Ratio,
    Standing,
    nearest,
    precisions,
    standings,
)
from sepfast.bench.results import Report
from sepfast.evaluation.page import Table

_NONE = "\u2013"
_STAYS = "\u00a0"  # a space at which no line ends


def glance(report: Report) -> Table:
    """A line for each operator and kind of system at each precision, over all of its cases."""
    groups: dict[tuple[bool, str, str], list[Standing]] = {}
    for each in standings(report):
        groups.setdefault((each.system, each.operator, each.precision), []).append(each)
    several = len(precisions(report)) > 1
    header = ("operator", *["precision"] * several, "speed / eager", "speed / best other",
              "% of ceiling", "error / bound", "memory / eager", "path", "cases lost")  # fmt: skip
    rows = [
        (
            operator,
            *[precision] * several,
            _over(_middle(each.against("eager")) for each in group),
            _over(_middle(each.against_best()) for each in group),
            _percents(group),
            _exact(nearest(each.exactness() for each in group)),
            _over(each.memory() for each in group),
            ", ".join(dict.fromkeys(_path(each) for each in group)),
            f"{sum(each.verdict() == 'loses' for each in group)} of {len(group)}",
        )
        for (_, operator, precision), group in sorted(groups.items(), key=lambda item: item[0][0])
    ]
    return Table(header, rows, "Operators, then systems")


def cases(report: Report, system: bool) -> Table:
    """A line for each case of the operators, or for each system."""
    several = len(precisions(report)) > 1
    header = ("case", *["precision"] * several, *["median"] * report.on_gpu, "speed / eager",
              "speed / best other", "against it", "% of ceiling", "error / bound", "memory / eager",
              "path")  # fmt: skip
    rows = [
        (
            each.case,
            *[each.precision] * several,
            *[f"{each.ours.p50_ms:,.3f} ms"] * report.on_gpu,
            _times(each.against("eager")),
            _best(each),
            each.verdict() if each.best is not None else _NONE,
            _percent(each.ours.ceiling_percent),
            _exact(each.exactness()),
            _lean(each),
            _path(each),
        )
        for each in standings(report)
        if each.system == system
    ]
    return Table(header, rows, "Systems" if system else "Operators")


def _middle(ratio: Ratio | None) -> float | None:
    return None if ratio is None else ratio.middle


def _over(values: Iterable[float | None]) -> str:
    """The median and the range of what there is."""
    there = [value for value in values if value is not None]
    if not there:
        return _NONE
    middle = f"{multiples(median(there))}{TIMES}"
    if len(there) == 1:
        return middle
    return _ranging(middle, multiples(min(there)), multiples(max(there)))


def _percents(group: Sequence[Standing]) -> str:
    shares = sorted(each.ours.ceiling_percent for each in group)
    middle, least, most = map(_percent, (median(shares), shares[0], shares[-1]))
    return middle if len(shares) == 1 else _ranging(middle, least, most)


def _percent(share: float) -> str:
    return f"{share:.0f}" if share >= 9.95 else f"{share:.1f}"


def _ranging(middle: str, least: str, most: str) -> str:
    """A value with the range behind it, which may go to a line of its own but not over two."""
    return f"{middle} ({least}{_STAYS}to{_STAYS}{most})"


def _exact(exactness: Exactness | None) -> str:
    if exactness is None:
        return _NONE
    error = _power(f"{exactness.error:.1e}")
    return error if exactness.bound is None else f"{error} / {_power(f'{exactness.bound:.0e}')}"


def _power(number: str) -> str:
    """A number without zeros before its power of ten.

    >>> _power("1.5e-07")
    '1.5e-7'
    """
    return number.replace("e-0", "e-").replace("e+0", "e")


def _times(ratio: Ratio | None) -> str:
    return _NONE if ratio is None else f"{multiples(ratio.middle)}{TIMES}"


def _best(standing: Standing) -> str:
    if standing.best is None:
        return _NONE
    return f"{_times(standing.against_best())}{_STAYS}{short(standing.best.side)}"


def _lean(standing: Standing) -> str:
    share, peak = standing.memory(), standing.sides["ours"].peak_bytes
    if share is None or peak is None:
        return _NONE
    return f"{multiples(share)}{TIMES} ({multiples(peak / 1e6)}{_STAYS}MB)"


def _path(standing: Standing) -> str:
    """What ran, and whether the faster one of ours is a replayed graph."""
    return standing.sides["ours"].path + " in a graph" * (standing.ours.side == "graph")
