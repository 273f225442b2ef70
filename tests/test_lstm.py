"""The recurrent layer's mathematics: the definition, gradients, padding, types."""

from itertools import product

import pytest
import torch
from conftest import assert_near, noise, relative_error

from sepfast.reference import lstm, lstm_backward, lstm_gates, lstm_gradients, lstm_states

OPTIONS = ("peephole", "lengths", "states", "bias")


def made(batch=3, steps=5, features=4, size=3, directions=2, scale=0.5, without=()):
    """The arguments of `lstm` in their order; None for the options that it is made without."""
    args = {
        "input": noise(batch, steps, features, seed=0),
        "weight": noise(directions, 4 * size, features, seed=1) * scale,
        "recurrent": noise(directions, 4 * size, size, seed=2) * scale,
        "bias": noise(directions, 4 * size, seed=3) * scale,
        "peephole": noise(directions, 3, size, seed=4) * scale,
        "lengths": torch.tensor([steps, max(steps - 3, 0), 0, 1])[torch.arange(batch) % 4],
        "hidden": noise(directions, batch, size, seed=5),
        "cell": noise(directions, batch, size, seed=6),
    }
    for option in without:
        for name in {"states": ("hidden", "cell")}.get(option, (option,)):
            args[name] = None
    return list(args.values())


def by_definition(input, weight, recurrent, bias, peephole, lengths, hidden, cell):
    """Sequence by sequence, direction by direction, step by step."""
    batch, steps, _ = input.shape
    directions, size = len(weight), recurrent.shape[-1]
    counts = [steps] * batch if lengths is None else lengths.tolist()
    zeros = input.new_zeros(size)
    rows, ends = [], []
    for b, d in product(range(batch), range(directions)):
        h, c = (zeros if x is None else x[d, b] for x in (hidden, cell))
        p = input.new_zeros(3, size) if peephole is None else peephole[d]
        row = [zeros] * steps
        for t in range(counts[b]) if d == 0 else reversed(range(counts[b])):
            sums = weight[d] @ input[b, t] + recurrent[d] @ h
            i, f, g, o = (sums if bias is None else sums + bias[d]).chunk(4)
            i, f = torch.sigmoid(i + p[0] * c), torch.sigmoid(f + p[1] * c)
            c = f * c + i * torch.tanh(g)
            h = torch.sigmoid(o + p[2] * c) * torch.tanh(c)
            row[t] = h
        rows.append(torch.stack(row))
        ends.append(torch.stack((h, c)))
    output = torch.stack(rows).unflatten(0, (batch, directions)).transpose(1, 2).flatten(2)
    h, c = torch.stack(ends).unflatten(0, (batch, directions)).permute(2, 1, 0, 3)
    return output, h, c


def outcome(function, args, used=(True, True, True)):
    """Results, and gradients of the floats among the arguments."""
    leaves = [
        x.detach().requires_grad_() if x is not None and x.is_floating_point() else x for x in args
    ]
    out = function(*leaves)
    chosen = [x for x, use in zip(out, used, strict=True) if use]
    loss = sum((x * noise(*x.shape, seed=9).to(x)).sum() for x in chosen)
    wanted = [x for x in leaves if x is not None and x.is_floating_point()]
    return out, torch.autograd.grad(loss, wanted, materialize_grads=True)


class ByHand(torch.autograd.Function):
    """`lstm` with the gradient that is derived by hand."""

    @staticmethod
    def forward(ctx, *args):
        output, h, c, cells, gates = lstm_states(*args)
        kept = [x for i, x in enumerate(args) if i != 3]
        ctx.biased = args[3] is not None
        ctx.save_for_backward(*kept, output, cells, gates)
        ctx.set_materialize_grads(False)
        return output, h, c

    @staticmethod
    def backward(ctx, of_output, of_hidden, of_cell):
        kept = ctx.saved_tensors
        of_output = torch.zeros_like(kept[-3]) if of_output is None else of_output
        grads = lstm_backward(of_output, of_hidden, of_cell, *kept)
        bias = grads.bias if ctx.biased else None
        return *grads[:3], bias, grads.peephole, None, grads.hidden, grads.cell


def every_option():
    """Both numbers of directions with every choice of options."""
    for directions, *there in product((1, 2), *[(False, True)] * 4):
        without = tuple(name for name, use in zip(OPTIONS, there, strict=True) if not use)
        yield pytest.param(directions, without, id=f"{directions}-{'-'.join(without) or 'all'}")


