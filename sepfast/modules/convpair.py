"""The fused `ConvPair` and `DeconvPair`, and what such pairs are among neighbours."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from itertools import pairwise
from typing import Any

from torch import Tensor, nn

from sepfast import ops, reference
from sepfast.modules.rule import Found, Rule, hooked, watched


class ConvPair(reference.ConvPair):
    """`sepfast.reference.ConvPair` by the operator `conv_pair`, where filters span all bins.

    Example:
        >>> import torch, sepfast
        >>> pair = sepfast.modules.ConvPair(channels=2, n1=50, n2=30, f1=513, t2=15)
        >>> pair(torch.rand(5, 2, 30, 513)).shape
        torch.Size([5, 30, 16, 1])
    """

    def forward(self, x: Tensor) -> Tensor:
        """Codes of (B, C, T, F)."""
        if self.pool:
            return super().forward(x)
        return run("conv_pair", x, self.vertical, self.horizontal)


class DeconvPair(reference.DeconvPair):
    """`sepfast.reference.DeconvPair` by the operator `deconv_pair`, where filters span all bins.

    Example:
        >>> import torch, sepfast
        >>> pair = sepfast.modules.DeconvPair(channels=2, n1=50, n2=30, f1=513, t2=15)
        >>> pair(torch.rand(5, 30, 16, 1)).shape
        torch.Size([5, 2, 30, 513])
    """

    def forward(self, input: Tensor) -> Tensor:
        """Spectra of codes (B, N2, T', F')."""
        return run("deconv_pair", input, self.horizontal, self.vertical)


def operator_of(layers: list[Any]) -> str | None:
    """The operator that computes what two layers do, by their classes and kernels alone.

    Kernels of one bin or one frame are none of its business: a layer can only be the first or the
    second of a pair, so that pairs never overlap.
    """
    kinds = [type(layer) for layer in layers]
    if kinds == [nn.Conv2d, nn.Conv2d]:
        over_bins, over_frames = layers
    elif kinds == [nn.ConvTranspose2d, nn.ConvTranspose2d]:
        over_frames, over_bins = layers
    else:
        return None
    (high, f1), (t2, wide) = over_bins.kernel_size, over_frames.kernel_size
    if high == 1 < f1 and wide == 1 < t2:
        return "conv_pair" if over_bins is layers[0] else "deconv_pair"
    return None


def run(operator: str, x: Tensor, first: Any, second: Any) -> Tensor:
    """A pair by its operator; layer by layer where that would not be the same, or no faster."""
    if watched() or _obstacle(first) or _obstacle(second) or not _fits(operator, x, first, second):
        return second(first(x))
    return getattr(ops, operator)(x, first.weight, first.bias, second.weight, second.bias)


def _fits(operator: str, x: Tensor, first: Any, second: Any) -> bool:
    """Whether there are kernels for an input: a batch whose bins the filters span."""
    conv = operator == "conv_pair"
    (high, f1), (_, wide) = (layer.kernel_size for layer in (first, second)[:: 1 if conv else -1])
    bins = f1 if conv else 1
    batch = isinstance(x, Tensor) and x.is_floating_point() and x.ndim == 4
    return batch and x.shape[3] == bins and high == wide == 1


#: What the layers of a pair have; PyTorch's defaults.
_OPTIONS = {
    "stride": (1, 1),
    "padding": (0, 0),
    "dilation": (1, 1),
    "groups": 1,
    "padding_mode": "zeros",
    "output_padding": (0, 0),
}


def _obstacle(layer: Any) -> str | None:
    """Why a layer cannot be half of a pair, None where it can; a clause without its subject."""
    if type(layer) not in (nn.Conv2d, nn.ConvTranspose2d):
        return f"is a {type(layer).__name__}"
    for option, value in _OPTIONS.items():
        own = getattr(layer, option)
        if own != value and (option, own) != ("padding", "valid"):
            return f"has {option} {own!r}"
    return "has hooks or a forward of its own, which would not run" if hooked(layer) else None


def pairs(sequential: nn.Sequential) -> Iterator[Found]:
    """The pairs of an `nn.Sequential`, from the left."""
    for neighbours in pairwise(sequential._modules.items()):
        operator = operator_of([layer for _, layer in neighbours])
        if operator:
            yield Found(operator, _first_obstacle(neighbours))


def _first_obstacle(named: Iterable[tuple[str, Any]]) -> str | None:
    """Why layers cannot be a pair, by the first of them that has a reason."""
    reasons = ((name, _obstacle(layer)) for name, layer in named)
    return next((f"its convolution {name} {reason}" for name, reason in reasons if reason), None)


def _pair_obstacle(pair: reference.ConvPair | reference.DeconvPair) -> str | None:
    """Why a pair of the project's own cannot be swapped."""
    if pair.pool:
        return "a max-pool stands between its convolutions"
    if len(pair) != 2:
        return f"holds {len(pair)} layers"
    return _first_obstacle(pair._modules.items())


RULES = (
    Rule(reference.ConvPair, ConvPair, "conv_pair", obstacle=_pair_obstacle),
    Rule(reference.DeconvPair, DeconvPair, "deconv_pair", obstacle=_pair_obstacle),
)
