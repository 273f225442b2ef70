"""How exactly matrix products are taken, as PyTorch's own knob has it.

| `torch.get_float32_matmul_precision()` | CUDA | gfx942 | other AMD |
| --- | --- | --- | --- |
| highest | three TF32 products, float32-accurate | float32 | float32 |
| high and medium | TF32 | TF32 | float32 |

Nothing goes below TF32: in bf16 the STFT's noise would lie at -48 dB, where it is heard, and the
published weights of the convolutions reach 150. Half types are exact in TF32, which holds as many
digits as float16 and as wide a range as bfloat16: for them all is as "high".
"""

from __future__ import annotations

import torch

#: What a target's matrix products are taken in, by what PyTorch's knob demands.
_CUDA = {"highest": "tf32x3", "high": "tf32", "medium": "tf32"}
_GFX942 = {"highest": "ieee", "high": "tf32", "medium": "tf32"}
_AMD = {"highest": "ieee", "high": "ieee", "medium": "ieee"}


def on_target(backend: str, arch: str) -> dict[str, str]:
    """Demand -> `input_precision` of `tl.dot`, for "cuda" or "hip" and an architecture."""
    if backend == "cuda":
        return _CUDA
    return _GFX942 if arch == "gfx942" else _AMD


def product_precision(device: torch.device, dtype: torch.dtype = torch.float32) -> str:
    """`input_precision` of products on a device, of a type, as PyTorch's knob demands now."""
    demand = torch.get_float32_matmul_precision() if dtype == torch.float32 else "high"
    if torch.version.hip and device.type == "cuda":
        arch = torch.cuda.get_device_properties(device).gcnArchName.split(":")[0]
        return on_target("hip", arch)[demand]
    return on_target("cuda", "")[demand]
