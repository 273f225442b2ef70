"""The operators that the shared contract test checks, each in one way of calling it or several.

A new operator is a `Case` in `CASES`; every line of the contract is then checked for it.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from contract import FRAMING, Case, Tensors
from torch import Tensor

from sepfast.reference import Framing, Levels, LossWeights


def _estimates(rows: int, size: int, framing: Framing) -> Tensors:
    return {"estimates": torch.randn(rows, 3, size, dtype=torch.float64)}


def _loss_inputs(rows: int, size: int, framing: Framing) -> Tensors:
    y, t = torch.randn(2, rows, 4, size, dtype=torch.float64)
    return {
        "estimates": y,
        "mixture": torch.rand(rows, size, dtype=torch.float64),
        "targets": t.abs(),
    }


def _loss(reading: Any, *weights: float) -> Case:
    chosen = LossWeights(*weights, reading=reading)
    return Case(
        "soft_mask_loss",
        _loss_inputs,
        lambda f, x, framing: f.soft_mask_loss(x["estimates"], x["mixture"], x["targets"], chosen),
        ("estimates",),
        variant="-".join(map(str, (reading, *weights))),
        widens=True,
    )


def _linear_loss_inputs(rows: int, size: int, framing: Framing) -> Tensors:
    """Of `size` bins; a source is loud or silent at a bin, and the ReLU clear of its kink."""
    shapes = (rows, 3, 2, 5), (3, 5, 2, size), (rows, 2, 2, size), (rows, 3, 2, 2, size)
    h, w, x, t = (torch.rand(shape, dtype=torch.float64) for shape in shapes)
    sign = torch.where(torch.rand(3, 1, 2, size) < 0.3, -1, 1)
    bias = torch.rand(3, 2, dtype=torch.float64) - 0.5
    weight = (w + 0.5) * sign
    return {"features": h + 0.5, "weight": weight, "bias": bias, "mixture": x, "targets": t}


def _linear_loss(reading: Any, *weights: float) -> Case:
    chosen = LossWeights(*weights, reading=reading)
    return Case(
        "linear_soft_mask_loss",
        _linear_loss_inputs,
        lambda f, x, framing: f.linear_soft_mask_loss(*x.values(), chosen),
        ("features", "weight", "bias"),
        variant="-".join(map(str, (reading, *weights))),
        dots=True,
        widens=True,
    )


def _line(rows: int, size: int, framing: Framing) -> Tensors:
    return {"waveform": torch.randn(rows, size, dtype=torch.float64)}


def _scaled_lines(rows: int, size: int, framing: Framing) -> Tensors:
    return {
        "waveform": torch.randn(rows, 2, size, dtype=torch.float64),
        "scale": torch.rand(2, 1, framing.bins, dtype=torch.float64) + 0.5,
        "offset": torch.randn(framing.bins, dtype=torch.float64),
    }


def _spectrum(rows: int, size: int, framing: Framing) -> Tensors:
    shape = (rows, framing.frames(size), framing.bins, 2)
    return {"spectrum": torch.randn(shape, dtype=torch.float64)}


def _shares(rows: int, size: int, framing: Framing) -> Tensors:
    shape = (rows, 3, 2, framing.frames(size), framing.bins)
    return {
        "shares": torch.rand(shape, dtype=torch.float64),
        "waveform": torch.randn(rows, 2, size, dtype=torch.float64),
    }


def _levelled_shares(rows: int, size: int, framing: Framing) -> Tensors:
    return {
        **_shares(rows, size, framing),
        "gain": torch.rand(3, 2, 1, framing.bins, dtype=torch.float64) + 0.5,
        "floor": torch.rand(2, 1, framing.bins, dtype=torch.float64),
        "base": torch.rand(3, 2, 1, framing.bins, dtype=torch.float64),
    }


def _istft(f: Any, x: Tensors, framing: Framing) -> Tensor:
    # Short of the last frame's end, and odd.
    return f.istft(x["spectrum"], framing, (x["spectrum"].shape[-3] - 1) * framing.hop - 3)


def _masked_istft(f: Any, x: Tensors, framing: Framing) -> Tensor:
    levels = Levels(x["gain"], x["floor"], x["base"]) if "gain" in x else None
    return f.masked_istft(x["shares"], x["waveform"], framing, levels)


def _pair(rows: int, size: int, framing: Framing) -> Tensors:
    """Of `size` bins, that its filters span."""
    return _random(
        x=(rows, 2, 5, size), vertical=(3, 2, 1, size), vertical_bias=(3,),
        horizontal=(2, 3, 3, 1), horizontal_bias=(2,),
    )  # fmt: skip


def _deconv_pair(rows: int, size: int, framing: Framing) -> Tensors:
    return _random(
        codes=(rows, 3, 2, 3, 1), horizontal=(3, 2, 4, 3, 1), horizontal_bias=(3, 4),
        vertical=(3, 4, 2, 1, size), vertical_bias=(3, 2),
    )  # fmt: skip


def _horizontal_deconv(rows: int, size: int, framing: Framing) -> Tensors:
    """Of `size` features."""
    return _random(codes=(rows, 3, 2, 3), weight=(3, 2, size, 3), bias=(3, size))


def _random(**shapes: tuple[int, ...]) -> Tensors:
    return {name: torch.randn(shape, dtype=torch.float64) for name, shape in shapes.items()}


def _of_all(operator: str, inputs: Callable[[int, int, Framing], Tensors]) -> Case:
    """A product of tensors, which are its arguments and all have a gradient."""
    names = tuple(inputs(1, 1, FRAMING))
    return Case(
        operator,
        inputs,
        lambda f, x, framing: getattr(f, operator)(*x.values()),
        names,
        dots=True,
        rows=2,
        lowers=True,
    )


def _overlap_decode_inputs(rows: int, size: int, framing: Framing) -> Tensors:
    """Of `size` bins; a source is loud or silent at a bin, and the ReLU clear of its kink."""
    shapes = {
        "codes": (rows, 3, 2, 3),
        "horizontal": (3, 2, 5, 3),
        "horizontal_bias": (3, 5),
        "vertical": (3, 5, 2, size),
        "vertical_bias": (3, 2),
        "fades": (rows, 5),
    }
    made = {n: torch.rand(shape, dtype=torch.float64) + 0.5 for n, shape in shapes.items()}
    made["vertical"] *= torch.where(torch.rand(3, 1, 2, size) < 0.3, -1, 1)
    return made


def _attention(rows: int, size: int, framing: Framing) -> Tensors:
    """Of `size` frames of memory, with scores of about 1."""
    made = _random(query=(rows, 5, 7), memory=(rows, size, 6), weight=(7, 6))
    made["weight"] *= 0.15
    return made


def _amplitudes(rows: int, size: int, framing: Framing) -> Tensors:
    """Of `size` bins."""
    scores, *levels = torch.randn(3, rows, 5, size, dtype=torch.float64)
    mixture, target = (x.abs() for x in levels)
    return {"scores": scores, "mixture": mixture, "target": target}


def _channels(rows: int, size: int, framing: Framing) -> Tensors:
    """Of `size` frames; x spreads over the bend of softplus."""
    made = _random(x=(rows, 2, size), bias=(2,), weight=(2,), offset=(2,))
    made["x"] *= 3
    return made


def _sequences(rows: int, size: int, framing: Framing) -> Tensors:
    """Of `size` hidden units, both directions, with all there may be."""
    made = _random(
        input=(rows, 2, 4), weight=(2, 4 * size, 4), recurrent=(2, 4 * size, size),
        bias=(2, 4 * size), peephole=(2, 3, size), hidden=(2, rows, size), cell=(2, rows, size),
    )  # fmt: skip
    made["recurrent"] /= size**0.5
    return made


def _lstm(f: Any, x: Tensors, framing: Framing) -> Tensor:
    """The output, and the last one of each sequence."""
    *parameters, hidden, cell = x.values()
    output, last, _ = f.lstm(*parameters, None, hidden, cell)
    return torch.cat((output, last.transpose(0, 1).flatten(1)[:, None]), 1)


CASES = [
    Case(
        "amplitude_mask_loss",
        _amplitudes,
        lambda f, x, framing: f.amplitude_mask_loss(*x.values()),
        ("scores",),
        widens=True,
    ),
    Case(
        "bilinear_attention",
        _attention,
        lambda f, x, framing: torch.cat(f.bilinear_attention(*x.values()), -1),
        ("query", "memory", "weight"),
        dots=True,
        lowers=True,
    ),
    _of_all("conv_pair", _pair),
    _of_all("deconv_pair", _deconv_pair),
    _of_all("horizontal_deconv", _horizontal_deconv),
    Case(
        "soft_mask",
        _estimates,
        lambda f, x, framing: f.soft_mask(x["estimates"], -2),
        ("estimates",),
    ),
    Case(
        "lstm",
        _sequences,
        _lstm,
        ("input", "weight", "recurrent", "bias", "peephole", "hidden", "cell"),
        dots=True,
        rows=2,
        lowers=True,
    ),
    Case(
        "softplus_affine",
        _channels,
        lambda f, x, framing: f.softplus_affine(*x.values()),
        ("x", "bias", "weight", "offset"),
    ),
    Case(
        "softplus_norm",
        _channels,
        lambda f, x, framing: f.softplus_norm(*x.values())[0],
        ("x", "bias", "weight", "offset"),
    ),
    _loss("code"),
    _loss("code", 0.5, 0.7, 0.9),  # negative before its absolute value
    _loss("paper", 0.1, 0.2, 0.3),
    _linear_loss("code"),
    _linear_loss("paper", 0.1, 0.2, 0.3),
    Case(
        "stft",
        _line,
        lambda f, x, framing: f.stft(x["waveform"], framing),
        ("waveform",),
        dots=True,
        tiny=9,
        rows=2,
    ),
    Case("istft", _spectrum, _istft, ("spectrum",), dots=True, rows=2),
    Case(
        "stft_magnitude",
        _line,
        lambda f, x, framing: f.stft_magnitude(x["waveform"], framing),
        ("waveform",),
        dots=True,
        tiny=9,
        rows=2,
    ),
    Case(
        "stft_magnitude",
        _scaled_lines,
        lambda f, x, framing: f.stft_magnitude(
            x["waveform"], framing, power=0.7, scale=x["scale"], offset=x["offset"]
        ),
        ("waveform",),
        variant="scaled",
        dots=True,
        tiny=9,
        rows=1,
    ),
    Case("masked_istft", _shares, _masked_istft, ("shares", "waveform"), dots=True, rows=1),
    Case(
        "overlap_decode",
        _overlap_decode_inputs,
        # Frames first: one gradient for all sources would be a gradient of nothing.
        lambda f, x, framing: f.overlap_decode(*x.values(), 2).transpose(0, 2).contiguous(),
        ("codes", "horizontal", "horizontal_bias", "vertical", "vertical_bias"),
        dots=True,
    ),
    Case(
        "masked_istft",
        _levelled_shares,
        _masked_istft,
        ("shares",),
        unstable=("waveform",),
        variant="levels",
        dots=True,
        rows=1,
    ),
]
