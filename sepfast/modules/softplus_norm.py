"""The fused `ConvSoftplusNorm`, and what such blocks are among neighbours."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from sepfast import ops, reference
from sepfast.modules.rule import Found, Rule, hooked, watched
from sepfast.reference.philox import draw_seed

_CONVOLUTIONS = nn.Conv1d, nn.ConvTranspose1d


class ConvSoftplusNorm(reference.ConvSoftplusNorm):
    """`sepfast.reference.ConvSoftplusNorm` by `softplus_norm`, behind the convolution.

    The convolution runs without its bias, which the operator adds. Where the normalisation takes
    fixed statistics, in evaluation or frozen, `softplus_affine` runs in its place. The numbers are
    those of the plain block, running statistics and dropout included; under `torch.compile` the
    seeds that dropout draws are its own, as with `nn.Dropout`.

    It runs layer by layer, as the plain block, where `norm` is no `nn.BatchNorm1d`, such as the
    `nn.SyncBatchNorm` of `convert_sync_batchnorm`; where it has momentum None and is to be updated;
    where a layer has hooks, or a class of its own as parametrizations make it; under `torch.func`;
    and for an input of no elements.

    Example:
        >>> import torch, sepfast
        >>> block = sepfast.modules.ConvSoftplusNorm(4, 6)
        >>> block(torch.rand(2, 4, 50)).shape
        torch.Size([2, 6, 50])
    """

    def forward(self, x: Tensor) -> Tensor:
        """Frames (B, inputs, T) to (B, outputs, T)."""
        if not _fits(x, self.conv, self.norm):
            return super().forward(x)
        dropout = self.dropout if self.training else 0.0
        return _run(x, self.conv, self.norm, dropout, self.drop)


def block_of(layers: list[Any]) -> list[Any]:
    """The block at the start of some layers, by their classes; nothing where there is none."""
    kinds = [type(layer) for layer in layers[:4]]
    if len(kinds) < 3 or kinds[0] not in _CONVOLUTIONS:
        return []
    if kinds[1:3] != [nn.Softplus, nn.BatchNorm1d]:
        return []
    # Dropout of everything, or one that is watched, runs by itself.
    dropout = kinds[3:] == [nn.Dropout] and layers[3].p < 1 and not hooked(layers[3])
    return layers[: 4 if dropout else 3]


def takes(block: list[Any], x: Tensor) -> bool:
    """Whether operators compute, for an input, what a block does."""
    return not _reason(block) and _fits(x, block[0], block[2])


def run(block: list[Any], x: Tensor) -> Tensor:
    """What a block makes of an input that it takes."""
    conv, _, norm, *dropout = block
    if not dropout:
        return _run(x, conv, norm, 0.0, lambda y: y)
    (layer,) = dropout
    return _run(x, conv, norm, layer.p if layer.training else 0.0, layer)


def blocks(sequential: nn.Sequential) -> Iterator[Found]:
    """The blocks of an `nn.Sequential`, from the left."""
    layers = list(sequential._modules.values())
    for at in range(len(layers)):
        block = block_of(layers[at:])
        if block:
            yield Found("softplus_norm", _reason(block))


def _run(
    x: Tensor, conv: Any, norm: Any, dropout: float, drop: Callable[[Tensor], Tensor]
) -> Tensor:
    """A convolution, softplus, normalisation and dropout.

    Args:
        x: what goes in.
        conv: the convolution.
        norm: an `nn.BatchNorm1d`.
        dropout: probability, 0 where nothing is dropped.
        drop: does it by itself, for the operator that does not.
    """
    z = _without_bias(conv, x)
    if not norm.training and norm.running_mean is not None:
        return drop(ops.softplus_affine(z, conv.bias, *_folded(norm)))
    seed = draw_seed(z.device) if dropout else None
    y, mean, variance = ops.softplus_norm(
        z, conv.bias, norm.weight, norm.bias, eps=norm.eps, dropout=dropout, seed=seed
    )
    if _tracks(norm):
        _track(norm, mean, variance, z.shape[0] * z.shape[2])
    return y


def _without_bias(conv: Any, x: Tensor) -> Tensor:
    if isinstance(conv, nn.Conv1d):
        return conv._conv_forward(x, conv.weight, None)  # knows all padding modes
    return F.conv_transpose1d(
        x, conv.weight, None, conv.stride, conv.padding, conv.output_padding,
        conv.groups, conv.dilation,
    )  # fmt: skip


def _folded(norm: nn.BatchNorm1d) -> tuple[Tensor, Tensor]:
    """Scale and shift (C,) of fixed statistics, float32 for half types."""
    mean, variance = norm.running_mean, norm.running_var
    assert mean is not None
    assert variance is not None
    if mean.dtype != torch.float64:
        mean, variance = mean.float(), variance.float()
    scale = torch.rsqrt(variance + norm.eps)
    if norm.weight is not None:
        scale = scale * norm.weight
    shift = -mean * scale
    return scale, shift if norm.bias is None else shift + norm.bias


def _tracks(norm: Any) -> bool:
    """Whether a call updates running statistics."""
    return norm.training and norm.track_running_stats and norm.running_mean is not None


def _track(norm: nn.BatchNorm1d, mean: Tensor, variance: Tensor, count: int) -> None:
    """Update running statistics as `nn.BatchNorm1d` does, in three launches."""
    if norm.num_batches_tracked is not None:
        norm.num_batches_tracked.add_(1)
    own = [x for x in (norm.running_mean, norm.running_var) if x is not None]
    found = mean, variance * (count / (count - 1))
    assert norm.momentum is not None
    likewise = [x.to(y.dtype) for x, y in zip(found, own, strict=True)]
    torch._foreach_lerp_(own, likewise, norm.momentum)


def _fits(x: Tensor, conv: Any, norm: Any) -> bool:
    """Whether operators compute, for an input, what a convolution and a normalisation do."""
    if watched() or _obstacle(conv, norm) or (_tracks(norm) and norm.momentum is None):
        return False
    return isinstance(x, Tensor) and x.is_floating_point() and x.ndim == 3 and x.numel() > 0


def _obstacle(conv: Any, norm: Any) -> str | None:
    """Why two layers cannot be of a fused block, None where they can; a clause."""
    if type(conv) not in _CONVOLUTIONS:
        return f"its convolution is a {type(conv).__name__}"
    if type(norm) is not nn.BatchNorm1d:
        return f"its normalisation is a {type(norm).__name__}"
    return _hooked(conv, norm)


def _hooked(*layers: nn.Module) -> str | None:
    """Which layer has more than its class's forward."""
    for layer in layers:
        if hooked(layer):
            own = "hooks or a forward of its own, which would not run"
            return f"its {type(layer).__name__} has {own}"
    return None


def _reason(block: list[Any]) -> str | None:
    """Why a block runs layer by layer, None where it does not; a clause."""
    softplus = block[1]
    if (softplus.beta, softplus.threshold) != (1, 20):
        return f"its Softplus has beta {softplus.beta} and threshold {softplus.threshold}"
    return _obstacle(block[0], block[2]) or _hooked(softplus)


RULES = (
    Rule(
        reference.ConvSoftplusNorm,
        ConvSoftplusNorm,
        "softplus_norm",
        obstacle=lambda block: _obstacle(block.conv, block.norm),
    ),
)
