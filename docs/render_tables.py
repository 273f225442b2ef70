"""The tables of the documentation, as lines of Markdown; `render.py` puts them into the pages."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import NamedTuple

from sepfast.bench.cases import suite
from sepfast.bench.report.standing import commit, machine
from sepfast.bench.report.tables import glance
from sepfast.bench.report.wording import call
from sepfast.bench.results import OURS, Report, Row
from sepfast.bench.verify import demanded
from sepfast.kernels.compile_result import Result
from sepfast.kernels.targets import TARGETS
from sepfast.ops.accuracy import ACCURACY, Bound

_NONE = "-"
_NUMBER = re.compile(r"\d+(\.\d+)?(e[-+]\d+)?")


class Data(NamedTuple):
    """What tables are made from.

    Attributes:
        triton: the version that compiled.
        compiled: the table of the compile gate.
        reports: the results that are checked in, by their files' order.
    """

    triton: str
    compiled: list[Result]
    reports: list[Report]


# Accuracy


def _accuracy(argument: str, data: Data) -> Iterator[str]:
    """One row a precision, those with equal bounds together."""
    errors, rows = _errors(data.reports), []
    for operator in sorted(ACCURACY) if argument == "all" else [argument]:
        kinds: dict[Bound, list[str]] = {}
        for precision, bound in ACCURACY[operator].items():
            kinds.setdefault(bound, []).append(precision)
        for bound, precisions in kinds.items():
            name = "any" if len(precisions) == 3 else ", ".join(precisions)
            link = f"[{operator}](operators/{operator}.md)"
            seen = [
                each for precision in precisions for each in errors.get((operator, precision), [])
            ]
            rows.append((link, name, *map(_error, bound), *_largest(seen)))
    heading = "operator", "precision", "bound: result", "gradients", *_MEASURED
    first = 0 if argument == "all" else 1
    last = len(heading) if any(row[-1] != _NONE for row in rows) else -len(_MEASURED)
    yield from _grid(heading[first:last], [row[first:last] for row in rows])
    if last < 0:
        yield from ("", "No errors measured on a machine are checked in yet.")


#: Columns of what was measured.
_MEASURED = ("measured: result", "gradients", "by")


class _Errors(NamedTuple):
    """Of a result and of a gradient, None where that was not verified, and what made them."""

    result: float
    gradient: float | None
    by: str


def _largest(errors: Sequence[_Errors]) -> tuple[str, str, str]:
    """The largest of either, and all that made one."""
    if not errors:
        return _NONE, _NONE, _NONE
    gradients = [each.gradient for each in errors if each.gradient is not None]
    by = ", ".join(sorted({each.by for each in errors}))
    return _error(max(each.result for each in errors)), _error(max(gradients, default=None)), by


def _errors(reports: Iterable[Report]) -> dict[tuple[str, str], list[_Errors]]:
    """By operator and precision.

    Cases that run an operator several times have bounds of their own, and are left out.
    """
    several = {case.name for case in suite("full") if len(case.parts) > 1}
    found: dict[tuple[str, str], list[_Errors]] = {}
    for report in reports:
        for row in report.rows:
            if row.side == "ours" and row.error is not None and row.case not in several:
                by = f"{row.path} on {report.environment['device']}"
                made = _Errors(row.error, _of_gradients(row), by)
                found.setdefault((row.operator, row.precision), []).append(made)
    return found


def _of_gradients(row: Row) -> float | None:
    """The error of a row's gradients; None where none was verified, for which rows have 0."""
    return row.gradient_error or None


# Compiled


def kernels_of(operator: str, kernels: Iterable[str]) -> list[str]:
    """The kernels that an operator runs: those that have its name, and those of its cases.

    Args:
        operator: its name.
        kernels: all names, `sepfast_<operator>_<stage>`.
    """
    named = {kernel for kernel in kernels if _named_after(kernel) == operator}
    launched = {f"sepfast_{kernel}" for case in suite("full", operator) for kernel in case.kernels}
    return sorted((named | launched) & set(kernels))


