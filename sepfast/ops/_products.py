"""What the operators of matrix products share: what is refused, and where there is no kernel."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from sepfast.errors import InputError
from sepfast.kernels.precision import product_precision
from sepfast.kernels.tuning import has_config

#: The kernels of the convolution pair's layers, of their transposes, and of all their weights'
#: gradients.
LAYERS = ("sepfast_conv_pair_vertical", "sepfast_conv_pair_horizontal")
TRANSPOSED = ("sepfast_deconv_pair_horizontal", "sepfast_deconv_pair_vertical")
SLOPES = ("sepfast_conv_pair_verticalslope", "sepfast_conv_pair_horizontalslope")


def takes(name: str, tensor: Tensor | None, shape: str, fits: bool) -> None:
    """Refuse an argument that does not fit."""
    if not fits:
        assert tensor is not None
        raise InputError(f"{name}: got shape {tuple(tensor.shape)}, takes {shape}")


def check_bias(name: str, bias: Tensor | None, shape: tuple[int, ...]) -> None:
    """Refuse a bias of another shape."""
    takes(name, bias, f"{shape} or None", bias is None or bias.shape == shape)


def narrow(span: int, bins: int) -> str | None:
    """Why there is no kernel for vertical filters, those that leave several bins."""
    if span == bins:
        return None
    return f"as its vertical filters span {span} of {bins} bins, kernels take all"


def unshipped(x: Tensor, *kernels: str) -> str | None:
    """Why kernels cannot run on a device, for the precision that is demanded now."""
    precision = product_precision(x.device, x.dtype)
    for kernel in kernels:
        if not has_config(kernel, x.device, precision=precision):
            return f"as {kernel} is not shipped for precision {precision!r}"
    return None


def save_pair(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, Tensor]) -> None:
    """Keep what the gradient of two layers needs, one behind the other.

    Args:
        ctx: autograd's.
        inputs: what goes in, then the weight and the bias of each layer.
        output: the result, and what the first layer gave.
    """
    x, first, first_bias, second, second_bias = inputs
    ctx.save_for_backward(x, output[1], first, second)
    ctx.biased = first_bias is not None, second_bias is not None
    ctx.mark_non_differentiable(output[1])
    ctx.set_materialize_grads(False)


def wanted(grads: tuple[Tensor, ...], which: tuple[bool, ...]) -> tuple[Tensor | None, ...]:
    """The gradients that are wanted, None for the others."""
    return tuple(grad if want else None for grad, want in zip(grads, which, strict=True))
