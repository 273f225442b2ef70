"""A recurrent layer over time: one launch walks through all steps of its sequences.

B batch, T steps, H hidden size, D directions, gates in the order i, f, g, o.

    forward   a[b, t] = p[b, t] + W h[b, t'],  t' the step before in the direction's own order
              i = sigmoid(a_i + u_i c'),  f = sigmoid(a_f + u_f c'),  g = tanh(a_g)
              c = f c' + i g,  o = sigmoid(a_o + u_o c),  h = o tanh(c)
    backward  dh[b, t] = gh[b, t] + W^T da[b, t"],  t" the step behind
              da_o = dh tanh(c) o (1 - o),  dc = dc" + dh o (1 - tanh(c)^2) + u_o da_o
              da_i = dc g i (1 - i),  da_f = dc c' f (1 - f),  da_g = dc i (1 - g^2)
              dc' = dc f + u_i da_i + u_f da_f

p are the projections of the input, one matrix product ahead of the loop; the gates take their
place. The gradients of weights and input are products of da behind it. Peepholes u are 0 where
there are none. Step s is time s in direction 0 and time length - 1 - s in direction 1, for each
sequence its own; a sequence that has ended rests, and writes the zeros of its padding.

A program has ROWS sequences of one direction and all hidden units, UNITS at a time, so that no
program waits for another: what it wrote in a step, it alone reads in the next. The price is that
it reads W once a step, 16 H^2 bytes: from the cache of the second level, which gives a processor
64 bytes a cycle, 9 us a step at H 250 on an H200. Above H 512 that is longer than a launch takes,
and each step is a launch of its own, with the units shared among programs.

Bytes: 4 B T D (10 H) forward, in which the gates are read and written, and as many backward,
beside the cell's gradient, which stays in the cache. Operations: 8 B T D H^2 each.

Source: D, "LSTM cell" and "lengths".
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor

from sepfast.kernels import launch
from sepfast.kernels._product import load

#: Lengths: one compilation serves all their values.
_NUMBERS = ("batch", "steps", "hidden", "directions", "given", "first", "stop", "parts")

#: Bits of `given`: which of the tensors that need not be there are there.
_LENGTHS, _PEEPHOLES, _CELL, _ENDS = (tl.constexpr(1 << n) for n in range(4))

#: The largest hidden size whose steps are taken in one launch.
_ONE_LAUNCH = 512


@triton.jit(do_not_specialize=_NUMBERS)
def sepfast_lstm_forward(
    gates, weight, peepholes, lengths, initial, output, cells,
    batch, steps, hidden, directions, given, first, stop, parts,
    ROWS: tl.constexpr, UNITS: tl.constexpr, DEPTH: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    """Projections (B, T, D, 4 H), which become gates, to output and cells (B, T, D, H)."""
    row, part, d = _place(batch, parts, ROWS)
    known, length = _known(lengths, row, batch, steps, given)
    wide, deep = tl.cdiv(hidden, UNITS) * UNITS, tl.cdiv(hidden, DEPTH) * DEPTH
    weight += d.to(tl.int64) * 4 * deep * wide
    peepholes += d * 3 * hidden
    initial += (d * batch + row).to(tl.int64)[:, None] * hidden
    k = tl.arange(0, DEPTH)
    for s in tl.range(first, stop, num_stages=1):
        active = s < length
        time = tl.where(active & (d > 0), length - 1 - s, s)
        at = (row.to(tl.int64) * steps + time) * directions + d
        before = at - tl.where(d > 0, -directions, directions)
        carried = active & (s > 0)
        for tile in tl.range(part * UNITS, hidden, parts * UNITS, num_stages=1):
            unit = tile + tl.arange(0, UNITS)
            i = tl.zeros((ROWS, UNITS), tl.float32)
            f, g, o = i, i, i
            w = weight + tile + k[:, None] * wide + tl.arange(0, UNITS)[None, :]
            for at_k in tl.range(0, hidden, DEPTH):
                h = output + before[:, None] * hidden + at_k + k[None, :]
                h = tl.load(h, carried[:, None] & (k < hidden - at_k)[None, :], other=0)
                h, to = h.to(tl.float32), w + at_k * wide
                for_i, for_f = tl.load(to), tl.load(to + deep * wide)
                for_g, for_o = tl.load(to + 2 * deep * wide), tl.load(to + 3 * deep * wide)
                i = tl.dot(h, for_i.to(tl.float32), i, input_precision=PRECISION)
                f = tl.dot(h, for_f.to(tl.float32), f, input_precision=PRECISION)
                g = tl.dot(h, for_g.to(tl.float32), g, input_precision=PRECISION)
                o = tl.dot(h, for_o.to(tl.float32), o, input_precision=PRECISION)

            inside = unit < hidden
            past = load(cells + before[:, None] * hidden + unit[None, :], carried, inside)
            if (s == 0) & (given & _CELL > 0):
                past += load(initial + unit[None, :], active, inside)
            u_i, u_f, u_o = _peepholes(peepholes, unit, hidden, given)
            to = gates + at[:, None] * 4 * hidden + unit[None, :]
            i = _sigmoid(i + load(to, active, inside) + u_i * past)
            f = _sigmoid(f + load(to + hidden, active, inside) + u_f * past)
            g = _tanh(g + load(to + 2 * hidden, active, inside))
            c = f * past + i * g
            o = _sigmoid(o + load(to + 3 * hidden, active, inside) + u_o * c)
            there = known[:, None] & inside[None, :]
            on = active[:, None]
            _put(to, i, on, there)
            _put(to + hidden, f, on, there)
            _put(to + 2 * hidden, g, on, there)
            _put(to + 3 * hidden, o, on, there)
            to = at[:, None] * hidden + unit[None, :]
            _put(cells + to, c, on, there)
            _put(output + to, o * _tanh(c), on, there)
        tl.debug_barrier()  # the next step reads what other threads of the program wrote


@triton.jit(do_not_specialize=_NUMBERS)
def sepfast_lstm_backward(
    of_output, of_hidden, of_cell, weight, peepholes, lengths, initial, cells, gates, slopes,
    batch, steps, hidden, directions, given, first, stop, parts,
    ROWS: tl.constexpr, UNITS: tl.constexpr, DEPTH: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    """Gradients of the output (B, T, D, H) to slopes (B, T, D, 4 H), those of the projections.

    `of_cell` (D, B, H) holds the last cell's gradient at first and the initial one's in the end.
    """
    row, part, d = _place(batch, parts, ROWS)
    known, length = _known(lengths, row, batch, steps, given)
    wide, deep = tl.cdiv(hidden, UNITS) * UNITS, tl.cdiv(hidden, DEPTH) * DEPTH
    weight += d.to(tl.int64) * 4 * deep * wide
    peepholes += d * 3 * hidden
    state = (d * batch + row).to(tl.int64)[:, None] * hidden
    k = tl.arange(0, DEPTH)
    for back in tl.range(first, stop, num_stages=1):
        s = steps - 1 - back
        active = s < length
        time = tl.where(active & (d > 0), length - 1 - s, s)
        at = (row.to(tl.int64) * steps + time) * directions + d
        before = at - tl.where(d > 0, -directions, directions)
        after = at + tl.where(d > 0, -directions, directions)
        carried, followed = active & (s > 0), s + 1 < length
        for tile in tl.range(part * UNITS, hidden, parts * UNITS, num_stages=1):
            unit = tile + tl.arange(0, UNITS)
            inside = unit < hidden
            dh = tl.zeros((ROWS, UNITS), tl.float32)
            w = weight + tile + k[:, None] * wide + tl.arange(0, UNITS)[None, :]
            for at_k in tl.range(0, 4 * deep, DEPTH):
                gate, of_gate = at_k // deep, at_k % deep
                a = slopes + after[:, None] * 4 * hidden + gate * hidden + of_gate + k[None, :]
                a = tl.load(a, followed[:, None] & (k < hidden - of_gate)[None, :], other=0)
                to_h = tl.load(w + at_k * wide).to(tl.float32)
                dh = tl.dot(a.to(tl.float32), to_h, dh, input_precision=PRECISION)

            to = at[:, None] * hidden + unit[None, :]
            dh += load(of_output + to, active, inside)
            if given & _ENDS > 0:
                dh += load(of_hidden + state + unit[None, :], s == length - 1, inside)
            c = load(cells + to, active, inside)
            past = load(cells + before[:, None] * hidden + unit[None, :], carried, inside)
            if (s == 0) & (given & _CELL > 0):
                past += load(initial + state + unit[None, :], active, inside)
            to = at[:, None] * 4 * hidden + unit[None, :]
            i = load(gates + to, active, inside)
            f = load(gates + to + hidden, active, inside)
            g = load(gates + to + 2 * hidden, active, inside)
            o = load(gates + to + 3 * hidden, active, inside)
            u_i, u_f, u_o = _peepholes(peepholes, unit, hidden, given)
            of_c = of_cell + state + unit[None, :]
            high = _tanh(c)
            da_o = dh * high * o * (1 - o)
            dc = load(of_c, active, inside) + dh * o * (1 - high * high) + u_o * da_o
            da_i = dc * g * i * (1 - i)
            da_f = dc * past * f * (1 - f)
            there = known[:, None] & inside[None, :]
            on = active[:, None]
            _put(slopes + to, da_i, on, there)
            _put(slopes + to + hidden, da_f, on, there)
            _put(slopes + to + 2 * hidden, dc * i * (1 - g * g), on, there)
            _put(slopes + to + 3 * hidden, da_o, on, there)
            tl.store(of_c, dc * f + u_i * da_i + u_f * da_f, on & there)
        tl.debug_barrier()  # the next step reads what other threads of the program wrote


@triton.jit
def _place(batch, parts, ROWS: tl.constexpr):
    """This program's sequences, its part of the units and its direction."""
    blocks = tl.cdiv(batch, ROWS)
    part, index = tl.program_id(0) % parts, tl.program_id(0) // parts
    return index % blocks * ROWS + tl.arange(0, ROWS), part, index // blocks


