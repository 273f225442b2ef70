"""All rules by which layers are swapped."""

from __future__ import annotations

from sepfast.modules import (
    amplitude_mask_loss,
    bilinear_attention,
    convpair,
    deepconvsep,
    lstm,
    masked_istft,
    sequential,
    soft_mask,
    soft_mask_loss,
    softplus_norm,
    stft,
    stft_magnitude,
)
from sepfast.modules.rule import Rule

RULES: tuple[Rule, ...] = (
    *amplitude_mask_loss.RULES,
    *bilinear_attention.RULES,
    *convpair.RULES,
    *deepconvsep.RULES,
    *lstm.RULES,
    *masked_istft.RULES,
    *sequential.RULES,
    *soft_mask.RULES,
    *soft_mask_loss.RULES,
    *softplus_norm.RULES,
    *stft.RULES,
    *stft_magnitude.RULES,
)
