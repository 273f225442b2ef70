"""A side of a system: what is timed and what is verified."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from torch import Tensor

from sepfast.bench.clocks import Function


@dataclass(frozen=True)
class Side:
    """A side that was built.

    Attributes:
        call: what is timed.
        result: computes what is held to the other sides', by name.
        warm: calls until all is compiled and captured; memory is measured in the last of them.
    """

    call: Function
    result: Callable[[], dict[str, list[Tensor]]]
    warm: int = 1
