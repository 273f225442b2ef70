"""The operator `overlap_decode`: codes of a whole track's contexts to cross-faded shares."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from sepfast import reference
from sepfast.errors import InputError
from sepfast.kernels.precision import product_precision
from sepfast.kernels.tuning import has_config
from sepfast.ops._operator import constant, define, differentiate, once
from sepfast.ops._products import wanted


def overlap_decode(
    codes: Tensor,
    horizontal: Tensor,
    horizontal_bias: Tensor | None,
    vertical: Tensor,
    vertical_bias: Tensor | None,
    fades: Tensor,
    step: int,
    compact: bool = False,
) -> Tensor:
    """Shares of the sources in every frame, from the codes of overlapping contexts.

    The deconvolutions of all sources, a ReLU, the soft mask over the sources, 1 / S at silence,
    and the contexts cross-faded; estimates are never stored.

    Args:
        codes: (K, S, N2, T'), contexts and sources.
        horizontal: (S, N2, N1, t2), as `ConvTranspose2d` has it, without its axis of length 1.
        horizontal_bias: (S, N1), or None.
        vertical: (S, N1, C, F), likewise; it spans all bins.
        vertical_bias: (S, C), or None.
        fades: (K, T), weights of a context in its frames, T = T' + t2 - 1; a constant.
        step: frames from one context to the next, 1 to T.
        compact: give float16, half the bytes; its gradient is that of the same numbers.

    Returns:
        (S, C, (K - 1) step + T, F), no frames for no contexts; float16 or in the type of `codes`.

    Raises:
        InputError: for shapes that do not fit together, a step out of range, or fades that
            require a gradient.

    Example:
        >>> import torch, sepfast
        >>> codes, fades = torch.ones(2, 3, 1, 2), torch.tensor([[1, 1, 0.5], [0.5, 1, 1]])
        >>> weights = torch.ones(3, 1, 4, 2), None, torch.ones(3, 4, 1, 5), None
        >>> shares = sepfast.ops.overlap_decode(codes, *weights, fades, 2)
        >>> shares.shape
        torch.Size([3, 1, 5, 5])
        >>> shares.sum(0).allclose(torch.ones(1, 5, 5))
        True
    """
    constant("fades", fades)
    return _overlap_decode(
        codes, horizontal, horizontal_bias, vertical, vertical_bias, fades, step, compact
    )


def _check(
    codes: Tensor,
    horizontal: Tensor,
    horizontal_bias: Tensor | None,
    vertical: Tensor,
    vertical_bias: Tensor | None,
    fades: Tensor,
    step: int,
    compact: bool = False,
) -> None:
    if codes.ndim != 4 or 0 in codes.shape[1:]:
        raise InputError(
            f"codes: got shape {tuple(codes.shape)}, takes (contexts, sources, filters, frames), "
            "none but the contexts 0"
        )
    contexts, sources, filters, reach = codes.shape
    _check_shape("horizontal", horizontal, (sources, filters, "N1", "t2"))
    _, _, n1, span = horizontal.shape
    _check_shape("vertical", vertical, (sources, n1, "C", "F"))
    if horizontal_bias is not None:
        _check_shape("horizontal_bias", horizontal_bias, (sources, n1))
    if vertical_bias is not None:
        _check_shape("vertical_bias", vertical_bias, (sources, vertical.shape[2]))
    length = reach + span - 1
    _check_shape("fades", fades, (contexts, length))
    if not 1 <= step <= length:
        raise InputError(f"step: got {step}, takes 1 to the {length} frames of a context")


def _check_shape(name: str, tensor: Tensor, wanted: tuple[int | str, ...]) -> None:
    """Refuse another shape; words stand for any length but 0."""
    found = tuple(tensor.shape)
    fits = len(found) == len(wanted) and all(
        have > 0 if isinstance(want, str) else have == want
        for have, want in zip(found, wanted, strict=True)
    )
    if not fits:
        raise InputError(f"{name}: got shape {found}, takes ({', '.join(map(str, wanted))})")


def _check_backward(
    grad: Tensor,
    codes: Tensor,
    horizontal: Tensor,
    horizontal_bias: Tensor | None,
    vertical: Tensor,
    vertical_bias: Tensor | None,
    fades: Tensor,
    step: int,
) -> None:
    _check(codes, horizontal, horizontal_bias, vertical, vertical_bias, fades, step)
    _check_shape("grad", grad, _shape(vertical, fades, step))


def _shape(vertical: Tensor, fades: Tensor, step: int) -> tuple[int, int, int, int]:
    contexts, length = fades.shape
    sources, _, channels, bins = vertical.shape
    return sources, channels, (contexts - 1) * step + length if contexts else 0, bins


def _kernel(
    codes: Tensor,
    horizontal: Tensor,
    horizontal_bias: Tensor | None,
    vertical: Tensor,
    vertical_bias: Tensor | None,
    fades: Tensor,
    step: int,
    compact: bool,
) -> Tensor:
    from sepfast.kernels import overlap_decode as kernels

    dtype = torch.float16 if compact else codes.dtype
    if not len(codes):
        return codes.new_empty(_shape(vertical, fades, step), dtype=dtype)
    weights = kernels.Weights(*map(_single, (horizontal, horizontal_bias, vertical, vertical_bias)))
    precision = product_precision(codes.device, codes.dtype)
    return kernels.overlap_decode(_single(codes), weights, fades, step, dtype, precision)


def _kernel_backward(
    grad: Tensor,
    codes: Tensor,
    horizontal: Tensor,
    horizontal_bias: Tensor | None,
    vertical: Tensor,
    vertical_bias: Tensor | None,
    fades: Tensor,
    step: int,
) -> tuple[Tensor, ...]:
    from sepfast.kernels import overlap_decode as kernels

    inputs = (codes, horizontal, horizontal_bias, vertical, vertical_bias)
    if not len(codes):
        return tuple(reference.overlap_decode_backward(grad, *inputs, fades, step))
    wide, *rest = map(_single, inputs)
    weights = kernels.Weights(*rest)
    precision = product_precision(codes.device, codes.dtype)
    gradients = kernels.overlap_decode_backward(grad, wide, weights, fades, step, precision)
    return tuple(x.to(codes.dtype) for x in gradients)


def _single(x: Any) -> Any:
    """Half types in float32, as estimates are taken; None stays."""
    return None if x is None else x.float()


def _obstacle(kernel: str, codes: Tensor) -> str | None:
    sources = codes.shape[1]
    padded = max(2, 1 << (sources - 1).bit_length())  # as configurations are shipped
    precision = product_precision(codes.device, codes.dtype)
    if has_config(kernel, codes.device, precision=precision, sources=padded):
        return None
    return f"as {kernel} is not shipped for {sources} sources, precision {precision!r}"


def _fake(
    codes: Tensor,
    horizontal: Tensor,
    horizontal_bias: Tensor | None,
    vertical: Tensor,
    vertical_bias: Tensor | None,
    fades: Tensor,
    step: int,
    compact: bool,
) -> Tensor:
    dtype = torch.float16 if compact else codes.dtype
    return codes.new_empty(_shape(vertical, fades, step), dtype=dtype)


def _fake_backward(
    grad: Tensor, codes: Tensor, horizontal: Tensor, _: Any, vertical: Tensor, *rest: Any
) -> tuple[Tensor, ...]:
    sources, n1, channels, _bins = vertical.shape
    shapes = (
        codes.shape,
        horizontal.shape,
        (sources, n1),
        vertical.shape,
        (sources, channels),
    )
    return tuple(codes.new_empty(shape) for shape in shapes)


def _save(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    *tensors, ctx.step, _ = inputs
    ctx.save_for_backward(*tensors)


def _backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
    codes, horizontal, horizontal_bias, *rest = ctx.saved_tensors
    grads = _overlap_decode_backward(
        grad.to(codes.dtype), codes, horizontal, horizontal_bias, *rest, ctx.step
    )
    return *wanted(grads, ctx.needs_input_grad[:5]), None, None, None


_TENSORS = (
    "Tensor codes, Tensor horizontal, Tensor? horizontal_bias, Tensor vertical,"
    " Tensor? vertical_bias, Tensor fades"
)
_overlap_decode = define(
    f"overlap_decode({_TENSORS}, int step, bool compact) -> Tensor",
    reference=reference.overlap_decode,
    kernel=_kernel,
    fake=_fake,
    check=_check,
    obstacle=lambda codes, *_: _obstacle("sepfast_overlap_decode_forward", codes),
)
_overlap_decode_backward = define(
    f"overlap_decode_backward(Tensor grad, {_TENSORS}, int step)"
    " -> (Tensor, Tensor, Tensor, Tensor, Tensor)",
    reference=lambda *args: tuple(reference.overlap_decode_backward(*args)),
    kernel=_kernel_backward,
    fake=_fake_backward,
    check=_check_backward,
    obstacle=lambda grad, codes, *_: _obstacle("sepfast_overlap_decode_backward", codes),
)
differentiate("overlap_decode", _backward, _save)
once("overlap_decode_backward")
