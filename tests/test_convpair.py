"""The convolution pairs as operators: what the contract does not know of them."""

import pytest
import torch
import torch.nn.functional as F
from conftest import assert_near, noise
from contract import launches

from sepfast import InputError, ops, use_backend

#: Batch, C, T, F, N1, N2, t2; N1 and N2 pass a tile's columns, rows and products a tile's depth.
SIZES = [
    (1, 1, 1, 1, 1, 1, 1),
    (2, 1, 4, 33, 5, 3, 4),
    (3, 2, 7, 65, 66, 4, 2),
    (1, 3, 40, 17, 3, 34, 9),
    (5, 2, 6, 31, 17, 33, 3),
]


def _pair(sizes, wide=0, sources=0):
    """Input, weights and biases of a conv pair, or of deconv pairs; `wide` more bins than f1."""
    batch, c, t, f, n1, n2, span = sizes
    lead = (sources,) if sources else ()
    shapes = [(*lead, n1, c, 1, f), (*lead, n1), (*lead, n2, n1, span, 1), (*lead, n2)]
    if sources:
        codes = (batch, sources, n2, t - span + 1, 1 + wide)
        shapes = [codes, shapes[2], (sources, n1), shapes[0], (sources, c)]
    else:
        shapes = [(batch, c, t, f + wide), *shapes]
    return [noise(*shape, seed=seed) for seed, shape in enumerate(shapes)]


def _plain(args):
    x, vertical, vertical_bias, horizontal, horizontal_bias = args
    return F.conv2d(F.conv2d(x, vertical, vertical_bias), horizontal, horizontal_bias)


def _plain_transposed(args):
    """Source by source, of (B, S, ...)."""
    codes, *weights = args
    outs = []
    for s in range(codes.shape[1]):
        first, first_bias, second, second_bias = (w if w is None else w[s] for w in weights)
        features = F.conv_transpose2d(codes[:, s], first, first_bias)
        outs.append(F.conv_transpose2d(features, second, second_bias))
    return torch.stack(outs, 1)


def _outcome(function, args):
    """The result, and the gradients of all arguments."""
    leaves = [x if x is None else x.detach().requires_grad_() for x in args]
    out = function(leaves)
    wanted = [x for x in leaves if x is not None]
    return [out.detach(), *torch.autograd.grad(out, wanted, noise(*out.shape, seed=9).to(out))]


def _hold(place, operator, function, plain, args):
    true = _outcome(plain, args)
    ours = _outcome(function, [x if x is None else place.put(x) for x in args])
    for stage, out, expected in zip(["forward"] + ["backward"] * 5, ours, true, strict=False):
        assert_near(out, expected, place.bound(operator, stage))


@pytest.mark.parametrize("sizes", SIZES, ids=str)
def test_conv_pair_is_two_convolutions(place, sizes):
    _hold(place, "conv_pair", lambda args: ops.conv_pair(*args), _plain, _pair(sizes))


@pytest.mark.parametrize("sizes", SIZES, ids=str)
@pytest.mark.parametrize("sources", [1, 3])
def test_deconv_pair_is_two_deconvolutions_a_source(place, sizes, sources):
    args = _pair(sizes, sources=sources)
    _hold(place, "deconv_pair", lambda args: ops.deconv_pair(*args), _plain_transposed, args)


@pytest.mark.parametrize("missing", [(2,), (4,), (2, 4)], ids=str)
def test_biases_may_be_missing(place, missing):
    def without(args):
        return [None if at in missing else x for at, x in enumerate(args)]

    args = without(_pair(SIZES[1]))
    _hold(place, "conv_pair", lambda args: ops.conv_pair(*args), _plain, args)
    args = without(_pair(SIZES[1], sources=2))
    _hold(place, "deconv_pair", lambda args: ops.deconv_pair(*args), _plain_transposed, args)


def test_one_pair_needs_no_axis_of_sources(place):
    args = [place.put(x) for x in _pair(SIZES[2], sources=1)]
    out = ops.deconv_pair(args[0][:, 0], *(x[0] for x in args[1:]))
    assert torch.equal(out, ops.deconv_pair(*args)[:, 0])


def test_filters_that_leave_several_bins_run_in_pytorch(kernels):
    """As anyone's might; the gradients by hand hold there too."""
    with use_backend("reference"):
        place = kernels._replace(device="cpu", dtype=torch.float64)
        args = _pair(SIZES[1], wide=4)
        _hold(place, "conv_pair", lambda args: ops.conv_pair(*args), _plain, args)
        args = _pair(SIZES[1], wide=4, sources=2)
        _hold(place, "deconv_pair", lambda args: ops.deconv_pair(*args), _plain_transposed, args)
    args = [kernels.put(x) for x in _pair(SIZES[1], wide=4)]
    with pytest.raises(InputError, match="its vertical filters span 33 of 37 bins"):
        ops.conv_pair(*args)


