"""Which implementation an operator runs: Triton kernels or plain PyTorch."""

from __future__ import annotations

import importlib.util
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from types import TracebackType
from typing import Literal, NamedTuple, get_args

import torch

from sepfast.errors import InputError

Backend = Literal["auto", "triton", "reference"]


class Decision(NamedTuple):
    """What one call of an operator ran.

    Attributes:
        operator: its name, of a gradient with `_backward` behind it.
        obstacle: why it ran PyTorch; None where it ran its kernel.
    """

    operator: str
    obstacle: str | None


# For the whole process: the backward of an operator runs on threads that autograd makes.
_current: Backend = "auto"
_noted: list[list[Decision]] = []


class use_backend:
    """Choose the implementation of all operators, from now on or for a `with` block.

    Args:
        backend: "auto" runs kernels on a GPU wherever one is expected to win, PyTorch elsewhere;
            "triton" runs kernels wherever there is one and raises where there is none, on CPU
            tensors in Triton's interpreter; "reference" runs PyTorch everywhere.

    Raises:
        InputError: for another name.

    Example:
        >>> import sepfast
        >>> with sepfast.use_backend("reference"):
        ...     pass  # operators in here run PyTorch
    """

    _backend: Backend
    _previous: Backend

    def __init__(self, backend: Backend) -> None:
        global _current
        if backend not in get_args(Backend):
            raise InputError(f"backend: got {backend!r}, takes {', '.join(get_args(Backend))}")
        self._backend, self._previous = backend, _current
        _current = backend

    def __enter__(self) -> None:
        global _current
        _current = self._backend

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        global _current
        _current = self._previous


def kernel_runs(name: str, device: torch.device, obstacle: str | None) -> bool:
    """Whether an operator is to run its kernel.

    Args:
        name: the operator.
        device: of its tensors.
        obstacle: why there is no kernel for these arguments; None where there is one.

    Raises:
        InputError: where kernels are demanded and cannot run.
    """
    reason = _obstacle(device, obstacle)
    if _current == "triton" and reason:
        raise InputError(f"{name}: backend 'triton' cannot run it, {reason}")
    for decisions in _noted:
        decisions.append(Decision(name, reason))
    return reason is None


@contextmanager
def noted_decisions() -> Iterator[list[Decision]]:
    """Collect what the operators that are called within run, and why."""
    decisions: list[Decision] = []
    _noted.append(decisions)
    try:
        yield decisions
    finally:
        _noted[:] = [each for each in _noted if each is not decisions]


def current_backend() -> Backend:
    """What `use_backend` has set, for the block that runs or from then on."""
    return _current


def _obstacle(device: torch.device, obstacle: str | None) -> str | None:
    """Why PyTorch runs in place of a kernel; None where the kernel does."""
    if _current == "reference":
        return "as the backend is 'reference'"
    if _current == "triton":
        return obstacle or _no_triton_on(device)
    if device.type != "cuda":
        return f"as the backend 'auto' runs PyTorch on tensors on {device.type}"
    return obstacle or (None if _has_triton() else "as Triton is not installed")


def _has_triton() -> bool:
    return importlib.util.find_spec("triton") is not None


def _no_triton_on(device: torch.device) -> str | None:
    """Why Triton cannot run on a device; starts the interpreter for the CPU where it still can."""
    if not _has_triton():
        return "as Triton is not installed"
    if device.type == "cuda":
        return None
    if device.type != "cpu":
        return f"as there are no kernels for {device.type} tensors"
    if "triton" not in sys.modules:
        os.environ["TRITON_INTERPRET"] = "1"
    if os.environ.get("TRITON_INTERPRET") != "1":
        return (
            "as CPU tensors need Triton's interpreter: set TRITON_INTERPRET=1 before Triton is "
            "imported"
        )
    return None