@pytest.mark.parametrize(("directions", "without"), list(every_option()))
def test_reference_is_the_definition_and_so_is_its_gradient(directions, without):
    args = made(directions=directions, without=without)
    true, true_grads = outcome(by_definition, args)
    for function in (lstm, ByHand.apply):
        out, grads = outcome(function, args)
        for x, expected in zip((*out, *grads), (*true, *true_grads), strict=True):
            assert_near(x, expected, 1e-13)


@pytest.mark.parametrize("used", [(True, False, False), (False, True, False), (False, False, True)])
def test_any_result_may_go_unused(used):
    args = made()
    true, found = (outcome(function, args, used)[1] for function in (by_definition, ByHand.apply))
    for x, expected in zip(found, true, strict=True):
        assert_near(x, expected, 1e-13)


@pytest.mark.parametrize("without", [(), OPTIONS], ids=["all", "none"])
def test_gradient_is_that_of_finite_differences(without):
    args = made(batch=3, steps=4, features=2, size=2, without=without)
    leaves = [x if x is None or not x.is_floating_point() else x.requires_grad_() for x in args]
    assert torch.autograd.gradcheck(ByHand.apply, leaves, fast_mode=True)


@pytest.mark.parametrize("without", [(), OPTIONS], ids=["all", "none"])
@pytest.mark.parametrize("directions", [1, 2])
def test_gates_are_restored_from_outputs_and_cells(directions, without):
    args = made(directions=directions, without=without)
    output, _, _, cells, gates = lstm_states(*args)
    torch.testing.assert_close(lstm_gates(*args, output, cells), gates, rtol=1e-13, atol=1e-14)


def test_padding_may_be_anything():
    args = made(batch=4)
    lengths = args[5]
    padding = torch.arange(5) >= lengths[:, None]
    broken = args[0].clone()
    broken[padding] = torch.tensor([torch.nan, torch.inf, -torch.inf, 1e300]).double()
    clean = args[0].masked_fill(padding[..., None], 0)
    kept = lstm_states(clean, *args[1:])
    found = lstm_states(broken, *args[1:])
    assert all(map(torch.equal, kept, found))
    assert torch.equal(
        lstm_gates(clean, *args[1:], kept[0], kept[3]),
        lstm_gates(broken, *args[1:], kept[0], kept[3]),
    )
    assert not any(x[padding].any() for x in (found[0], found[3], found[4]))

    of_output = noise(*kept[0].shape, seed=7)
    rest = *args[1:3], *args[4:], kept[0], *kept[3:]
    expected = lstm_backward(of_output, None, None, clean, *rest)
    of_output[padding] = torch.nan
    grads = lstm_backward(of_output, None, None, broken, *rest)
    assert all(map(torch.equal, grads, expected))
    assert not grads.input[padding].any()
    leaf = broken.requires_grad_()
    (by_autograd,) = torch.autograd.grad(lstm(leaf, *args[1:])[0], leaf, of_output)
    assert_near(by_autograd, expected.input, 1e-13)
    assert not by_autograd[padding].any()


def test_a_sequence_without_steps_keeps_its_states():
    args = made()
    _, h, c = lstm(*args)
    assert args[5][2] == 0
    assert torch.equal(h[:, 2], args[6][:, 2])
    assert torch.equal(c[:, 2], args[7][:, 2])


def test_lengths_are_integers_of_any_type_and_end_with_the_steps():
    args = made()
    expected = lstm(*args)
    for lengths in ([5, 2, 0], torch.tensor([5, 2, 0], dtype=torch.uint8), [2**40, 2, -7]):
        args[5] = torch.as_tensor(lengths)
        assert all(map(torch.equal, lstm(*args), expected))


@pytest.mark.parametrize("empty", ["batch", "steps"])
@pytest.mark.parametrize("without", [(), OPTIONS], ids=["all", "none"])
def test_nothing_is_nothing(empty, without):
    args = made(**{empty: 0}, without=without)
    for function in (lstm, ByHand.apply):
        (output, h, c), grads = outcome(function, args)
        assert output.shape == (*args[0].shape[:2], 6)
        assert h.shape == c.shape == (2, len(args[0]), 3)
        assert all(
            torch.equal(x, y) for x, y in zip((h, c), args[6:], strict=True) if y is not None
        )
        assert not any(grad.any() for grad in grads[:3])
    cells, gates = lstm_states(*args)[3:]
    assert cells.shape == (*args[0].shape[:2], 2, 3)
    assert gates.shape == lstm_gates(*args, output, cells).shape == (*args[0].shape[:2], 2, 12)


