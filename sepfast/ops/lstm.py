"""The operator `lstm`: one recurrent layer over sequences, its directions side by side."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from sepfast import reference
from sepfast.kernels.precision import product_precision
from sepfast.ops._operator import define, differentiate, lowered, once, widened_type
from sepfast.ops._products import takes, unshipped

#: Arguments of the operator that are tensors, and of them those that have a gradient.
_TENSORS, _DIFFERENTIABLE = 8, (0, 1, 2, 3, 4, 6, 7)


def lstm(
    input: Tensor,
    weight: Tensor,
    recurrent: Tensor,
    bias: Tensor | None = None,
    peephole: Tensor | None = None,
    lengths: Tensor | None = None,
    hidden: Tensor | None = None,
    cell: Tensor | None = None,
    *,
    recompute: bool = False,
) -> tuple[Tensor, Tensor, Tensor]:
    """One layer of an LSTM, with peepholes or without; `sepfast.modules.LSTM` stacks them.

    The input's projections are one matrix product, all steps behind it one launch. A sequence ends
    at its own length in both directions: what lies behind it is never looked at and gets no
    gradient. Under autocast it computes in autocast's type, with sums and cells in float32.

    Args:
        input: (B, T, I).
        weight: (D, 4 H, I), of the input; D is 1, or 2 for both directions, gates i, f, g, o.
        recurrent: (D, 4 H, H), of the output one step before.
        bias: (D, 4 H), or None for 0; the sum of PyTorch's two.
        peephole: (D, 3, H), of i and f, which see the cell before, and of o, which sees the new
            one; None for 0.
        lengths: (B,) integers, steps that count; below 0 is 0, above T is T, None all.
        hidden: (D, B, H), the output before the first step; None for 0.
        cell: (D, B, H), the cell before the first step; None for 0. Of half types, or float32.
        recompute: whether the backward takes the gates again, by two matrix products, instead of
            keeping them: 2 D H numbers a step are kept instead of 6 D H.

    Returns:
        The output (B, T, D H), 0 behind the lengths; and output and cell (D, B, H) behind each
        sequence's own last step, which are the initial ones where it has none. All are of the
        input's type, but the cell of half types is float32.

    Raises:
        InputError: for shapes that do not fit together, and lengths that are not integers.

    Example:
        >>> import torch, sepfast
        >>> layer = torch.nn.LSTM(3, 5, batch_first=True)
        >>> x = torch.randn(2, 4, 3)
        >>> w, r, b, c = (p.detach()[None] for p in layer.parameters())
        >>> output, hidden, cell = sepfast.ops.lstm(x, w, r, b + c)
        >>> torch.allclose(output, layer(x)[0], atol=1e-6)
        True
    """
    tensors = lowered(input, weight, recurrent, bias, peephole, hidden)
    return _lstm(*tensors[:5], lengths, tensors[5], cell, recompute)[:3]


def _check(
    input: Tensor,
    weight: Tensor,
    recurrent: Tensor,
    bias: Tensor | None,
    peephole: Tensor | None,
    lengths: Tensor | None,
    hidden: Tensor | None,
    cell: Tensor | None,
    *rest: Any,
) -> None:
    takes("input", input, "(B, T, I), I not 0", input.ndim == 3 and input.shape[2] > 0)
    batch, _, features = input.shape
    fits = recurrent.ndim == 3 and recurrent.shape[0] in (1, 2) and recurrent.shape[2] > 0
    fits = fits and recurrent.shape[1] == 4 * recurrent.shape[2]
    takes("recurrent", recurrent, "(D, 4 H, H), D 1 or 2, H not 0", fits)
    directions, gates, size = recurrent.shape
    for name, given, shape in (
        ("weight", weight, (directions, gates, features)),
        ("bias", bias, (directions, gates)),
        ("peephole", peephole, (directions, 3, size)),
        ("lengths", lengths, (batch,)),
        ("hidden", hidden, (directions, batch, size)),
        ("cell", cell, (directions, batch, size)),
    ):
        if given is not None:
            takes(name, given, str(shape), given.shape == shape)


def _reference(*args: Any) -> tuple[Tensor, ...]:
    *tensors, recompute = args
    output, hidden, cell, cells, gates = reference.lstm_states(*tensors)
    gates = gates.new_empty(0) if recompute else gates
    return output, hidden.clone(), cell.clone(), cells, gates


def _kernel(
    input: Tensor,
    weight: Tensor,
    recurrent: Tensor,
    bias: Tensor | None,
    peephole: Tensor | None,
    lengths: Tensor | None,
    hidden: Tensor | None,
    cell: Tensor | None,
    recompute: bool,
) -> tuple[Tensor, ...]:
    from sepfast.kernels import lstm as kernels

    if 0 in input.shape:
        args = input, weight, recurrent, bias, peephole, lengths, hidden, cell, recompute
        return _reference(*args)
    counts = None if lengths is None else lengths.long().clamp(0, input.shape[1])
    flat = None if bias is None else bias.flatten()
    gates = F.linear(input, weight.flatten(0, 1), flat).unflatten(2, weight.shape[:2])
    if hidden is not None:
        _add_initial(gates, hidden @ recurrent.mT, counts)
    first = None if cell is None else cell.float()
    precision = product_precision(input.device, input.dtype)
    output, cells = kernels.lstm(gates, recurrent, peephole, counts, first, precision)
    last = _last(output, hidden, counts), _last(cells, first, counts)
    return output.flatten(2), *last, cells, gates.new_empty(0) if recompute else gates


def _add_initial(gates: Tensor, sums: Tensor, lengths: Tensor | None) -> None:
    """Add (D, B, 4 H) to the gates (B, T, D, 4 H) of each sequence's first step."""
    gates[:, 0, 0] += sums[0]
    if len(sums) == 1:
        return
    if lengths is None:
        gates[:, -1, 1] += sums[1]
    else:
        at = (lengths - 1).clamp(min=0)[:, None, None].expand(-1, 1, gates.shape[-1])
        gates[:, :, 1].scatter_add_(1, at, sums[1][:, None])


