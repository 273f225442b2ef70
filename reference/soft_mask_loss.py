"""System A's loss on the masked mixture, in its two published readings, and its gradient.

N sources, the first the vocals, the last "other"; s_n = m_n x the masked mixture, y_n the target,
norms squared and summed over everything. Named sources are those before the last.

    L_sq    = sum_{i named} |s_i - y_i|^2
    code    L = | L_sq - alpha sum_{i != j named} |s_i - y_j|^2 - sum_{i named} b_i |s_i - y_N|^2 |
    paper   L =   L_sq - alpha sum_{i != j named} |s_i - s_j|^2 - sum_{i named} b_i |s_i - s_N|^2

with b_i = beta_vocals for the vocals and beta for the other named sources. `code` is what the
published programs compute, `paper` what the report prints (B prints the same).
Source: A, "loss"; B, section 4 c.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn

from sepfast.errors import InputError
from sepfast.reference.half_types import widened
from sepfast.reference.soft_mask import soft_mask, soft_mask_backward


@dataclass(frozen=True)
class LossWeights:
    """The weights of the loss and its reading; by default those of the published programs.

    Attributes:
        alpha: of the distances between one named source and another.
        beta: of those from a named source to "other", but for the vocals.
        beta_vocals: of that from the vocals to "other".
        reading: "code", what the programs compute, or "paper", what the reports print.

    Raises:
        InputError: for another reading.
    """

    alpha: float = 0.001
    beta: float = 0.01
    beta_vocals: float = 0.03
    reading: Literal["code", "paper"] = "code"

    def __post_init__(self) -> None:
        if self.reading not in ("code", "paper"):
            raise InputError(f"reading: got {self.reading!r}, takes 'code' or 'paper'")


def soft_mask_loss(
    estimates: Tensor,
    mixture: Tensor,
    targets: Tensor,
    weights: LossWeights = LossWeights(),
) -> Tensor:
    """The loss of the soft-masked mixture against the targets.

    Args:
        estimates: (B, N, ...), what the network gives, N at least 2.
        mixture: (B, ...).
        targets: (B, N, ...).
        weights: the weights and the reading.

    Returns:
        A scalar, summed over all elements; float32 for half types.
    """
    loss = signed_loss(estimates, mixture, targets, weights)
    return loss.abs() if weights.reading == "code" else loss


def signed_loss(
    estimates: Tensor,
    mixture: Tensor,
    targets: Tensor,
    weights: LossWeights = LossWeights(),
) -> Tensor:
    """The loss before `code` takes its absolute value; as `soft_mask_loss` else."""
    y, x, t = map(widened, (estimates, mixture, targets))
    return _total(soft_mask(y) * x.unsqueeze(1), t, weights)


def soft_mask_loss_backward(
    estimates: Tensor,
    mixture: Tensor,
    targets: Tensor,
    weights: LossWeights = LossWeights(),
) -> Tensor:
    """The gradient of `soft_mask_loss` with respect to the estimates.

    Args:
        estimates: (B, N, ...).
        mixture: (B, ...).
        targets: (B, N, ...).
        weights: the weights and the reading.

    Returns:
        (B, N, ...), for an incoming gradient of one; float32 for half types.
    """
    y, x, t = map(widened, (estimates, mixture.unsqueeze(1), targets))
    slope = _slope_code if weights.reading == "code" else _slope_paper
    return soft_mask_backward(slope(soft_mask(y) * x, t, weights) * x, y)


class SoftMaskLoss(nn.Module):
    """`soft_mask_loss` as a layer.

    Args:
        weights: the weights and the reading.

    Example:
        >>> import torch
        >>> mixture = torch.ones(1, 5)
        >>> SoftMaskLoss()(torch.ones(1, 2, 5), mixture, torch.full((1, 2, 5), 0.5))
        tensor(0.)
    """

    def __init__(self, weights: LossWeights = LossWeights()) -> None:
        super().__init__()
        self.weights = weights

    def forward(self, estimates: Tensor, mixture: Tensor, targets: Tensor) -> Tensor:
        """The scalar loss of estimates (B, N, ...), mixture (B, ...) and targets (B, N, ...)."""
        return soft_mask_loss(estimates, mixture, targets, self.weights)

    def extra_repr(self) -> str:
        """The options, for `print(model)`."""
        return repr(self.weights)


def _total(masked: Tensor, targets: Tensor, weights: LossWeights) -> Tensor:
    named, rivals = masked[:, :-1], (targets if weights.reading == "code" else masked)
    squared = (named - targets[:, :-1]).square().sum()
    other = (named - rivals[:, -1:]).square()
    betas = _betas(named, weights)
    return squared - weights.alpha * _cross(named, rivals[:, :-1]) - (betas * other).sum()


def _cross(named: Tensor, rivals: Tensor) -> Tensor:
    """sum_{i != j} |named_i - rivals_j|^2."""
    count = named.shape[1]
    pairs = [
        (named[:, i] - rivals[:, j]).square().sum()
        for i in range(count)
        for j in range(count)
        if i != j
    ]
    return torch.stack(pairs).sum() if pairs else named.new_zeros(())


def _slope_code(masked: Tensor, targets: Tensor, weights: LossWeights) -> Tensor:
    """dL / ds: the absolute value turns its sign."""
    named, true = masked[:, :-1], targets[:, :-1]
    others = true.sum(1, keepdim=True) - true  # sum_{j != i} y_j
    slope = (named - true) - weights.alpha * ((named.shape[1] - 1) * named - others)
    slope = slope - _betas(named, weights) * (named - targets[:, -1:])
    slope = torch.cat([slope, torch.zeros_like(masked[:, -1:])], dim=1)
    return 2 * slope * _total(masked, targets, weights).sign()


def _slope_paper(masked: Tensor, targets: Tensor, weights: LossWeights) -> Tensor:
    """dL / ds: each difference of estimates pulls at both, and "other" is one of them."""
    named, last = masked[:, :-1], masked[:, -1:]
    others = named.sum(1, keepdim=True) - named  # sum_{j != i} s_j
    slope = (named - targets[:, :-1]) - 2 * weights.alpha * ((named.shape[1] - 1) * named - others)
    from_other = _betas(named, weights) * (named - last)
    return 2 * torch.cat([slope - from_other, from_other.sum(1, keepdim=True)], dim=1)


def _betas(named: Tensor, weights: LossWeights) -> Tensor:
    """b_i, (N - 1, 1, ...) against (B, N - 1, ...)."""
    values = [weights.beta_vocals] + [weights.beta] * (named.shape[1] - 1)
    return named.new_tensor(values).view(-1, *[1] * (named.ndim - 2))
