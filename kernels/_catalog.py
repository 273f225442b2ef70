"""All kernels in all their shipped configurations, as the compile gate takes them."""

from __future__ import annotations

import json
from collections.abc import Mapping
from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from sepfast.kernels.launch import Entry

#: The modules of this folder that have a tuple KERNELS.
_MODULES = (
    "amplitude_mask_loss",
    "bilinear_attention",
    "convpair",
    "linear_soft_mask_loss",
    "lstm",
    "soft_mask",
    "soft_mask_loss",
    "softplus_affine",
    "softplus_norm",
    "stft",
    "stft_magnitude",
    "masked_istft",
    "_masked_istft_sliding",
    "overlap_decode",
)


def catalog() -> list[Entry]:
    """Every kernel with its signature, in every set of constants and options that is shipped.

    Imports Triton, and so decides whether this process interprets kernels or compiles them.

    Returns:
        Entries in the order of the modules, each kernel, constants, options and device once.

    Raises:
        ImportError: where Triton is not installed.

    Example:
        >>> from sepfast.kernels import catalog
        >>> sorted({e.kernel for e in catalog()})[0]
        'sepfast_amplitude_mask_loss_backward'
    """
    modules = (import_module(f"sepfast.kernels.{name}") for name in _MODULES)
    entries = (entry for m in modules for kernel in m.KERNELS for entry in kernel.entries())
    return list({identity(e.kernel, e.constants, e.options, e.device): e for e in entries}.values())


def identity(*parts: object) -> str:
    """Names and mappings of plain values as one string, equal where they are equal."""
    return json.dumps([dict(p) if isinstance(p, Mapping) else p for p in parts], sort_keys=True)
