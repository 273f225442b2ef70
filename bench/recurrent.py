"""`lstm` in the shapes of system D: its cases, their work, and what there is to tune.

B sequences of T steps of I features, the bins; L layers of H units in D = 2 directions, float32.
Counts as in `work.py`, bytes and operations from `kernels/lstm.py` and, behind its walk through
time, from `lstm_gradients` of the reference, whose PyTorch the operator runs. Left out is what has
neither an axis of steps nor two of weights; padded steps count like others.

A program reads the weights of its direction once a step, 16 H^2 bytes. A processor gets 64 bytes a
cycle from the cache of the second level, so that a step takes 16 H^2 / 64 cycles at least, tiles
filled up: 9 us at H 250, whatever the batch as long as each program has a processor of its own.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from functools import partial
from math import ceil
from typing import Any

import torch
from torch import Tensor, nn

from sepfast.bench.case import Case, Output, Prepared, Size, Tensors, product_precision, shaped
from sepfast.bench.work import Work, shipped_config
from sepfast.bench.workloads import Workload
from sepfast.reference.lstm_layouts import from_torch

_FLOAT = 4
_DIRECTIONS = 2

#: Bytes that a processor gets a cycle from the cache of the second level, and cycles a second of
#: an H200 at work; at most it has 1.98e9.
_CACHE, _CYCLES = 64, 1.75e9

#: Size -> what the batch is divided by, steps and hidden size.
_SIZES: Mapping[Size, tuple[int, int, int]] = {
    "full": (1, 300, 250),
    "small": (8, 60, 250),
    "quick": (32, 8, 16),
}

#: What the tiles are where none are shipped.
_TILES = {"ROWS": 16, "UNITS": 64, "DEPTH": 32}


@dataclass(frozen=True)
class Stack:
    """What a case takes its steps through.

    Attributes:
        hidden: H.
        layers: L.
        peephole: whether gates see the cell.
        padded: whether the lengths are spread from T / 2 to T.
        gradient: whether the gradients of the input and of all parameters are taken too.
    """

    hidden: int
    layers: int = 1
    peephole: bool = True
    padded: bool = False
    gradient: bool = False


def cases(size: Size) -> Iterator[Case]:
    """Three layers, then one with and without peepholes, then one of sequences that are padded."""
    share, steps, hidden = _SIZES[size]
    full = shaped("landmarks", size)
    every = Stack(hidden, gradient=True)
    for batch in (32, 8, 64):
        shape = replace(
            full, rows=max(1, batch // share), samples=(steps - 2) * full.framing.hop
        )  # two frames of silence follow
        yield lstm(f"landmarks/lstm-3layers-b{batch}+gradient", shape, replace(every, layers=3))
        for kind, peephole in (("peephole", True), ("plain", False)):
            made = replace(every, peephole=peephole)
            yield lstm(f"landmarks/lstm-{kind}-b{batch}+gradient", shape, made)
            made = replace(made, gradient=False)
            yield lstm(f"landmarks/lstm-{kind}-b{batch}", shape, made)
        if batch == 32:
            made = replace(every, padded=True)
            yield lstm(f"landmarks/lstm-lengths-b{batch}+gradient", shape, made)


def lstm(name: str, shape: Workload, made: Stack) -> Case:
    """The output, and the gradients where the stack has them; PyTorch's own layer is a side, or,
    of a stack with peepholes, stands beside it."""
    plainer = replace(made, peephole=False)
    return Case(
        name, "lstm", shape, partial(_inputs, made=made), partial(_call, made),
        lambda s: work(s, made), ("input", *_parameters(made)), gradient=made.gradient,
        kernels=("lstm_forward", "lstm_backward")[: 1 + made.gradient],
        parts=("lstm",) * made.layers, transforms=False, stepwise=True,
        own_layer=not made.peephole,
        beside=lstm(f"{name} without peepholes", shape, plainer) if made.peephole else None,
    )  # fmt: skip


def _parameters(made: Stack) -> list[str]:
    """The parameters' names, those of `nn.LSTM` and of peepholes as it would call them."""
    names = ("weight_ih", "weight_hh", "bias_ih", "bias_hh")
    return [
        f"{name}_l{layer}{suffix}"
        for layer in range(made.layers)
        for suffix in ("", "_reverse")
        for name in (*names, *(("weight_ph",) if made.peephole else ()))
    ]


