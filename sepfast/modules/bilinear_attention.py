"""The fused `BilinearAttention`."""

from __future__ import annotations

from torch import Tensor

from sepfast import ops, reference
from sepfast.modules.rule import Rule


class BilinearAttention(reference.BilinearAttention):
    """`sepfast.reference.BilinearAttention` by the operator `bilinear_attention`.

    Example:
        >>> import torch, sepfast
        >>> attention = sepfast.modules.BilinearAttention(query_size=5, memory_size=6)
        >>> context, weights = attention(torch.rand(2, 3, 5), torch.rand(2, 4, 6))
        >>> context.shape, weights.shape
        (torch.Size([2, 3, 6]), torch.Size([2, 3, 4]))
    """

    def forward(
        self, query: Tensor, memory: Tensor, lengths: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        """Context and weights.

        Args:
            query: (B, N, E).
            memory: (B, M, J).
            lengths: (B,) integers, frames of memory that count; None for all.
        """
        return ops.bilinear_attention(query, memory, self.weight, lengths)


RULES = (Rule(reference.BilinearAttention, BilinearAttention, "bilinear_attention"),)
