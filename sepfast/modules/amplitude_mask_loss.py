"""The fused `AmplitudeMaskLoss`."""

from __future__ import annotations

from torch import Tensor

from sepfast import ops, reference
from sepfast.modules.rule import Rule


class AmplitudeMaskLoss(reference.AmplitudeMaskLoss):
    """`sepfast.reference.AmplitudeMaskLoss` by the operator `amplitude_mask_loss`.

    Example:
        >>> import torch, sepfast
        >>> mixture = torch.ones(1, 2, 3)
        >>> sepfast.modules.AmplitudeMaskLoss()(torch.zeros(1, 2, 3), mixture, 5 * mixture)
        tensor(0.)
    """

    def forward(
        self, scores: Tensor, mixture: Tensor, target: Tensor, lengths: Tensor | None = None
    ) -> Tensor:
        """The scalar loss of scores, mixture and target, (B, T, F), and lengths (B,) or None."""
        return ops.amplitude_mask_loss(scores, mixture, target, lengths)


RULES = (Rule(reference.AmplitudeMaskLoss, AmplitudeMaskLoss, "amplitude_mask_loss"),)
