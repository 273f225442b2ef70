"""The operator `conv_pair`: a vertical convolution over bins, then a horizontal one over frames."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from sepfast import reference
from sepfast.ops._operator import define, differentiate, lowered, once
from sepfast.ops._products import (
    LAYERS,
    SLOPES,
    TRANSPOSED,
    check_bias,
    narrow,
    save_pair,
    takes,
    unshipped,
    wanted,
)


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


def _check(
    x: Tensor,
    vertical: Tensor,
    vertical_bias: Tensor | None,
    horizontal: Tensor,
    horizontal_bias: Tensor | None,
) -> None:
    takes("x", x, "(B, C, T, F)", x.ndim == 4)
    c, t, f = x.shape[1:]
    fits = vertical.ndim == 4 and vertical.shape[1:3] == (c, 1) and 1 <= vertical.shape[3] <= f
    takes("vertical", vertical, f"(N1, {c}, 1, at most {f}) beside x of {tuple(x.shape)}", fits)
    n1 = vertical.shape[0]
    fits = horizontal.ndim == 4 and horizontal.shape[1] == n1 and horizontal.shape[3] == 1
    fits = fits and 1 <= horizontal.shape[2] <= t
    takes("horizontal", horizontal, f"(N2, {n1}, at most {t}, 1)", fits)
    check_bias("vertical_bias", vertical_bias, (n1,))
    check_bias("horizontal_bias", horizontal_bias, (horizontal.shape[0],))


def _reference(
    x: Tensor,
    vertical: Tensor,
    vertical_bias: Tensor | None,
    horizontal: Tensor,
    horizontal_bias: Tensor | None,
) -> tuple[Tensor, Tensor]:
    if x.device.type == "cpu" and vertical.shape[3] == x.shape[3]:
        return _by_products(x, vertical, vertical_bias, horizontal, horizontal_bias)
    filtered = torch.conv2d(x, vertical, vertical_bias)
    return torch.conv2d(filtered, horizontal, horizontal_bias), filtered.permute(0, 3, 2, 1)


def _by_products(
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


def _kernel(
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


def _fake(
    x: Tensor, vertical: Tensor, vertical_bias: Any, horizontal: Tensor, horizontal_bias: Any
) -> tuple[Tensor, Tensor]:
    batch, _, frames, bins = x.shape
    n1, wide = vertical.shape[0], bins - vertical.shape[3] + 1
    n2, long = horizontal.shape[0], frames - horizontal.shape[2] + 1
    return x.new_empty(batch, n2, long, wide), x.new_empty(batch, wide, frames, n1)


def _reference_backward(
    grad: Tensor, x: Tensor, filtered: Tensor, vertical: Tensor, horizontal: Tensor, wants_x: bool
) -> tuple[Tensor, ...]:
    if x.device.type == "cpu" and vertical.shape[3] == x.shape[3]:
        return _backward_by_products(grad, x, filtered, vertical, horizontal, wants_x)
    filtered = filtered.permute(0, 3, 2, 1)
    grads = reference.conv_pair_backward(grad, x, filtered, vertical, horizontal)
    return (grads.x if wants_x else x.new_empty(0), *grads[1:])


def _backward_by_products(
    grad: Tensor, x: Tensor, filtered: Tensor, vertical: Tensor, horizontal: Tensor, wants_x: bool
) -> tuple[Tensor, ...]:
    """The gradients of weights as products of rows (b, t), as `_by_products` has the result."""
    (_, channels, _, bins), (_, n1, span, _) = x.shape, horizontal.shape
    of_filtered = torch.conv_transpose2d(grad, horizontal)  # (B, N1, T, 1)
    rows = of_filtered.transpose(0, 1).flatten(1)  # (N1, B T)
    images = (x[:, channel].reshape(-1, bins) for channel in range(channels))
    of_codes = grad.transpose(0, 1).flatten(1)  # (N2, B T')
    windows = filtered[:, 0].unfold(1, span, 1).reshape(-1, n1 * span)
    return (
        torch.conv_transpose2d(of_filtered, vertical) if wants_x else x.new_empty(0),
        torch.stack([rows @ image for image in images], 1)[:, :, None],
        rows.sum(1),
        (of_codes @ windows).view(horizontal.shape),
        of_codes.sum(1),
    )


def _kernel_backward(
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


def _fake_backward(
    grad: Tensor, x: Tensor, filtered: Tensor, vertical: Tensor, horizontal: Tensor, wants_x: bool
) -> tuple[Tensor, ...]:
    return (
        x.new_empty(x.shape if wants_x else (0,)),
        x.new_empty(vertical.shape),
        x.new_empty(vertical.shape[0]),
        x.new_empty(horizontal.shape),
        x.new_empty(horizontal.shape[0]),
    )


def _check_backward(
    grad: Tensor, x: Tensor, filtered: Tensor, vertical: Tensor, horizontal: Tensor, wants_x: bool
) -> None:
    _check(x, vertical, None, horizontal, None)
    out, before = _fake(x, vertical, None, horizontal, None)
    takes("grad", grad, f"{tuple(out.shape)}", grad.shape == out.shape)
    takes("filtered", filtered, f"{tuple(before.shape)}", filtered.shape == before.shape)


def _backward(ctx: Any, grad: Tensor | None, _: None) -> tuple[Tensor | None, ...]:
    if grad is None:
        return (None,) * 5
    wants_x = ctx.needs_input_grad[0]
    grads = _conv_pair_backward(grad, *ctx.saved_tensors, wants_x)
    return wanted(grads, (wants_x, True, ctx.biased[0], True, ctx.biased[1]))


_PAIR = "Tensor vertical, Tensor? vertical_bias, Tensor horizontal, Tensor? horizontal_bias"
_conv_pair = define(
    f"conv_pair(Tensor x, {_PAIR}) -> (Tensor, Tensor)",
    reference=_reference,
    kernel=_kernel,
    fake=_fake,
    check=_check,
    obstacle=lambda x, vertical, *rest: (
        narrow(vertical.shape[3], x.shape[3]) or unshipped(x, *LAYERS)
    ),
    lowers=True,
)
_conv_pair_backward = define(
    "conv_pair_backward(Tensor grad, Tensor x, Tensor filtered, Tensor vertical, "
    "Tensor horizontal, bool wants_x) -> (Tensor, Tensor, Tensor, Tensor, Tensor)",
    reference=_reference_backward,
    kernel=_kernel_backward,
    fake=_fake_backward,
    check=_check_backward,
    obstacle=lambda grad, x, filtered, vertical, *rest: (
        narrow(vertical.shape[3], x.shape[3]) or unshipped(x, *TRANSPOSED, *SLOPES)
    ),
    lowers=True,
)
differentiate("conv_pair", _backward, save_pair)
once("conv_pair_backward")
