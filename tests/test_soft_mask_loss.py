"""System A's loss: both readings against loops written from the paper, and the gradient."""

import pytest
import torch
from conftest import relative_error
from contract import PoisonedMemory

from sepfast import InputError, ops
from sepfast.ops.accuracy import ACCURACY
from sepfast.reference import LossWeights, soft_mask, soft_mask_loss, soft_mask_loss_backward

READINGS = ["code", "paper"]


def _example(dtype=torch.float64):
    torch.manual_seed(0)
    y = torch.randn(3, 4, 2, 5, dtype=dtype)
    y[0, :, 1, 2] = 0
    return y, torch.rand(3, 2, 5, dtype=dtype), torch.rand(3, 4, 2, 5, dtype=dtype)


def _norm(a, b):
    return ((a - b) ** 2).sum()


def _loops(y, x, t, reading, alpha, beta, beta_vocals):
    """Sources: 0 vocals, 1 and 2 named, 3 other."""
    s = soft_mask(y) * x[:, None]
    rival = t if reading == "code" else s
    total = sum(_norm(s[:, i], t[:, i]) for i in range(3))
    for i in range(3):
        for j in range(3):
            if i != j:
                total = total - alpha * _norm(s[:, i], rival[:, j])
    for i in (1, 2):
        total = total - beta * _norm(s[:, i], rival[:, 3])
    total = total - beta_vocals * _norm(s[:, 0], rival[:, 3])
    return total.abs() if reading == "code" else total


@pytest.mark.parametrize("reading", READINGS)
@pytest.mark.parametrize("weights", [(0.001, 0.01, 0.03), (0.5, 0.7, 0.9)])
def test_loss_and_gradient(reading, weights):
    y, x, t = _example()
    expected = _loops(y, x, t, reading, *weights)
    options = LossWeights(*weights, reading)
    torch.testing.assert_close(soft_mask_loss(y, x, t, options), expected)
    y.requires_grad_()
    (grad,) = torch.autograd.grad(soft_mask_loss(y, x, t, options), y)
    assert grad.isfinite().all()
    torch.testing.assert_close(soft_mask_loss_backward(y.detach(), x, t, options), grad)


def test_large_weights_turn_the_sign_of_the_code_reading():
    y, x, t = _example()
    assert _loops(y, x, t, "paper", 5, 5, 5) < 0
    assert soft_mask_loss(y, x, t, LossWeights(5, 5, 5)) > 0


@pytest.mark.parametrize("reading", READINGS)
def test_gradcheck(reading):
    _, x, t = _example()
    options = LossWeights(0.1, 0.2, 0.3, reading)

    class Loss(torch.autograd.Function):
        @staticmethod
        def forward(ctx, y):
            ctx.save_for_backward(y)
            return soft_mask_loss(y, x, t, options)

        @staticmethod
        def backward(ctx, grad):
            return grad * soft_mask_loss_backward(*ctx.saved_tensors, x, t, options)

    y = torch.rand(3, 4, 2, 5, dtype=torch.float64) + 0.1
    assert torch.autograd.gradcheck(Loss.apply, (y.requires_grad_(),))


def test_two_sources():
    y, x, t = _example()
    y, t = y[:, [0, 3]], t[:, [0, 3]]
    s = soft_mask(y) * x[:, None]
    expected = _norm(s[:, 0], t[:, 0]) - 0.03 * _norm(s[:, 0], t[:, 1])
    torch.testing.assert_close(soft_mask_loss(y, x, t), expected.abs())


def test_unknown_reading():
    with pytest.raises(InputError, match="reading: got 'thesis'"):
        LossWeights(reading="thesis")


# The operator and its kernels

SOURCES = [2, 3, 4, 5]


@pytest.fixture
def poisoned(kernel_device, monkeypatch):
    """Kernels run, into memory that is NaN before; gives the device."""
    memory = PoisonedMemory()
    monkeypatch.setattr("sepfast.kernels.launch.empty", memory)
    with ops.use_backend("triton"):
        yield kernel_device
    assert memory.guards_hold()


def _with_gradient(function, y, *rest, grad=1.5):
    y = y.detach().requires_grad_()
    loss = function(y, *rest)
    return loss.detach(), torch.autograd.grad(grad * loss, y)[0]


