"""Which implementation an operator runs: Triton kernels or plain PyTorch."""

from __future__ import annotations

import importlib.util
import os
import sys
from types import TracebackType
from typing import Literal, get_args

import torch

from sepfast.errors import InputError

Backend = Literal["auto", "triton", "reference"]

# For the whole process: the backward of an operator runs on threads that autograd makes.
_current: Backend = "auto"


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
    if _current == "reference":
        return False
    if _current == "auto":
        return obstacle is None and device.type == "cuda" and _has_triton()
    reason = obstacle or _no_triton_on(device)
    if reason:
        raise InputError(f"{name}: backend 'triton' cannot run it, {reason}")
    return True


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
