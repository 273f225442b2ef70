"""The fused `STFTMagnitude`."""

from __future__ import annotations

from torch import Tensor

from sepfast import ops, reference
from sepfast.modules.rule import Rule


class STFTMagnitude(reference.STFTMagnitude):
    """`sepfast.reference.STFTMagnitude` by the operator `stft_magnitude`.

    Example:
        >>> import torch, sepfast
        >>> framing = sepfast.reference.Framing(16, 4)
        >>> sepfast.modules.STFTMagnitude(framing)(torch.rand(2, 40)).shape
        torch.Size([2, 10, 9])
    """

    def forward(
        self, waveform: Tensor, scale: Tensor | None = None, offset: Tensor | None = None
    ) -> Tensor:
        """Magnitudes (..., frames, bins) of samples (..., samples).

        Args:
            waveform: (..., samples).
            scale: factor, broadcast against (..., frames, bins).
            offset: summand, likewise.
        """
        return ops.stft_magnitude(
            waveform, self.framing, power=self.power, scale=scale, offset=offset
        )


RULES = (Rule(reference.STFTMagnitude, STFTMagnitude, "stft_magnitude"),)
