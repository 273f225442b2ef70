"""The operator `bilinear_attention`: query and memory to context and weights."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from sepfast import reference
from sepfast.kernels.precision import product_precision
from sepfast.ops._operator import define, differentiate, lowered, once
from sepfast.ops._products import takes, unshipped, wanted

_FORWARD = ("sepfast_bilinear_attention_scores", "sepfast_bilinear_attention_context")
_BACKWARD = tuple(f"sepfast_bilinear_attention_{stage}" for stage in ("slope", "query", "memory"))


def bilinear_attention(
    query: Tensor, memory: Tensor, weight: Tensor, lengths: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """What each frame of a query finds in the memory, and where.

    Scores query^T weight memory, a softmax over the memory that counts, and what it weighs. Under
    autocast it computes in autocast's type, as PyTorch's products do, with sums, scores and softmax
    in float32.

    Args:
        query: (B, N, E).
        memory: (B, M, J).
        weight: (E, J).
        lengths: (B,) integers, frames of memory that count; below 0 is 0, above M is M, None all.
            What stands behind them has no effect, NaN neither.

    Returns:
        The context (B, N, J), and the weights (B, N, M), exactly 0 behind the lengths. Where no
        frame counts both are 0.

    Raises:
        InputError: for shapes that do not fit together, and lengths that are not integers.

    Example:
        >>> import torch, sepfast
        >>> query, memory, weight = torch.rand(2, 3, 5), torch.rand(2, 4, 6), torch.rand(5, 6)
        >>> lengths = torch.tensor([4, 1])
        >>> context, weights = sepfast.ops.bilinear_attention(query, memory, weight, lengths)
        >>> context.shape
        torch.Size([2, 3, 6])
        >>> weights[1].tolist()
        [[1.0, 0.0, 0.0, 0.0], [1.0, 0.0, 0.0, 0.0], [1.0, 0.0, 0.0, 0.0]]
    """
    return _bilinear_attention(*lowered(query, memory, weight), lengths)[:2]


def _check(query: Tensor, memory: Tensor, weight: Tensor, lengths: Tensor | None) -> None:
    takes("query", query, "(B, N, E), E not 0", query.ndim == 3 and query.shape[2] > 0)
    batch, _, e = query.shape
    fits = memory.ndim == 3 and memory.shape[0] == batch and memory.shape[2] > 0
    takes("memory", memory, f"({batch}, M, J), J not 0", fits)
    j = memory.shape[2]
    takes("weight", weight, f"({e}, {j})", weight.shape == (e, j))
    if lengths is not None:
        takes("lengths", lengths, f"({batch},)", lengths.shape == (batch,))


def _check_backward(
    of_context: Tensor,
    of_weights: Tensor | None,
    query: Tensor,
    memory: Tensor,
    weight: Tensor,
    lengths: Tensor | None,
    projected: Tensor,
    weights: Tensor,
) -> None:
    _check(query, memory, weight, lengths)
    context, shares = (*query.shape[:2], memory.shape[2]), (*query.shape[:2], memory.shape[1])
    takes("of_context", of_context, f"{context}", of_context.shape == context)
    if of_weights is not None:
        takes("of_weights", of_weights, f"{shares}", of_weights.shape == shares)
    takes("projected", projected, f"{context}", projected.shape == context)
    takes("weights", weights, f"{shares}", weights.shape == shares)


def _reference(
    query: Tensor, memory: Tensor, weight: Tensor, lengths: Tensor | None
) -> tuple[Tensor, Tensor, Tensor]:
    projected = query @ weight
    return (*reference.attend(projected, memory, lengths), projected)


def _kernel(
    query: Tensor, memory: Tensor, weight: Tensor, lengths: Tensor | None
) -> tuple[Tensor, Tensor, Tensor]:
    from sepfast.kernels import bilinear_attention as kernels

    if 0 in (*query.shape, memory.shape[1]):
        return _reference(query, memory, weight, lengths)
    precision = product_precision(query.device, query.dtype)
    counts = None if lengths is None else lengths.long()
    return kernels.bilinear_attention(query, memory, weight, counts, precision)


def _fake(
    query: Tensor, memory: Tensor, weight: Tensor, lengths: Tensor | None
) -> tuple[Tensor, Tensor, Tensor]:
    (batch, queries, _), (_, frames, features) = query.shape, memory.shape
    context = query.new_empty(batch, queries, features)
    return context, query.new_empty(batch, queries, frames), torch.empty_like(context)


def _reference_backward(
    of_context: Tensor,
    of_weights: Tensor | None,
    query: Tensor,
    memory: Tensor,
    weight: Tensor,
    lengths: Tensor | None,
    projected: Tensor,
    weights: Tensor,
) -> tuple[Tensor, ...]:
    inputs = of_context, of_weights, query, memory, weight
    return tuple(reference.bilinear_attention_backward(*inputs, projected, weights, lengths))


def _kernel_backward(
    of_context: Tensor,
    of_weights: Tensor | None,
    query: Tensor,
    memory: Tensor,
    weight: Tensor,
    lengths: Tensor | None,
    projected: Tensor,
    weights: Tensor,
) -> tuple[Tensor, ...]:
    from sepfast.kernels import bilinear_attention as kernels

    inputs = of_context, of_weights, query, memory, weight
    if 0 in (*query.shape, memory.shape[1]):
        return _reference_backward(*inputs, lengths, projected, weights)
    precision = product_precision(query.device, query.dtype)
    counts = None if lengths is None else lengths.long()
    return tuple(
        kernels.bilinear_attention_backward(*inputs, counts, projected, weights, precision)
    )


def _fake_backward(
    of_context: Tensor, of_weights: Any, query: Tensor, memory: Tensor, weight: Tensor, *rest: Any
) -> tuple[Tensor, ...]:
    return tuple(x.new_empty(x.shape) for x in (query, memory, weight))


def _save(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, Tensor, Tensor]) -> None:
    _, weights, projected = output
    ctx.save_for_backward(*inputs, projected, weights)
    ctx.mark_non_differentiable(projected)
    ctx.set_materialize_grads(False)


def _backward(
    ctx: Any, of_context: Tensor | None, of_weights: Tensor | None, _: None
) -> tuple[Tensor | None, ...]:
    if of_context is None and of_weights is None:
        return (None,) * 4
    *inputs, projected, weights = ctx.saved_tensors
    if of_context is None:
        of_context = torch.zeros_like(projected)
    grads = _bilinear_attention_backward(of_context, of_weights, *inputs, projected, weights)
    return *wanted(grads, ctx.needs_input_grad[:3]), None


_TENSORS = "Tensor query, Tensor memory, Tensor weight, Tensor? lengths"
_bilinear_attention = define(
    f"bilinear_attention({_TENSORS}) -> (Tensor, Tensor, Tensor)",
    reference=_reference,
    kernel=_kernel,
    fake=_fake,
    check=_check,
    obstacle=lambda query, *rest: unshipped(query, *_FORWARD),
    lowers=True,
)
_bilinear_attention_backward = define(
    f"bilinear_attention_backward(Tensor of_context, Tensor? of_weights, {_TENSORS}, "
    "Tensor projected, Tensor weights) -> (Tensor, Tensor, Tensor)",
    reference=_reference_backward,
    kernel=_kernel_backward,
    fake=_fake_backward,
    check=_check_backward,
    obstacle=lambda of_context, *rest: unshipped(of_context, *_BACKWARD),
    lowers=True,
)
differentiate("bilinear_attention", _backward, _save)
once("bilinear_attention_backward")
