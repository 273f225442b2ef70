"""The operators: PyTorch on the CPU, Triton kernels on a GPU, one name for both."""

from sepfast.ops.amplitude_mask_loss import amplitude_mask_loss
from sepfast.ops.backend import use_backend
from sepfast.ops.bilinear_attention import bilinear_attention
from sepfast.ops.convpair import conv_pair
from sepfast.ops.deconvpair import deconv_pair
from sepfast.ops.horizontal_deconv import horizontal_deconv
from sepfast.ops.linear_soft_mask_loss import linear_soft_mask_loss
from sepfast.ops.lstm import lstm
from sepfast.ops.masked_istft import masked_istft
from sepfast.ops.overlap_decode import overlap_decode
from sepfast.ops.ranges import enable_ranges
from sepfast.ops.soft_mask import soft_mask
from sepfast.ops.soft_mask_loss import soft_mask_loss
from sepfast.ops.softplus_affine import softplus_affine
from sepfast.ops.softplus_norm import softplus_norm
from sepfast.ops.stft import istft, stft
from sepfast.ops.stft_magnitude import stft_magnitude

__all__ = [
    "amplitude_mask_loss",
    "bilinear_attention",
    "conv_pair",
    "deconv_pair",
    "enable_ranges",
    "horizontal_deconv",
    "istft",
    "linear_soft_mask_loss",
    "lstm",
    "masked_istft",
    "overlap_decode",
    "soft_mask",
    "soft_mask_loss",
    "softplus_affine",
    "softplus_norm",
    "stft",
    "stft_magnitude",
    "use_backend",
]