def test_sizes_of_one():
    args = made(batch=1, steps=1, features=1, size=1, directions=1)
    for function in (lstm, ByHand.apply):
        for x, expected in zip(
            *(outcome(f, args)[0] for f in (function, by_definition)), strict=True
        ):
            assert_near(x, expected, 1e-13)


def narrowed(dtype):
    """Arguments in a type, and the same numbers in float64."""
    args = made(batch=4, steps=20, features=17, size=15, scale=0.25)
    narrow = [x.to(dtype) if x.is_floating_point() else x for x in args]
    return narrow, [x.double() if x.is_floating_point() else x for x in narrow]


def test_single_precision_is_no_worse_than_twice_that_of_the_definition():
    narrow, wide = narrowed(torch.float32)
    true, usual = (sum(outcome(by_definition, args), ()) for args in (wide, narrow))
    for function in (lstm, ByHand.apply):
        found = sum(outcome(function, narrow), ())
        for x, expected, other in zip(found, true, usual, strict=True):
            assert x.dtype == torch.float32
            errors = (relative_error(y.detach(), expected.detach()) for y in (x, other))
            assert next(errors) < 2 * next(errors)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16], ids=str)
def test_half_types_are_within_their_rounding(dtype):
    narrow, wide = narrowed(dtype)
    narrow[7] = narrow[7].float()  # as a cell is that a call before gave
    rounding = torch.finfo(dtype).eps
    results = lstm_states(*narrow)
    assert [x.dtype for x in results] == [dtype, dtype, torch.float32, torch.float32, dtype]
    for x, expected in zip(results, lstm_states(*wide), strict=True):
        assert relative_error(x, expected) < rounding
    gates = lstm_gates(*narrow, results[0], results[3])
    assert gates.dtype == dtype
    assert relative_error(gates, results[4]) < rounding

    (_, true), (_, found) = (outcome(ByHand.apply, x) for x in (wide, narrow))
    floats = [x for x in narrow if x.is_floating_point()]
    for x, expected, of in zip(found, true, floats, strict=True):
        assert x.dtype == of.dtype
        assert relative_error(x, expected) < rounding


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16], ids=str)
def test_products_behind_the_walk_are_taken_in_the_type_of_the_slopes(dtype):
    (input, *rest), wide = narrowed(dtype)
    slopes = noise(4, 20, 2, 60, seed=7) * (torch.arange(20) < rest[4][:, None])[..., None, None]
    first, of_hidden = noise(2, 4, 15, seed=8), noise(2, 4, 15, seed=9)
    output, _, _, cells, _ = lstm_states(input, *rest)
    narrow = *(x.to(dtype) for x in (slopes, of_hidden)), first.float(), input
    true = (x.double() for x in narrow)
    inputs = *wide[1:3], *wide[4:]
    expected = lstm_gradients(*true, *inputs, output.double(), cells.double())
    found = lstm_gradients(*narrow, *rest[:2], *rest[3:], output, cells)
    for x, y in zip(found, expected, strict=True):
        assert x.dtype == dtype
        assert relative_error(x, y) < torch.finfo(dtype).eps


def test_a_sequence_may_be_walked_in_parts():
    narrow, _ = narrowed(torch.bfloat16)
    input, (*weights, _, hidden, cell) = narrow[0], (x[:1] for x in narrow[1:])
    states = hidden.expand(1, 4, 15), cell.expand(1, 4, 15)
    whole, *ends = lstm(input, *weights, None, *states)
    parts = []
    for part in input.split(7, 1):
        output, *states = lstm(part, *weights, None, *states)
        parts.append(output)
    assert_near(torch.cat(parts, 1), whole, 1e-6)
    for x, expected in zip(states, ends, strict=True):
        assert_near(x, expected, 1e-6)


def test_the_cell_stays_exact_where_the_output_is_rounded():
    """A cell that counts to 1000 by gates that are wide open: bfloat16 would stop at 256."""
    args = made(batch=1, steps=1000, features=1, size=1, directions=1, without=OPTIONS)
    args[3] = torch.full((1, 4), 50.0)
    narrow = [None if x is None else torch.zeros_like(x, dtype=torch.bfloat16) for x in args[:3]]
    _, _, cell = lstm(*narrow, args[3].bfloat16())
    assert float(cell) == 1000