@pytest.mark.parametrize("reading", READINGS)
@pytest.mark.parametrize("sources", SOURCES)
@pytest.mark.parametrize("weights", [(0.001, 0.01, 0.03), (5, 6, 7)])
def test_kernels_are_the_float64_reference(poisoned, reading, sources, weights):
    torch.manual_seed(0)
    y = torch.randn(3, sources, 5, 131)
    y[0, :, 2, 7:99] = 0
    x, t = torch.rand(3, 5, 131), torch.rand(3, sources, 5, 131)
    options = LossWeights(*weights, reading)
    wide = [tensor.double() for tensor in (y, x, t)]
    true = _with_gradient(soft_mask_loss, *wide, options)
    given = [tensor.to(poisoned) for tensor in (y, x, t)]
    out = _with_gradient(ops.soft_mask_loss, *given, options)
    bound = ACCURACY["soft_mask_loss"]["highest"]
    assert relative_error(out[0].cpu(), true[0]) <= bound.forward
    assert relative_error(out[1].cpu(), true[1]) <= bound.backward
    assert (out[1].cpu()[0, :, 2, 7:99] == 0).all()


def test_sources_that_are_alike_keep_their_digits(poisoned):
    """Levels far above their differences: expanded squares would cancel to nothing."""
    torch.manual_seed(0)
    y = 1 + 1e-3 * torch.rand(2, 4, 250)
    x, t = torch.full((2, 250), 4e3), 1e3 + torch.rand(2, 4, 250)
    for reading in READINGS:
        options = LossWeights(0.1, 0.2, 0.3, reading)
        true = soft_mask_loss(y.double(), x.double(), t.double(), options)
        plain = relative_error(soft_mask_loss(y, x, t, options), true)
        out = ops.soft_mask_loss(*(tensor.to(poisoned) for tensor in (y, x, t)), options)
        assert relative_error(out.cpu(), true) <= max(2 * plain, 1e-6)


@pytest.mark.parametrize("backend", ["reference", "triton"])
def test_a_loss_of_nothing_has_no_slope(poisoned, backend):
    """What two sources share equally, against targets that are the shares: L and its sign are 0."""
    y, x, t = torch.ones(1, 2, 5), torch.ones(1, 5), torch.full((1, 2, 5), 0.5)
    with ops.use_backend(backend):
        given = [tensor.to(poisoned) for tensor in (y, x, t)]
        loss, grad = _with_gradient(ops.soft_mask_loss, *given, LossWeights(0, 0, 0))
    assert loss == 0
    assert (grad == 0).all()


@pytest.mark.parametrize("backend", ["reference", "triton"])
def test_a_broken_estimate_breaks_the_loss(poisoned, backend):
    y, x, t = (tensor.float() for tensor in _example())
    y[1, 2, 0, 3] = torch.nan
    with ops.use_backend(backend):
        assert ops.soft_mask_loss(*(tensor.to(poisoned) for tensor in (y, x, t))).isnan()


def test_the_gradient_is_no_larger_than_asked(poisoned):
    """Only the loss is handed out; the sign that the backward reads has no gradient of its own."""
    y, x, t = (tensor.float().to(poisoned) for tensor in _example())
    loss = ops.soft_mask_loss(y.requires_grad_(), x, t)
    assert loss.requires_grad
    assert loss.shape == ()
    total = torch.ops.sepfast.soft_mask_loss(y, x, t, 0.001, 0.01, 0.03, "code")[1]
    assert not total.requires_grad


@pytest.mark.parametrize("name", ["mixture", "targets"])
def test_constants_have_no_gradient(name):
    y, x, t = _example()
    {"mixture": x, "targets": t}[name].requires_grad_()
    with pytest.raises(InputError, match=f"{name}: got a tensor that requires a gradient"):
        ops.soft_mask_loss(y, x, t)
    with torch.no_grad():
        ops.soft_mask_loss(y, x, t)


@pytest.mark.parametrize(
    ("shapes", "sentence"),
    [
        (((3,), (3,), (3,)), r"estimates: got shape \(3,\), takes \(B, N, ...\)"),
        (((3, 1, 5), (3, 5), (3, 1, 5)), "with N at least 2"),
        (((3, 2, 5), (3, 4), (3, 2, 5)), r"mixture: got shape \(3, 4\), takes \(3, 5\)"),
        (((3, 2, 5), (3, 5), (3, 2, 4)), r"targets: got shape \(3, 2, 4\), takes \(3, 2, 5\)"),
    ],
)
def test_shapes_that_do_not_fit_are_named(shapes, sentence):
    with pytest.raises(InputError, match=sentence):
        ops.soft_mask_loss(*map(torch.rand, shapes))
