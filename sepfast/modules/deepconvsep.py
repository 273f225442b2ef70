"""The fused `DeepConvSep`: all sources in one launch, and a loss without estimates in memory."""

from __future__ import annotations

from typing import Any, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from sepfast import ops, reference
from sepfast.modules.convpair import DeconvPair
from sepfast.modules.rule import Rule, hooked, watched
from sepfast.reference import LossWeights

_PUBLISHED = LossWeights()

#: What the decoder is built of. Where something else has taken a layer's place, an adapter say,
#: each source goes its own way through its layers.
_PLAIN = (
    nn.ModuleDict,
    nn.Sequential,
    nn.Linear,
    nn.ReLU,
    nn.ConvTranspose2d,
    reference.DeconvPair,
    DeconvPair,
)


class DeepConvSep(reference.DeepConvSep):
    """`sepfast.reference.DeepConvSep` with the sources side by side.

    The layers that expand the bottleneck are one product, the deconvolutions one call of
    `deconv_pair`, and in training the last of them ends in `linear_soft_mask_loss`. Layers that
    were changed or have hooks are called one by one, as in the reference.

    Example:
        >>> import torch, sepfast
        >>> model = sepfast.create_model("deepconvsep", context=4)
        >>> report = sepfast.fuse(model)
        >>> model.loss(torch.zeros(1, 1, 4, 513), torch.zeros(1, 4, 1, 4, 513)).item()
        0.0
    """

    def decode(self, codes: Tensor, peaks: Tensor | None = None) -> Tensor:
        """Decode contexts (B, N2, T', 1): estimates (B, N * C, T, F), not negative."""
        if not self._as_built():
            return super().decode(codes, peaks)
        estimates = ops.deconv_pair(self.expanded(codes), *self.stacked_weights())
        return estimates.flatten(1, 2).relu()

    def loss(self, mixture: Tensor, targets: Tensor, weights: LossWeights = _PUBLISHED) -> Tensor:
        """The loss of a batch (B, C, T, F) with its targets (B, N, C, T, F)."""
        if not self._as_built() or hooked(self):
            return super().loss(mixture, targets, weights)
        codes, _ = self.encode(mixture)
        horizontal, horizontal_bias, vertical, vertical_bias = self.stacked_weights()
        features = ops.horizontal_deconv(
            self.expanded(codes)[..., 0], horizontal[..., 0], horizontal_bias
        )
        return ops.linear_soft_mask_loss(
            features, vertical[:, :, :, 0], vertical_bias, mixture, targets, weights
        )

    def expanded(self, codes: Tensor) -> Tensor:
        """The codes of every source, (B, N, N2, T', 1), from the mixture's (B, N2, T', 1)."""
        if not self._as_built():
            return super().expanded(codes)
        layers = [cast(Any, self.expand[name])[0] for name in self.sources]
        weight = torch.cat([layer.weight for layer in layers])
        bias = torch.cat([layer.bias for layer in layers])
        hidden = F.linear(self.bottleneck(codes.flatten(1)), weight, bias).relu()
        return hidden.unflatten(1, (len(layers), *self.code_shape))

    def _as_built(self) -> bool:
        if watched():
            return False
        layers = (layer for part in (self.expand, self.decoder) for layer in part.modules())
        if any(type(layer) not in _PLAIN or hooked(layer) for layer in layers):
            return False
        # None of a source's layers was put in or taken out: a Linear and a ReLU, and a pair.
        parts = (*self.expand.values(), *self.decoder.values())
        return all(len(cast(nn.Sequential, part)) == 2 for part in parts)


RULES = (
    Rule(
        reference.DeepConvSep,
        DeepConvSep,
        "deconv_pair, linear_soft_mask_loss",
        obstacle=lambda model: "a max-pool stands between its convolutions" if model.pool else None,
    ),
)
