"""The layers of `sepfast.reference` under the same names, run by the fused operators."""

from sepfast.modules.masked_istft import MaskedISTFT
from sepfast.modules.registry import RULES, WAITING
from sepfast.modules.rule import Rule
from sepfast.modules.soft_mask import SoftMask
from sepfast.modules.soft_mask_loss import SoftMaskLoss
from sepfast.modules.stft import ISTFT, STFT
from sepfast.modules.stft_magnitude import STFTMagnitude

__all__ = [
    "ISTFT",
    "RULES",
    "STFT",
    "WAITING",
    "MaskedISTFT",
    "Rule",
    "STFTMagnitude",
    "SoftMask",
    "SoftMaskLoss",
]
