"""The recurrent layer: the definition, PyTorch's own, padding, and other libraries' layouts."""

import copy
import io
import pickle
from itertools import product

import numpy as np
import pytest
import torch
from conftest import assert_near, noise, relative_error
from torch import nn
from torch.nn.utils import parametrizations
from torch.nn.utils.rnn import (
    PackedSequence,
    pack_padded_sequence,
    pack_sequence,
    pad_packed_sequence,
)

from sepfast import InputError, reference
from sepfast.reference import lstm, lstm_backward, lstm_gates, lstm_gradients, lstm_states
from sepfast.reference.lstm_layouts import (
    LSTMWeights,
    bidirectional,
    from_onnx,
    from_tensorflow,
    from_torch,
    load_layer,
)

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
    loss = sum((x * noise(*x.shape, seed=9).to(x)).sum() for x, use in zip(out, used) if use)  # noqa: B905
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


# The layer.


def pair(layers=2, **options):
    """`nn.LSTM` and the layer with its weights, in float64."""
    torch.manual_seed(0)
    plain = nn.LSTM(4, 3, layers, **options).double()
    layer = reference.LSTM(4, 3, layers, **options).double()
    layer.load_state_dict(plain.state_dict())
    return plain, layer


def assert_same(plain, layer, *args):
    """Results and all gradients; of what `nn.LSTM` gives for the arguments."""
    inputs = [x.requires_grad_() for x in args if isinstance(x, torch.Tensor)]
    outcomes = []
    for module in (plain, layer):
        output, (h, c) = module(*args)
        results = output.data if isinstance(output, PackedSequence) else output, h, c
        loss = sum((x * noise(*x.shape, seed=9)).sum() for x in results)
        leaves = [*module.parameters(), *inputs]
        outcomes.append((*results, *torch.autograd.grad(loss, leaves)))
    for x, expected in zip(*reversed(outcomes), strict=True):
        assert_near(x, expected, 1e-12)


@pytest.mark.parametrize("layers", [1, 2, 3])
@pytest.mark.parametrize("both", [False, True], ids=["one", "both"])
@pytest.mark.parametrize("batch_first", [False, True])
@pytest.mark.parametrize("bias", [False, True])
def test_layer_is_that_of_pytorch(layers, both, batch_first, bias):
    pairs = pair(layers, bidirectional=both, batch_first=batch_first, bias=bias)
    ends = layers * (1 + both)
    x = noise(2, 5, 4) if batch_first else noise(5, 2, 4)
    assert_same(*pairs, x)
    assert_same(*pairs, x, (noise(ends, 2, 3, seed=1), noise(ends, 2, 3, seed=2)))
    assert_same(*pairs, noise(5, 4), (noise(ends, 3, seed=1), noise(ends, 3, seed=2)))


@pytest.mark.parametrize("given", [False, True], ids=["zeros", "states"])
@pytest.mark.parametrize("kind", ["sorted", "unsorted", "sequence"])
def test_packed_sequences_keep_their_order(kind, given):
    pairs = pair(bidirectional=True)
    if kind == "sequence":
        packed = pack_sequence([noise(n, 4, seed=n) for n in (3, 5, 3, 1)], enforce_sorted=False)
    else:
        lengths = torch.tensor([5, 3, 3, 1] if kind == "sorted" else [3, 1, 5, 3])
        packed = pack_padded_sequence(noise(5, 4, 4), lengths, enforce_sorted=kind == "sorted")
    states = (noise(4, 4, 3, seed=1), noise(4, 4, 3, seed=2)) if given else None
    assert_same(*pairs, packed, states)
    expected, found = (module(packed, states)[0] for module in pairs)
    for name in ("batch_sizes", "sorted_indices", "unsorted_indices"):
        torch.testing.assert_close(getattr(found, name), getattr(expected, name))


def test_lengths_are_what_packing_says():
    _, layer = pair(bidirectional=True, batch_first=True)
    x, lengths = noise(4, 5, 4), torch.tensor([3, 1, 5, 3])
    packed = pack_padded_sequence(x, lengths, batch_first=True, enforce_sorted=False)
    there, states = layer(packed)
    output, ends = layer(x, lengths=lengths)
    torch.testing.assert_close(output, pad_packed_sequence(there, batch_first=True)[0])
    torch.testing.assert_close(ends, states)


