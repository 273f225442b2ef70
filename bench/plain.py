"""Operators as one writes them with PyTorch's own functions, where the reference does otherwise.

Those of the STFT by `torch.stft` and `torch.istft`: cuFFT's side. `overlap_decode` with all
contexts in one batch, where the reference takes a few after another. `bilinear_attention` by
`scaled_dot_product_attention`, which does not return the weights: they are computed once more.
Layers of `lstm` by what `torch.nn.LSTM` calls, which is cuDNN's on a GPU and has no peepholes.
`softplus_norm` and `softplus_affine` by the layers' functions, for the one seed that is measured.
Same names, arguments and layouts as `sepfast.reference`, as far as they are measured; windows are
made once for a device. The inverse takes framings whose `front` is half of n_fft, as all that are
measured have.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.nn.utils.rnn import PackedSequence, pack_padded_sequence, pad_packed_sequence

from sepfast.reference import Framing, Levels, deconv_pair, overlap_add, soft_mask
from sepfast.reference.philox import kept

__all__ = [
    "bilinear_attention",
    "istft",
    "lstm_layers",
    "masked_istft",
    "overlap_decode",
    "soft_mask",
    "softplus_affine",
    "softplus_norm",
    "stft",
    "stft_magnitude",
]

#: What dropout's bits are drawn from, wherever they are measured.
SEED = 7


def bilinear_attention(query: Tensor, memory: Tensor, weight: Tensor) -> tuple[Tensor, Tensor]:
    """Context (B, N, J) and weights (B, N, M); all of the memory counts."""
    projected = query @ weight
    # Fused kernels are for tensors with an axis of heads.
    queries, keys = projected[:, None], memory[:, None]
    context = F.scaled_dot_product_attention(queries, keys, keys, scale=1.0)[:, 0]
    return context, (projected @ memory.mT).softmax(-1)


def lstm_layers(
    input: Tensor, parameters: Sequence[Tensor], layers: int, lengths: Tensor | None = None
) -> Tensor:
    """Output (B, T, 2 H) of all layers, both directions each.

    Args:
        input: (B, T, I).
        parameters: of an `nn.LSTM`, in its order; no copies, or cuDNN copies them once more.
        layers: how many are stacked.
        lengths: (B,) on the host, steps that count, none of them 0.
    """
    zeros = input.new_zeros(2 * layers, len(input), parameters[1].shape[1])
    options = True, layers, 0.0, torch.is_grad_enabled(), True
    states, weights = (zeros, zeros), list(parameters)
    if lengths is None:
        return torch.lstm(input, states, weights, *options, True)[0]
    packed = pack_padded_sequence(input, lengths, batch_first=True, enforce_sorted=False)
    output = torch.lstm(packed.data, packed.batch_sizes, states, weights, *options)[0]
    packed = PackedSequence(output, *packed[1:])
    return pad_packed_sequence(packed, batch_first=True, total_length=input.shape[1])[0]


def softplus_norm(
    x: Tensor,
    bias: Tensor,
    weight: Tensor,
    offset: Tensor,
    *,
    dropout: float,
    seed: Tensor,
) -> tuple[Tensor, Tensor, Tensor]:
    """y (B, C, T), and the mean and unbiased variance (C,); the mask of `SEED` is made once."""
    mean, variance = torch.zeros(2, x.shape[1], dtype=x.dtype, device=x.device)
    s = F.softplus(x + bias[:, None])
    y = F.batch_norm(s, mean, variance, weight, offset, True, 1.0)
    mask = _mask((x.shape[0], x.shape[1], x.shape[2]), dropout, x.device)
    return torch.where(mask, y * (1 / (1 - dropout)), 0), mean, variance


def softplus_affine(x: Tensor, bias: Tensor, scale: Tensor, shift: Tensor) -> Tensor:
    """Softplus, scaled and shifted, (B, C, T)."""
    mean, variance = torch.zeros_like(scale), torch.ones_like(scale)
    return F.batch_norm(F.softplus(x + bias[:, None]), mean, variance, scale, shift, eps=0.0)


def stft(waveform: Tensor, framing: Framing) -> Tensor:
    """Spectra (..., T, B, 2)."""
    return torch.view_as_real(_complex(waveform, framing).mT)


def istft(spectrum: Tensor, framing: Framing, length: int) -> Tensor:
    """Samples (..., length) of spectra (..., T, B, 2)."""
    return _samples(torch.view_as_complex(spectrum).mT, framing, length)


def stft_magnitude(
    waveform: Tensor,
    framing: Framing,
    *,
    power: float = 1.0,
    scale: Tensor | None = None,
    offset: Tensor | None = None,
) -> Tensor:
    """Magnitudes (..., T, B), to a power, scaled."""
    levels = _complex(waveform, framing).abs().mT
    levels = levels if power == 1 else levels**power
    levels = levels if scale is None else levels * scale
    return levels if offset is None else levels + offset


def masked_istft(
    shares: Tensor, waveform: Tensor, framing: Framing, levels: Levels | None = None
) -> Tensor:
    """Samples (..., S, C, L) of shares (..., S, C, T, B) and the mixture (..., C, L)."""
    mixture = _complex(waveform, framing).unsqueeze(-4)  # (..., 1, C, B, T)
    if levels is None or levels.floor is None or levels.base is None:
        gains = shares if levels is None else shares * levels.gain
        spectra = gains.mT * mixture
    else:
        loud = (mixture.abs().mT - levels.floor) * levels.gain
        angle = mixture.angle()
        phase = torch.polar(torch.ones_like(angle), angle)
        spectra = (shares * loud + levels.base).mT * phase
    return _samples(spectra, framing, waveform.shape[-1])


def overlap_decode(
    codes: Tensor,
    horizontal: Tensor,
    horizontal_bias: Tensor | None,
    vertical: Tensor,
    vertical_bias: Tensor | None,
    fades: Tensor,
    step: int,
) -> Tensor:
    """Cross-faded shares (S, C, L, F) of codes (K, S, N2, T')."""
    estimates = deconv_pair(
        codes[..., None],
        horizontal[..., None],
        horizontal_bias,
        vertical[:, :, :, None],
        vertical_bias,
    ).relu()  # (K, S, C, T, F)
    shares = soft_mask(estimates, 1) * fades[:, None, None, :, None]
    return overlap_add(shares.permute(1, 2, 4, 0, 3), step).mT


def _complex(waveform: Tensor, framing: Framing) -> Tensor:
    """(..., B, T)."""
    samples = waveform.shape[-1]
    total = (framing.frames(samples) - 1) * framing.hop + framing.n_fft
    line = F.pad(waveform, (framing.front, total - framing.front - samples)).flatten(0, -2)
    window = _window(framing, waveform.dtype, waveform.device)
    spectra = torch.stft(
        line, framing.n_fft, framing.hop, window=window, center=False, return_complex=True
    )
    return spectra.unflatten(0, waveform.shape[:-1])


def _samples(spectra: Tensor, framing: Framing, length: int) -> Tensor:
    """Of complex (..., B, T)."""
    real = torch.empty(0, dtype=spectra.dtype).real
    window = _window(framing, real.dtype, spectra.device)
    lines = torch.istft(
        spectra.flatten(0, -3), framing.n_fft, framing.hop, window=window, length=length
    )
    return lines.unflatten(0, spectra.shape[:-2])


@lru_cache(maxsize=4)
def _mask(shape: tuple[int, int, int], dropout: float, device: torch.device) -> Tensor:
    """What dropout leaves, in memory."""
    return kept(shape, dropout, torch.tensor([SEED], device=device))


@lru_cache(maxsize=32)
def _window(framing: Framing, dtype: torch.dtype, device: torch.device) -> Tensor:
    """The window times the scale, zeros behind its span, (N,)."""
    window = framing.window_on(torch.empty(0, dtype=torch.float64)) * framing.scale
    return F.pad(window, (0, framing.n_fft - framing.span)).to(device, dtype)
