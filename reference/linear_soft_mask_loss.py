"""The last vertical deconvolution of DeepConvSep, ReLU and system A's loss, and its gradient.

B batch, S sources, T frames, N filters, C channels, F bins; h features, w weight, b bias.

    z_s[b, c, t, f] = b_s[c] + sum_n h_s[b, t, n] w_s[n, c, f],  y = relu(z)
    L = the loss of y, as in `soft_mask_loss.py`
    dz = dL / dy where z > 0, 0 elsewhere
    dh_s[b, t, n] = sum_cf dz_s w_s,  dw_s[n, c, f] = sum_bt h_s dz_s,  db_s[c] = sum_btf dz_s

The deconvolution is over all bins at once: each bin of a frame is a linear function of the frame's
features. Source: A, "deconvolution" and "loss"; B, section 4 c.
"""

from __future__ import annotations

import torch
from torch import Tensor

from sepfast.reference.half_types import widened
from sepfast.reference.soft_mask_loss import LossWeights, signed_loss, soft_mask_loss_backward

_PUBLISHED = LossWeights()


def linear_soft_mask_loss(
    features: Tensor,
    weight: Tensor,
    bias: Tensor,
    mixture: Tensor,
    targets: Tensor,
    weights: LossWeights = _PUBLISHED,
) -> Tensor:
    """The loss of the mixture masked by what a linear layer and a ReLU make of the features.

    Args:
        features: (B, S, T, N), S at least 2.
        weight: (S, N, C, F).
        bias: (S, C).
        mixture: (B, C, T, F).
        targets: (B, S, C, T, F).
        weights: the weights and the reading.

    Returns:
        A scalar, summed over all elements; float32 for half types.
    """
    loss = signed_linear_loss(features, weight, bias, mixture, targets, weights)
    return loss.abs() if weights.reading == "code" else loss


def signed_linear_loss(
    features: Tensor,
    weight: Tensor,
    bias: Tensor,
    mixture: Tensor,
    targets: Tensor,
    weights: LossWeights = _PUBLISHED,
) -> Tensor:
    """The loss before `code` takes its absolute value; as `linear_soft_mask_loss` else."""
    estimates = _linear(*map(widened, (features, weight, bias))).relu()
    return signed_loss(estimates, mixture, targets, weights)


def linear_soft_mask_loss_backward(
    features: Tensor,
    weight: Tensor,
    bias: Tensor,
    mixture: Tensor,
    targets: Tensor,
    weights: LossWeights = _PUBLISHED,
) -> tuple[Tensor, Tensor, Tensor]:
    """The gradients of `linear_soft_mask_loss` with respect to features, weight and bias.

    Args:
        features: (B, S, T, N).
        weight: (S, N, C, F).
        bias: (S, C).
        mixture: (B, C, T, F).
        targets: (B, S, C, T, F).
        weights: the weights and the reading.

    Returns:
        (B, S, T, N), (S, N, C, F) and (S, C), for an incoming gradient of one; float32 for half
        types.
    """
    h, w, b = map(widened, (features, weight, bias))
    # A level's sign is 0 at 0, and so is the loss's slope there: the ReLU's needs no more.
    slope = soft_mask_loss_backward(_linear(h, w, b).relu(), mixture, targets, weights)
    of_features = torch.einsum("bsctf,sncf->bstn", slope, w)
    of_weight = torch.einsum("bstn,bsctf->sncf", h, slope)
    return of_features, of_weight, slope.sum((0, 3, 4))


def _linear(features: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    """What the ReLU is given, (B, S, C, T, F)."""
    return torch.einsum("bstn,sncf->bsctf", features, weight) + bias[:, :, None, None]
