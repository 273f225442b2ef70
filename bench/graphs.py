"""A call in a CUDA graph: launched as one where it was many kernels."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch

from sepfast.bench.case import Case
from sepfast.bench.peaks import peak_of
from sepfast.bench.verify import LENIENCE, WrongResult, as_tuple
from sepfast.ops.accuracy import largest, relative_error

#: Ordinary calls before the capture: they compile kernels, and fill tables and plans.
_WARM_UP = 3


class FailedSide(RuntimeError):
    """A side that cannot be built here.

    Attributes:
        side: the side.
    """

    def __init__(self, side: str, why: Exception) -> None:
        super().__init__(repr(why)[:500])
        self.side = side


class Captured:
    """A call that is recorded once and replayed from then on.

    It reads the tensors of the recorded call, and gives its result in the same memory each time.

    Args:
        call: without arguments; the host does not wait for the GPU within.
        device: the GPU.

    Attributes:
        peak: bytes that the recording takes, and keeps.
    """

    def __init__(self, call: Callable[[], Any], device: torch.device) -> None:
        self._call, self._stream = call, torch.cuda.Stream(device)
        self._stream.wait_stream(torch.cuda.current_stream(device))
        with torch.cuda.stream(self._stream):
            for _ in range(_WARM_UP):
                call()
        torch.cuda.current_stream(device).wait_stream(self._stream)
        self._graph, self._result = torch.cuda.CUDAGraph(), None
        self.peak = peak_of(self._record, device)

    def _record(self) -> None:
        """Record the call, which does not execute it."""
        with torch.cuda.graph(self._graph, stream=self._stream):
            self._result = self._call()

    def __call__(self) -> Any:
        """Replay it."""
        self._graph.replay()
        return self._result


def graph_of(case: Case, call: Callable[[], Any], device: torch.device) -> Captured:
    """A call in a graph, held to the call itself.

    Args:
        case: the case.
        call: gives results, or gradients where the case has them.
        device: the GPU.

    Raises:
        FailedSide: where it cannot be recorded.
        WrongResult: where the graph gives something else.
    """
    try:
        captured = Captured(call, device)
    except Exception as error:  # what waits for the GPU cannot be recorded
        raise FailedSide("graph", error) from error
    _hold(case, call, captured)
    return captured


def _hold(case: Case, call: Callable[[], Any], captured: Callable[[], Any]) -> None:
    bound = case.bound()
    most = LENIENCE * (bound.backward if case.gradient else bound.forward)
    true = [x.clone() for x in as_tuple(call())]
    for x in as_tuple(captured()):
        x.detach().fill_(float("nan"))  # a replay that writes nothing is to be seen
    error = largest(map(relative_error, as_tuple(captured()), true))
    if not error <= most:
        what = "gradient" if case.gradient else "result"
        raise WrongResult(case, "graph", f"full-size {what}", error, most)