def test_dropout_is_between_layers_and_in_training_alone():
    torch.manual_seed(0)
    layer = reference.LSTM(4, 64, 2, dropout=0.5)
    x, seen = noise(5, 2, 4).float(), []
    whole = reference.LSTM.layer

    def watched(self, index, input, *rest):
        seen.append(input)
        return whole(self, index, input, *rest)

    layer.layer = watched.__get__(layer)
    layer(x)
    assert torch.equal(seen[0], x.transpose(0, 1))
    assert 0.4 < float((seen[1] == 0).float().mean()) < 0.6
    layer.eval()(x)
    assert not (seen[3] == 0).any()
    with pytest.warns(UserWarning, match="between layers"):
        reference.LSTM(4, 3, dropout=0.5)


@pytest.mark.parametrize("peephole", [False, True])
def test_layer_can_be_kept_copied_and_moved(peephole):
    options = {"num_layers": 2, "bidirectional": True, "peephole": peephole}
    torch.manual_seed(0)
    layer = reference.LSTM(4, 3, **options)
    x = torch.randn(5, 2, 4)
    expected = layer(x)[0]
    other = reference.LSTM(4, 3, **options)
    assert not torch.equal(other(x)[0], expected)
    other.load_state_dict(layer.state_dict())
    file = io.BytesIO()
    torch.save(layer, file)
    file.seek(0)
    for kept in (
        other,
        copy.deepcopy(layer),
        pickle.loads(pickle.dumps(layer)),
        torch.load(file, weights_only=False),
    ):
        assert torch.equal(kept(x)[0], expected)
        assert not {*kept.parameters()} & {*layer.parameters()}
    assert layer.double()(x.double())[0].dtype == torch.float64
    assert reference.LSTM(4, 3, device="meta", dtype=torch.bfloat16).weight_ih_l0.is_meta


def test_layer_starts_as_that_of_pytorch_does():
    torch.manual_seed(0)
    plain = nn.LSTM(4, 3, 2, bidirectional=True)
    torch.manual_seed(0)
    layer = reference.LSTM(4, 3, 2, bidirectional=True)
    assert list(plain.state_dict()) == list(layer.state_dict())
    assert all(map(torch.equal, plain.parameters(), layer.parameters()))
    assert [len(x) for x in layer.all_weights] == [len(x) for x in plain.all_weights]
    peeping = reference.LSTM(4, 100, peephole=True).weight_ph_l0
    assert peeping.shape == (3, 100)
    assert 0.09 < float(peeping.detach().abs().max()) <= 0.1
    assert (
        str(reference.LSTM(4, 3, 2, batch_first=True))
        == "LSTM(4, 3, num_layers=2, batch_first=True)"
    )


def test_parametrizations_act_on_the_layer():
    layer = reference.LSTM(4, 3, peephole=True).double()
    x = noise(5, 2, 4)
    before = layer(x)[0].detach()
    parametrizations.weight_norm(layer, "weight_hh_l0")
    torch.testing.assert_close(layer(x)[0], before)
    layer.parametrizations.weight_hh_l0.original0.data.mul_(2)
    assert relative_error(layer(x)[0].detach(), before) > 1e-3
    layer(x)[0].sum().backward()
    assert layer.parametrizations.weight_hh_l0.original0.grad.any()


class Encoder(nn.Module):
    """A model with the layer in it: `torch.compile` refuses an `nn.LSTM` there, not on its own."""

    def __init__(self):
        super().__init__()
        self.inner = reference.LSTM(4, 3, bidirectional=True, peephole=True).double()

    def forward(self, x, lengths):
        return self.inner(x, lengths=lengths)


def test_layer_is_compiled_in_one_graph():
    model, args = Encoder(), (noise(3, 2, 4), torch.tensor([3, 1]))
    compiled = torch.compile(model, fullgraph=True, backend="eager")
    torch.testing.assert_close(compiled(*args), model(*args))


