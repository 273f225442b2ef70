"""The layers of `sepfast.reference` and PyTorch, under their names, run by the fused operators."""

from sepfast.modules.amplitude_mask_loss import AmplitudeMaskLoss
from sepfast.modules.bilinear_attention import BilinearAttention
from sepfast.modules.convpair import ConvPair, DeconvPair
from sepfast.modules.deepconvsep import DeepConvSep
from sepfast.modules.lstm import LSTM
from sepfast.modules.masked_istft import MaskedISTFT
from sepfast.modules.registry import RULES
from sepfast.modules.rule import Rule
from sepfast.modules.sequential import Sequential
from sepfast.modules.soft_mask import SoftMask
from sepfast.modules.soft_mask_loss import SoftMaskLoss
from sepfast.modules.softplus_norm import ConvSoftplusNorm
from sepfast.modules.stft import ISTFT, STFT
from sepfast.modules.stft_magnitude import STFTMagnitude

__all__ = [
    "ISTFT",
    "LSTM",
    "RULES",
    "STFT",
    "AmplitudeMaskLoss",
    "BilinearAttention",
    "ConvPair",
    "ConvSoftplusNorm",
    "DeconvPair",
    "DeepConvSep",
    "MaskedISTFT",
    "Rule",
    "STFTMagnitude",
    "Sequential",
    "SoftMask",
    "SoftMaskLoss",
]
