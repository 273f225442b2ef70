"""The fused `STFTMagnitude`."""

from __future__ import annotations

from torch import Tensor

from sepfast import ops, reference
from sepfast.modules.rule import Rule
from sepfast.ops._framing import framing_obstacle


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
            scale: factor, (bins,) or (channels, 1, bins); one that is trained is applied behind
                the kernel, and the offset with it.
            offset: summand, likewise.
        """
        if _trained(scale) or _trained(offset):
            levels = ops.stft_magnitude(waveform, self.framing, power=self.power)
            levels = levels if scale is None else levels * scale
            return levels if offset is None else levels + offset
        return ops.stft_magnitude(
            waveform, self.framing, power=self.power, scale=scale, offset=offset
        )


def _trained(level: Tensor | None) -> bool:
    return level is not None and level.requires_grad


RULES = (
    Rule(
        reference.STFTMagnitude,
        STFTMagnitude,
        "stft_magnitude",
        obstacle=lambda layer: framing_obstacle(layer.framing),
    ),
)
