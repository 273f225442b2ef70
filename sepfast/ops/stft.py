"""The operators `stft` and `istft`; each one's gradient is the other, transposed."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from sepfast import reference
from sepfast.errors import InputError
from sepfast.ops._framing import (
    check_bins,
    check_line,
    inverse_norm,
    kernel_obstacle,
    normalised,
    rows,
    scaled_window,
)
from sepfast.ops._operator import define, differentiate, once
from sepfast.ops._sliding import obstacle, slides
from sepfast.reference import Framing


def stft(waveform: Tensor, framing: Framing) -> Tensor:
    """The spectrum of every frame.

    Args:
        waveform: (..., samples), any float type.
        framing: window, hop, padding and scale.

    Returns:
        (..., frames, bins, 2), real and imaginary part last, in the type of `waveform`.

    Raises:
        InputError: for a tensor that has no axis of samples, or is no real float.

    Example:
        >>> import torch, sepfast
        >>> sepfast.ops.stft(torch.randn(2, 1000), sepfast.reference.Framing(256, 64)).shape
        torch.Size([2, 16, 129, 2])
    """
    return _stft(waveform, framing.to_text())


def istft(spectrum: Tensor, framing: Framing, length: int) -> Tensor:
    """The samples whose frames are nearest to a spectrum.

    Args:
        spectrum: (..., frames, bins, 2).
        framing: the framing of the spectrum.
        length: samples to return; the tail that no frame reaches is 0.

    Returns:
        (..., length) in the type of `spectrum`.

    Raises:
        InputError: for a window and hop that cannot be inverted, a wrong number of bins, or a
            length below 0.
    """
    return _istft(spectrum, framing.to_text(), length)


def _parse(text: str) -> Framing:
    return Framing.from_text(text)


def _check_stft(waveform: Tensor, framing: str) -> None:
    check_line("waveform", waveform)


def _check_stft_backward(grad: Tensor, framing: str, samples: int) -> None:
    check_bins("grad", grad, _parse(framing), complex_axis=True)


def _check_istft(spectrum: Tensor, framing: str, length: int) -> None:
    check_bins("spectrum", spectrum, _parse(framing), complex_axis=True)
    _parse(framing).check_invertible()
    if length < 0:
        raise InputError(f"length: got {length}, takes 0 or more")


def _check_istft_backward(grad: Tensor, framing: str, frames: int) -> None:
    check_line("grad", grad)


def _stft_kernel(waveform: Tensor, text: str) -> Tensor:
    from sepfast.kernels import stft as kernels

    f = _parse(text)
    frames, lines = f.frames(waveform.shape[-1]), rows(waveform, 1)
    terms = slides(f, waveform.device, "sepfast_stft_sliding")
    if terms is not None:
        out = kernels.sliding(lines, f.n_fft, f.hop, f.front, frames, terms)
    else:
        window = scaled_window(f, waveform.device)
        out = kernels.forward(lines, window, f.hop, f.front, frames, f.span, 1.0, 1.0)
    return out.view(*waveform.shape[:-1], *out.shape[1:]).to(waveform.dtype)


def _stft_backward_kernel(grad: Tensor, text: str, samples: int) -> Tensor:
    from sepfast.kernels import stft as kernels

    f = _parse(text)
    window = scaled_window(f, grad.device)
    out = kernels.inverse(rows(grad, 3), window, None, f.hop, f.front, samples, 1.0, 1.0)
    return out.view(*grad.shape[:-3], samples).to(grad.dtype)


def _istft_kernel(spectrum: Tensor, text: str, length: int) -> Tensor:
    from sepfast.kernels import stft as kernels
    from sepfast.kernels._frames import Norm

    f = _parse(text)
    window, n = scaled_window(f, spectrum.device), f.n_fft
    lines = rows(spectrum, 3)
    terms = slides(f, spectrum.device, "sepfast_istft_sliding", back=True)
    if terms is not None:
        out = kernels.sliding_back(lines, n, f.hop, f.front, length, terms)
        out = normalised(out, f, lines.shape[1])
    else:
        norm = Norm(*inverse_norm(f, lines.shape[1], lines))
        out = kernels.inverse(lines, window, norm, f.hop, f.front, length, 2 / n, 1 / n)
    return out.view(*spectrum.shape[:-3], length).to(spectrum.dtype)


def _istft_backward_kernel(grad: Tensor, text: str, frames: int) -> Tensor:
    from sepfast.kernels import stft as kernels

    f = _parse(text)
    window, n = scaled_window(f, grad.device), f.n_fft
    lines = normalised(rows(grad, 1), f, frames)
    out = kernels.forward(lines, window, f.hop, f.front, frames, f.span, 2 / n, 1 / n)
    return out.view(*grad.shape[:-1], *out.shape[1:]).to(grad.dtype)


def _forward_obstacle(tensor: Tensor, text: str, *rest: int) -> str | None:
    return kernel_obstacle(_parse(text), tensor.device, "sepfast_stft_forward")


def _inverse_obstacle(tensor: Tensor, text: str, *rest: int) -> str | None:
    return kernel_obstacle(_parse(text), tensor.device, "sepfast_stft_inverse")


def _stft_obstacle(waveform: Tensor, text: str) -> str | None:
    kernels = "sepfast_stft_sliding", "sepfast_stft_forward"
    return obstacle(_parse(text), waveform.device, *kernels)


def _istft_obstacle(spectrum: Tensor, text: str, length: int) -> str | None:
    kernels = "sepfast_istft_sliding", "sepfast_stft_inverse"
    return obstacle(_parse(text), spectrum.device, *kernels, back=True)


def _spectrum_like(tensor: Tensor, text: str, frames: int | torch.SymInt) -> Tensor:
    return tensor.new_empty(*tensor.shape[:-1], frames, _parse(text).bins, 2)


def _save_stft(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    waveform, ctx.framing = inputs
    ctx.samples = waveform.shape[-1]


def _grad_stft(ctx: Any, grad: Tensor) -> tuple[Tensor, None]:
    return stft_backward(grad, ctx.framing, ctx.samples), None


def _save_istft(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    spectrum, ctx.framing, _ = inputs
    ctx.frames = spectrum.shape[-3]


def _grad_istft(ctx: Any, grad: Tensor) -> tuple[Tensor, None, None]:
    return istft_backward(grad, ctx.framing, ctx.frames), None, None


_stft = define(
    "stft(Tensor waveform, str framing) -> Tensor",
    reference=lambda waveform, text: reference.stft(waveform, _parse(text)),
    kernel=_stft_kernel,
    fake=lambda x, text: _spectrum_like(x, text, _parse(text).frames(x.shape[-1])),
    check=_check_stft,
    obstacle=_stft_obstacle,
)
stft_backward = define(
    "stft_backward(Tensor grad, str framing, SymInt samples) -> Tensor",
    reference=lambda grad, text, samples: reference.stft_backward(grad, _parse(text), samples),
    kernel=_stft_backward_kernel,
    fake=lambda grad, text, samples: grad.new_empty(*grad.shape[:-3], samples),
    check=_check_stft_backward,
    obstacle=_inverse_obstacle,
)
_istft = define(
    "istft(Tensor spectrum, str framing, SymInt length) -> Tensor",
    reference=lambda spectrum, text, length: reference.istft(spectrum, _parse(text), length),
    kernel=_istft_kernel,
    fake=lambda spectrum, text, length: spectrum.new_empty(*spectrum.shape[:-3], length),
    check=_check_istft,
    obstacle=_istft_obstacle,
)
istft_backward = define(
    "istft_backward(Tensor grad, str framing, SymInt frames) -> Tensor",
    reference=lambda grad, text, frames: reference.istft_backward(grad, _parse(text), frames),
    kernel=_istft_backward_kernel,
    fake=_spectrum_like,
    check=_check_istft_backward,
    obstacle=_forward_obstacle,
)
differentiate("stft", _grad_stft, _save_stft)
differentiate("istft", _grad_istft, _save_istft)
once("stft_backward")
once("istft_backward")
