"""From a loss to the next weights: precision, the gradients' scale, and clipping.

In "bfloat16" and "float16" the loss is computed under PyTorch's autocast: products in the narrow
type, sums, losses and weights in float32. The least float16 is 6e-8, under which most gradients
lie; so the loss is multiplied by a scale before the backward, the gradients are divided by it
after, and a step whose gradients overflow is left out and halves the scale. bfloat16 has the range
of float32 and needs none of that.
Source: Micikevicius et al. 2018, "Mixed precision training", and PyTorch's `torch.amp`.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from sepfast.errors import InputError
from sepfast.ops.ranges import phase_range
from sepfast.training.options import TrainingOptions

_NARROW = {"bfloat16": torch.bfloat16, "float16": torch.float16}


class Update:
    """The optimizer of a run, and what is done to losses and gradients around it.

    Args:
        model: what is trained, on the device where it stays.
        options: the choices.

    Attributes:
        optimizer: of the weights that require a gradient.
        obstacle: why a step cannot be captured in a CUDA graph; None where nothing is in the way.

    Raises:
        InputError: for a precision that the device does not take.
    """

    def __init__(self, model: nn.Module, options: TrainingOptions) -> None:
        self._weights = [weight for weight in model.parameters() if weight.requires_grad]
        self._device = next(model.parameters()).device.type
        self._narrow, self._clip = _NARROW.get(options.precision), options.clip_norm
        self.optimizer = options.optimizer_of(self._weights)
        self._lstm = any(isinstance(module, nn.LSTM) for module in model.modules())
        self._scaler = None
        self.obstacle: str | None = None
        if options.precision == "float16":
            _check_scalable(self._device)
            self._scaler = torch.amp.GradScaler(self._device)
            self.obstacle = "float16 looks at the gradients from the host, bfloat16 does not"

    @contextmanager
    def autocast(self) -> Iterator[None]:
        """Where the loss is to be computed."""
        if self._narrow is None:
            yield
            return
        with torch.autocast(self._device, self._narrow):
            if self._device == "cpu" and self._lstm:
                with _without_onednn():
                    yield
            else:
                yield

    def __call__(self, loss: Tensor) -> list[Tensor]:
        """Update the weights; without float16, nothing waits for the device.

        Args:
            loss: a scalar with its graph; the gradients are none or zeros.

        Returns:
            The norm of all gradients as they were before they were clipped, a scalar on the
            device; empty without clipping.
        """
        if self._scaler is None:
            with phase_range("backward"):
                loss.backward()
            with phase_range("optimiser"):
                norm = self._clipped()
                self.optimizer.step()
            return norm
        with phase_range("backward"):
            self._scaler.scale(loss).backward()
        with phase_range("optimiser"):
            self._scaler.unscale_(self.optimizer)
            norm = self._clipped()
            self._scaler.step(self.optimizer)
            self._scaler.update()
        return norm

    def state(self) -> dict[str, Any]:
        """What a checkpoint keeps."""
        state: dict[str, Any] = {"optimizer": self.optimizer.state_dict()}
        if self._scaler is not None:
            state["scaler"] = self._scaler.state_dict()
        return state

    def restore(self, state: dict[str, Any]) -> None:
        """Go on from what `state` gave, in a dictionary with other things."""
        self.optimizer.load_state_dict(state["optimizer"])
        if self._scaler is not None:
            self._scaler.load_state_dict(state["scaler"])

    def _clipped(self) -> list[Tensor]:
        if not self._clip:
            return []
        return [nn.utils.clip_grad_norm_(self._weights, self._clip)]


@contextmanager
def _without_onednn() -> Iterator[None]:
    """Keep oneDNN out: PyTorch gives it LSTMs in bfloat16 on CPUs too for which it has none.

    `torch.backends.mkldnn.flags` would change other settings with this one, and warn.
    """
    set_flags = torch.backends.mkldnn.set_flags
    before = set_flags(_enabled=False, _fp32_precision=None)
    try:
        yield
    finally:
        set_flags(_enabled=before[0], _fp32_precision=None)


def _check_scalable(device: str) -> None:
    if device != "cuda":
        raise InputError(f"precision: got float16 on {device}, takes float32 or bfloat16 there")
