"""NVTX ranges around operators, for a profile whose names are those of the code; off by default.

Domain "sepfast" where the package `nvtx` is installed, else a prefix on PyTorch's own ranges.
"""

from __future__ import annotations

import importlib.util
from contextlib import AbstractContextManager, nullcontext

import torch

_on = False
_NOTHING: AbstractContextManager[None] = nullcontext()


def enable_ranges(on: bool = True) -> None:
    """Switch the ranges on or off, for the whole process."""
    global _on
    _on = on


def operator_range(name: str) -> AbstractContextManager[None]:
    """A range of an operator's name; nothing while ranges are off."""
    if not _on:
        return _NOTHING
    if importlib.util.find_spec("nvtx"):
        import nvtx

        return nvtx.annotate(name, domain="sepfast")
    return torch.cuda.nvtx.range(f"sepfast:{name}")
