"""What swaps a layer for a fused one."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import nn
from torch.nn.modules.module import _has_any_global_hook


@dataclass(frozen=True)
class Rule:
    """Instances of one class, and the fused class that they become.

    A rule stands in the file of its fused class. One about layers that are PyTorch's own, say an
    `nn.Sequential` of two convolutions, concerns few of their instances; one whose kernel is not
    always the faster says by `obstacle` when it is not.

    Attributes:
        layer: the class that is swapped; its subclasses are left alone, with the reason.
        fused: a subclass of `layer` without state of its own.
        operator: the name of what it runs, `torch.ops.sepfast.<operator>`, or what tells the names
            for an instance.
        concerns: whether the rule has anything to say about an instance.
        obstacle: why an instance cannot be swapped, None where it can; a clause that fits behind
            "it stays,".
        remainder: why a part of an instance that is swapped stays as it is, likewise.
    """

    layer: type[nn.Module]
    fused: type[nn.Module]
    operator: str | Callable[[Any], str]
    concerns: Callable[[Any], bool] = lambda layer: True
    obstacle: Callable[[Any], str | None] = lambda layer: None
    remainder: Callable[[Any], str | None] = lambda layer: None

    def operator_of(self, layer: nn.Module) -> str:
        """The name of what an instance runs, several with commas between."""
        return self.operator if isinstance(self.operator, str) else self.operator(layer)


class Found(NamedTuple):
    """Neighbours in an `nn.Sequential` that an operator computes.

    Attributes:
        operator: its name.
        obstacle: why it does not, None where it does.
    """

    operator: str
    obstacle: str | None


def hooked(layer: nn.Module) -> bool:
    """Whether a call of a layer is more than its class's forward, which would not run fused."""
    return bool(
        layer._forward_pre_hooks
        or layer._forward_hooks
        or layer._backward_pre_hooks
        or layer._backward_hooks
        or "forward" in layer.__dict__
    )


def watched() -> bool:
    """Whether someone looks into every layer: hooks of all modules, or `torch.func`.

    Operators know no batch of `torch.func`, and refuse its derivatives.
    """
    return bool(_has_any_global_hook()) or torch._C._are_functorch_transforms_active()