@triton.jit
def _known(lengths, row, batch, steps, given):
    """Which rows are sequences, and their lengths, 0 for the others."""
    known = row < batch
    length = tl.load(lengths + row, known & (given & _LENGTHS > 0), other=0)
    length = tl.minimum(tl.maximum(length, 0), steps).to(tl.int32)
    return known, tl.where(known, tl.where(given & _LENGTHS > 0, length, steps), 0)


@triton.jit
def _put(tile, values, active, there):
    """Write a tile, 0 for the sequences that have ended."""
    tl.store(tile, tl.where(active, values, 0), there)


@triton.jit
def _peepholes(peepholes, unit, hidden, given):
    """What gates i, f and o see of the cell, (1, UNITS) each."""
    inside = (unit < hidden) & (given & _PEEPHOLES > 0)
    i = tl.load(peepholes + unit, inside, other=0).to(tl.float32)
    f = tl.load(peepholes + hidden + unit, inside, other=0).to(tl.float32)
    o = tl.load(peepholes + 2 * hidden + unit, inside, other=0).to(tl.float32)
    return i[None, :], f[None, :], o[None, :]


@triton.jit
def _sigmoid(x):
    """1 / (1 + exp(-x)), by an exp that cannot overflow."""
    e = tl.exp(-tl.abs(x))
    return tl.where(x < 0, e, 1) / (1 + e)


