"""The operator `deconv_pair`: a horizontal deconvolution over frames, a vertical one over bins."""

from __future__ import annotations

from typing import Any

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


def _check(
    codes: Tensor,
    horizontal: Tensor,
    horizontal_bias: Tensor | None,
    vertical: Tensor,
    vertical_bias: Tensor | None,
) -> None:
    takes("codes", codes, "(B, N2, T', F') or (B, S, N2, T', F')", codes.ndim == 5)
    s, n2 = codes.shape[1:3]
    fits = horizontal.ndim == 5 and horizontal.shape[:2] == (s, n2) and horizontal.shape[4] == 1
    takes("horizontal", horizontal, f"({s}, {n2}, N1, t2, 1), for one pair without {s}", fits)
    n1 = horizontal.shape[2]
    fits = vertical.ndim == 5 and vertical.shape[:2] == (s, n1) and vertical.shape[3] == 1
    takes("vertical", vertical, f"({s}, {n1}, C, 1, f1), for one pair without {s}", fits)
    check_bias("horizontal_bias", horizontal_bias, (s, n1))
    check_bias("vertical_bias", vertical_bias, (s, vertical.shape[2]))


def _reference(
    codes: Tensor,
    horizontal: Tensor,
    horizontal_bias: Tensor | None,
    vertical: Tensor,
    vertical_bias: Tensor | None,
) -> tuple[Tensor, Tensor]:
    features = reference.deconv_by_source(codes, horizontal, horizontal_bias)
    out = reference.deconv_by_source(features, vertical, vertical_bias)
    return out, features.permute(0, 1, 4, 3, 2)


def _kernel(
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


def _fake(
    codes: Tensor, horizontal: Tensor, horizontal_bias: Any, vertical: Tensor, vertical_bias: Any
) -> tuple[Tensor, Tensor]:
    batch, sources, _, long, wide = codes.shape
    frames, bins = long + horizontal.shape[3] - 1, wide + vertical.shape[4] - 1
    n1, channels = vertical.shape[1:3]
    out = codes.new_empty(batch, sources, channels, frames, bins)
    return out, codes.new_empty(batch, sources, wide, frames, n1)


def _reference_backward(
    grad: Tensor, codes: Tensor, features: Tensor, horizontal: Tensor, vertical: Tensor
) -> tuple[Tensor, ...]:
    features = features.permute(0, 1, 4, 3, 2)
    return tuple(reference.deconv_pair_backward(grad, codes, features, horizontal, vertical))


def _kernel_backward(
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


def _fake_backward(
    grad: Tensor, codes: Tensor, features: Tensor, horizontal: Tensor, vertical: Tensor
) -> tuple[Tensor, ...]:
    return (
        codes.new_empty(codes.shape),
        codes.new_empty(horizontal.shape),
        codes.new_empty(horizontal.shape[0], horizontal.shape[2]),
        codes.new_empty(vertical.shape),
        codes.new_empty(vertical.shape[0], vertical.shape[2]),
    )


def _check_backward(
    grad: Tensor, codes: Tensor, features: Tensor, horizontal: Tensor, vertical: Tensor
) -> None:
    _check(codes, horizontal, None, vertical, None)
    out, before = _fake(codes, horizontal, None, vertical, None)
    takes("grad", grad, f"{tuple(out.shape)}", grad.shape == out.shape)
    takes("features", features, f"{tuple(before.shape)}", features.shape == before.shape)


def _backward(ctx: Any, grad: Tensor | None, _: None) -> tuple[Tensor | None, ...]:
    if grad is None:
        return (None,) * 5
    grads = _deconv_pair_backward(grad, *ctx.saved_tensors)
    return wanted(grads, (True, True, ctx.biased[0], True, ctx.biased[1]))


_PAIR = "Tensor horizontal, Tensor? horizontal_bias, Tensor vertical, Tensor? vertical_bias"
_deconv_pair = define(
    f"deconv_pair(Tensor codes, {_PAIR}) -> (Tensor, Tensor)",
    reference=_reference,
    kernel=_kernel,
    fake=_fake,
    check=_check,
    obstacle=lambda codes, horizontal, bias, vertical, *rest: (
        narrow(vertical.shape[4], codes.shape[4] + vertical.shape[4] - 1)
        or unshipped(codes, *TRANSPOSED)
    ),
    lowers=True,
)
_deconv_pair_backward = define(
    "deconv_pair_backward(Tensor grad, Tensor codes, Tensor features, Tensor horizontal, "
    "Tensor vertical) -> (Tensor, Tensor, Tensor, Tensor, Tensor)",
    reference=_reference_backward,
    kernel=_kernel_backward,
    fake=_fake_backward,
    check=_check_backward,
    obstacle=lambda grad, codes, features, horizontal, vertical: (
        narrow(vertical.shape[4], grad.shape[4]) or unshipped(grad, *LAYERS, *SLOPES)
    ),
    lowers=True,
)
differentiate("deconv_pair", _backward, save_pair)
once("deconv_pair_backward")