def _last(states: Tensor, initial: Tensor | None, lengths: Tensor | None) -> Tensor:
    """The last of the states (B, T, D, H) of each sequence in its own order: (D, B, H)."""
    if lengths is None:
        return torch.stack([states[:, -1, 0], states[:, 0, -1]][: states.shape[2]])
    at = (lengths - 1).clamp(min=0)[:, None, None].expand(-1, 1, states.shape[-1])
    ends = [states[:, :, 0].gather(1, at)[:, 0], states[:, 0, -1]][: states.shape[2]]
    last = torch.stack(ends)
    return last if initial is None else torch.where((lengths == 0)[:, None], initial, last)


def _fake(input: Tensor, weight: Tensor, recurrent: Tensor, *rest: Any) -> tuple[Tensor, ...]:
    (batch, steps, _), (directions, gates, size) = input.shape, recurrent.shape
    wide = widened_type(input)
    last = (directions, batch, size)
    kept = (0,) if rest[-1] else (batch, steps, directions, gates)
    return (
        input.new_empty(batch, steps, directions * size),
        input.new_empty(last),
        input.new_empty(last, dtype=wide),
        input.new_empty(batch, steps, directions, size, dtype=wide),
        input.new_empty(kept),
    )


def _reference_backward(
    of_output: Tensor, of_hidden: Tensor | None, of_cell: Tensor | None, *args: Any
) -> tuple[Tensor, ...]:
    of_last = of_hidden, of_cell
    without_bias = *args[:3], *args[4:-1], _gates(args)
    return _filled(reference.lstm_backward(of_output, *of_last, *without_bias))