def test_autocast_lowers_products_but_not_the_cell():
    _, layer = pair(bidirectional=True)
    layer, x = layer.float(), noise(5, 2, 4).float()
    expected = layer(x)[0]
    with torch.autocast("cpu", torch.bfloat16):
        output, (_, cell) = layer(x)
    output.sum().backward()
    assert cell.dtype == torch.float32
    assert 0 < relative_error(output.detach(), expected.detach()) < torch.finfo(torch.bfloat16).eps


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"hidden_size": 0}, "hidden_size: got 0, takes 1 or more"),
        ({"num_layers": 0}, "num_layers: got 0, takes 1 or more"),
        ({"proj_size": 2}, "proj_size: got 2, takes 0"),
        ({"dropout": 1.5}, "dropout: got 1.5, takes 0 to 1"),
    ],
)
def test_options_that_are_none(options, message):
    with pytest.raises(InputError, match=message):
        reference.LSTM(**{"input_size": 4, "hidden_size": 3} | options)


def test_inputs_that_do_not_fit():
    layer = reference.LSTM(4, 3)
    x, two = torch.rand(5, 2, 4), torch.tensor([5, 5])
    wrong = {
        "input: got 1 axes, takes 3": (x[0, 0],),
        "input: got 3 features a step, takes 4": (x[..., :3],),
        r"input: got torch.float64, takes torch.float32": (x.double(),),
        r"hx\[1\]: got shape \(2, 2, 3\), takes \(1, 2, 3\)": (
            x,
            (torch.rand(1, 2, 3), torch.rand(2, 2, 3)),
        ),
        r"hx\[0\]: got 3 axes, takes 2": (x[:, 0], (torch.rand(1, 1, 3), torch.rand(1, 1, 3))),
        r"lengths: got torch.int64 of shape \(1,\), takes integers of shape \(2,\)": (
            x,
            None,
            two[:1],
        ),
        "lengths: got torch.float32": (x, None, two.float()),
        "lengths: got a tensor, takes None for an input": (x[:, 0], None, two),
        "lengths: got a tensor, takes None for packed": (pack_sequence([x[:, 0]]), None, two),
    }
    for message, args in wrong.items():
        with pytest.raises(InputError, match=message):
            layer(*args)


# Other libraries' layouts, against their own equations.


def sigmoid(x):
    return 1 / (1 + np.exp(-x))


def by_tensorflow(x, kernel, bias, peepholes, forget_bias):
    """`LSTMBlockCell` over the steps (T, I): [x, h'] @ kernel + bias is i, c, f, o."""
    w_i, w_f, w_o = peepholes
    h = c = np.zeros(len(w_i))
    outputs = []
    for step in x:
        i, j, f, o = np.split(np.concatenate((step, h)) @ kernel + bias, 4)
        c = sigmoid(f + forget_bias + w_f * c) * c + sigmoid(i + w_i * c) * np.tanh(j)
        h = sigmoid(o + w_o * c) * np.tanh(c)
        outputs.append(h)
    return np.stack(outputs)


def by_onnx(x, W, R, B, P):
    """ONNX's `LSTM` over the steps (T, I), one direction: gates i, o, f, c, peepholes i, o, f."""
    size = R.shape[1]
    w_i, w_o, w_f, w_c = W.reshape(4, size, -1)
    r_i, r_o, r_f, r_c = R.reshape(4, size, size)
    wb, rb = B.reshape(2, 4, size)
    p_i, p_o, p_f = P.reshape(3, size)
    h = c = np.zeros(size)
    outputs = []
    for step in x:
        i = sigmoid(step @ w_i.T + h @ r_i.T + p_i * c + wb[0] + rb[0])
        f = sigmoid(step @ w_f.T + h @ r_f.T + p_f * c + wb[2] + rb[2])
        c = f * c + i * np.tanh(step @ w_c.T + h @ r_c.T + wb[3] + rb[3])
        o = sigmoid(step @ w_o.T + h @ r_o.T + p_o * c + wb[1] + rb[1])
        h = o * np.tanh(c)
        outputs.append(h)
    return np.stack(outputs)


@pytest.mark.parametrize("peeping", [False, True])
@pytest.mark.parametrize("forget_bias", [1.0, 0.0])
def test_layout_of_tensorflow(peeping, forget_bias):
    draw = np.random.default_rng(0).standard_normal
    x, cells = draw((6, 5)), [(draw((5 + 4, 16)), draw(16), draw((3, 4))) for _ in range(2)]
    directions, expected = [], []
    for order, (kernel, bias, peepholes) in zip((1, -1), cells, strict=True):
        given = list(peepholes) if peeping else None
        directions.append(from_tensorflow(kernel, bias, given, forget_bias))
        true = by_tensorflow(x[::order], kernel, bias, peepholes * peeping, forget_bias)
        expected.append(true[::order])
    output = lstm(torch.from_numpy(x)[None], *bidirectional(*directions))[0]
    np.testing.assert_allclose(output[0], np.concatenate(expected, 1), rtol=1e-12)