def _named_after(kernel: str) -> str:
    """The operator of a kernel's name, the longest that fits."""
    fitting = (each for each in ACCURACY if kernel.startswith(f"sepfast_{each}_"))
    return max(fitting, key=len, default="")


class _Worst(NamedTuple):
    """The worst of a kernel's configurations on a target, tensor-core instructions the fewest."""

    registers: int
    shared: int
    spills: int
    tensor: int | None
    configurations: int

    @classmethod
    def of(cls, results: Sequence[Result]) -> _Worst:
        return cls(
            max(each.registers for each in results),
            max(each.shared for each in results),
            max(each.spills for each in results),
            min(each.tensor for each in results) if results[0].dots else None,
            len(results),
        )

    @property
    def cells(self) -> tuple[str, str, str]:
        """Registers, shared memory in KB, tensor-core instructions."""
        tensor = _NONE if self.tensor is None else str(self.tensor)
        return str(self.registers), _kilobytes(self.shared), tensor


def _worst(data: Data) -> dict[str, dict[str, _Worst]]:
    """Kernel -> target -> the worst."""
    groups: dict[str, dict[str, list[Result]]] = {}
    for each in data.compiled:
        groups.setdefault(each.kernel, {}).setdefault(each.target, []).append(each)
    return {k: {t: _Worst.of(each) for t, each in of.items()} for k, of in sorted(groups.items())}


def _compiled(argument: str, data: Data) -> Iterator[str]:
    worst = _worst(data)
    if argument == "all":
        yield from _compiled_all(worst, data)
        return
    rows = []
    for kernel in kernels_of(argument, worst):
        for target in TARGETS:
            name, made = f"`{kernel}`", worst[kernel].get(target.name)
            if made is None:
                rows.append((name, target.name, "not shipped", *[""] * 4))
                continue
            count = str(made.configurations)
            rows.append((name, target.name, *made.cells, str(made.spills), count))
    heading = ("kernel", "target", "registers", "shared KB", "tensor-core instructions", "spills",
               "configurations")  # fmt: skip
    yield from _grid(heading, rows)


def _compiled_all(worst: dict[str, dict[str, _Worst]], data: Data) -> Iterator[str]:
    spills = sum(bool(each.spills or each.stack) for each in data.compiled)
    yield (
        f"{len(data.compiled):,} compilations by Triton {data.triton}, of {len(worst)} kernels for "
        f"{len(TARGETS)} targets; {spills or 'none'} of them "
        f"{'spill' if spills != 1 else 'spills'} registers."
    )
    tables = ("Registers of a thread", "Shared memory of a block, KB", "Tensor-core instructions")
    for column, title in enumerate(tables):
        yield from ("", f"**{title}**", "")
        rows = []
        for kernel, made in worst.items():
            cells = [
                made[target.name].cells[column] if target.name in made else "not shipped"
                for target in TARGETS
            ]
            if set(cells) - {_NONE, "not shipped"}:
                rows.append((f"`{kernel.removeprefix('sepfast_')}`", *cells))
        yield from _grid(("kernel", *(target.name for target in TARGETS)), rows)


def _kilobytes(size: int) -> str:
    return f"{size / 1024:.1f}".removesuffix(".0")


# Work


def _work(argument: str, data: Data) -> Iterator[str]:
    """At "highest", whose tilings ours moves bytes by."""
    rows = []
    with demanded("highest"):
        for case in suite("full", argument):
            done = case.work(case.shape)
            rows.append((
                f"`{case.name}`", f"{done.least / 1e6:,.1f}", f"{done.moved / 1e6:,.1f}",
                f"{done.excess:.2f}", _short(done.needed / 1e9),
                _short(done.needed / done.least),
            ))  # fmt: skip
    heading = ("case", "least MB", "moved MB", "moved / least", "GFLOP", "operations a byte")
    yield from _grid(heading, rows)
    yield from ("", 'By counting, at "highest", with the configurations that an H200 takes.')


def _short(number: float) -> str:
    """Three digits, never as a power of ten."""
    if not number:
        return "0"
    digits = max(0, 2 - math.floor(math.log10(abs(number))))
    return f"{round(number, digits):,.{digits}f}" if digits else f"{round(number):,}"


# Measured


