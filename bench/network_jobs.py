"""What there is to tune of DeepConvSep's kernels, and something to run each of them on."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from sepfast.bench.case import Prepared, Tensors
from sepfast.bench.network_cases import decoder_weights
from sepfast.bench.workloads import Network
from sepfast.separation.fades import fades

#: The loss's weights and reading, as its operators take them.
WEIGHTS = (0.001, 0.01, 0.03, "code")
_LAYERS = (
    *(f"conv_pair_{layer}" for layer in ("vertical", "horizontal")),
    *(f"deconv_pair_{layer}" for layer in ("horizontal", "vertical")),
    *(f"conv_pair_{layer}slope" for layer in ("vertical", "horizontal")),
)
_LOSS = tuple(f"linear_soft_mask_loss_{stage}" for stage in ("forward", "features", "weights"))
_PAIR = ("horizontal", "horizontal_bias", "vertical", "vertical_bias")
_BINS, _BATCH = 513, 32


def song_keys(precision: str) -> list[tuple[str, dict[str, Any]]]:
    """Kernels and keys of four sources and of the usual filters."""
    rows = [{"precision": precision, "rows": rows} for rows in ("many", "few")]
    return [
        ("overlap_decode_forward", _decoding(precision, 4, "few")),
        *((loss, {"precision": precision, "sources": 4}) for loss in _LOSS),
        *((layer, key) for key in rows for layer in _LAYERS),
    ]


def other_keys(precision: str) -> list[tuple[str, dict[str, Any]]]:
    """Kernels and keys of other numbers of sources and of more filters."""
    chosen: list[tuple[str, dict[str, Any]]] = []
    for sources in (4, 2, 8):
        key = {"precision": precision, "sources": sources}
        if sources != 4:
            chosen.append(("overlap_decode_forward", _decoding(precision, sources, "few")))
            chosen += [(loss, key) for loss in _LOSS]
        chosen.append(("overlap_decode_forward", _decoding(precision, sources, "many")))
        chosen.append(("overlap_decode_backward", key))
    return chosen


def _decoding(precision: str, sources: int, features: str) -> dict[str, Any]:
    return {"precision": precision, "sources": sources, "features": features}


def prepare(stage: str, key: Mapping[str, Any], frames: int, device: torch.device) -> Prepared:
    """The operator that launches a kernel, and what to call it with.

    Args:
        stage: the kernel's name without its prefix.
        key: of its configuration.
        frames: frames that it is timed on, as contexts of 30 where there are as many.
        device: where it runs.
    """
    if stage in _LAYERS:
        return _layer(stage, key["rows"], frames, device)
    n1 = 96 if key.get("features") == "many" else Network.n1
    make = _loss if stage in _LOSS else _decode
    return make(stage, int(key["sources"]), n1, frames, device)


def _contexts(frames: int) -> tuple[int, int]:
    """As many contexts, and the frames of each."""
    length = min(Network.context, frames)
    return max(1, frames // length), length


def _network(length: int, n1: int = Network.n1) -> Network:
    return Network(context=length, step=-(-length // 2), span=-(-length // 2), n1=n1)


def _layer(stage: str, rows: str, frames: int, device: torch.device) -> Prepared:
    """The encoder's layers over a line or a batch, the decoder's over contexts."""
    batch, length = _contexts(frames if rows == "many" else min(frames, _BATCH * Network.context))
    o = torch.ops.sepfast
    if stage in ("conv_pair_vertical", "conv_pair_horizontal"):
        if rows == "many":
            batch, length = 1, frames
        n = _network(min(length, Network.context))
        tensors = {
            "x": torch.rand(batch, n.channels, length, _BINS, device=device),
            "vertical": torch.randn(n.n1, n.channels, 1, _BINS, device=device) / _BINS,
            "horizontal": torch.randn(n.n2, n.n1, n.span, 1, device=device) / n.span,
        }
        which = 0 if stage.endswith("horizontal") else 1  # the other result is of the first layer
        return lambda x: o.conv_pair(x["x"], x["vertical"], None, x["horizontal"], None)[which], (
            tensors
        )
    n, sources = _network(length), 4
    weights = decoder_weights(sources, n, _BINS, device)
    codes = torch.rand(batch, sources, n.n2, n.reach, device=device)
    if stage == "deconv_pair_horizontal":
        tensors = {"codes": codes, **weights}
        return lambda x: o.horizontal_deconv(*(x[k] for k in ("codes", *_PAIR[:2]))), tensors
    wide = {"horizontal": weights["horizontal"][..., None]}
    wide |= {"vertical": weights["vertical"][:, :, :, None], "codes": codes[..., None]}
    if stage == "deconv_pair_vertical":
        return lambda x: o.deconv_pair(*(x[k] for k in ("codes", *_PAIR)))[0], weights | wide
    wide["grad"] = torch.rand(batch, sources, n.channels, length, _BINS, device=device)
    wide["features"] = torch.rand(batch, sources, 1, length, n.n1, device=device)
    order = ("grad", "codes", "features", "horizontal", "vertical")
    which = 1 if stage.endswith("horizontalslope") else 3
    return lambda x: o.deconv_pair_backward(*(x[k] for k in order))[which], wide


def _loss(stage: str, sources: int, n1: int, frames: int, device: torch.device) -> Prepared:
    batch, length = _contexts(min(frames, _BATCH * Network.context))
    n, o = _network(length, n1), torch.ops.sepfast
    weights = decoder_weights(sources, n, _BINS, device)
    t = torch.rand(batch, sources, n.channels, length, _BINS, device=device)
    tensors = {
        "features": torch.rand(batch, sources, length, n1, device=device) + 0.5,
        "weight": weights["vertical"], "bias": weights["vertical_bias"],
        "mixture": t.sum(1), "targets": t,
    }  # fmt: skip
    given = tuple(tensors)
    if stage.endswith("forward"):
        return lambda x: o.linear_soft_mask_loss(*(x[k] for k in given), *WEIGHTS)[1], tensors
    ones = {"grad": torch.ones((), device=device), "total": torch.ones((), device=device)}
    which = 0 if stage.endswith("features") else 1

    def backward(x: Tensors) -> Tensor:
        return o.linear_soft_mask_loss_backward(*(x[k] for k in (*given, *ones)), *WEIGHTS)[which]

    return backward, tensors | ones


def _decode(stage: str, sources: int, n1: int, frames: int, device: torch.device) -> Prepared:
    n = _network(min(Network.context, frames), n1)
    count, o = n.contexts(frames), torch.ops.sepfast
    tensors = {
        "codes": torch.rand(count, sources, n.n2, n.reach, device=device) + 0.5,
        **decoder_weights(sources, n, _BINS, device),
        "fades": fades(0, count, count, n.context, n.context - n.step, device),
    }
    order = ("codes", *_PAIR, "fades")
    if stage.endswith("forward"):
        return lambda x: o.overlap_decode(*(x[k] for k in order), n.step, False), tensors
    line = (sources, n.channels, (count - 1) * n.step + n.context, _BINS)
    tensors["grad"] = torch.rand(line, device=device)
    backward = ("grad", *order)
    return lambda x: o.overlap_decode_backward(*(x[k] for k in backward), n.step)[0], tensors
