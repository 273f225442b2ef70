"""Weights of an LSTM in other libraries' layouts, against their own equations."""

import copy

import numpy as np
import pytest
import torch
from conftest import assert_near, noise
from test_lstm import made
from test_lstm_layer import pair
from torch import nn

from sepfast import InputError, reference
from sepfast.reference import lstm
from sepfast.reference.lstm_layouts import (
    LSTMWeights,
    bidirectional,
    from_onnx,
    from_tensorflow,
    from_torch,
    load_layer,
)


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
