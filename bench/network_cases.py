"""The operators of DeepConvSep as cases: magnitudes in, weights such that estimates are robust."""

from __future__ import annotations

import torch
from torch import Tensor

from sepfast.bench import network_work as work
from sepfast.bench.case import Case, Tensors, product_precision
from sepfast.bench.network_work import Layers
from sepfast.bench.workloads import Network, Workload
from sepfast.separation.fades import fades

_WEIGHTS = ("horizontal", "horizontal_bias", "vertical", "vertical_bias")


def conv(name: str, shape: Workload, gradient: bool = False) -> Case:
    """`conv_pair`, over all frames at once."""
    order = ("vertical", "vertical_bias", "horizontal", "horizontal_bias")
    count = work.conv_pair_gradient if gradient else work.conv_pair
    backward = ("deconv_pair_horizontal", "conv_pair_verticalslope", "conv_pair_horizontalslope")
    return Case(
        name, "conv_pair", shape, _conv_inputs,
        lambda f, x, s: f.conv_pair(x["magnitudes"], *(x[name] for name in order)),
        lambda s: count(_encoder(s)), order, gradient=gradient, transforms=False,
        kernels=("conv_pair_vertical", "conv_pair_horizontal") + (backward if gradient else ()),
    )  # fmt: skip


def deconv(name: str, shape: Workload) -> Case:
    """`deconv_pair` of all sources and its gradients."""
    return Case(
        name, "deconv_pair", shape, _deconv_inputs,
        lambda f, x, s: f.deconv_pair(x["codes"], *(x[name] for name in _WEIGHTS)),
        lambda s: work.deconv_pair_gradient(_decoder(s)), ("codes", *_WEIGHTS), gradient=True,
        kernels=tuple(
            f"{pair}_{layer}"
            for pair, layers in {
                "conv_pair": ("vertical", "horizontal", "verticalslope", "horizontalslope"),
                "deconv_pair": ("horizontal", "vertical"),
            }.items()
            for layer in layers
        ),
        transforms=False,
    )  # fmt: skip


def horizontal(name: str, shape: Workload) -> Case:
    """`horizontal_deconv` of all sources and its gradients."""
    names = ("codes", "weight", "bias")
    return Case(
        name, "horizontal_deconv", shape, _horizontal_inputs,
        lambda f, x, s: f.horizontal_deconv(*(x[name] for name in names)),
        lambda s: work.horizontal_deconv_gradient(_decoder(s)), names, gradient=True,
        kernels=("deconv_pair_horizontal", "conv_pair_horizontal", "conv_pair_horizontalslope"),
        transforms=False,
    )  # fmt: skip


def linear_loss(name: str, shape: Workload) -> Case:
    """`linear_soft_mask_loss` and its gradients."""
    names = ("features", "weight", "bias")
    return Case(
        name, "linear_soft_mask_loss", shape, _loss_inputs,
        lambda f, x, s: f.linear_soft_mask_loss(
            *(x[name] for name in names), x["mixture"], x["targets"]
        ),
        lambda s: work.linear_loss_gradient(_decoder(s)), names, gradient=True, transforms=False,
        kernels=tuple(f"linear_soft_mask_loss_{s}" for s in ("forward", "features", "weights")),
    )  # fmt: skip


def decode(name: str, shape: Workload) -> Case:
    """`overlap_decode` of a whole track."""

    def done(s: Workload) -> work.Work:
        contexts = s.network.contexts(s.frames)
        return work.overlap_decode(
            _decoder(s, contexts), 4 * contexts * s.network.context, s.network.step
        )

    return Case(
        name, "overlap_decode", shape, _decode_inputs,
        lambda f, x, s: f.overlap_decode(
            x["codes"], *(x[name] for name in _WEIGHTS), x["fades"], s.network.step
        ),
        done, ("codes", *_WEIGHTS), transforms=False, batched=True,
        kernels=("deconv_pair_horizontal", "overlap_decode_forward"),
    )  # fmt: skip


