"""How an operator is registered with PyTorch: the contract in one place.

An operator is known to `torch.compile` and `torch.export` by its schema and its shapes; whether
it runs a kernel or PyTorch is decided inside, call by call. Its gradient is an operator too,
and that one has no gradient: what is differentiated twice raises. So does forward mode, which
PyTorch would otherwise take for a derivative of 0.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache
from typing import Any

import torch
from torch import Tensor, library
from torch.autograd import forward_ad

from sepfast.errors import InputError
from sepfast.ops.backend import kernel_runs
from sepfast.ops.ranges import operator_range


class _Library(library.Library):
    """A library whose gradients are those of reverse mode, and say so."""

    def impl(self, op_name: Any, fn: Any, dispatch_key: str = "", **options: Any) -> None:
        """Register an implementation; `register_autograd` comes here too."""
        if dispatch_key == "Autograd":
            fn = _reverse_only(op_name, fn)
        super().impl(op_name, fn, dispatch_key, **options)


def _reverse_only(name: str, kernel: Callable[..., Any]) -> Callable[..., Any]:
    """An autograd kernel that refuses what the one of `register_autograd` cannot do.

    That one runs the operator below autograd, where tangents are lost without a word, and knows
    no `torch.func`. The ordinary path pays for two comparisons.
    """

    def run(keyset: Any, *args: Any) -> Any:
        if forward_ad._current_level >= 0 and any(map(_has_tangent, args)):
            raise InputError(
                f"{name}: has no forward-mode derivative (jvp, jacfwd, dual numbers); {_INSTEAD}"
            )
        if torch._C._are_functorch_transforms_active() and _wants_gradient(args):
            raise InputError(
                f"{name}: has no gradient by torch.func (grad, vjp, jacrev, hessian); {_INSTEAD}"
            )
        return kernel(keyset, *args)

    return run


def _has_tangent(value: Any) -> bool:
    return isinstance(value, Tensor) and forward_ad.unpack_dual(value).tangent is not None


def _wants_gradient(args: tuple[Any, ...]) -> bool:
    return torch.is_grad_enabled() and any(isinstance(x, Tensor) and x.requires_grad for x in args)


_LIBRARY = _Library("sepfast", "FRAGMENT")

_INSTEAD = (
    "takes torch.autograd.grad, or plain PyTorch in its place (sepfast.unfuse, sepfast.reference)"
)

#: Arguments that are of integers wherever they occur.
_INTEGERS = ("lengths", "seed")
#: Arguments that are of float32 where the others are of a half type, or of that.
_WIDE = ("cell", "of_cell", "cells")

#: What the kernels take; float64 runs in PyTorch.
KERNEL_TYPES = (torch.float32, torch.float16, torch.bfloat16)


def define(
    schema: str,
    *,
    reference: Callable[..., Any],
    kernel: Callable[..., Any],
    fake: Callable[..., Any],
    check: Callable[..., None],
    obstacle: Callable[..., str | None] = lambda *args: None,
    lowers: bool = False,
    compact: bool = False,
) -> Callable[..., Any]:
    """Register an operator `torch.ops.sepfast.<name>`.

    Args:
        schema: its signature; the first argument is a tensor, all are positional.
        reference: what it computes, in PyTorch.
        kernel: the same by a kernel; it is given contiguous tensors.
        fake: the shapes of the results, all contiguous, as `new_empty` of an argument.
        check: raises `InputError` for arguments that do not fit together.
        obstacle: why there is no kernel for some arguments, None where there is one.
        lowers: whether autocast lowers its type, by `lowered`; else it stays in float32, as the
            STFT, masks and losses do.
        compact: whether the first argument may be of a half type beside float32.

    Returns:
        The operator.
    """
    name = schema.split("(")[0]

    def run(*args: Any) -> Any:
        check(*args)
        _same_place(name, args, compact)
        tensor = args[0]
        with operator_range(name):
            if kernel_runs(name, tensor.device, _type_obstacle(tensor) or obstacle(*args)):
                return kernel(*map(_contiguous, args))
            return _contiguous(reference(*args))

    def shapes(*args: Any) -> Any:
        check(*args)
        _same_place(name, args, compact)
        return fake(*args)

    _LIBRARY.define(schema)
    _LIBRARY.impl(name, run, "CompositeExplicitAutograd")
    library.register_fake(f"sepfast::{name}", shapes, lib=_LIBRARY)
    for device in () if lowers else ("cpu", "cuda"):
        library.register_autocast(f"sepfast::{name}", device, torch.float32, lib=_LIBRARY)
    return getattr(torch.ops.sepfast, name)


def widened_type(tensor: Tensor) -> torch.dtype:
    """The type of what is summed up from a tensor: float32, float64 for float64."""
    return torch.float64 if tensor.dtype == torch.float64 else torch.float32


def lowered(*tensors: Tensor | None) -> tuple[Any, ...]:
    """Tensors in autocast's type where it is on, as PyTorch's own convolutions take them."""
    assert tensors[0] is not None
    device = tensors[0].device.type
    if not torch.amp.is_autocast_available(device) or not torch.is_autocast_enabled(device):
        return tensors
    dtype = torch.get_autocast_dtype(device)
    return tuple(x if x is None or x.dtype == torch.float64 else x.to(dtype) for x in tensors)


def differentiate(
    name: str,
    backward: Callable[..., Any],
    save: Callable[[Any, tuple[Any, ...], Any], None],
) -> None:
    """Give an operator its gradient.

    Args:
        name: the operator.
        backward: takes the context and the incoming gradients, gives one gradient or None for
            each argument; made of operators.
        save: takes the context, the arguments and the result, and keeps what backward needs.
    """
    library.register_autograd(f"sepfast::{name}", backward, setup_context=save, lib=_LIBRARY)


def once(name: str) -> None:
    """Make the gradient of a gradient a clear error."""

    def refuse(ctx: Any, *grads: Tensor) -> Any:
        raise InputError(f"{name}: can be differentiated once, got a second differentiation")

    differentiate(name, refuse, lambda ctx, inputs, output: None)


def constant(name: str, tensor: Tensor | None) -> None:
    """Refuse a gradient for an argument that has none."""
    if tensor is not None and tensor.requires_grad and torch.is_grad_enabled():
        raise InputError(f"{name}: got a tensor that requires a gradient, takes a constant")


def _contiguous(value: Any) -> Any:
    if isinstance(value, tuple):
        return tuple(map(_contiguous, value))
    return value.contiguous() if isinstance(value, Tensor) else value


def _type_obstacle(tensor: Tensor) -> str | None:
    return None if tensor.dtype in KERNEL_TYPES else f"as there are no kernels for {tensor.dtype}"


def _same_place(name: str, args: tuple[Any, ...], compact: bool) -> None:
    """Refuse tensors of several devices or types.

    A tensor without axes may be of another type, as in PyTorch: a loss is float32 where its
    inputs are not.
    """
    first = args[0]
    half = compact and first.dtype in KERNEL_TYPES[1:]
    names = _argument_names(name)
    if not first.is_floating_point():
        raise InputError(f"{name}: {names[0]} is {first.dtype}, takes real floats")
    for argument, other in zip(names[1:], args[1:], strict=False):
        if not isinstance(other, Tensor):
            continue
        whole = not (other.is_floating_point() or other.is_complex() or other.dtype == torch.bool)
        if argument in _INTEGERS and whole and other.device == first.device:
            continue
        wide = half or (argument in _WIDE and first.dtype in KERNEL_TYPES)
        same_type = other.dtype == first.dtype or (wide and other.dtype == torch.float32)
        same_type = same_type or (other.ndim == 0 and other.is_floating_point())
        if other.device != first.device or not same_type or argument in _INTEGERS:
            kind = "integers" if argument in _INTEGERS else str(first.dtype)
            raise InputError(
                f"{name}: {argument} is {other.dtype} on {other.device}, takes "
                f"{kind} on {first.device} as {names[0]}"
            )


@lru_cache(maxsize=256)
def _argument_names(name: str) -> tuple[str, ...]:
    schema = getattr(torch.ops.sepfast, name).default._schema
    return tuple(argument.name for argument in schema.arguments)
