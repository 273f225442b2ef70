"""Magnitudes straight from samples: framing, window, DFT, |.|^p, then scale and offset per bin.

    Y[t, k] = |X[t, k]|^p * scale[k] + offset[k]

T frames, B bins, X the STFT. Backward, with G the incoming gradient: dX = G scale p |X|^(p-2) X,
taken as 0 where X is 0 (at silence |X|^p has no slope that training could use), then the
transpose of the STFT.

Source: the "STFT" rows of the papers; the exponent is that of D and E.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from sepfast.reference.frame_blocks import of_frames
from sepfast.reference.framing import Framing
from sepfast.reference.stft import fit, magnitude, spectra, spectra_backward


def stft_magnitude(
    waveform: Tensor,
    framing: Framing,
    *,
    power: float = 1.0,
    scale: Tensor | None = None,
    offset: Tensor | None = None,
) -> Tensor:
    """Magnitudes of every frame, compressed and scaled per bin.

    Args:
        waveform: (..., samples).
        framing: the framing.
        power: exponent of the magnitude.
        scale: factor, broadcast against (..., frames, bins).
        offset: summand, likewise.

    Returns:
        (..., frames, bins) in the type of `waveform`.
    """
    spectrum, frames = spectra(waveform, framing), framing.frames(waveform.shape[-1])

    def levels(at: slice) -> Tensor:
        level = _raised(magnitude(spectrum(at)), power)
        if scale is not None:
            level = level * _part(scale, at)
        return level if offset is None else level + _part(offset, at)

    size = waveform.shape[:-1].numel() * framing.span
    recorded = [part for part in (scale, offset) if part is not None]
    return of_frames(levels, frames, size, -2, waveform, *recorded)


def stft_magnitude_backward(
    grad: Tensor,
    waveform: Tensor,
    framing: Framing,
    *,
    power: float = 1.0,
    scale: Tensor | None = None,
) -> Tensor:
    """The gradient of `stft_magnitude` with respect to its samples.

    Args:
        grad: (..., frames, bins).
        waveform: (..., samples), as in the forward.
        framing: as in the forward.
        power: as in the forward.
        scale: as in the forward.

    Returns:
        (..., samples).
    """
    spectrum = spectra(waveform, framing)

    def of_spectrum(at: slice) -> Tensor:
        values = spectrum(at)
        levels = magnitude(values)
        safe = torch.where(levels > 0, levels, 1)
        # As two factors: |X|^(p - 2) alone overflows where X is nearly silent.
        slope = power * safe ** (power - 1) / safe
        weights = grad[..., at, :] if scale is None else grad[..., at, :] * _part(scale, at)
        return (weights * slope).unsqueeze(-1) * values

    line = spectra_backward(of_spectrum, framing, grad.shape[:-1], grad, waveform)
    return fit(line[..., framing.front :], waveform.shape[-1]).to(grad.dtype)


class STFTMagnitude(nn.Module):
    """`stft_magnitude` as a layer.

    Args:
        framing: the framing.
        power: exponent of the magnitude.

    Example:
        >>> import torch
        >>> STFTMagnitude(Framing(16, 4))(torch.rand(2, 40)).shape
        torch.Size([2, 10, 9])
    """

    def __init__(self, framing: Framing, power: float = 1.0) -> None:
        super().__init__()
        self.framing, self.power = framing, power

    def forward(
        self, waveform: Tensor, scale: Tensor | None = None, offset: Tensor | None = None
    ) -> Tensor:
        """Magnitudes (..., frames, bins) of samples (..., samples).

        Args:
            waveform: (..., samples).
            scale: factor, broadcast against (..., frames, bins).
            offset: summand, likewise.
        """
        return stft_magnitude(waveform, self.framing, power=self.power, scale=scale, offset=offset)

    def extra_repr(self) -> str:
        """The options, for `print(model)`."""
        return f"{self.framing}, power={self.power}"


def _raised(levels: Tensor, power: float) -> Tensor:
    """levels^power, 0 and without slope at silence."""
    if power == 1:
        return levels
    # Raising 1 at silence keeps autograd from multiplying its 0 by an infinite slope.
    silent = levels == 0
    return torch.where(silent, 0, torch.where(silent, 1, levels) ** power)


def _part(factor: Tensor, at: slice) -> Tensor:
    """What of a factor, broadcast against (..., frames, bins), is of some frames."""
    return factor if factor.ndim < 2 or factor.shape[-2] == 1 else factor[..., at, :]
