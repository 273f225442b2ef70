"""The layer `LSTM`: PyTorch's own with peepholes and lengths."""

import copy
import io
import pickle

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