@triton.jit
def _tanh(x):
    """tanh to float32's rounding: by exp, which cannot overflow, and near 0 by its series."""
    e = tl.exp(-2 * tl.abs(x))
    far = (1 - e) / (1 + e)
    small = tl.abs(x) < 0.35
    x_near = tl.where(small, x, 0)
    y = x_near * x_near
    near = 62 / 2835 - y * (1382 / 155925)
    near = 2 / 15 + y * (-17 / 315 + y * near)
    near = x_near + x_near * y * (-1 / 3 + y * near)
    return tl.where(small, near, tl.where(x < 0, -far, far))


def _variants(precision: str) -> Iterator[dict[str, Any]]:
    yield {"PRECISION": precision}


def _kernel(function: Any, pointers: str) -> launch.Kernel:
    types = {**launch.signature(pointers, _NUMBERS), "lengths": "*i64"}
    return launch.Kernel(function, types, _variants, dots=True)


FORWARD = _kernel(sepfast_lstm_forward, "gates weight peepholes lengths initial output cells")
BACKWARD = _kernel(
    sepfast_lstm_backward,
    "of_output of_hidden of_cell weight peepholes lengths initial cells gates slopes",
)
KERNELS = (FORWARD, BACKWARD)


def lstm(
    gates: Tensor,
    recurrent: Tensor,
    peephole: Tensor | None,
    lengths: Tensor | None,
    cell: Tensor | None,
    precision: str,
) -> tuple[Tensor, Tensor]:
    """Output and cells.

    Args:
        gates: (B, T, D, 4 H), contiguous, as all are; no axis is empty. The projections of the
            input, with those of the initial hidden state where a sequence begins; the activated
            gates take their place.
        recurrent: (D, 4 H, H).
        peephole: (D, 3, H), of i, f and o, or None.
        lengths: (B,) of int64, or None.
        cell: (D, B, H) in float32, or None for 0.
        precision: `input_precision` of the products.

    Returns:
        (B, T, D, H) in the type of `gates` and in float32, both 0 behind the lengths.
    """
    batch, steps, directions, _ = gates.shape
    hidden = recurrent.shape[2]
    config = FORWARD.config(gates.device, precision=precision)
    sizes = (batch, steps, hidden, directions, _given(lengths, peephole, cell))
    output = launch.empty((batch, steps, directions, hidden), gates)
    cells = launch.empty(output.shape, gates, torch.float32)
    weight = _packed(recurrent.unflatten(1, (4, hidden)).mT, config)
    _walk(
        FORWARD, gates, weight, *_or_empty(gates, peephole, lengths, cell), output, cells,
        sizes=sizes, config=config, precision=precision,
    )  # fmt: skip
    return output, cells


