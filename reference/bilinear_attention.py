"""Bilinear attention over padded memory: scores, masked softmax, context.

B batch, N frames of the query with E features, M frames of memory with J features, of which the
first `lengths[b]` count.

    p[b, n, j] = sum_e query[b, n, e] weight[e, j]
    s[b, n, m] = sum_j p[b, n, j] memory[b, m, j]
    w[b, n, m] = exp(s[b, n, m]) / sum_{r < lengths[b]} exp(s[b, n, r]),  0 for m >= lengths[b]
    c[b, n, j] = sum_m w[b, n, m] memory[b, m, j]

A row without memory has weights 0 and context 0. Backward, with gradients of both results:

    dw = gw + gc memory^T,  ds = w (dw - sum_m w dw)
    dp = ds memory,  dmemory = ds^T p + w^T gc,  dquery = dp weight^T,  dweight = query^T dp

Source: C, "attention".
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor, nn

from sepfast.reference.half_types import widened
from sepfast.reference.lengths import cut


class BilinearAttentionGrads(NamedTuple):
    """The gradients of `bilinear_attention`, each shaped as what it is of.

    Attributes:
        query: (B, N, E).
        memory: (B, M, J).
        weight: (E, J).
    """

    query: Tensor
    memory: Tensor
    weight: Tensor


def bilinear_attention(
    query: Tensor, memory: Tensor, weight: Tensor, lengths: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """What each frame of a query finds in the memory, and where.

    Args:
        query: (B, N, E).
        memory: (B, M, J).
        weight: (E, J).
        lengths: (B,) integers, frames of memory that count; below 0 is 0, above M is M, None all.

    Returns:
        The context (B, N, J), and the weights (B, N, M), whose sums over M are 1, or 0 where no
        frame counts.
    """
    return attend(query @ weight, memory, lengths)


def attend(
    projected: Tensor, memory: Tensor, lengths: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """The second half of `bilinear_attention`, from the projected query.

    Args:
        projected: (B, N, J).
        memory: (B, M, J).
        lengths: (B,) integers, or None.

    Returns:
        The context (B, N, J), and the weights (B, N, M).
    """
    wide = cut(widened(memory), lengths)
    scores = widened(projected) @ wide.mT
    if lengths is None:
        weights = scores.softmax(-1)
    else:
        padding = torch.arange(memory.shape[1], device=memory.device) >= lengths[:, None, None]
        # The lowest number, not minus infinity: rows of padding alone would be NaN on the way.
        scores = scores.masked_fill(padding, torch.finfo(scores.dtype).min)
        weights = scores.softmax(-1).masked_fill(padding, 0)
    return (weights @ wide).to(projected.dtype), weights.to(projected.dtype)


def bilinear_attention_backward(
    grad_context: Tensor,
    grad_weights: Tensor | None,
    query: Tensor,
    memory: Tensor,
    weight: Tensor,
    projected: Tensor,
    weights: Tensor,
    lengths: Tensor | None = None,
) -> BilinearAttentionGrads:
    """The gradients of `bilinear_attention`.

    Args:
        grad_context: (B, N, J), of the context.
        grad_weights: (B, N, M), of the weights; None where they are not used.
        query: (B, N, E).
        memory: (B, M, J).
        weight: (E, J).
        projected: (B, N, J), query by weight.
        weights: (B, N, M), the result.
        lengths: (B,) integers, or None.
    """
    wide = cut(widened(memory), lengths)
    shares, of_context = widened(weights), widened(grad_context)
    slope = of_context @ wide.mT
    if grad_weights is not None:
        slope += cut(widened(grad_weights).mT, lengths).mT
    slope = shares * (slope - (shares * slope).sum(-1, keepdim=True))
    of_projected = (slope @ wide).flatten(0, 1)
    gradients = (
        (of_projected @ widened(weight).mT).view(query.shape),
        slope.mT @ widened(projected) + shares.mT @ of_context,
        widened(query).flatten(0, 1).mT @ of_projected,
    )
    return BilinearAttentionGrads(*(x.to(query.dtype) for x in gradients))


class BilinearAttention(nn.Module):
    """Attention whose scores are query^T W memory.

    Args:
        query_size: E, features of the query.
        memory_size: J, features of the memory.

    Shape:
        (B, N, E) and (B, M, J) to the context (B, N, J) and the weights (B, N, M).
    """

    def __init__(self, query_size: int, memory_size: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(query_size, memory_size))
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Draw the weight evenly from -1/sqrt(J) to 1/sqrt(J)."""
        bound = self.weight.shape[1] ** -0.5
        nn.init.uniform_(self.weight, -bound, bound)

    def extra_repr(self) -> str:
        """Its options, for printing."""
        return "query_size={}, memory_size={}".format(*self.weight.shape)

    def forward(
        self, query: Tensor, memory: Tensor, lengths: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        """Context and weights.

        Args:
            query: (B, N, E).
            memory: (B, M, J).
            lengths: (B,) integers, frames of memory that count; None for all.
        """
        return bilinear_attention(query, memory, self.weight, lengths)
