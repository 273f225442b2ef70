"""Masks: shares that add up, oracles, and their gradient."""

import pytest
import torch
from conftest import require_kernels
from contract import PoisonedMemory
from hypothesis import given, settings
from hypothesis import strategies as st

from sepfast import InputError, ops
from sepfast.reference import binary_mask, soft_mask, soft_mask_backward, wiener_mask


def test_shares_add_up_and_silence_is_shared():
    y = torch.randn(3, 4, 5, 6, dtype=torch.float64)
    y[0, :, 2] = 0
    shares = soft_mask(y)
    torch.testing.assert_close(shares.sum(1), torch.ones(3, 5, 6, dtype=torch.float64))
    assert (shares[0, :, 2] == 0.25).all()
    torch.testing.assert_close(shares[1, 2], y[1, 2].abs() / y[1].abs().sum(0))


def test_a_broken_estimate_is_not_taken_for_silence():
    y = torch.tensor([1.0, torch.nan]).view(1, 2, 1)
    assert soft_mask(y).isnan().all()


def test_soft_mask_backward_is_autograds():
    y = torch.randn(3, 4, 5, dtype=torch.float64)
    y[0, :, 2] = 0
    y.requires_grad_()
    grad = torch.randn(3, 4, 5, dtype=torch.float64)
    (expected,) = torch.autograd.grad(soft_mask(y), y, grad)
    assert expected.isfinite().all()
    torch.testing.assert_close(soft_mask_backward(grad, y.detach()), expected)


def test_soft_mask_gradcheck():
    class Mask(torch.autograd.Function):
        @staticmethod
        def forward(ctx, y):
            ctx.save_for_backward(y)
            return soft_mask(y)

        @staticmethod
        def backward(ctx, grad):
            return soft_mask_backward(grad, *ctx.saved_tensors)

    y = torch.rand(2, 4, 3, dtype=torch.float64) + 0.1
    assert torch.autograd.gradcheck(Mask.apply, (y.requires_grad_(),))


def test_oracles():
    targets = torch.tensor([3.0, -4.0, 0.0]).view(1, 3, 1)
    assert binary_mask(targets).flatten().tolist() == [0, 1, 0]
    torch.testing.assert_close(wiener_mask(targets).flatten(), torch.tensor([0.36, 0.64, 0]))
    assert binary_mask(torch.ones(1, 3, 1)).flatten().tolist() == [1, 0, 0]
    assert (wiener_mask(torch.zeros(1, 4, 1)) == 0.25).all()


# The operator and its kernels


@given(
    shape=st.lists(st.integers(1, 24), min_size=1, max_size=3),
    axis=st.integers(-3, 2),
    silence=st.booleans(),
    seed=st.integers(0, 99),
)
@settings(max_examples=20, deadline=None, derandomize=True)
def test_kernels_are_the_float64_reference(shape, axis, silence, seed):
    device = require_kernels("cuda" if torch.cuda.is_available() else "cpu")
    dim = max(-len(shape), min(axis, len(shape) - 1))
    torch.manual_seed(seed)
    y, grad = torch.randn(2, *shape)
    if silence:
        y[..., : shape[-1] // 2 + 1] = 0
    wide = y.double().requires_grad_()
    true = soft_mask(wide, dim)
    (true_grad,) = torch.autograd.grad(true, wide, grad.double())
    leaf = y.to(device).requires_grad_()
    memory = PoisonedMemory()
    with pytest.MonkeyPatch.context() as patch, ops.use_backend("triton"):
        patch.setattr("sepfast.kernels.launch.empty", memory)
        out = ops.soft_mask(leaf, dim)
        (out_grad,) = torch.autograd.grad(out, leaf, grad.to(device))
    assert memory.guards_hold()
    assert (out.detach().cpu() - true.detach()).abs().max() <= 2e-7
    # Against the size of its terms, which a single source cancels.
    terms = grad.double() / wide.detach().abs().sum(dim, keepdim=True)
    scale = torch.where(true_grad == 0, 0, terms).norm()
    assert (out_grad.cpu() - true_grad).norm() <= 5e-7 * scale


def test_an_axis_that_is_not_there_is_named():
    with pytest.raises(InputError, match=r"dim: got 2, takes an axis of estimates \(2, 3\)"):
        ops.soft_mask(torch.rand(2, 3), 2)


def test_no_source_at_all_is_said():
    with pytest.raises(InputError, match=r"got shape \(2, 0, 3\), takes a source .* on axis 1"):
        ops.soft_mask(torch.zeros(2, 0, 3))