@pytest.mark.parametrize("processors", [3, 50])
def test_sums_over_rows_are_shared_by_processors(kernels, monkeypatch, processors):
    monkeypatch.setattr("sepfast.kernels.launch.processors", lambda device: processors)
    sizes = (9, 1, 12, 17, 4, 3, 3)
    _hold(kernels, "conv_pair", lambda args: ops.conv_pair(*args), _plain, _pair(sizes))


def test_constant_input_costs_no_gradient(kernels):
    x, *weights = (kernels.put(each) for each in _pair(SIZES[1]))
    leaves = [w.requires_grad_() for w in weights]
    with launches() as launched:
        ops.conv_pair(x, *leaves).sum().backward()
    names = [launch.kernel for launch in launched]
    assert "sepfast_conv_pair_verticalslope" in names
    assert "sepfast_deconv_pair_vertical" not in names


def test_all_sources_are_one_launch(kernels):
    args = [kernels.put(x) for x in _pair(SIZES[1], sources=4)]
    with launches() as launched:
        ops.deconv_pair(*args)
    names = [launch.kernel for launch in launched]
    assert names == ["sepfast_deconv_pair_horizontal", "sepfast_deconv_pair_vertical"]


def test_tied_weights_collect_the_gradients_of_all_sources(place):
    codes, first, first_bias, second, second_bias = _pair(SIZES[1], sources=3)
    shared = first[0].clone()

    def tied(function):
        def call(args):
            codes, weight, *rest = args
            return function([codes, torch.stack([weight] * 3), *rest])

        return call

    _hold(
        place,
        "deconv_pair",
        tied(lambda args: ops.deconv_pair(*args)),
        tied(_plain_transposed),
        [codes, shared, first_bias, second, second_bias],
    )


@pytest.mark.parametrize(
    ("at", "shape", "message"),
    [
        (0, (2, 3, 4), r"x: got shape \(2, 3, 4\), takes \(B, C, T, F\)"),
        (1, (5, 2, 1, 33), r"vertical: got shape \(5, 2, 1, 33\), takes \(N1, 1, 1, at most 33\)"),
        (1, (5, 1, 1, 34), "vertical: got shape"),
        (2, (4,), r"vertical_bias: got shape \(4,\), takes \(5,\) or None"),
        (3, (3, 5, 5, 1), r"horizontal: got shape .*, takes \(N2, 5, at most 4, 1\)"),
        (4, (3, 1), r"horizontal_bias: got shape \(3, 1\), takes \(3,\) or None"),
    ],
)
def test_shapes_that_do_not_fit_are_named(at, shape, message):
    args = _pair(SIZES[1])
    args[at] = torch.zeros(shape)
    args = [x.float() for x in args]
    with pytest.raises(InputError, match=message):
        ops.conv_pair(*args)


@pytest.mark.parametrize(
    ("at", "shape", "message"),
    [
        (0, (2, 3, 1), r"codes: got shape .*, takes \(B, N2, T', F'\) or \(B, S, N2, T', F'\)"),
        (1, (2, 4, 5, 4, 1), r"horizontal: got shape .*, takes \(2, 3, N1, t2, 1\)"),
        (2, (2, 4), r"horizontal_bias: got shape \(2, 4\), takes \(2, 5\) or None"),
        (3, (2, 6, 1, 1, 33), r"vertical: got shape .*, takes \(2, 5, C, 1, f1\)"),
        (4, (1,), r"vertical_bias: got shape \(1,\), takes \(2, 1\) or None"),
    ],
)
def test_shapes_that_do_not_fit_are_named_transposed(at, shape, message):
    args = [x.float() for x in _pair(SIZES[1], sources=2)]
    args[at] = torch.zeros(shape)
    with pytest.raises(InputError, match=message):
        ops.deconv_pair(*args)


def test_half_types_and_float32_do_not_mix():
    """As in PyTorch's own convolutions, whatever runs."""
    x, *weights = (x.float() for x in _pair((1, 1, 2, 17, 2, 2, 2)))
    with pytest.raises(InputError, match=r"vertical is torch.float32 on cpu, takes torch.float16"):
        ops.conv_pair(x.half(), *weights)
