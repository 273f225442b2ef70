"""All rules by which layers are swapped."""

from __future__ import annotations

from sepfast.modules import (
    bilinear_attention,
    convpair,
    deepconvsep,
    masked_istft,
    soft_mask,
    soft_mask_loss,
    stft,
    stft_magnitude,
)
from sepfast.modules.rule import Rule

RULES: tuple[Rule, ...] = (
    *bilinear_attention.RULES,
    *convpair.RULES,
    *deepconvsep.RULES,
    *masked_istft.RULES,
    *soft_mask.RULES,
    *soft_mask_loss.RULES,
    *stft.RULES,
    *stft_magnitude.RULES,
)
