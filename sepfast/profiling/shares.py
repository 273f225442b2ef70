"""What share of the steps each range takes by itself, without those inside it.

A path is the names of a range and of all it is in, the step first; spans have the time of each path
by itself, and how often it was there.
"""

from __future__ import annotations

import threading
from collections import defaultdict
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from time import perf_counter_ns

Path = tuple[str, ...]

#: In the order of a step.
PHASES = ("data", "forward", "backward", "optimiser")

#: The phase of what a step does in none of these.
REST = "rest of the step"


@dataclass
class Span:
    """The time of a range by itself.

    Attributes:
        time: of all its calls, in any unit.
        calls: how often it was there.
    """

    time: float = 0.0
    calls: int = 0


@dataclass(frozen=True)
class Row:
    """A line of the table.

    Attributes:
        phase: one of `PHASES`, or `REST`.
        operator: in that phase; empty for all that is outside of operators.
        share: of the time of all steps, 0 to 1.
        calls: a step.
    """

    phase: str
    operator: str
    share: float
    calls: float


@dataclass
class Stopwatch:
    """Opens ranges and takes the time that each lasts by itself, in nanoseconds, on one thread.

    What other threads open is let pass: a loader's are no part of the step that waits for it.
    """

    spans: dict[Path, Span] = field(default_factory=lambda: defaultdict(Span))
    _inside: list[int] = field(default_factory=list)
    _path: Path = ()
    _thread: int = field(default_factory=threading.get_ident)

    @contextmanager
    def __call__(self, name: str) -> Iterator[None]:
        """Take the time of a range."""
        if threading.get_ident() != self._thread:
            yield
            return
        outer, self._path = self._path, (*self._path, name)
        self._inside.append(0)
        began = perf_counter_ns()
        try:
            yield
        finally:
            lasted = perf_counter_ns() - began
            span = self.spans[self._path]
            span.time += lasted - self._inside.pop()
            span.calls += 1
            self._path = outer
            if self._inside:
                self._inside[-1] += lasted


def rows(spans: Mapping[Path, Span]) -> list[Row]:
    """The table, phase by phase, in each the operator that takes the most first.

    Args:
        spans: of paths that begin with "step".

    Returns:
        Rows whose shares add up to 1; none where nothing took any time.
    """
    total = sum(span.time for span in spans.values())
    steps = spans[("step",)].calls if ("step",) in spans else 0
    if not total or not steps:
        return []
    found: dict[tuple[str, str], Span] = defaultdict(Span)
    for path, span in spans.items():
        row = found[_place(path)]
        row.time += span.time
        row.calls += span.calls
    made = [
        Row(phase, operator, span.time / total, span.calls / steps)
        for (phase, operator), span in found.items()
    ]
    order = (*PHASES, REST)
    return sorted(made, key=lambda row: (order.index(row.phase), not row.operator, -row.share))


def _place(path: Path) -> tuple[str, str]:
    """A path's phase and operator; the innermost of operators in one another."""
    if len(path) == 1 or path[1] not in PHASES:
        return REST, path[-1] if len(path) > 1 else ""
    return path[1], path[-1] if len(path) > 2 else ""
