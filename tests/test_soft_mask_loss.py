"""System A's loss: both readings against loops written from the paper, and the gradient."""

import pytest
import torch

from sepfast import InputError
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
