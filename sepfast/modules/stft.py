"""The fused `STFT` and `ISTFT`."""

from __future__ import annotations

from torch import Tensor

from sepfast import ops, reference
from sepfast.modules.rule import Rule
from sepfast.ops._framing import framing_obstacle


class STFT(reference.STFT):
    """`sepfast.reference.STFT` by the operator `stft`.

    Example:
        >>> import torch, sepfast
        >>> framing = sepfast.reference.Framing(16, 4)
        >>> sepfast.modules.STFT(framing)(torch.rand(2, 40)).shape
        torch.Size([2, 10, 9, 2])
    """

    def forward(self, waveform: Tensor) -> Tensor:
        """The spectrum (..., frames, bins, 2) of samples (..., samples)."""
        return ops.stft(waveform, self.framing)


class ISTFT(reference.ISTFT):
    """`sepfast.reference.ISTFT` by the operator `istft`.

    Example:
        >>> import torch, sepfast
        >>> framing = sepfast.reference.Framing(16, 4)
        >>> sepfast.modules.ISTFT(framing)(torch.rand(2, 10, 9, 2), 40).shape
        torch.Size([2, 40])
    """

    def forward(self, spectrum: Tensor, length: int) -> Tensor:
        """The samples (..., length) of spectra (..., frames, bins, 2)."""
        return ops.istft(spectrum, self.framing, length)


RULES = (
    Rule(reference.STFT, STFT, "stft", obstacle=lambda layer: framing_obstacle(layer.framing)),
    Rule(reference.ISTFT, ISTFT, "istft", obstacle=lambda layer: framing_obstacle(layer.framing)),
)