def _encoder(shape: Workload) -> Layers:
    bins = shape.framing.bins
    return Layers(shape.batch, 1, shape.frames, bins, shape.network, product_precision())


def _decoder(shape: Workload, contexts: int = 0) -> Layers:
    """Of batches that are contexts already, or of so many contexts of a track."""
    batch, frames = (contexts, shape.network.context) if contexts else (shape.batch, shape.frames)
    return Layers(
        batch, shape.sources, frames, shape.framing.bins, shape.network, product_precision()
    )


def _conv_inputs(shape: Workload, device: torch.device) -> Tensors:
    n, bins = shape.network, shape.framing.bins
    return {
        "magnitudes": torch.rand(shape.batch, n.channels, shape.frames, bins, device=device),
        "vertical": torch.randn(n.n1, n.channels, 1, bins, device=device) / bins,
        "vertical_bias": torch.rand(n.n1, device=device),
        "horizontal": torch.randn(n.n2, n.n1, n.span, 1, device=device) / n.span,
        "horizontal_bias": torch.rand(n.n2, device=device),
    }


def _deconv_inputs(shape: Workload, device: torch.device) -> Tensors:
    n, reach = shape.network, shape.frames - shape.network.span + 1
    codes = torch.rand(shape.batch, shape.sources, n.n2, reach, 1, device=device)
    weights = decoder_weights(shape.sources, n, shape.framing.bins, device)
    return {
        "codes": codes,
        **weights,
        "horizontal": weights["horizontal"][..., None],
        "vertical": weights["vertical"][:, :, :, None],
    }


def _horizontal_inputs(shape: Workload, device: torch.device) -> Tensors:
    tensors = _deconv_inputs(shape, device)
    return {
        "codes": tensors["codes"][..., 0],
        "weight": tensors["horizontal"][..., 0],
        "bias": tensors["horizontal_bias"],
    }


def _loss_inputs(shape: Workload, device: torch.device) -> Tensors:
    n, batch, frames = shape.network, shape.batch, shape.frames
    weights = decoder_weights(shape.sources, n, shape.framing.bins, device)
    image = (batch, shape.sources, n.channels, frames, shape.framing.bins)
    targets = torch.rand(image, device=device)
    return {
        "features": torch.rand(batch, shape.sources, frames, n.n1, device=device) + 0.5,
        "weight": weights["vertical"],
        "bias": weights["vertical_bias"],
        "mixture": targets.sum(1),
        "targets": targets,
    }


def _decode_inputs(shape: Workload, device: torch.device) -> Tensors:
    n = shape.network
    contexts = n.contexts(shape.frames)
    weighed = fades(0, contexts, contexts, n.context, n.context - n.step, device)
    return {
        "codes": torch.rand(contexts, shape.sources, n.n2, n.reach, device=device) + 0.5,
        **decoder_weights(shape.sources, n, shape.framing.bins, device),
        "fades": weighed,
    }


def decoder_weights(sources: int, n: Network, bins: int, device: torch.device) -> Tensors:
    """The deconvolutions of all sources, without their axes of length 1.

    A source is loud or silent at a bin, so that no estimate lies at the ReLU's kink: there, shares
    keep no digits, whoever computes them.
    """

    def positive(*shape: int) -> Tensor:
        return torch.rand(shape, device=device) + 0.5

    silent = torch.rand(sources, 1, n.channels, bins, device=device) < 0.3
    return {
        "horizontal": positive(sources, n.n2, n.n1, n.span) / (n.n2 * n.span),
        "horizontal_bias": positive(sources, n.n1),
        "vertical": positive(sources, n.n1, n.channels, bins) / n.n1 * torch.where(silent, -1, 1),
        "vertical_bias": 0.2 * torch.rand(sources, n.channels, device=device) - 0.1,
    }
