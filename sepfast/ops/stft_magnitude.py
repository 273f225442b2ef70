"""The operator `stft_magnitude`: what a separation network is fed with, straight from samples."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from torch import Tensor

from sepfast import reference
from sepfast.errors import InputError
from sepfast.ops._framing import check_bins, check_line, kernel_obstacle, rows, scaled_window
from sepfast.ops._operator import constant, define, differentiate, once
from sepfast.ops._sliding import obstacle, slides
from sepfast.reference import Framing

if TYPE_CHECKING:
    from sepfast.kernels.stft_magnitude import Levels


def stft_magnitude(
    waveform: Tensor,
    framing: Framing,
    *,
    power: float = 1.0,
    scale: Tensor | None = None,
    offset: Tensor | None = None,
) -> Tensor:
    """Magnitudes of every frame, compressed and scaled per bin: |X|^power * scale + offset.

    Args:
        waveform: (..., samples), or (..., channels, samples).
        framing: window, hop, padding and scale.
        power: exponent of the magnitude, above 0.
        scale: (bins,), or (channels, 1, bins) for each channel its own; a constant.
        offset: likewise.

    Returns:
        (..., frames, bins) in the type of `waveform`. Its gradient is 0 where X is 0.

    Raises:
        InputError: for shapes that do not fit, or a scale or offset that wants a gradient.

    Example:
        >>> import torch, sepfast
        >>> framing = sepfast.reference.FRAMINGS["landmarks"]
        >>> sepfast.ops.stft_magnitude(torch.randn(16000), framing, power=0.3).shape
        torch.Size([102, 257])
    """
    constant("scale", scale)
    constant("offset", offset)
    return _stft_magnitude(waveform, framing.to_text(), float(power), scale, offset)


def _parse(text: str) -> Framing:
    return Framing.from_text(text)


def _check_levels(
    waveform: Tensor, text: str, power: float, scale: Tensor | None, offset: Tensor | None = None
) -> None:
    check_line("waveform", waveform)
    if not power > 0:
        raise InputError(f"power: got {power}, takes a number above 0")
    bins = _parse(text).bins
    takes = [(bins,)] + ([(waveform.shape[-2], 1, bins)] if waveform.ndim > 1 else [])
    for name, part in (("scale", scale), ("offset", offset)):
        if part is not None and tuple(part.shape) not in takes:
            raise InputError(
                f"{name}: got shape {tuple(part.shape)}, takes {' or '.join(map(str, takes))}"
            )


def _check_backward(
    grad: Tensor, waveform: Tensor, text: str, power: float, scale: Tensor | None
) -> None:
    _check_levels(waveform, text, power, scale)
    check_bins("grad", grad, _parse(text), complex_axis=False)


def _reference(
    waveform: Tensor, text: str, power: float, scale: Tensor | None, offset: Tensor | None
) -> Tensor:
    return reference.stft_magnitude(waveform, _parse(text), power=power, scale=scale, offset=offset)


def _reference_backward(
    grad: Tensor, waveform: Tensor, text: str, power: float, scale: Tensor | None
) -> Tensor:
    return reference.stft_magnitude_backward(grad, waveform, _parse(text), power=power, scale=scale)


def _levels(waveform: Tensor, power: float, scale: Tensor | None, offset: Tensor | None) -> Levels:
    """The scaling as kernels take it: as many rows for the one as for the other."""
    from sepfast.kernels.stft_magnitude import Levels

    channelled = any(part is not None and part.ndim == 3 for part in (scale, offset))
    channels = waveform.shape[-2] if channelled else 1
    parts = [
        None if part is None else part.float().view(-1, part.shape[-1]).expand(channels, -1)
        for part in (scale, offset)
    ]
    return Levels(power, *(None if part is None else part.contiguous() for part in parts))


def _kernel(
    waveform: Tensor, text: str, power: float, scale: Tensor | None, offset: Tensor | None
) -> Tensor:
    from sepfast.kernels import stft_magnitude as kernels

    f = _parse(text)
    levels = _levels(waveform, power, scale, offset)
    frames, lines = f.frames(waveform.shape[-1]), rows(waveform, 1)
    terms = slides(f, waveform.device, "sepfast_stft_magnitude_sliding")
    if terms is not None:
        out = kernels.sliding(lines, f.n_fft, f.hop, f.front, frames, terms, levels)
    else:
        window = scaled_window(f, waveform.device)
        out = kernels.forward(lines, window, f.hop, f.front, frames, f.span, levels)
    return out.view(*waveform.shape[:-1], *out.shape[1:]).to(waveform.dtype)


def _kernel_backward(
    grad: Tensor, waveform: Tensor, text: str, power: float, scale: Tensor | None
) -> Tensor:
    from sepfast.kernels import stft_magnitude as kernels

    f = _parse(text)
    levels = _levels(waveform, power, scale, None)
    window = scaled_window(f, grad.device)
    out = kernels.backward(rows(grad, 2), rows(waveform, 1), window, f.hop, f.front, levels)
    return out.view(waveform.shape).to(waveform.dtype)


def _save(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    waveform, ctx.framing, ctx.power, scale, _ = inputs
    ctx.save_for_backward(waveform, scale)


def _grad(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
    waveform, scale = ctx.saved_tensors
    of_waveform = _stft_magnitude_backward(grad, waveform, ctx.framing, ctx.power, scale)
    return of_waveform, None, None, None, None


_stft_magnitude = define(
    "stft_magnitude(Tensor waveform, str framing, float power, Tensor? scale, Tensor? offset)"
    " -> Tensor",
    reference=_reference,
    kernel=_kernel,
    fake=lambda x, text, *_: x.new_empty(
        *x.shape[:-1], _parse(text).frames(x.shape[-1]), _parse(text).bins
    ),
    check=_check_levels,
    obstacle=lambda x, text, *_: obstacle(
        _parse(text), x.device, "sepfast_stft_magnitude_sliding", "sepfast_stft_magnitude_forward"
    ),
)
_stft_magnitude_backward = define(
    "stft_magnitude_backward(Tensor grad, Tensor waveform, str framing, float power,"
    " Tensor? scale) -> Tensor",
    reference=_reference_backward,
    kernel=_kernel_backward,
    fake=lambda grad, waveform, *_: waveform.new_empty(waveform.shape),
    check=_check_backward,
    obstacle=lambda grad, x, text, *_: kernel_obstacle(
        _parse(text), x.device, "sepfast_stft_magnitude_backward"
    ),
)
differentiate("stft_magnitude", _grad, _save)
once("stft_magnitude_backward")
