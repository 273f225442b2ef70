"""The operator `masked_istft`: shares of a mixture to samples, with the mixture's phase."""

from __future__ import annotations

from typing import Any, cast

import torch
from torch import Tensor

from sepfast import reference
from sepfast.errors import InputError
from sepfast.kernels.precision import product_precision
from sepfast.kernels.tuning import has_config
from sepfast.ops._framing import inverse_norm, kernel_obstacle, normalised, rows, scaled_window
from sepfast.ops._operator import constant, define, differentiate, once
from sepfast.ops._sliding import obstacle, slides
from sepfast.ops.stft import istft_backward, stft_backward
from sepfast.ops.stft import stft as stft_operator
from sepfast.reference import Framing, Levels
from sepfast.reference.masked_istft import masked_spectrum_mixture_backward


def masked_istft(
    shares: Tensor, waveform: Tensor, framing: Framing, levels: Levels | None = None
) -> Tensor:
    """Samples of the sources, from their shares and the mixture's samples.

    The mixture's STFT is taken on the way and never stored.

    Args:
        shares: (..., N, C, T, B), of the waveform's type, or of a half type beside float32.
        waveform: (..., C, samples), the mixture; T is what its length makes.
        framing: the framing of the shares.
        levels: what was done with the magnitudes that the shares are of; constants.

    Returns:
        (..., N, C, samples) in the type of `waveform`.

    Raises:
        InputError: for shapes that do not fit, or a window and hop that cannot be inverted.

    Example:
        >>> import torch, sepfast
        >>> framing = sepfast.reference.FRAMINGS["deepconvsep"]
        >>> mixture = torch.randn(2, 44100)
        >>> halves = torch.full((2, 2, framing.frames(44100), 513), 0.5)
        >>> stems = sepfast.ops.masked_istft(halves, mixture, framing)
        >>> torch.allclose(stems.sum(0), mixture, atol=1e-5)
        True
    """
    parts: Levels | tuple[None, ...] = levels if levels is not None else (None, None, None)
    for name, part in zip(Levels._fields, parts, strict=True):
        constant(f"levels.{name}", part)
    return _masked_istft(shares, waveform, framing.to_text(), *parts)


def _parse(text: str) -> Framing:
    return Framing.from_text(text)


def _levels(gain: Tensor | None, floor: Tensor | None, base: Tensor | None) -> Levels | None:
    return None if gain is None else Levels(gain, floor, base)


def _check_levels(
    shape: tuple[int, ...], gain: Tensor | None, floor: Tensor | None, base: Tensor | None
) -> None:
    """Against (N, C, B)."""
    sources, channels, bins = shape
    if (floor is None) != (base is None) or (gain is None and floor is not None):
        parts = zip(Levels._fields, (gain, floor, base), strict=True)
        given = " and ".join(name for name, part in parts if part is not None)
        raise InputError(f"levels: got {given}, takes gain alone, or gain, floor and base together")
    wanted = {
        "gain": (gain, (sources, channels, 1, bins)),
        "floor": (floor, (channels, 1, bins)),
        "base": (base, (sources, channels, 1, bins)),
    }
    for name, (part, takes) in wanted.items():
        if part is not None and tuple(part.shape) != takes:
            raise InputError(f"levels.{name}: got shape {tuple(part.shape)}, takes {takes}")


def _check(
    shares: Tensor,
    waveform: Tensor,
    text: str,
    gain: Tensor | None,
    floor: Tensor | None,
    base: Tensor | None,
) -> None:
    framing = _parse(text)
    framing.check_invertible()
    if waveform.ndim < 2:
        raise InputError(
            f"waveform: got shape {tuple(waveform.shape)}, takes (..., channels, samples)"
        )
    tail = (waveform.shape[-2], framing.frames(waveform.shape[-1]), framing.bins)
    lead = tuple(waveform.shape[:-2])
    if shares.ndim != len(lead) + 4 or (*shares.shape[:-4], *shares.shape[-3:]) != (*lead, *tail):
        wanted = ", ".join(map(str, (*lead, "sources", *tail)))
        raise InputError(f"shares: got shape {tuple(shares.shape)}, takes ({wanted})")
    _check_levels((*shares.shape[-4:-2], framing.bins), gain, floor, base)


def _check_backward(
    grad: Tensor,
    waveform: Tensor,
    text: str,
    gain: Tensor | None,
    floor: Tensor | None,
    base: Tensor | None,
) -> None:
    lead, tail = tuple(waveform.shape[:-2]), tuple(waveform.shape[-2:])
    if grad.ndim != waveform.ndim + 1 or (*grad.shape[:-3], *grad.shape[-2:]) != (*lead, *tail):
        raise InputError(
            f"grad: got shape {tuple(grad.shape)}, takes (..., sources, channels, samples) of "
            f"waveform {tuple(waveform.shape)}"
        )


def _kernel_levels(gain: Tensor | None, floor: Tensor | None, base: Tensor | None) -> Any:
    from sepfast.kernels.masked_istft import Levels as KernelLevels

    parts = (gain, floor, base)
    return KernelLevels(*(None if p is None else p.squeeze(-2).float().contiguous() for p in parts))


def _stays_compact(shares: Tensor, framing: Framing, levels: str) -> bool:
    """Whether there is a kernel that reads these shares in a half type, and widens them itself."""
    key = {
        "n_fft": framing.n_fft,
        "precision": product_precision(shares.device),
        "levels": levels,
    }
    kernel = "sepfast_masked_istft_compact"
    return shares.dtype == torch.float16 and has_config(kernel, shares.device, **key)