def _measured(argument: str, data: Data) -> Iterator[str]:
    there = [report for report in data.reports if _ours(report, argument)]
    if not there:
        yield "Not measured yet."
    for at, report in enumerate(there):
        if at:
            yield ""
        yield from _report(report, argument)
    if there:
        yield from ("", "Above 1 ours is faster; in bold it is slower.")


def _ours(report: Report, operator: str) -> list[Row]:
    return [row for row in report.rows if row.operator == operator and row.side in OURS]


def _report(report: Report, operator: str) -> Iterator[str]:
    about = report.environment
    shapes = "" if report.settings["size"] == "full" else f", {report.settings['size']} shapes"
    where = f"**{about['device']}**, {_versions(report)}{shapes}"
    yield f"{where}, {commit(report)}: `{call(report)}`"
    yield ""
    on_gpu = report.on_gpu
    rows = []
    for row in _ours(report, operator):
        others = [r for r in report.rows if (r.case, r.precision) == (row.case, row.precision)]
        compiled = [r.p50_ms / row.p50_ms for r in others if r.side == "compiled"]
        graph = ", in a CUDA graph" if row.side == "graph" else ""
        rows.append((
            f"`{row.case}`{graph}", row.precision, row.path, *([_short(row.p50_ms)] * on_gpu),
            _ratio(row.ratio_to_eager), _ratio(compiled[0] if compiled else None),
            f"{row.ceiling_percent:.0f}", _error(row.error), _error(_of_gradients(row)),
        ))  # fmt: skip
    heading = ("case", "precision", "ran", *(["ms"] * on_gpu), "eager / ours", "compiled / ours",
               "% of ceiling", "error", "of gradients")  # fmt: skip
    yield from _grid(heading, rows)


def _versions(report: Report) -> str:
    """Of PyTorch and, where it is there, Triton."""
    versions = report.environment["versions"]
    return ", ".join(f"{name} {versions[name]}" for name in ("torch", "triton") if versions[name])


def _ratio(number: float | None) -> str:
    """Above 1 ours is faster; in bold where it is slower."""
    if number is None:
        return _NONE
    return f"{number:.2f}" if number >= 1 else f"**{number:.2f}**"


def _error(number: float | None) -> str:
    """Two digits, or one that says it."""
    if number is None:
        return _NONE
    short = f"{number:.0e}"
    return short if float(short) == number else f"{number:.1e}"


def _grid(heading: Sequence[str], rows: Iterable[Sequence[str]]) -> Iterator[str]:
    """A table of Markdown, numbers to the right."""
    rows = list(rows)
    yield f"| {' | '.join(heading)} |"
    columns = zip(*rows, strict=True) if rows else [() for _ in heading]
    yield f"| {' | '.join('---:' if _numeric(column) else '---' for column in columns)} |"
    for row in rows:
        yield f"| {' | '.join(row)} |"


def _numeric(column: Iterable[str]) -> bool:
    values = {each.strip("*").replace(",", "") for each in column} - {"", _NONE, "not shipped"}
    return bool(values) and all(map(_NUMBER.fullmatch, values))


# At a glance


def _glance(argument: str, data: Data) -> Iterator[str]:
    if not data.reports:
        yield "Not measured yet."
    for at, report in enumerate(data.reports):
        if at:
            yield ""
        yield f"**{machine(report)}**, {_versions(report)}: `{call(report)}`"
        yield ""
        table = glance(report)
        shown = [column for column, title in enumerate(table.header) if title != "path"]
        rows = [
            [_named(row[column].replace("\u00a0", " ")) for column in shown] for row in table.rows
        ]
        yield from _grid([table.header[column] for column in shown], rows)


def _named(cell: str) -> str:
    """An operator with the link to its page."""
    return f"[`{cell}`](docs/operators/{cell}.md)" if cell in ACCURACY else cell


#: What a marker says -> takes an operator, or "all", and the data; gives the lines of its table.
TABLES: dict[str, Callable[[str, Data], Iterator[str]]] = {
    "accuracy": _accuracy,
    "compiled": _compiled,
    "work": _work,
    "measured": _measured,
    "glance": _glance,
}