def _inputs(shape: Workload, device: torch.device, made: Stack) -> Tensors:
    """Parameters are those of an `nn.LSTM`, parts of one buffer on a GPU, as cuDNN wants them.

    They are drawn from -1/sqrt(H) to 1/sqrt(H), with which errors do not grow from step to step:
    a result is as exact after 300 steps as after the 41 of a verification.
    """
    bins, size, bound = shape.framing.bins, made.hidden, made.hidden**-0.5
    layer = nn.LSTM(bins, size, made.layers, bidirectional=True, device=device)
    tensors = {name: x.detach() for name, x in layer.named_parameters()}
    for name in _parameters(made):
        if name not in tensors:
            tensors[name] = torch.empty(3, size, device=device).uniform_(-bound, bound)
    if made.padded:
        tensors["lengths"] = _lengths(shape).to(device)
    return {"input": torch.randn(shape.rows, shape.frames, bins, device=device), **tensors}


def _lengths(shape: Workload) -> Tensor:
    return torch.linspace(shape.frames // 2, shape.frames, shape.rows).round().long()


def _call(made: Stack, f: Any, x: Tensors, shape: Workload) -> Output:
    """Layer by layer, as `sepfast.modules.LSTM` takes them; PyTorch's own takes them all at once.

    It wants lengths on the host, and is given them there.
    """
    own = {name: x[name] for name in _parameters(made)}
    if hasattr(f, "lstm_layers"):
        lengths = _lengths(shape) if made.padded else None
        return f.lstm_layers(x["input"], list(own.values()), made.layers, lengths)
    lengths = x["lengths"].long() if made.padded else None
    output = x["input"]
    for layer in range(made.layers):
        output, *_ = f.lstm(output, *from_torch(own, layer), lengths)
    return output


def step_seconds(hidden: int) -> float:
    """Seconds that a step of the forward takes an H200 at least, to read the weights."""
    return _FLOAT * _Walk.of("forward", 1, 1, hidden).weights / _CACHE / _CYCLES


def work(shape: Workload, made: Stack) -> Work:
    """The work of a stack, or of it and its gradient."""
    b, t, bins = shape.rows, shape.frames, shape.framing.bins
    states = b * t * _DIRECTIONS * made.hidden
    wide = [bins, *[_DIRECTIONS * made.hidden] * (made.layers - 1)]
    numbers = sum(sum(_weights(features, made)) for features in wide)
    least = b * t * bins + states + numbers
    if made.gradient:
        least += states + b * t * bins + numbers
    moved, repeated, needed, performed = map(
        sum, zip(*(_layer(b, t, features, made) for features in wide), strict=True)
    )
    return Work(_FLOAT * least, _FLOAT * moved, _FLOAT * (moved + repeated), needed, performed)


def _weights(features: int, made: Stack) -> tuple[int, int, int]:
    """A layer's numbers: of the input, recurrent, and all its vectors."""
    gates = _DIRECTIONS * 4 * made.hidden
    vectors = 2 * gates + (_DIRECTIONS * 3 * made.hidden if made.peephole else 0)
    return gates * features, gates * made.hidden, vectors


def _layer(b: int, t: int, features: int, made: Stack) -> tuple[int, int, int, int]:
    """Of one layer: numbers moved, numbers loaded and stored beyond, and operations."""
    n, entering = b * t * _DIRECTIONS * made.hidden, b * t * features
    of_input, recurrent, vectors = _weights(features, made)
    before = n - n // t  # states that a step has from the one before
    seen = _DIRECTIONS * 3 * made.hidden if made.peephole else 0
    walk = _Walk.of("forward", b, t, made.hidden)
    product, loop = 2 * 4 * n * features, 2 * 4 * n * made.hidden
    # Directions stacked, the projections, and the walk: gates twice, outputs, cells.
    moved = 2 * (of_input + recurrent + vectors)
    moved += entering + of_input + 4 * n
    moved += walk.packing(recurrent) + 10 * n
    repeated = walk.tiles * before + before + walk.repeated(seen)
    needed, performed = product + loop, product + walk.operations
    if not made.gradient:
        return moved, repeated, needed, performed
    walk = _Walk.of("backward", b, t, made.hidden)
    # The walk: cells, gates, slopes and the output's gradient. What it carries, 2 n, stays cached.
    moved += walk.packing(recurrent) + 10 * n
    repeated += walk.tiles * 4 * before + before + 2 * n + walk.repeated(seen)
    # States one step before: into the order of steps (a turn, 1, and both directions side by side,
    # 2), moved by one (2), back (3). Of the outputs they are copied for the product (2).
    masked = 2 * 2 * n if made.padded else 0
    moved += 10 * n + masked
    if made.peephole:  # three products with slopes (3), and their sums (1)
        moved += 8 * n + masked + 3 * 4 * n
    # Products of the slopes with the weights, with the input and with the states, and their sum.
    moved += 4 * 4 * n + 2 * entering + n + 2 * of_input + recurrent
    moved += 2 * entering if made.padded else 0
    return (
        moved,
        repeated,
        needed + 2 * product + 2 * loop,
        performed + 2 * product + loop + walk.operations,
    )


@dataclass(frozen=True)
class _Walk:
    """A kernel's walk through time, with the tiles that an H200 takes.

    Attributes:
        tiles: of units.
        weights: numbers of a direction's, filled up to whole tiles.
        steps: of all programs together.
        operations: that it performs.
    """

    tiles: int
    weights: int
    steps: int
    operations: int

    @classmethod
    def of(cls, stage: str, b: int, t: int, hidden: int) -> _Walk:
        """That of a kernel for so many sequences, steps and units."""
        config = {
            **_TILES,
            **shipped_config(f"sepfast_lstm_{stage}", precision=product_precision()),
        }
        tiles, terms = ceil(hidden / config["UNITS"]), ceil(hidden / config["DEPTH"])
        weights = 4 * terms * config["DEPTH"] * tiles * config["UNITS"]
        steps = t * _DIRECTIONS * ceil(b / config["ROWS"])
        return cls(tiles, weights, steps, steps * 2 * config["ROWS"] * weights)

    def packing(self, recurrent: int) -> int:
        """Numbers moved to fill weights up, with zeros and then themselves, and to load them."""
        return 2 * _DIRECTIONS * self.weights + 2 * recurrent

    def repeated(self, vectors: int) -> int:
        """Numbers of weights and vectors that programs load after the first one of a direction."""
        return (self.steps - _DIRECTIONS) * self.weights + self.steps * vectors // _DIRECTIONS


def keys(precision: str) -> list[tuple[str, dict[str, Any]]]:
    """Kernels and keys to tune."""
    return [(f"lstm_{stage}", {"precision": precision}) for stage in ("forward", "backward")]


def prepare(stage: str, frames: int, device: torch.device) -> Prepared:
    """The operator that launches a kernel, and what to call it with.

    Args:
        stage: the kernel's name without its prefix.
        frames: of all sequences together.
        device: where it runs.
    """
    steps = min(300, max(3, frames))
    shape = shaped("landmarks", "full")
    shape = replace(
        shape, rows=max(1, min(32, frames // steps)), samples=(steps - 2) * shape.framing.hop
    )
    made, o = Stack(250), torch.ops.sepfast
    given = _inputs(shape, device, made)
    tensors = {"input": given.pop("input")}
    weights = zip(("weight", "recurrent", "bias", "peephole"), from_torch(given), strict=True)
    tensors |= {name: x for name, x in weights if x is not None}
    layer = tuple(tensors)
    if stage == "lstm_forward":
        return lambda x: o.lstm(*(x[k] for k in layer), None, None, None, False)[0], tensors
    output, _, _, cells, gates = o.lstm(*tensors.values(), None, None, None, False)
    tensors |= {"of_output": torch.randn_like(output)}
    tensors |= {"output": output, "cells": cells, "gates": gates}

    def backward(x: Tensors) -> Tensor:
        kept = (x[k] for k in ("output", "cells", "gates"))
        of = (x["of_output"], None, None, *(x[k] for k in layer), None, None, None, *kept)
        return o.lstm_backward(*of)[0]

    return backward, tensors
