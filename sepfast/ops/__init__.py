"""The operators: PyTorch on the CPU, Triton kernels on a GPU, one name for both."""

from sepfast.ops.backend import use_backend
from sepfast.ops.ranges import enable_ranges
from sepfast.ops.soft_mask import soft_mask

__all__ = ["enable_ranges", "soft_mask", "use_backend"]
