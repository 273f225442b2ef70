"""Shares of a mixture back to samples, with the mixture's phase.

N sources, C channels, T frames, B bins, X the mixture's STFT, m the shares, u = X / |X| its
phase (1 where X is 0, as the angle of 0 is 0).

    plain          S_n = m_n X
    with levels    S_n = (m_n (|X| - floor) gain_n + base_n) u,  m_n gain_n X where both are 0

The second is what a model needs that was trained on magnitudes scaled per bin: `floor` takes the
mixture's scaling off, `gain` and `base` put the source's own on. Then y_n = istft(S_n).
Source: A and B, "inference".
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor, nn

from sepfast.reference.frame_blocks import of_frames
from sepfast.reference.framing import Framing
from sepfast.reference.half_types import widened
from sepfast.reference.stft import as_complex, samples_of, samples_of_backward, spectra


class Levels(NamedTuple):
    """How shares of a scaled mixture become magnitudes of a source.

    Attributes:
        gain: (N, C, 1, B), the source's range over the mixture's.
        floor: (C, 1, B), what the mixture's scaling takes off its magnitude; None for 0.
        base: (N, C, 1, B), the source's floor; None, together with `floor`, for 0.
    """

    gain: Tensor
    floor: Tensor | None = None
    base: Tensor | None = None


def masked_spectrum(shares: Tensor, spectrum: Tensor, levels: Levels | None = None) -> Tensor:
    """Spectra of the sources, from their shares and the mixture's spectrum.

    Args:
        shares: (..., N, C, T, B).
        spectrum: (..., C, T, B, 2), the mixture.
        levels: the scaling; None where shares are of the magnitude itself.

    Returns:
        (..., N, C, T, B, 2).
    """
    mixture = _complex(spectrum).unsqueeze(-4)  # (..., 1, C, T, B)
    if levels is None:
        wanted = shares * mixture
    elif levels.floor is None or levels.base is None:
        wanted = (shares * levels.gain) * mixture
    else:
        loud, phase = _polar(mixture)
        wanted = (shares * ((loud - levels.floor) * levels.gain) + levels.base) * phase
    return torch.view_as_real(wanted).to(spectrum.dtype)


def masked_istft(
    shares: Tensor,
    waveform: Tensor,
    framing: Framing,
    levels: Levels | None = None,
) -> Tensor:
    """Samples of the sources, from their shares and the mixture's samples.

    Args:
        shares: (..., N, C, T, B).
        waveform: (..., C, samples), the mixture; T is what its length makes.
        framing: the framing of the shares.
        levels: the scaling; None where shares are of the magnitude itself.

    Returns:
        (..., N, C, samples).

    Raises:
        InputError: for a window and hop that cannot be inverted.
    """
    framing.check_invertible()
    mixture = spectra(waveform, framing)  # (..., C, T, B, 2)
    return samples_of(
        lambda at: masked_spectrum(shares[..., at, :], mixture(at), levels),
        framing, shares.shape[:-1], waveform.shape[-1], waveform, shares, *_given(levels),
    )  # fmt: skip


def masked_istft_backward(
    grad: Tensor,
    waveform: Tensor,
    framing: Framing,
    levels: Levels | None = None,
) -> Tensor:
    """The gradient of `masked_istft` with respect to its shares.

    Args:
        grad: (..., N, C, samples).
        waveform: (..., C, samples), as in the forward.
        framing: as in the forward.
        levels: as in the forward.

    Returns:
        (..., N, C, T, B).
    """
    frames = framing.frames(waveform.shape[-1])
    mixture, of_spectra = spectra(waveform, framing), samples_of_backward(grad, framing, frames)

    def of_shares(at: slice) -> Tensor:
        return _slope(mixture(at), of_spectra(at), levels)

    size = grad.shape[:-1].numel() * framing.span
    return of_frames(of_shares, frames, size, -2, grad, waveform, *_given(levels))


def masked_spectrum_mixture_backward(
    grad: Tensor, shares: Tensor, spectrum: Tensor, levels: Levels | None = None
) -> Tensor:
    """The gradient of `masked_spectrum` with respect to the mixture's spectrum.

    With A_n = m_n (|X| - floor) gain_n + base_n and G_n the incoming gradient along u,
    a_n = Re(conj(u) G_n): dX = sum_n m_n gain_n a_n u + A_n / |X| (G_n - a_n u), 0 where X is 0.

    Args:
        grad: (..., N, C, T, B, 2).
        shares: (..., N, C, T, B).
        spectrum: (..., C, T, B, 2), the mixture.
        levels: as in the forward.

    Returns:
        (..., C, T, B, 2).
    """
    if levels is None or levels.floor is None or levels.base is None:
        weights = shares if levels is None else shares * levels.gain
        return (grad * weights.unsqueeze(-1)).sum(-5)
    loud, phase = (part.unsqueeze(-4) for part in _polar(_complex(spectrum)))
    along = (grad * torch.view_as_real(phase)).sum(-1)
    across = _complex(grad) - along * phase
    slope = shares * levels.gain
    ratio = (slope * (loud - levels.floor) + levels.base) / torch.where(loud > 0, loud, 1)
    total = torch.where(loud > 0, slope * along * phase + ratio * across, 0).sum(-4)
    return torch.view_as_real(total).to(grad.dtype)


class MaskedISTFT(nn.Module):
    """`masked_istft` as a layer.

    Args:
        framing: the framing of the shares.

    Example:
        >>> import torch
        >>> framing, mixture = Framing(16, 4, front=12), torch.rand(2, 40)
        >>> shares = torch.full((4, 2, framing.frames(40), framing.bins), 0.25)
        >>> stems = MaskedISTFT(framing)(shares, mixture)
        >>> stems.shape, torch.allclose(stems.sum(0), mixture, atol=1e-5)
        (torch.Size([4, 2, 40]), True)
    """

    def __init__(self, framing: Framing) -> None:
        super().__init__()
        self.framing = framing

    def forward(self, shares: Tensor, waveform: Tensor, levels: Levels | None = None) -> Tensor:
        """Samples of the sources.

        Args:
            shares: (..., N, C, T, B).
            waveform: (..., C, samples), the mixture.
            levels: the scaling; None where shares are of the magnitude itself.

        Returns:
            (..., N, C, samples).
        """
        return masked_istft(shares, waveform, self.framing, levels)

    def extra_repr(self) -> str:
        """The options, for `print(model)`."""
        return repr(self.framing)


def _slope(spectrum: Tensor, spectrum_grad: Tensor, levels: Levels | None) -> Tensor:
    """The gradient (..., N, C, T, B) of shares, from that of the sources' spectra."""
    if levels is None or levels.floor is None:
        slope = (spectrum_grad * spectrum.unsqueeze(-5)).sum(-1)
        return slope if levels is None else slope * levels.gain
    loud, phase = _polar(_complex(spectrum))
    along = (spectrum_grad * torch.view_as_real(phase).unsqueeze(-5)).sum(-1)
    return (along * ((loud - levels.floor).unsqueeze(-4) * levels.gain)).to(spectrum_grad.dtype)


def _given(levels: Levels | None) -> list[Tensor]:
    return [part for part in levels or () if part is not None]


def _polar(spectrum: Tensor) -> tuple[Tensor, Tensor]:
    """|X| and X / |X|, 1 where X is 0, of complex X."""
    loud = spectrum.abs()
    return loud, torch.where(loud > 0, spectrum / torch.where(loud > 0, loud, 1), 1)


def _complex(spectrum: Tensor) -> Tensor:
    """Complex products are one pass; half types have none and go through float32."""
    return as_complex(widened(spectrum))
