"""A recurrent layer over time, with a memory cell: LSTM, peepholes optional.

B batch, T steps, I features of a step that comes in, H hidden size, D directions (1 or 2), gates in
the order i, f, g, o, which is PyTorch's; other layouts are in `lstm_layouts.py`. W, R, b and the
peepholes p are of one direction, h' and c' its states one step before:

    i = sigmoid(W_i x + R_i h' + b_i + p_i c')      c = f c' + i g
    f = sigmoid(W_f x + R_f h' + b_f + p_f c')      h = o tanh(c)
    g = tanh(W_g x + R_g h' + b_g)
    o = sigmoid(W_o x + R_o h' + b_o + p_o c)

Direction 0 takes a sequence of length n from time 0 to n - 1, direction 1 from n - 1 to 0. Inside,
tensors are (T, D, B, ...) in the order of steps, so that one loop serves both directions, and a
sequence that has ended rests: its states stay. Backward, from the gradients of h and c on, with
those of the sums in front of the gates in s:

    s_o = dh tanh(c) o (1 - o),  dc += dh o (1 - tanh(c)^2) + p_o s_o
    s_i = dc g i (1 - i),  s_f = dc c' f (1 - f),  s_g = dc i (1 - g^2)
    dh' = R^T s,  dc' = dc f + p_i s_i + p_f s_f
    dx = W^T s,  dW = s x^T,  dR = s h'^T,  db = s,  dp = (s_i c', s_f c', s_o c),  sums over steps

Half types are computed in float32, which their products fit in without loss; h is rounded in each
step, c never.

Source: D, "LSTM cell" and "lengths".
"""

from __future__ import annotations

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from sepfast.reference.half_types import widened
from sepfast.reference.lstm_order import Order


class LSTMGrads(NamedTuple):
    """The gradients of `lstm`, each shaped as what it is of; None for what was None.

    Attributes:
        input: (B, T, I), 0 behind the lengths.
        weight: (D, 4 H, I).
        recurrent: (D, 4 H, H).
        bias: (D, 4 H), whether there was one or not.
        peephole: (D, 3, H) or None.
        hidden: (D, B, H) or None.
        cell: (D, B, H) or None.
    """

    input: Tensor
    weight: Tensor
    recurrent: Tensor
    bias: Tensor
    peephole: Tensor | None
    hidden: Tensor | None
    cell: Tensor | None


def lstm(
    input: Tensor,
    weight: Tensor,
    recurrent: Tensor,
    bias: Tensor | None = None,
    peephole: Tensor | None = None,
    lengths: Tensor | None = None,
    hidden: Tensor | None = None,
    cell: Tensor | None = None,
) -> tuple[Tensor, Tensor, Tensor]:
    """One layer, its directions side by side.

    Args:
        input: (B, T, I); what lies behind the lengths is not looked at.
        weight: (D, 4 H, I), of the input.
        recurrent: (D, 4 H, H), of the output one step before.
        bias: (D, 4 H), or None for 0; the sum of PyTorch's two.
        peephole: (D, 3, H), of i and f, which see the cell before, and of o, which sees the new
            one; None for 0.
        lengths: (B,) integers, steps that count; below 0 is 0, above T is T, None all.
        hidden: (D, B, H), the output before the first step; None for 0.
        cell: (D, B, H), the cell before the first step; None for 0.

    Returns:
        The output (B, T, D H), 0 behind the lengths; and output and cell (D, B, H) behind each
        sequence's own last step, which are the initial ones where it has none. All are of the
        input's type, but the cell of half types is float32.
    """
    return lstm_states(input, weight, recurrent, bias, peephole, lengths, hidden, cell)[:3]


