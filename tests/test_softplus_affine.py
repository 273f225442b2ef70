"""Softplus and normalisation by fixed statistics: PyTorch's numbers, every tiling, its digits."""

import pytest
import torch
import torch.nn.functional as F
from conftest import assert_near, noise, require_kernels
from contract import blocks_of
from test_softplus_norm import made

from sepfast import InputError, ops, reference


def outcome(function, args):
    """The result, and the gradients of all that is given, for a slope of one sign.

    So sums over a channel do not cancel, whose digits would be those of their terms alone.
    """
    leaves = [None if x is None else x.detach().requires_grad_() for x in args]
    y = function(*leaves)
    given = [x for x in leaves if x is not None]
    return [y.detach(), *torch.autograd.grad(y, given, noise(*y.shape, seed=9).abs().to(y))]


def check(place, args):
    """The operator against the reference and PyTorch's own gradient, both in float64."""
    args = [None if x is None else place.put(x) for x in args]
    true = outcome(
        reference.softplus_affine, [None if x is None else x.cpu().double() for x in args]
    )
    for at, (x, expected) in enumerate(zip(outcome(ops.softplus_affine, args), true, strict=True)):
        assert_near(x, expected, place.bound("softplus_affine", "backward" if at else "forward"))


def test_the_reference_is_pytorchs_layers_in_evaluation():
    x, bias, weight, offset = made()
    mean, variance = noise(2, seed=4), noise(2, seed=5).square() + 0.5
    scale = weight / (variance + 1e-5).sqrt()
    found = ops.softplus_affine(x, bias, scale, offset - mean * scale)
    expected = F.batch_norm(F.softplus(x + bias[:, None]), mean, variance, weight, offset)
    torch.testing.assert_close(found, expected)


def test_gradients_are_those_of_differences():
    leaves = [x.requires_grad_() for x in made(2, 2, 3)]
    assert torch.autograd.gradcheck(ops.softplus_affine, leaves)


@pytest.mark.parametrize("absent", [False, True])
def test_pytorch_gives_the_operators_gradients(place, absent):
    x, bias, *rest = made()
    check(place, [x, None if absent else bias, *rest])


@pytest.mark.parametrize("processors", [1, 4])
@pytest.mark.parametrize("shape", [(1, 1, 5), (7, 1, 1), (18, 1, 9), (3, 1, 64), (2, 3, 129)])
def test_every_tiling_gives_the_same(kernels, monkeypatch, shape, processors):
    """Tiles within a line, of several lines, and of several lines' ends; channels shared out."""
    monkeypatch.setattr("sepfast.kernels.launch.lookup", blocks_of(TILE=64))
    monkeypatch.setattr("sepfast.kernels.launch.processors", lambda device: processors)
    check(kernels, made(*shape))


def test_softplus_keeps_its_digits_and_never_overflows(place):
    x = place.put(torch.cat((torch.linspace(-80, 80, 321), torch.tensor([-1e30, 1e30]))))
    one = place.put(torch.ones(1))
    x = x[None, None].requires_grad_()
    y = ops.softplus_affine(x, None, one, 0 * one)
    (slope,) = torch.autograd.grad(y.sum(), x)
    wide = x.detach().cpu().double()
    small = torch.exp(-wide.abs())
    # exp rounds its argument, of up to 80, and is off by as much; PyTorch is linear from 20 on.
    rounding = {"rtol": 160 * torch.finfo(x.dtype).eps, "atol": 3e-9}
    torch.testing.assert_close(y.cpu().double(), wide.relu() + small.log1p(), **rounding)
    expected = torch.where(wide < 0, small, 1) / (1 + small)
    torch.testing.assert_close(slope.cpu().double(), expected, **rounding)


@pytest.mark.parametrize("shape", [(0, 2, 5), (3, 2, 0), (3, 0, 5)], ids=str)
def test_nothing_is_nothing(place, shape):
    y, *grads = outcome(ops.softplus_affine, [place.put(x) for x in made(*shape)])
    assert y.shape == shape
    assert not any(x.any() for x in grads)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16], ids=str)
@pytest.mark.parametrize("backend", ["reference", "triton"])
def test_half_types_take_vectors_in_float32(backend, dtype):
    if backend == "triton":
        require_kernels("cpu")
    args = [x.to(dtype if x.ndim == 3 else torch.float32) for x in made()]
    with ops.use_backend(backend):
        found = outcome(ops.softplus_affine, args)
    assert [x.dtype for x in found] == [dtype, dtype, *[torch.float32] * 3]
    true = outcome(reference.softplus_affine, [x.double() for x in args])
    for x, expected in zip(found, true, strict=True):
        assert_near(x, expected, 10 * torch.finfo(dtype).eps)


def test_autocast_takes_all_in_float32():
    args = [x.bfloat16() for x in made()]
    with torch.autocast("cpu", torch.bfloat16):
        y = ops.softplus_affine(*args)
    assert y.dtype == torch.float32
    assert_near(y, reference.softplus_affine(*(x.double() for x in args)), 5e-7)


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"x": torch.zeros(3, 2)}, r"x: got shape \(3, 2\), takes \(B, C, T\)"),
        ({"bias": torch.zeros(3)}, r"bias: got shape \(3,\), takes \(2,\) or None"),
        ({"scale": torch.zeros(2, 1)}, r"scale: got shape \(2, 1\), takes \(2,\)"),
        ({"shift": torch.zeros(2).half()}, "shift is torch.float16 on cpu, takes torch.float32"),
    ],
)
def test_what_does_not_fit_is_named(change, sentence):
    args = {"x": torch.zeros(3, 2, 5), "bias": None, "scale": torch.ones(2)} | change
    with pytest.raises(InputError, match=sentence):
        ops.softplus_affine(**({"shift": torch.zeros(2)} | args))
