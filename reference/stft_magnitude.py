"""Magnitudes straight from samples: framing, window, DFT, |.|^p, then scale and offset per bin.

    Y[t, k] = |X[t, k]|^p * scale[k] + offset[k]

T frames, B bins, X the STFT. Backward, with G the incoming gradient: dX = G scale p |X|^(p-2) X,
taken as 0 where X is 0 (at silence |X|^p has no slope that training could use), then the
transpose of the STFT.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from sepfast.reference.framing import Framing
from sepfast.reference.stft import magnitude, stft, stft_backward


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
    levels = magnitude(stft(waveform, framing))
    if power != 1:
        # Raising 1 at silence keeps autograd from multiplying its 0 by an infinite slope.
        silent = levels == 0
        levels = torch.where(silent, 0, torch.where(silent, 1, levels) ** power)
    if scale is not None:
        levels = levels * scale
    return levels if offset is None else levels + offset


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
    spectrum = stft(waveform, framing)
    levels = magnitude(spectrum)
    safe = torch.where(levels > 0, levels, 1)
    # As two factors: |X|^(p - 2) alone overflows where X is nearly silent.
    slope = power * safe ** (power - 1) / safe
    weighted = grad * slope if scale is None else grad * scale * slope
    return stft_backward(weighted.unsqueeze(-1) * spectrum, framing, waveform.shape[-1])


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
