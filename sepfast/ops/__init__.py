"""The operators: PyTorch on the CPU, Triton kernels on a GPU, one name for both."""

from sepfast.ops.backend import use_backend
from sepfast.ops.masked_istft import masked_istft
from sepfast.ops.ranges import enable_ranges
from sepfast.ops.soft_mask import soft_mask
from sepfast.ops.soft_mask_loss import soft_mask_loss
from sepfast.ops.stft import istft, stft
from sepfast.ops.stft_magnitude import stft_magnitude

__all__ = [
    "enable_ranges",
    "istft",
    "masked_istft",
    "soft_mask",
    "soft_mask_loss",
    "stft",
    "stft_magnitude",
    "use_backend",
]