def _kernel(
    shares: Tensor,
    waveform: Tensor,
    text: str,
    gain: Tensor | None,
    floor: Tensor | None,
    base: Tensor | None,
) -> Tensor:
    from sepfast.kernels import masked_istft as kernels
    from sepfast.kernels._frames import Norm

    f = _parse(text)
    window, levels = scaled_window(f, shares.device), _kernel_levels(gain, floor, base)
    lines = rows(waveform, 2)
    terms = slides(f, shares.device, "sepfast_masked_istft_sliding", back=True)
    if terms is not None and levels.kind != "floor":
        from sepfast.kernels import _masked_istft_sliding as sliding

        planes = rows(shares, 4)
        out = sliding.forward(planes, lines, f.n_fft, f.hop, f.front, terms, levels.gain)
        out = normalised(out.flatten(0, -2), f, shares.shape[-2])
        return out.view(*shares.shape[:-2], waveform.shape[-1]).to(waveform.dtype)
    norm = Norm(*inverse_norm(f, shares.shape[-2], lines))
    if not _stays_compact(shares, f, levels.kind):
        shares = shares.float()
    planes = shares.reshape(shares.shape[:-4].numel(), *shares.shape[-4:])
    out = kernels.forward(planes, lines, window, norm, f.hop, f.front, levels)
    return out.view(*shares.shape[:-2], waveform.shape[-1]).to(waveform.dtype)


def _kernel_backward(
    grad: Tensor,
    waveform: Tensor,
    text: str,
    gain: Tensor | None,
    floor: Tensor | None,
    base: Tensor | None,
) -> Tensor:
    from sepfast.kernels import masked_istft as kernels

    f = _parse(text)
    frames = f.frames(waveform.shape[-1])
    window, levels = scaled_window(f, grad.device), _kernel_levels(gain, floor, base)
    lines = rows(grad, 3)
    lines = normalised(lines.flatten(0, -2), f, frames).view(lines.shape)
    out = kernels.backward(lines, rows(waveform, 2), window, f.hop, f.front, frames, f.span, levels)
    return out.view(*grad.shape[:-1], frames, f.bins).to(grad.dtype)


def _obstacle(kernel: str, sliding: bool = False) -> Any:
    def reason(
        tensor: Tensor,
        waveform: Tensor,
        text: str,
        gain: Tensor | None,
        floor: Tensor | None,
        *_: Any,
    ) -> str | None:
        levels = "none" if gain is None else "gain" if floor is None else "floor"
        if not sliding or levels == "floor":
            return kernel_obstacle(_parse(text), tensor.device, kernel, levels=levels)
        other = "sepfast_masked_istft_sliding"
        return obstacle(_parse(text), tensor.device, other, kernel, back=True, levels=levels)

    return reason


def _save(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    shares, waveform, ctx.framing, *levels = inputs
    ctx.dtype = shares.dtype
    # The mixture is hardly ever trained; only then are the shares needed again.
    ctx.save_for_backward(waveform, shares if ctx.needs_input_grad[1] else None, *levels)


def _grad(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
    waveform, shares, *levels = ctx.saved_tensors
    of_shares = of_mixture = None
    if ctx.needs_input_grad[0]:
        of_shares = _masked_istft_backward(grad, waveform, ctx.framing, *levels).to(ctx.dtype)
    if ctx.needs_input_grad[1]:
        of_mixture = _mixture_grad(grad, waveform, shares, ctx.framing, *levels)
    return of_shares, of_mixture, None, None, None, None


def _mixture_grad(
    grad: Tensor, waveform: Tensor, shares: Tensor, text: str, *levels: Tensor | None
) -> Tensor:
    """The gradient of the mixture's samples, through spectra that are stored."""
    spectrum = stft_operator(waveform, _parse(text))
    sources = istft_backward(grad, text, spectrum.shape[-3])
    mixture = masked_spectrum_mixture_backward(
        sources, shares.to(grad.dtype), spectrum, _levels(*levels)
    )
    return cast(Tensor, stft_backward(mixture, text, waveform.shape[-1]))


_masked_istft = define(
    "masked_istft(Tensor shares, Tensor waveform, str framing, Tensor? gain, Tensor? floor,"
    " Tensor? base) -> Tensor",
    reference=lambda shares, waveform, text, *levels: reference.masked_istft(
        shares, waveform, _parse(text), _levels(*levels)
    ),
    kernel=_kernel,
    fake=lambda shares, waveform, *_: waveform.new_empty(*shares.shape[:-2], waveform.shape[-1]),
    check=_check,
    obstacle=_obstacle("sepfast_masked_istft_forward", sliding=True),
    compact=True,
)
_masked_istft_backward = define(
    "masked_istft_backward(Tensor grad, Tensor waveform, str framing, Tensor? gain, Tensor? floor,"
    " Tensor? base) -> Tensor",
    reference=lambda grad, waveform, text, *levels: reference.masked_istft_backward(
        grad, waveform, _parse(text), _levels(*levels)
    ),
    kernel=_kernel_backward,
    fake=lambda grad, waveform, text, *_: grad.new_empty(
        *grad.shape[:-1], _parse(text).frames(waveform.shape[-1]), _parse(text).bins
    ),
    check=_check_backward,
    obstacle=_obstacle("sepfast_masked_istft_backward"),
)
differentiate("masked_istft", _grad, _save)
once("masked_istft_backward")
