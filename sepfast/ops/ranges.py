"""Ranges of a profile, whose names are those of the code; off by default.

    step > data
           forward > operators
           backward > operators
           optimiser

A range goes to NVTX, in the domain "sepfast" where the package `nvtx` is installed and with that
name as a prefix in PyTorch's own ranges elsewhere, which builds for a GPU alone have; and beside
it to one more place, `torch.profiler` unless another is named. None is part of what `torch.compile`
makes; the operators in it open theirs when they run. There is none while a CUDA graph is captured:
it would last as long as the capture, in which nothing runs.
Backward ranges are inside the step's where the backward is on the step's own thread, see
`torch.autograd.set_multithreading_enabled`.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from functools import partial
from typing import Any, Literal

import torch

DOMAIN = "sepfast"

Phase = Literal["step", "data", "forward", "backward", "optimiser"]

#: Opens a range of a name.
Opener = Callable[[str], AbstractContextManager[Any]]

_open: Opener | None = None
_NOTHING: AbstractContextManager[None] = nullcontext()


def enable_ranges(on: bool = True, *, also: Opener | None = None) -> None:
    """Switch the ranges on or off, for the whole process.

    Args:
        on: whether there are any.
        also: what opens each of them beside NVTX; None for `torch.profiler`.
    """
    global _open
    _open = _opener(also or _traced) if on else None


def operator_range(name: str) -> AbstractContextManager[Any]:
    """A range of an operator's name; nothing while ranges are off."""
    if _open is None or torch.compiler.is_compiling() or _captures():
        return _NOTHING
    return _open(name)


def phase_range(name: Phase) -> AbstractContextManager[Any]:
    """A range of a part of a training step; nothing while ranges are off."""
    return operator_range(name)


def has_domain() -> bool:
    """Whether NVTX is given the ranges in a domain of their own, and not with a prefix."""
    return importlib.util.find_spec("nvtx") is not None


def prefixed(name: str) -> str:
    """A range's name where there are no domains."""
    return f"{DOMAIN}:{name}"


def unprefixed(name: str) -> str | None:
    """The range of a name by `prefixed`; None for another, such as PyTorch's own sepfast::stft."""
    domain, _, range_name = name.partition(":")
    return range_name if domain == DOMAIN and range_name[:1] not in ("", ":") else None


def _opener(also: Opener) -> Opener:
    """Opens a range in NVTX, where there is one, and in another place."""
    mark = _nvtx()
    if mark is None:
        return also

    @contextmanager
    def both(name: str) -> Iterator[None]:
        with mark(name), also(name):
            yield

    return both


def _nvtx() -> Opener | None:
    if has_domain():
        import nvtx

        return partial(nvtx.annotate, domain=DOMAIN)
    if torch.version.cuda or torch.version.hip:
        return lambda name: torch.cuda.nvtx.range(prefixed(name))
    return None


def _traced(name: str) -> AbstractContextManager[Any]:
    return torch.profiler.record_function(prefixed(name))


def _captures() -> bool:
    return torch.cuda.is_initialized() and torch.cuda.is_current_stream_capturing()
