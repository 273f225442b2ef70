"""The training step captured in a CUDA graph, which is launched as one where it was hundreds.

Small batches are bound by the launches of their kernels. The first steps of a run are ordinary
ones, the next is recorded instead of executed, and from then on a step copies its batch to where
the recording reads it and replays. No step is computed twice, so the losses are those of a run
without, to rounding.

What a recording holds for good: the memory of batch, weights, gradients and optimizer state, which
are only ever written in place; the learning rate, so that another one is recorded anew; and where
dropout finds its seed. A replay first writes the generator's seed and offset of that moment there
and then moves the offset on as ordinary steps do ("CUDA Graph-safe RNG states" in PyTorch's
CUDAGeneratorImpl.h): the seed of an epoch holds for replayed steps too, with the same dropout.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, cuda

Step = Callable[[tuple[Tensor, ...]], Tensor]

#: Ordinary steps before the first capture: they compile kernels, fill tables and plans, and make
#: the optimizer's state.
_WARM_UP = 3


def graphed(
    step: Step,
    optimizer: torch.optim.Optimizer,
    device: torch.device,
    note: Callable[[str], None],
    obstacle: str | None = None,
) -> Step:
    """A step that is captured where it can be, and as it was where it cannot.

    Args:
        step: see `GraphedStep`.
        optimizer: likewise.
        device: likewise.
        note: is told once why nothing is captured.
        obstacle: what is known against the step itself.

    Returns:
        A function of a batch, as `step` is.
    """
    reason = graph_obstacle(optimizer, device) or obstacle
    if reason is None:
        return GraphedStep(step, optimizer, device, note)
    note(_without(reason))
    return step


def graph_obstacle(optimizer: torch.optim.Optimizer, device: torch.device) -> str | None:
    """Why no step on a device can be captured; None where nothing is known against it."""
    if device.type != "cuda":  # the name of ROCm's devices too, whose graphs work the same
        return f"needs a GPU, this run is on {device.type}"
    if "capturable" not in optimizer.defaults:
        return f"PyTorch cannot capture {type(optimizer).__name__}"
    if torch.is_anomaly_enabled():
        return "autograd's anomaly mode looks at every gradient from the host"
    return None


class GraphedStep:
    """A training step: ordinary at first, then captured, then replayed.

    A batch of other shapes than the first one's takes an ordinary step: training makes nearly
    all its batches alike, and a graph for each shape would hold the activations of each.

    Args:
        step: takes a batch on the host or the device and gives a tensor on the device; zeroes the
            gradients, makes new ones and updates the weights, without the host waiting for it.
        optimizer: what updates the weights; its state is restored already.
        device: where the weights are.
        note: is told once where the step turns out to wait for the device.
    """

    def __init__(
        self,
        step: Step,
        optimizer: torch.optim.Optimizer,
        device: torch.device,
        note: Callable[[str], None],
    ) -> None:
        self.step, self.optimizer, self.device, self.note = step, optimizer, device, note
        self.stream = cuda.Stream(device)
        self.ordinary = _WARM_UP
        self.off = False
        self.batch: tuple[Tensor, ...] | None = None
        self.rates: list[float] = []
        _make_capturable(optimizer)

    def __call__(self, batch: tuple[Tensor, ...]) -> Tensor:
        """Take a step.

        Args:
            batch: best in pinned memory.

        Returns:
            What `step` returns, in memory of its own.
        """
        with cuda.device(self.device):
            if self.batch is None:
                self.batch = tuple(torch.empty_like(each, device=self.device) for each in batch)
            if self.off or _shapes(batch) != _shapes(self.batch):
                return self._run(batch)
            # Outside of the graph, which would read the host's memory of the first batch for ever.
            for held, given in zip(self.batch, batch, strict=True):
                held.copy_(given, non_blocking=True)
            if self.ordinary:
                return self._warm_up(self.batch)
            rates = [group["lr"] for group in self.optimizer.param_groups]
            if rates != self.rates:
                self._capture(self.batch)
                self.rates = rates
            self.graph.replay()
            return self.result.clone()

    def _run(self, batch: tuple[Tensor, ...]) -> Tensor:
        """An ordinary step, on the stream that captures: what a stream keeps is there by then."""
        current = cuda.current_stream(self.device)
        self.stream.wait_stream(current)
        with cuda.stream(self.stream):
            result = self.step(batch)
        current.wait_stream(self.stream)
        return result

    def _warm_up(self, batch: tuple[Tensor, ...]) -> Tensor:
        """An ordinary step; the last of them tells whether a capture is possible."""
        self.ordinary -= 1
        if self.ordinary:
            return self._run(batch)
        with _waits() as places:
            result = self._run(batch)
        if places:
            self.off = True
            self.note(_without(f"the step waits for the GPU in {', '.join(places)}"))
        return result

    def _capture(self, batch: tuple[Tensor, ...]) -> None:
        """Record a step, which does not execute it."""
        # The backward is to make its gradients in the memory of the graph.
        self.optimizer.zero_grad()
        self.graph = cuda.CUDAGraph()
        # Only this thread is barred from what would spoil a capture: the data loader's goes on
        # pinning memory.
        with cuda.graph(self.graph, stream=self.stream, capture_error_mode="thread_local"):
            self.result = self.step(batch)


def _shapes(batch: tuple[Tensor, ...]) -> list[torch.Size]:
    return [each.shape for each in batch]


def _without(reason: str) -> str:
    return f"training without a CUDA graph: {reason}"


@contextmanager
def _waits() -> Iterator[list[str]]:
    """Where the host waits for the device in a `with` block, known behind it: file:line."""
    places: list[str] = []
    before = cuda.get_sync_debug_mode()
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        cuda.set_sync_debug_mode("warn")
        try:
            yield places
        finally:
            cuda.set_sync_debug_mode(before)
    waits = [w for w in caught if "called a synchronizing" in str(w.message)]
    places += sorted({f"{Path(w.filename).name}:{w.lineno}" for w in waits})
    for other in caught:
        # PyTorch says of this mode, once, that it may miss some.
        if other not in waits and "Synchronization debug mode" not in str(other.message):
            warnings.warn_explicit(other.message, other.category, other.filename, other.lineno)


def _make_capturable(optimizer: torch.optim.Optimizer) -> None:
    """Have an optimizer count its steps on the device, and save itself as if it did not."""
    for group in optimizer.param_groups:
        group["capturable"] = True
        for weight in group["params"]:
            state = optimizer.state.get(weight, {})
            if "step" in state:
                state["step"] = state["step"].to(weight.device)
    optimizer.register_state_dict_post_hook(_as_uncaptured)


def _as_uncaptured(optimizer: torch.optim.Optimizer, state: dict[str, Any]) -> dict[str, Any]:
    """The state that the optimizer has in a run without graphs, on a CPU too."""
    return {
        **state,
        # New dictionaries: those of the state are the optimizer's own.
        "state": {
            weight: {**values, "step": values["step"].cpu()}
            for weight, values in state["state"].items()
        },
        "param_groups": [{**group, "capturable": False} for group in state["param_groups"]],
    }
