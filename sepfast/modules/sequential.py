"""An `nn.Sequential` with convolution pairs or normalised blocks in it."""

from __future__ import annotations

from itertools import chain
from typing import Any

from torch import Tensor, nn

from sepfast.modules import convpair, softplus_norm
from sepfast.modules.rule import Found, Rule


class Sequential(nn.Sequential):
    """An `nn.Sequential` that runs what operators compute of it by one operator each.

    A pair are neighbours, `Conv2d` (1, f1) and `Conv2d` (t2, 1) for `conv_pair`, or
    `ConvTranspose2d` (t2, 1) and `ConvTranspose2d` (1, f1) for `deconv_pair`, with f1 and t2 above
    1 and all other options as they are by default but channels and bias. It is looked for at each
    call, so that the children may be exchanged. It runs layer by layer as long as one of the two
    has hooks, or a class of its own as parametrizations make it; under `torch.func`; for an input
    without batch; and for filters that do not span all bins, where there is no kernel.

    A block are neighbours, too: `Conv1d` or `ConvTranspose1d`, `Softplus` with beta 1 and threshold
    20, `BatchNorm1d`, and `Dropout` where one follows, for `softplus_norm`. It runs layer by layer
    where `sepfast.modules.ConvSoftplusNorm` does. Its dropout drops as many as `nn.Dropout`, but
    others: the bits come from a seed that is drawn at each call. All else runs as it always did.

    Example:
        >>> import torch, sepfast
        >>> from torch import nn
        >>> pair = nn.Conv2d(2, 50, (1, 513)), nn.Conv2d(50, 30, (15, 1))
        >>> sepfast.modules.Sequential(*pair, nn.ReLU())(torch.rand(5, 2, 30, 513)).shape
        torch.Size([5, 30, 16, 1])
        >>> block = nn.Conv1d(4, 6, 5), nn.Softplus(), nn.BatchNorm1d(6), nn.Dropout(0.3)
        >>> sepfast.modules.Sequential(*block)(torch.rand(2, 4, 50)).shape
        torch.Size([2, 6, 46])
    """

    def forward(self, input: Tensor) -> Tensor:
        """What the layers make of an input, one behind the other."""
        layers: list[Any] = list(self)
        while layers:
            operator = convpair.operator_of(layers[:2])
            block = softplus_norm.block_of(layers)
            if operator:
                input = convpair.run(operator, input, *layers[:2])
                del layers[:2]
            elif block and softplus_norm.takes(block, input):
                input = softplus_norm.run(block, input)
                del layers[: len(block)]
            else:
                input = layers.pop(0)(input)
        return input


def _found(sequential: nn.Sequential) -> list[Found]:
    """The pairs, then the blocks, from the left."""
    return list(chain(convpair.pairs(sequential), softplus_norm.blocks(sequential)))


def _operators(sequential: nn.Sequential) -> str:
    """The operators that a fused `Sequential` runs, each once."""
    fused = [found.operator for found in _found(sequential) if not found.obstacle]
    return ", ".join(dict.fromkeys(fused))


def _plain(sequential: nn.Sequential) -> str | None:
    """Why the first that stays layer by layer does so."""
    return next((found.obstacle for found in _found(sequential) if found.obstacle), None)


RULES = (
    Rule(
        nn.Sequential,
        Sequential,
        _operators,
        concerns=lambda layer: bool(_found(layer)),
        obstacle=lambda layer: None if _operators(layer) else _plain(layer),
        remainder=_plain,
    ),
)
