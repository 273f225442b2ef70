"""What swaps a layer for a fused one."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from torch import nn


@dataclass(frozen=True)
class Rule:
    """Instances of one class, and the fused class that they become.

    A rule stands in the file of its fused class. One about layers that are PyTorch's own, say an
    `nn.Sequential` of two convolutions, concerns few of their instances; one whose kernel is not
    always the faster says by `obstacle` when it is not.

    Attributes:
        layer: the class that is swapped; its subclasses are left alone, with the reason.
        fused: a subclass of `layer` without state of its own.
        operator: the name of what it runs, `torch.ops.sepfast.<operator>`.
        concerns: whether the rule has anything to say about an instance.
        obstacle: why an instance cannot be swapped, None where it can; a clause that fits behind
            "it stays,".
    """

    layer: type[nn.Module]
    fused: type[nn.Module]
    operator: str
    concerns: Callable[[Any], bool] = lambda layer: True
    obstacle: Callable[[Any], str | None] = lambda layer: None