def _kernel_backward(
    of_output: Tensor, of_hidden: Tensor | None, of_cell: Tensor | None, *args: Any
) -> tuple[Tensor, ...]:
    from sepfast.kernels import lstm as kernels

    if 0 in args[0].shape:
        return _reference_backward(of_output, of_hidden, of_cell, *args)
    input, weight, recurrent, _, peephole, lengths, hidden, cell, output, cells, _ = args
    counts = None if lengths is None else lengths.long().clamp(0, input.shape[1])
    first = None if cell is None else cell.float()
    precision = product_precision(input.device, input.dtype)
    slopes, of_first = kernels.lstm_backward(
        of_output, of_hidden, of_cell, recurrent, peephole, counts, first, cells, _gates(args),
        precision,
    )  # fmt: skip
    layer = input, weight, recurrent, peephole, counts, hidden, cell
    grads = reference.lstm_gradients(slopes, of_hidden, of_first, *layer, output, cells)
    return _filled(grads)


def _gates(args: tuple[Any, ...]) -> Tensor:
    """The gates that were kept, last of the arguments, or else restored from the others."""
    gates: Tensor = args[-1]
    return gates if gates.numel() else reference.lstm_gates(*args[:-1]).contiguous()


def _filled(grads: reference.LSTMGrads) -> tuple[Tensor, ...]:
    """The gradients, one of nothing for None."""
    return tuple(grads.input.new_empty(0) if x is None else x for x in grads)


def _fake_backward(
    of_output: Tensor, of_hidden: Any, of_cell: Any, *args: Any
) -> tuple[Tensor, ...]:
    input, weight, recurrent, _, peephole, _, hidden, cell = args[:_TENSORS]
    bias = weight.new_empty(weight.shape[:2])
    of = input, weight, recurrent, bias, peephole, hidden, cell
    return tuple(input.new_empty(0) if x is None else x.new_empty(x.shape) for x in of)


def _save(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:
    result, _, _, cells, gates = output
    ctx.save_for_backward(*inputs[:_TENSORS], result, cells, gates)
    ctx.mark_non_differentiable(cells, gates)
    ctx.set_materialize_grads(False)


def _backward(
    ctx: Any, of_output: Tensor | None, of_hidden: Any, of_cell: Any, *_: None
) -> tuple[Tensor | None, ...]:
    if of_output is None and of_hidden is None and of_cell is None:
        return (None,) * (_TENSORS + 1)
    saved = ctx.saved_tensors
    if of_output is None:
        of_output = torch.zeros_like(saved[_TENSORS])
    grads = _lstm_backward(of_output, of_hidden, of_cell, *saved)
    found: list[Tensor | None] = [None] * (_TENSORS + 1)
    for place, grad in zip(_DIFFERENTIABLE, grads, strict=True):
        found[place] = grad if ctx.needs_input_grad[place] else None
    return tuple(found)


_ARGUMENTS = (
    "Tensor input, Tensor weight, Tensor recurrent, Tensor? bias, Tensor? peephole, "
    "Tensor? lengths, Tensor? hidden, Tensor? cell"
)
_lstm = define(
    f"lstm({_ARGUMENTS}, bool recompute) -> (Tensor, Tensor, Tensor, Tensor, Tensor)",
    reference=_reference,
    kernel=_kernel,
    fake=_fake,
    check=_check,
    obstacle=lambda input, *rest: unshipped(input, "sepfast_lstm_forward"),
    lowers=True,
)
_lstm_backward = define(
    f"lstm_backward(Tensor of_output, Tensor? of_hidden, Tensor? of_cell, {_ARGUMENTS}, "
    "Tensor output, Tensor cells, Tensor gates) -> "
    "(Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor)",
    reference=_reference_backward,
    kernel=_kernel_backward,
    fake=_fake_backward,
    check=lambda of_output, of_hidden, of_cell, *args: _check(*args),
    obstacle=lambda of_output, *rest: unshipped(of_output, "sepfast_lstm_backward"),
    lowers=True,
)
differentiate("lstm", _backward, _save)
once("lstm_backward")
