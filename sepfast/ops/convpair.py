"""The operators `conv_pair`, `deconv_pair` and `horizontal_deconv`."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from sepfast import reference
from sepfast.errors import InputError
from sepfast.kernels.precision import product_precision
from sepfast.kernels.tuning import has_config
from sepfast.ops._operator import define, differentiate, lowered, once


def conv_pair(
    x: Tensor,
    vertical: Tensor,
    vertical_bias: Tensor | None,
    horizontal: Tensor,
    horizontal_bias: Tensor | None,
) -> Tensor:
    """A vertical convolution over bins, then a horizontal one over frames.

    There is a kernel for vertical filters that span all bins, f1 = F. Under autocast it computes
    in autocast's type, as PyTorch's convolutions do, with sums in float32.

    Args:
        x: (B, C, T, F).
        vertical: (N1, C, 1, f1), as `Conv2d` has it.
        vertical_bias: (N1,), or None.
        horizontal: (N2, N1, t2, 1), likewise.
        horizontal_bias: (N2,), or None.

    Returns:
        (B, N2, T - t2 + 1, F - f1 + 1).

    Raises:
        InputError: for shapes that do not fit together.

    Example:
        >>> import torch, sepfast
        >>> vertical, horizontal = torch.rand(50, 2, 1, 513), torch.rand(30, 50, 15, 1)
        >>> sepfast.ops.conv_pair(torch.rand(5, 2, 30, 513), vertical, None, horizontal, None).shape
        torch.Size([5, 30, 16, 1])
    """
    return _conv_pair(*lowered(x, vertical, vertical_bias, horizontal, horizontal_bias))[0]


def deconv_pair(
    codes: Tensor,
    horizontal: Tensor,
    horizontal_bias: Tensor | None,
    vertical: Tensor,
    vertical_bias: Tensor | None,
) -> Tensor:
    """A horizontal deconvolution over frames, then a vertical one over bins.

    Either of one pair, or of the pairs of S sources at once, each with codes of its own: all
    shapes but that of the batch then begin with S, weights as `torch.stack` makes them. There is a
    kernel for F' = 1, that is for vertical filters that span all bins; autocast as in `conv_pair`.

    Args:
        codes: (B, N2, T', F'), or (B, S, N2, T', F').
        horizontal: (N2, N1, t2, 1), as `ConvTranspose2d` has it, or (S, N2, N1, t2, 1).
        horizontal_bias: (N1,) or (S, N1), or None.
        vertical: (N1, C, 1, f1), or (S, N1, C, 1, f1).
        vertical_bias: (C,) or (S, C), or None.

    Returns:
        (B, C, T' + t2 - 1, F' + f1 - 1), or (B, S, C, T' + t2 - 1, F' + f1 - 1).

    Raises:
        InputError: for shapes that do not fit together.

    Example:
        >>> import torch, sepfast
        >>> horizontal, vertical = torch.rand(4, 30, 50, 15, 1), torch.rand(4, 50, 2, 1, 513)
        >>> codes = torch.rand(5, 4, 30, 16, 1)
        >>> sepfast.ops.deconv_pair(codes, horizontal, None, vertical, None).shape
        torch.Size([5, 4, 2, 30, 513])
    """
    args = lowered(codes, horizontal, horizontal_bias, vertical, vertical_bias)
    if codes.ndim == 4:
        parts = (part if part is None else part[None] for part in args[1:])
        return _deconv_pair(args[0][:, None], *parts)[0][:, 0]
    return _deconv_pair(*args)[0]


def horizontal_deconv(codes: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    """The first half of `deconv_pair` where filters span all bins: the features of each frame.

    Args:
        codes: (B, S, N2, T').
        weight: (S, N2, N1, t2).
        bias: (S, N1), or None.

    Returns:
        (B, S, T' + t2 - 1, N1).

    Raises:
        InputError: for shapes that do not fit together.

    Example:
        >>> import torch, sepfast
        >>> codes, weight = torch.rand(5, 4, 30, 16), torch.rand(4, 30, 50, 15)
        >>> sepfast.ops.horizontal_deconv(codes, weight, None).shape
        torch.Size([5, 4, 30, 50])
    """
    return _horizontal_deconv(*lowered(codes, weight, bias))


# What is refused


def _takes(name: str, tensor: Tensor | None, shape: str, fits: bool) -> None:
    if not fits:
        assert tensor is not None
        raise InputError(f"{name}: got shape {tuple(tensor.shape)}, takes {shape}")


def _check_conv(
    x: Tensor,
    vertical: Tensor,
    vertical_bias: Tensor | None,
    horizontal: Tensor,
    horizontal_bias: Tensor | None,
) -> None:
    _takes("x", x, "(B, C, T, F)", x.ndim == 4)
    c, t, f = x.shape[1:]
    fits = vertical.ndim == 4 and vertical.shape[1:3] == (c, 1) and 1 <= vertical.shape[3] <= f
    _takes("vertical", vertical, f"(N1, {c}, 1, at most {f}) beside x of {tuple(x.shape)}", fits)
    n1 = vertical.shape[0]
    fits = horizontal.ndim == 4 and horizontal.shape[1] == n1 and horizontal.shape[3] == 1
    fits = fits and 1 <= horizontal.shape[2] <= t
    _takes("horizontal", horizontal, f"(N2, {n1}, at most {t}, 1)", fits)
    _check_bias("vertical_bias", vertical_bias, (n1,))
    _check_bias("horizontal_bias", horizontal_bias, (horizontal.shape[0],))


def _check_deconv(
    codes: Tensor,
    horizontal: Tensor,
    horizontal_bias: Tensor | None,
    vertical: Tensor,
    vertical_bias: Tensor | None,
) -> None:
    _takes("codes", codes, "(B, N2, T', F') or (B, S, N2, T', F')", codes.ndim == 5)
    s, n2 = codes.shape[1:3]
    fits = horizontal.ndim == 5 and horizontal.shape[:2] == (s, n2) and horizontal.shape[4] == 1
    _takes("horizontal", horizontal, f"({s}, {n2}, N1, t2, 1), for one pair without {s}", fits)
    n1 = horizontal.shape[2]
    fits = vertical.ndim == 5 and vertical.shape[:2] == (s, n1) and vertical.shape[3] == 1
    _takes("vertical", vertical, f"({s}, {n1}, C, 1, f1), for one pair without {s}", fits)
    _check_bias("horizontal_bias", horizontal_bias, (s, n1))
    _check_bias("vertical_bias", vertical_bias, (s, vertical.shape[2]))


def _check_horizontal(codes: Tensor, weight: Tensor, bias: Tensor | None) -> None:
    _takes("codes", codes, "(B, S, N2, T')", codes.ndim == 4)
    s, n2 = codes.shape[1:3]
    fits = weight.ndim == 4 and weight.shape[:2] == (s, n2)
    _takes("weight", weight, f"({s}, {n2}, N1, t2)", fits)
    _check_bias("bias", bias, (s, weight.shape[2]))


def _check_bias(name: str, bias: Tensor | None, shape: tuple[int, ...]) -> None:
    _takes(name, bias, f"{shape} or None", bias is None or bias.shape == shape)


def _narrow(span: int, bins: int) -> str | None:
    """Why there is no kernel for vertical filters, those that leave several bins."""
    if span == bins:
        return None
    return f"as its vertical filters span {span} of {bins} bins, kernels take all"


def _unshipped(x: Tensor, *kernels: str) -> str | None:
    """Why kernels cannot run on a device, for the precision that is demanded now."""
    precision = product_precision(x.device, x.dtype)
    for kernel in kernels:
        if not has_config(f"sepfast_{kernel}", x.device, precision=precision):
            return f"as sepfast_{kernel} is not shipped for precision {precision!r}"
    return None


_FORWARD = ("conv_pair_vertical", "conv_pair_horizontal")
_TRANSPOSED = ("deconv_pair_horizontal", "deconv_pair_vertical")
_SLOPES = ("conv_pair_verticalslope", "conv_pair_horizontalslope")


# conv_pair. Beside its result it gives what its first layer gave, (B, F', T, N1), for the gradient.


def _conv(
    x: Tensor,
    vertical: Tensor,
    vertical_bias: Tensor | None,
    horizontal: Tensor,
    horizontal_bias: Tensor | None,
) -> tuple[Tensor, Tensor]:
    if x.device.type == "cpu" and vertical.shape[3] == x.shape[3]:
        return _conv_by_products(x, vertical, vertical_bias, horizontal, horizontal_bias)
    filtered = torch.conv2d(x, vertical, vertical_bias)
    return torch.conv2d(filtered, horizontal, horizontal_bias), filtered.permute(0, 3, 2, 1)


def _conv_by_products(
    x: Tensor,
    vertical: Tensor,
    vertical_bias: Tensor | None,
    horizontal: Tensor,
    horizontal_bias: Tensor | None,
) -> tuple[Tensor, Tensor]:
    """The same as matrix products, which a CPU is faster at; filters span all bins."""
    (n1, _, _, _), (n2, _, span, _) = vertical.shape, horizontal.shape
    filtered = torch.matmul(x, vertical[:, :, 0].permute(1, 2, 0)).sum(1)  # (B, T, N1)
    if vertical_bias is not None:
        filtered += vertical_bias
    windows = filtered.unfold(1, span, 1).transpose(2, 3).flatten(2)  # (B, T', t2 N1)
    codes = torch.matmul(windows, horizontal[..., 0].transpose(1, 2).reshape(n2, span * n1).mT)
    if horizontal_bias is not None:
        codes += horizontal_bias
    return codes.mT[..., None], filtered[:, None]


def _conv_kernel(
    x: Tensor,
    vertical: Tensor,
    vertical_bias: Tensor | None,
    horizontal: Tensor,
    horizontal_bias: Tensor | None,
) -> tuple[Tensor, Tensor]:
    from sepfast.kernels import convpair as kernels

    filtered = kernels.vertical(x[:, None], vertical[None, :, :, 0], vertical_bias)
    out = kernels.horizontal(filtered, horizontal[None, ..., 0], horizontal_bias)
    return out[:, 0, ..., None], filtered


def _conv_fake(
    x: Tensor, vertical: Tensor, vertical_bias: Any, horizontal: Tensor, horizontal_bias: Any
) -> tuple[Tensor, Tensor]:
    batch, _, frames, bins = x.shape
    n1, wide = vertical.shape[0], bins - vertical.shape[3] + 1
    n2, long = horizontal.shape[0], frames - horizontal.shape[2] + 1
    return x.new_empty(batch, n2, long, wide), x.new_empty(batch, wide, frames, n1)


def _conv_backward(
    grad: Tensor, x: Tensor, filtered: Tensor, vertical: Tensor, horizontal: Tensor, wants_x: bool
) -> tuple[Tensor, ...]:
    filtered = filtered.permute(0, 3, 2, 1)
    grads = reference.conv_pair_backward(grad, x, filtered, vertical, horizontal)
    return (grads.x if wants_x else x.new_empty(0), *grads[1:])


def _conv_backward_kernel(
    grad: Tensor, x: Tensor, filtered: Tensor, vertical: Tensor, horizontal: Tensor, wants_x: bool
) -> tuple[Tensor, ...]:
    from sepfast.kernels import convpair as kernels

    of_codes = grad[:, None, ..., 0]
    of_filtered = kernels.horizontal_transposed(of_codes, horizontal[None, ..., 0])
    of_x = x.new_empty(0)
    if wants_x:
        of_x = kernels.vertical_transposed(of_filtered, vertical[None, :, :, 0])[:, 0]
    return (
        of_x,
        kernels.vertical_slope(of_filtered, x[:, None])[0][:, :, None],
        of_filtered.sum((0, 1, 2)),
        kernels.horizontal_slope(of_codes, filtered)[0][..., None],
        grad.sum((0, 2, 3)),
    )


def _conv_backward_fake(
    grad: Tensor, x: Tensor, filtered: Tensor, vertical: Tensor, horizontal: Tensor, wants_x: bool
) -> tuple[Tensor, ...]:
    return (
        x.new_empty(x.shape if wants_x else (0,)),
        x.new_empty(vertical.shape),
        x.new_empty(vertical.shape[0]),
        x.new_empty(horizontal.shape),
        x.new_empty(horizontal.shape[0]),
    )


def _conv_check_backward(
    grad: Tensor, x: Tensor, filtered: Tensor, vertical: Tensor, horizontal: Tensor, wants_x: bool
) -> None:
    _check_conv(x, vertical, None, horizontal, None)
    out, before = _conv_fake(x, vertical, None, horizontal, None)
    _takes("grad", grad, f"{tuple(out.shape)}", grad.shape == out.shape)
    _takes("filtered", filtered, f"{tuple(before.shape)}", filtered.shape == before.shape)


def _conv_save(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, Tensor]) -> None:
    x, vertical, vertical_bias, horizontal, horizontal_bias = inputs
    ctx.save_for_backward(x, output[1], vertical, horizontal)
    ctx.biased = vertical_bias is not None, horizontal_bias is not None
    ctx.mark_non_differentiable(output[1])
    ctx.set_materialize_grads(False)


def _conv_gradient(ctx: Any, grad: Tensor | None, _: None) -> tuple[Tensor | None, ...]:
    if grad is None:
        return (None,) * 5
    wants_x = ctx.needs_input_grad[0]
    grads = _conv_pair_backward(grad, *ctx.saved_tensors, wants_x)
    return _wanted(grads, (wants_x, True, ctx.biased[0], True, ctx.biased[1]))


def _wanted(grads: tuple[Tensor, ...], wanted: tuple[bool, ...]) -> tuple[Tensor | None, ...]:
    return tuple(grad if want else None for grad, want in zip(grads, wanted, strict=True))


# deconv_pair, likewise; its features are (B, S, F', T, N1).


def _deconv(
    codes: Tensor,
    horizontal: Tensor,
    horizontal_bias: Tensor | None,
    vertical: Tensor,
    vertical_bias: Tensor | None,
) -> tuple[Tensor, Tensor]:
    features = reference.deconv_by_source(codes, horizontal, horizontal_bias)
    out = reference.deconv_by_source(features, vertical, vertical_bias)
    return out, features.permute(0, 1, 4, 3, 2)


def _deconv_kernel(
    codes: Tensor,
    horizontal: Tensor,
    horizontal_bias: Tensor | None,
    vertical: Tensor,
    vertical_bias: Tensor | None,
) -> tuple[Tensor, Tensor]:
    from sepfast.kernels import convpair as kernels

    features = kernels.horizontal_transposed(codes[..., 0], horizontal[..., 0], horizontal_bias)
    out = kernels.vertical_transposed(features, vertical[:, :, :, 0], vertical_bias)
    return out, features[:, :, None]


def _deconv_fake(
    codes: Tensor, horizontal: Tensor, horizontal_bias: Any, vertical: Tensor, vertical_bias: Any
) -> tuple[Tensor, Tensor]:
    batch, sources, _, long, wide = codes.shape
    frames, bins = long + horizontal.shape[3] - 1, wide + vertical.shape[4] - 1
    n1, channels = vertical.shape[1:3]
    out = codes.new_empty(batch, sources, channels, frames, bins)
    return out, codes.new_empty(batch, sources, wide, frames, n1)


def _deconv_backward(
    grad: Tensor, codes: Tensor, features: Tensor, horizontal: Tensor, vertical: Tensor
) -> tuple[Tensor, ...]:
    features = features.permute(0, 1, 4, 3, 2)
    return tuple(reference.deconv_pair_backward(grad, codes, features, horizontal, vertical))


def _deconv_backward_kernel(
    grad: Tensor, codes: Tensor, features: Tensor, horizontal: Tensor, vertical: Tensor
) -> tuple[Tensor, ...]:
    from sepfast.kernels import convpair as kernels

    of_features = kernels.vertical(grad, vertical[:, :, :, 0])
    codes, horizontal = codes[..., 0], horizontal[..., 0]
    return (
        kernels.horizontal(of_features, horizontal)[..., None],
        kernels.horizontal_slope(codes, of_features)[..., None],
        of_features.sum((0, 2)),
        kernels.vertical_slope(features[:, :, 0], grad)[:, :, :, None],
        grad.sum((0, 3, 4)),
    )


def _deconv_backward_fake(
    grad: Tensor, codes: Tensor, features: Tensor, horizontal: Tensor, vertical: Tensor
) -> tuple[Tensor, ...]:
    return (
        codes.new_empty(codes.shape),
        codes.new_empty(horizontal.shape),
        codes.new_empty(horizontal.shape[0], horizontal.shape[2]),
        codes.new_empty(vertical.shape),
        codes.new_empty(vertical.shape[0], vertical.shape[2]),
    )


def _deconv_check_backward(
    grad: Tensor, codes: Tensor, features: Tensor, horizontal: Tensor, vertical: Tensor
) -> None:
    _check_deconv(codes, horizontal, None, vertical, None)
    out, before = _deconv_fake(codes, horizontal, None, vertical, None)
    _takes("grad", grad, f"{tuple(out.shape)}", grad.shape == out.shape)
    _takes("features", features, f"{tuple(before.shape)}", features.shape == before.shape)


def _deconv_save(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, Tensor]) -> None:
    codes, horizontal, horizontal_bias, vertical, vertical_bias = inputs
    ctx.save_for_backward(codes, output[1], horizontal, vertical)
    ctx.biased = horizontal_bias is not None, vertical_bias is not None
    ctx.mark_non_differentiable(output[1])
    ctx.set_materialize_grads(False)


def _deconv_gradient(ctx: Any, grad: Tensor | None, _: None) -> tuple[Tensor | None, ...]:
    if grad is None:
        return (None,) * 5
    grads = _deconv_pair_backward(grad, *ctx.saved_tensors)
    return _wanted(grads, (True, True, ctx.biased[0], True, ctx.biased[1]))


# horizontal_deconv


def _horizontal_kernel(codes: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    from sepfast.kernels import convpair as kernels

    return kernels.horizontal_transposed(codes, weight, bias)


def _horizontal_fake(codes: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    batch, sources, _, long = codes.shape
    n1, span = weight.shape[2:]
    return codes.new_empty(batch, sources, long + span - 1, n1)


def _horizontal_backward_kernel(
    grad: Tensor, codes: Tensor, weight: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    from sepfast.kernels import convpair as kernels

    of_weight = kernels.horizontal_slope(codes, grad)
    return kernels.horizontal(grad, weight), of_weight, grad.sum((0, 2))


def _horizontal_backward_fake(
    grad: Tensor, codes: Tensor, weight: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    bias = grad.new_empty(weight.shape[0], weight.shape[2])
    return codes.new_empty(codes.shape), codes.new_empty(weight.shape), bias


def _horizontal_check_backward(grad: Tensor, codes: Tensor, weight: Tensor) -> None:
    _check_horizontal(codes, weight, None)
    out = _horizontal_fake(codes, weight, None)
    _takes("grad", grad, f"{tuple(out.shape)}", grad.shape == out.shape)


def _horizontal_save(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    ctx.save_for_backward(*inputs[:2])
    ctx.biased = inputs[2] is not None


def _horizontal_gradient(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
    grads = _horizontal_deconv_backward(grad, *ctx.saved_tensors)
    return _wanted(grads, (True, True, ctx.biased))


_PAIR = "Tensor vertical, Tensor? vertical_bias, Tensor horizontal, Tensor? horizontal_bias"
_conv_pair = define(
    f"conv_pair(Tensor x, {_PAIR}) -> (Tensor, Tensor)",
    reference=_conv,
    kernel=_conv_kernel,
    fake=_conv_fake,
    check=_check_conv,
    obstacle=lambda x, vertical, *rest: (
        _narrow(vertical.shape[3], x.shape[3]) or _unshipped(x, *_FORWARD)
    ),
    lowers=True,
)
_conv_pair_backward = define(
    "conv_pair_backward(Tensor grad, Tensor x, Tensor filtered, Tensor vertical, "
    "Tensor horizontal, bool wants_x) -> (Tensor, Tensor, Tensor, Tensor, Tensor)",
    reference=_conv_backward,
    kernel=_conv_backward_kernel,
    fake=_conv_backward_fake,
    check=_conv_check_backward,
    obstacle=lambda grad, x, filtered, vertical, *rest: (
        _narrow(vertical.shape[3], x.shape[3]) or _unshipped(x, *_TRANSPOSED, *_SLOPES)
    ),
    lowers=True,
)
_PAIR = "Tensor horizontal, Tensor? horizontal_bias, Tensor vertical, Tensor? vertical_bias"
_deconv_pair = define(
    f"deconv_pair(Tensor codes, {_PAIR}) -> (Tensor, Tensor)",
    reference=_deconv,
    kernel=_deconv_kernel,
    fake=_deconv_fake,
    check=_check_deconv,
    obstacle=lambda codes, horizontal, bias, vertical, *rest: (
        _narrow(vertical.shape[4], codes.shape[4] + vertical.shape[4] - 1)
        or _unshipped(codes, *_TRANSPOSED)
    ),
    lowers=True,
)
_deconv_pair_backward = define(
    "deconv_pair_backward(Tensor grad, Tensor codes, Tensor features, Tensor horizontal, "
    "Tensor vertical) -> (Tensor, Tensor, Tensor, Tensor, Tensor)",
    reference=_deconv_backward,
    kernel=_deconv_backward_kernel,
    fake=_deconv_backward_fake,
    check=_deconv_check_backward,
    obstacle=lambda grad, codes, features, horizontal, vertical: (
        _narrow(vertical.shape[4], grad.shape[4]) or _unshipped(grad, *_FORWARD, *_SLOPES)
    ),
    lowers=True,
)
_horizontal_deconv = define(
    "horizontal_deconv(Tensor codes, Tensor weight, Tensor? bias) -> Tensor",
    reference=reference.horizontal_deconv,
    kernel=_horizontal_kernel,
    fake=_horizontal_fake,
    check=_check_horizontal,
    obstacle=lambda codes, *rest: _unshipped(codes, _TRANSPOSED[0]),
    lowers=True,
)
_horizontal_deconv_backward = define(
    "horizontal_deconv_backward(Tensor grad, Tensor codes, Tensor weight) "
    "-> (Tensor, Tensor, Tensor)",
    reference=reference.horizontal_deconv_backward,
    kernel=_horizontal_backward_kernel,
    fake=_horizontal_backward_fake,
    check=_horizontal_check_backward,
    obstacle=lambda grad, *rest: _unshipped(grad, _FORWARD[1], _SLOPES[1]),
    lowers=True,
)
differentiate("conv_pair", _conv_gradient, _conv_save)
differentiate("deconv_pair", _deconv_gradient, _deconv_save)
differentiate("horizontal_deconv", _horizontal_gradient, _horizontal_save)
for _name in ("conv_pair", "deconv_pair", "horizontal_deconv"):
    once(f"{_name}_backward")
