"""`lstm` as the reference has it, a loop over steps, with its step compiled.

Whole, the loop is no side: PyTorch's compiler writes all steps out, and takes seconds for each of
them. Same name, arguments and layouts as in `sepfast.reference`, as far as they are measured.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache

import torch
import torch.nn.functional as F
from torch import Tensor

from sepfast.reference.lstm_order import Order


def lstm(
    input: Tensor,
    weight: Tensor,
    recurrent: Tensor,
    bias: Tensor,
    peephole: Tensor | None = None,
    lengths: Tensor | None = None,
) -> tuple[Tensor, Tensor, Tensor]:
    """Output (B, T, D H), and the last output and cell (D, B, H)."""
    order, step = Order(lengths, input.shape[1]), _step()
    sums = F.linear(order.heard(input), weight.flatten(0, 1), bias.flatten())
    h = c = input.new_zeros(len(weight), len(input), recurrent.shape[-1])
    outputs = []
    for s, projected in enumerate(order.steps(sums.unflatten(2, weight.shape[:2])).unbind()):
        new_h, new_c = step(projected, h, c, recurrent, peephole)
        h, c = order.rest(s, h, new_h), order.rest(s, c, new_c)
        outputs.append(h)
    return order.times(torch.stack(outputs)).flatten(2), h, c


@lru_cache(maxsize=1)
def _step() -> Callable[..., tuple[Tensor, Tensor]]:
    def step(
        sums: Tensor, h: Tensor, c: Tensor, recurrent: Tensor, peephole: Tensor | None
    ) -> tuple[Tensor, Tensor]:
        i, f, g, o = (sums + h @ recurrent.mT).chunk(4, -1)
        if peephole is not None:
            i, f = i + peephole[:, None, 0] * c, f + peephole[:, None, 1] * c
        c = f.sigmoid() * c + i.sigmoid() * g.tanh()
        if peephole is not None:
            o = o + peephole[:, None, 2] * c
        return o.sigmoid() * c.tanh(), c

    return torch.compile(step, dynamic=False)