def lstm_states(
    input: Tensor,
    weight: Tensor,
    recurrent: Tensor,
    bias: Tensor | None = None,
    peephole: Tensor | None = None,
    lengths: Tensor | None = None,
    hidden: Tensor | None = None,
    cell: Tensor | None = None,
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    """`lstm`, with what its gradient needs.

    Args:
        input, weight, recurrent, bias, peephole, lengths, hidden, cell: as `lstm` takes them.

    Returns:
        What `lstm` gives; the cells (B, T, D, H), of its last cell's type; and the gates
        (B, T, D, 4 H) behind their nonlinearities, of the input's type. Both are 0 behind the
        lengths.
    """
    order = Order(lengths, input.shape[1])
    projected = order.steps(_projected(order.heard(input), weight, bias))
    state = projected.new_zeros(len(weight), input.shape[0], recurrent.shape[-1])
    h = (state if hidden is None else hidden).to(input.dtype)
    c = state if cell is None else widened(cell)
    back = widened(recurrent).mT
    outputs, cells, gates = [], [], []
    for s, sums in enumerate(projected):
        *opened, new = _gates(sums + widened(h) @ back, peephole, c)
        h = order.rest(s, h, (opened[3] * new.tanh()).to(input.dtype))
        c = order.rest(s, c, new)
        outputs.append(h)
        cells.append(c)
        gates.append(torch.cat(opened, -1).to(input.dtype))
    # Without steps the results are empty, and hang on what they are of as they always do.
    kept = [order.times(torch.stack(x) if x else projected) for x in (outputs, cells, gates)]
    output, of_cells = (x[..., : recurrent.shape[-1]] for x in kept[:2])
    return output.to(input.dtype).flatten(2), h, c, of_cells, kept[2].to(input.dtype)


def lstm_gates(
    input: Tensor,
    weight: Tensor,
    recurrent: Tensor,
    bias: Tensor | None,
    peephole: Tensor | None,
    lengths: Tensor | None,
    hidden: Tensor | None,
    cell: Tensor | None,
    output: Tensor,
    cells: Tensor,
) -> Tensor:
    """The gates that `lstm_states` gives, from its outputs and cells: all steps at once.

    Args:
        input, weight, recurrent, bias, peephole, lengths, hidden, cell: as `lstm` takes them.
        output, cells: what `lstm_states` gives.

    Returns:
        (B, T, D, 4 H).
    """
    order = Order(lengths, input.shape[1])
    after = order.steps(widened(cells))
    prior = _before(order.steps(output.reshape(cells.shape)), hidden)
    rows = widened(prior).transpose(0, 1).flatten(1, 2)  # (D, T B, H)
    sums = (rows @ widened(recurrent).mT).unflatten(1, prior.shape[::2])
    sums = sums.transpose(0, 1) + order.steps(_projected(order.heard(input), weight, bias))
    *gates, _ = _gates(sums, peephole, _before(after, cell), after)
    return order.times(torch.cat(gates, -1).to(input.dtype))


def lstm_backward(
    grad_output: Tensor,
    grad_hidden: Tensor | None,
    grad_cell: Tensor | None,
    input: Tensor,
    weight: Tensor,
    recurrent: Tensor,
    peephole: Tensor | None,
    lengths: Tensor | None,
    hidden: Tensor | None,
    cell: Tensor | None,
    output: Tensor,
    cells: Tensor,
    gates: Tensor,
) -> LSTMGrads:
    """The gradients of `lstm`.

    Args:
        grad_output: (B, T, D H), of the output; what lies behind the lengths is not looked at.
        grad_hidden: (D, B, H), of the last output; None where it is not used.
        grad_cell: (D, B, H), of the last cell; likewise.
        input, weight, recurrent, peephole, lengths, hidden, cell: as `lstm` takes them.
        output, cells, gates: what `lstm_states` gives.
    """
    order = Order(lengths, input.shape[1])
    after = order.steps(widened(cells))
    slopes, of_first = _slopes(
        order,
        order.steps(widened(grad_output).reshape(cells.shape)),
        (grad_hidden, grad_cell),
        widened(recurrent),
        peephole,
        (_before(after, cell), after, order.steps(widened(gates))),
    )
    args = input, weight, recurrent, peephole, lengths, hidden, cell, output, cells
    return lstm_gradients(order.times(slopes), grad_hidden, of_first, *args)


def lstm_gradients(
    slopes: Tensor,
    grad_hidden: Tensor | None,
    of_first: Tensor,
    input: Tensor,
    weight: Tensor,
    recurrent: Tensor,
    peephole: Tensor | None,
    lengths: Tensor | None,
    hidden: Tensor | None,
    cell: Tensor | None,
    output: Tensor,
    cells: Tensor,
) -> LSTMGrads:
    """The gradients of `lstm` behind its walk through time: products over all steps at once.

    Args:
        slopes: (B, T, D, 4 H), the gradients of the sums in front of the gates, 0 behind the
            lengths; of float32, or of the input's type, which the products are then taken in.
        grad_hidden: (D, B, H), of the last output; None where it is not used.
        of_first: (D, B, H), of the initial cell.
        input, weight, recurrent, peephole, lengths, hidden, cell: as `lstm` takes them.
        output, cells: what `lstm_states` gives.
    """
    order = Order(lengths, input.shape[1])
    flat = slopes.flatten(0, 1)  # (B T, D, 4 H)
    prior = order.earlier(output.reshape(cells.shape), hidden).flatten(0, 1)
    heard = order.heard(input).flatten(0, 1)
    of_peephole = of_hidden = None
    if peephole is not None:
        i, f, _, o = slopes.chunk(4, -1)
        before = order.earlier(widened(cells), cell)
        sums = ((s * c).sum((0, 1)) for s, c in ((i, before), (f, before), (o, cells)))
        of_peephole = torch.stack(tuple(sums), 1).to(peephole.dtype)
    if hidden is not None:
        rest = torch.zeros_like(of_first) if grad_hidden is None else widened(grad_hidden)
        if input.shape[1]:
            rest = order.rest(0, rest, widened(_product(order.first(slopes), recurrent)))
        of_hidden = rest.to(hidden.dtype)
    return LSTMGrads(
        _product(flat.flatten(1), weight.flatten(0, 1)).view(input.shape).to(input.dtype),
        _product(flat.flatten(1).mT, heard).view(weight.shape).to(weight.dtype),
        _product(flat.permute(1, 2, 0), prior.transpose(0, 1)).to(recurrent.dtype),
        slopes.sum((0, 1)).to(weight.dtype),
        of_peephole,
        of_hidden,
        None if cell is None else of_first.to(cell.dtype),
    )


def _slopes(
    order: Order,
    of_output: Tensor,
    of_last: tuple[Tensor | None, Tensor | None],
    recurrent: Tensor,
    peephole: Tensor | None,
    states: tuple[Tensor, Tensor, Tensor],
) -> tuple[Tensor, Tensor]:
    """Through the steps from the last to the first.

    Args:
        order: of the steps.
        of_output: the output's gradient, in the order of steps like all others.
        of_last: those of the last output and cell.
        recurrent: as `lstm` takes it.
        peephole: likewise.
        states: cells before, cells after and gates.

    Returns:
        The gradients of the sums in front of the gates, (T, D, B, 4 H), and of the initial cell.
    """
    before, after, gates = states
    i, f, g, o = gates.chunk(4, -1)
    bent = after.tanh()
    factors = torch.cat((g * i * (1 - i), before * f * (1 - f), i * (1 - g * g)), -1)
    factor_o, factor_c = bent * o * (1 - o), o * (1 - bent * bent)
    seen = () if peephole is None else widened(peephole)[:, :, None].unbind(1)
    start = before.new_zeros(before.shape[1:])
    dh, dc = (start if x is None else widened(x) for x in of_last)
    slopes = []
    for s in reversed(range(len(gates))):
        through = dh + of_output[s]
        s_o = through * factor_o[s]
        through = dc + through * factor_c[s]
        if seen:
            through = through + seen[2] * s_o
        slopes.append(torch.cat((through.repeat(1, 1, 3) * factors[s], s_o), -1))
        s_i, s_f, _, _ = slopes[-1].chunk(4, -1)
        through = through * f[s]
        if seen:
            through = through + seen[0] * s_i + seen[1] * s_f
        dh, dc = order.rest(s, dh, slopes[-1] @ recurrent), order.rest(s, dc, through)
    return torch.stack(slopes[::-1]) if slopes else gates, dc


def _gates(
    sums: Tensor, peephole: Tensor | None, before: Tensor, after: Tensor | None = None
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    """The gates i, f, g, o and the new cell (..., D, B, H).

    Args:
        sums: (..., D, B, 4 H), in front of the gates.
        peephole: (D, 3, H) or None.
        before: (..., D, B, H), the cell before.
        after: the new cell where it is known.
    """
    i, f, g, o = sums.chunk(4, -1)
    seen = () if peephole is None else widened(peephole)[:, :, None].unbind(1)
    if seen:
        i, f = i + seen[0] * before, f + seen[1] * before
    i, f, g = i.sigmoid(), f.sigmoid(), g.tanh()
    if after is None:
        after = f * before + i * g
    if seen:
        o = o + seen[2] * after
    return i, f, g, o.sigmoid(), after


def _projected(input: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    """What the input (B, T, I) adds to the sums, (B, T, D, 4 H): one product for all steps."""
    flat = None if bias is None else widened(bias).flatten()
    sums = F.linear(widened(input), widened(weight).flatten(0, 1), flat)
    return widened(sums.unflatten(2, weight.shape[:2]))  # autocast lowers products, and these alone


def _before(states: Tensor, initial: Tensor | None) -> Tensor:
    """States (T, D, B, H) one step before, the first of them the initial ones."""
    first = states.new_zeros(states.shape[1:]) if initial is None else initial.to(states.dtype)
    return torch.cat((first[None], states))[:-1]


def _product(a: Tensor, b: Tensor) -> Tensor:
    """A matrix product, in the wider type of the two."""
    return a @ b if a.dtype == b.dtype else widened(a) @ widened(b)
