"""All rules by which layers are swapped, and the layers that wait for a kernel."""

from __future__ import annotations

from torch import nn

from sepfast import reference
from sepfast.modules import masked_istft, soft_mask, soft_mask_loss, stft, stft_magnitude
from sepfast.modules.rule import Rule

RULES: tuple[Rule, ...] = (
    *masked_istft.RULES,
    *soft_mask.RULES,
    *soft_mask_loss.RULES,
    *stft.RULES,
    *stft_magnitude.RULES,
)

#: Layers that could be fused, and why they are not.
WAITING: dict[type[nn.Module], str] = {
    reference.ConvPair: "there is no kernel for it yet",
    reference.DeconvPair: "there is no kernel for it yet",
}
