"""The fused `SoftMask`."""

from __future__ import annotations

from torch import Tensor

from sepfast import ops, reference
from sepfast.modules.rule import Rule


class SoftMask(reference.SoftMask):
    """`sepfast.reference.SoftMask` by the operator `soft_mask`.

    Example:
        >>> import torch, sepfast
        >>> sepfast.modules.SoftMask()(torch.tensor([[3.0, -1.0]]))
        tensor([[0.7500, 0.2500]])
    """

    def forward(self, estimates: Tensor) -> Tensor:
        """Shares in [0, 1] of estimates of any shape, of that shape."""
        return ops.soft_mask(estimates, self.dim)


RULES = (Rule(reference.SoftMask, SoftMask, "soft_mask"),)
