"""The mathematics in plain PyTorch, on any device and in any float type; kernels are held to it."""

from sepfast.reference.amplitude_mask_loss import (
    AmplitudeMaskLoss,
    amplitude_mask,
    amplitude_mask_loss,
    amplitude_mask_loss_backward,
    ideal_amplitude_mask,
    target_binary_mask,
)
from sepfast.reference.audiovisual import VL2M, AudioVisual, AVConcat
from sepfast.reference.audiovisual_ref import AVConcatRef, Refining, VL2MRef
from sepfast.reference.bilinear_attention import (
    BilinearAttention,
    attend,
    bilinear_attention,
    bilinear_attention_backward,
)
from sepfast.reference.convpair import (
    ConvPair,
    DeconvPair,
    conv_pair,
    conv_pair_backward,
    deconv_by_source,
    deconv_pair,
    deconv_pair_backward,
    horizontal_deconv,
    horizontal_deconv_backward,
)
from sepfast.reference.deepconvsep import SOURCES, DeepConvSep
from sepfast.reference.denoiser import Denoiser
from sepfast.reference.framing import FRAMINGS, Framing
from sepfast.reference.informed import BLSTM, Informed
from sepfast.reference.linear_soft_mask_loss import (
    linear_soft_mask_loss,
    linear_soft_mask_loss_backward,
)
from sepfast.reference.lstm import (
    LSTMGrads,
    lstm,
    lstm_backward,
    lstm_gates,
    lstm_gradients,
    lstm_states,
)
from sepfast.reference.lstm_layer import LSTM
from sepfast.reference.masked_istft import (
    Levels,
    MaskedISTFT,
    masked_istft,
    masked_istft_backward,
    masked_spectrum,
)
from sepfast.reference.model import Model
from sepfast.reference.overlap_add import overlap_add
from sepfast.reference.overlap_decode import overlap_decode, overlap_decode_backward
from sepfast.reference.soft_mask import (
    SoftMask,
    binary_mask,
    soft_mask,
    soft_mask_backward,
    wiener_mask,
)
from sepfast.reference.soft_mask_loss import (
    LossWeights,
    SoftMaskLoss,
    soft_mask_loss,
    soft_mask_loss_backward,
)
from sepfast.reference.softplus_affine import softplus_affine, softplus_affine_backward
from sepfast.reference.softplus_norm import (
    ConvSoftplusNorm,
    softplus_norm,
    softplus_norm_backward,
)
from sepfast.reference.stft import (
    ISTFT,
    STFT,
    istft,
    istft_backward,
    magnitude,
    stft,
    stft_backward,
)
from sepfast.reference.stft_magnitude import (
    STFTMagnitude,
    stft_magnitude,
    stft_magnitude_backward,
)
from sepfast.reference.style_transfer import UDT, DenoisingVAE, StyleTransfer

__all__ = [
    "BLSTM",
    "FRAMINGS",
    "ISTFT",
    "LSTM",
    "SOURCES",
    "STFT",
    "UDT",
    "VL2M",
    "AVConcat",
    "AVConcatRef",
    "AmplitudeMaskLoss",
    "AudioVisual",
    "BilinearAttention",
    "ConvPair",
    "ConvSoftplusNorm",
    "DeconvPair",
    "DeepConvSep",
    "Denoiser",
    "DenoisingVAE",
    "Framing",
    "Informed",
    "LSTMGrads",
    "Levels",
    "LossWeights",
    "MaskedISTFT",
    "Model",
    "Refining",
    "STFTMagnitude",
    "SoftMask",
    "SoftMaskLoss",
    "StyleTransfer",
    "VL2MRef",
    "amplitude_mask",
    "amplitude_mask_loss",
    "amplitude_mask_loss_backward",
    "attend",
    "bilinear_attention",
    "bilinear_attention_backward",
    "binary_mask",
    "conv_pair",
    "conv_pair_backward",
    "deconv_by_source",
    "deconv_pair",
    "deconv_pair_backward",
    "horizontal_deconv",
    "horizontal_deconv_backward",
    "ideal_amplitude_mask",
    "istft",
    "istft_backward",
    "linear_soft_mask_loss",
    "linear_soft_mask_loss_backward",
    "lstm",
    "lstm_backward",
    "lstm_gates",
    "lstm_gradients",
    "lstm_states",
    "magnitude",
    "masked_istft",
    "masked_istft_backward",
    "masked_spectrum",
    "overlap_add",
    "overlap_decode",
    "overlap_decode_backward",
    "soft_mask",
    "soft_mask_backward",
    "soft_mask_loss",
    "soft_mask_loss_backward",
    "softplus_affine",
    "softplus_affine_backward",
    "softplus_norm",
    "softplus_norm_backward",
    "stft",
    "stft_backward",
    "stft_magnitude",
    "stft_magnitude_backward",
    "target_binary_mask",
    "wiener_mask",
]
