"""System D's loss of the masked mixture, and the masks that its networks are trained on.

B batch, T frames, F bins, of which the first `lengths[b]` frames count. z scores, y the mixture and
s the target, both compressed magnitudes |x|^0.3:

    p = 10 sigmoid(z),  d = p y - s,  L = sum d^2
    dz = 2 d y 10 sigmoid(z) sigmoid(-z)

Source: D (Morrone et al. 2019), sections 2.1 and 2.2. Their published program halves the loss,
which changes no minimum.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from sepfast.reference.half_types import widened
from sepfast.reference.lengths import cut

#: The largest value of an amplitude mask, to which ideal ones are clipped.
CEILING = 10.0


def amplitude_mask(scores: Tensor) -> Tensor:
    """Scores of any shape as an amplitude mask, 0 to 10: 10 sigmoid(scores)."""
    return CEILING * scores.sigmoid()


def amplitude_mask_loss(
    scores: Tensor, mixture: Tensor, target: Tensor, lengths: Tensor | None = None
) -> Tensor:
    """The squared error of the mixture under an amplitude mask.

    Args:
        scores: (B, T, F), what the network gives, before the sigmoid.
        mixture: (B, T, F), compressed magnitudes.
        target: (B, T, F), likewise.
        lengths: (B,) integers, frames that count; below 0 is 0, above T is T, None all. What lies
            behind them is not looked at.

    Returns:
        A scalar, summed over all bins of the frames that count; float32 for half types.
    """
    z, y, s = (cut(widened(x), lengths) for x in (scores, mixture, target))
    return (amplitude_mask(z) * y - s).square().sum()


def amplitude_mask_loss_backward(
    scores: Tensor, mixture: Tensor, target: Tensor, lengths: Tensor | None = None
) -> Tensor:
    """The gradient of `amplitude_mask_loss` with respect to the scores.

    Args:
        scores, mixture, target, lengths: as `amplitude_mask_loss` takes them.

    Returns:
        (B, T, F), for an incoming gradient of one, 0 behind the lengths; float32 for half types.
    """
    z, y, s = (cut(widened(x), lengths) for x in (scores, mixture, target))
    p = amplitude_mask(z)
    return 2 * (p * y - s) * y * p * (-z).sigmoid()


class AmplitudeMaskLoss(nn.Module):
    """`amplitude_mask_loss` as a layer.

    Example:
        >>> import torch
        >>> mixture = torch.ones(1, 2, 3)
        >>> AmplitudeMaskLoss()(torch.zeros(1, 2, 3), mixture, 5 * mixture)
        tensor(0.)
    """

    def forward(
        self, scores: Tensor, mixture: Tensor, target: Tensor, lengths: Tensor | None = None
    ) -> Tensor:
        """The scalar loss of scores, mixture and target, (B, T, F), and lengths (B,) or None."""
        return amplitude_mask_loss(scores, mixture, target, lengths)


def ideal_amplitude_mask(target: Tensor, mixture: Tensor) -> Tensor:
    """What the mixture is to be multiplied by: target / mixture, clipped to 0 to 10.

    Args:
        target: compressed magnitudes of any shape.
        mixture: likewise. Where it is silent the mask is 10, and 0 where the target is silent too.
    """
    return torch.where(target == 0, 0, target / mixture).clamp(0, CEILING)


def target_binary_mask(
    magnitudes: Tensor, mean: Tensor, std: Tensor, factor: float = 0.6
) -> Tensor:
    """Where the target is louder than it usually is at a bin.

    Args:
        magnitudes: (..., T, F), compressed, of the target alone.
        mean: (F,) of all its speaker's data, or (..., 1, F) for several speakers.
        std: the standard deviation, likewise.
        factor: how many of them above the mean the threshold lies.

    Returns:
        1 where magnitudes >= mean + factor std, else 0, in the type of the magnitudes.
    """
    return (magnitudes >= mean + factor * std).to(magnitudes.dtype)