@pytest.mark.parametrize("plain", [False, True])
def test_layout_of_onnx(plain):
    draw = np.random.default_rng(0).standard_normal
    x, W, R, B, P = draw((6, 5)), draw((2, 16, 5)), draw((2, 16, 4)), draw((2, 32)), draw((2, 12))
    if plain:
        weights, B, P = from_onnx(W, R), B * 0, P * 0
        assert weights.bias is weights.peephole is None
    else:
        weights = from_onnx(W, R, B, P)
    first = by_onnx(x, W[0], R[0], B[0], P[0])
    second = by_onnx(x[::-1], W[1], R[1], B[1], P[1])[::-1]
    output = lstm(torch.from_numpy(x)[None], *weights)[0]
    np.testing.assert_allclose(output[0], np.concatenate((first, second), 1), rtol=1e-12)


def test_layout_of_pytorch():
    plain, layer = pair(bidirectional=True, batch_first=True)
    x = noise(2, 5, 4)
    first = lstm(x, *from_torch(plain))[0]
    second = lstm(first, *from_torch(plain.state_dict(), 1))[0]
    assert_near(second, plain(x)[0], 1e-12)
    assert_near(second, layer(x)[0], 1e-12)
    with pytest.raises(InputError, match="layer: got 2"):
        from_torch(plain, 2)
    with pytest.raises(InputError, match="with projections"):
        from_torch(nn.LSTM(4, 3, proj_size=2))


@pytest.mark.parametrize("peephole", [False, True])
def test_weights_are_loaded_into_a_layer(peephole):
    layer = reference.LSTM(4, 3, 2, bidirectional=True, batch_first=True, peephole=peephole)
    layer.double()
    _, weight, recurrent, bias, peepholes, *_ = made(features=6)
    weights = LSTMWeights(weight, recurrent, bias, peepholes if peephole else None)
    load_layer(layer, weights, 1)
    for x, expected in zip(layer.weights(1), weights, strict=True):
        assert x is expected is None or torch.equal(x, expected)
    if not peephole:
        plain = nn.LSTM(4, 3, 2, bidirectional=True).double()
        load_layer(plain, weights, 1)
        assert torch.equal(plain.bias_ih_l1_reverse, bias[1])
    kept = copy.deepcopy(layer.state_dict())
    for wrong in (
        weights._replace(recurrent=weight),
        weights._replace(weight=weight[:1]),
        weights._replace(weight=weight + 1, peephole=noise(2, 3, 4)),
    ):
        with pytest.raises(InputError, match="weights"):
            load_layer(layer, wrong, 1)
    assert all(map(torch.equal, kept.values(), layer.state_dict().values()))
    load_layer(layer, weights._replace(bias=None), 1)
    assert not layer.weights(1).bias.any()


def test_arrays_that_do_not_fit():
    draw = np.ones
    wrong = {
        r"kernel: got shape \(4, 16\), takes \(I \+ H, 4 H\)": lambda: from_tensorflow(
            draw((4, 16)), draw(16)
        ),
        r"kernel: got shape \(9, 15\)": lambda: from_tensorflow(draw((9, 15)), draw(15)),
        r"bias: got shape \(4,\), takes \(16,\)": lambda: from_tensorflow(draw((9, 16)), draw(4)),
        "peepholes: got 2, takes 3": lambda: from_tensorflow(draw((9, 16)), draw(16), draw((2, 4))),
        r"W: got shape \(16, 5\), takes \(D, 4 H, I\)": lambda: from_onnx(
            draw((16, 5)), draw((16, 4))
        ),
        r"R: got shape \(1, 16, 5\)": lambda: from_onnx(draw((1, 16, 5)), draw((1, 16, 5))),
        r"B: got shape \(1, 16\), takes \(1, 32\)": lambda: from_onnx(
            draw((1, 16, 5)), draw((1, 16, 4)), draw((1, 16))
        ),
        r"P: got shape \(1, 16\), takes \(1, 12\)": lambda: from_onnx(
            draw((1, 16, 5)), draw((1, 16, 4)), None, draw((1, 16))
        ),
    }
    for message, call in wrong.items():
        with pytest.raises(InputError, match=message):
            call()
