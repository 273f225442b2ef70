"""In which type numbers of half types are computed: float32, wherever they are added up.

Sums, squares and exponentials leave the range of float16 and the digits of bfloat16, and FFTs of
half types exist on few devices and for few sizes.
"""

from __future__ import annotations

import torch
from torch import Tensor


def widened(x: Tensor) -> Tensor:
    """A tensor of a half type in float32; float32 and float64 as they are."""
    return x if x.dtype == torch.float64 else x.float()
