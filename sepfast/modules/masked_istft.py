"""The fused `MaskedISTFT`."""

from __future__ import annotations

from torch import Tensor

from sepfast import ops, reference
from sepfast.modules.rule import Rule
from sepfast.ops._framing import framing_obstacle
from sepfast.reference import Levels


class MaskedISTFT(reference.MaskedISTFT):
    """`sepfast.reference.MaskedISTFT` by the operator `masked_istft`.

    Example:
        >>> import torch, sepfast
        >>> framing = sepfast.reference.Framing(16, 4)
        >>> shares = torch.full((4, 2, framing.frames(40), framing.bins), 0.25)
        >>> sepfast.modules.MaskedISTFT(framing)(shares, torch.rand(2, 40)).shape
        torch.Size([4, 2, 40])
    """

    def forward(self, shares: Tensor, waveform: Tensor, levels: Levels | None = None) -> Tensor:
        """Samples of the sources.

        Args:
            shares: (..., N, C, T, B).
            waveform: (..., C, samples), the mixture.
            levels: the scaling; None where shares are of the magnitude itself.

        Returns:
            (..., N, C, samples).
        """
        return ops.masked_istft(shares, waveform, self.framing, levels)


RULES = (
    Rule(
        reference.MaskedISTFT,
        MaskedISTFT,
        "masked_istft",
        obstacle=lambda layer: framing_obstacle(layer.framing),
    ),
)
