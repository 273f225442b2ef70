"""The fused `SoftMaskLoss`."""

from __future__ import annotations

from torch import Tensor

from sepfast import ops, reference
from sepfast.modules.rule import Rule


class SoftMaskLoss(reference.SoftMaskLoss):
    """`sepfast.reference.SoftMaskLoss` by the operator `soft_mask_loss`.

    Example:
        >>> import torch, sepfast
        >>> loss = sepfast.modules.SoftMaskLoss()
        >>> loss(torch.ones(1, 2, 5), torch.ones(1, 5), torch.full((1, 2, 5), 0.5))
        tensor(0.)
    """

    def forward(self, estimates: Tensor, mixture: Tensor, targets: Tensor) -> Tensor:
        """The scalar loss of estimates (B, N, ...), mixture (B, ...) and targets (B, N, ...)."""
        return ops.soft_mask_loss(estimates, mixture, targets, self.weights)


RULES = (Rule(reference.SoftMaskLoss, SoftMaskLoss, "soft_mask_loss"),)