def lstm_backward(
    of_output: Tensor,
    of_hidden: Tensor | None,
    of_cell: Tensor | None,
    recurrent: Tensor,
    peephole: Tensor | None,
    lengths: Tensor | None,
    cell: Tensor | None,
    cells: Tensor,
    gates: Tensor,
    precision: str,
) -> tuple[Tensor, Tensor]:
    """The gradients of the projections and of the initial cell.

    Args:
        of_output: (B, T, D, H).
        of_hidden: (D, B, H), of the last hidden state, or None.
        of_cell: (D, B, H), of the last cell, or None.
        recurrent: as in the forward, and so are the others.
        peephole: (D, 3, H), or None.
        lengths: (B,) of int64, or None.
        cell: (D, B, H) in float32, or None.
        cells: (B, T, D, H), a result of the forward.
        gates: (B, T, D, 4 H), likewise.
        precision: `input_precision` of the products.

    Returns:
        (B, T, D, 4 H), 0 behind the lengths, and (D, B, H) in float32.
    """
    batch, steps, directions, hidden = cells.shape
    config = BACKWARD.config(gates.device, precision=precision)
    sizes = (batch, steps, hidden, directions, _given(lengths, peephole, cell, of_hidden))
    slopes = launch.empty(gates.shape, gates)
    carry = launch.empty((directions, batch, hidden), cells)
    carry.zero_() if of_cell is None else carry.copy_(of_cell)
    weight = _packed(recurrent.unflatten(1, (4, hidden)), config)
    ends = of_output if of_hidden is None else of_hidden
    _walk(
        BACKWARD, of_output, ends, carry, weight, *_or_empty(gates, peephole, lengths, cell),
        cells, gates, slopes,
        sizes=sizes, config=config, precision=precision,
    )  # fmt: skip
    return slopes, carry


def _walk(
    kernel: launch.Kernel,
    *tensors: Tensor,
    sizes: tuple[int, ...],
    config: launch.Config,
    precision: str,
) -> None:
    """Launch a kernel for all steps at once, or for each step where the hidden size is large."""
    batch, steps, hidden, directions = sizes[:4]
    programs = directions * launch.blocks(batch, config["ROWS"])
    parts = 1 if hidden <= _ONE_LAUNCH else launch.blocks(hidden, config["UNITS"])
    stride = steps if parts == 1 else 1
    for first in range(0, steps, stride):
        kernel.launch(
            programs * parts, *tensors, *sizes, first, first + stride, parts,
            config=config, PRECISION=precision,
        )  # fmt: skip


def _packed(weight: Tensor, config: launch.Config) -> Tensor:
    """Weights (D, 4, H, H) by gate, term and unit, with zeros up to whole tiles."""
    directions, gates, terms, units = weight.shape
    deep = launch.blocks(terms, config["DEPTH"]) * config["DEPTH"]
    wide = launch.blocks(units, config["UNITS"]) * config["UNITS"]
    packed = weight.new_zeros(directions, gates, deep, wide)
    packed[:, :, :terms, :units] = weight
    return packed


def _or_empty(
    like: Tensor, peephole: Tensor | None, lengths: Tensor | None, cell: Tensor | None
) -> tuple[Tensor, Tensor, Tensor]:
    """The tensors, one of nothing for None."""
    none = like.new_empty(0)
    return (
        none if peephole is None else peephole,
        like.new_empty(0, dtype=torch.int64) if lengths is None else lengths,
        none if cell is None else cell,
    )


def _given(*tensors: Tensor | None) -> int:
    """The bits of lengths, peepholes, initial cell and gradient of the last output."""
    return sum(1 << n for n, x in enumerate(tensors) if x is not None)
