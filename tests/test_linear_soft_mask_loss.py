"""A linear layer, ReLU, mask and loss in one: against the layers it stands for, and its kernels."""

import pytest
import torch
import torch.nn.functional as F
from conftest import assert_near, noise
from contract import PoisonedMemory, blocks_of

from sepfast import InputError, ops
from sepfast.ops.accuracy import ACCURACY
from sepfast.reference import (
    LossWeights,
    linear_soft_mask_loss,
    linear_soft_mask_loss_backward,
    soft_mask_loss,
)

READINGS = ["code", "paper"]


def _example(sources=4, filters=5, *, batch=2, channels=2, frames=3, bins=7):
    """A source is loud or silent at a bin, so that no estimate lies near the ReLU's kink."""
    torch.manual_seed(0)
    features = torch.rand(batch, sources, frames, filters) + 0.5
    sign = torch.where(torch.rand(sources, 1, channels, bins) < 0.3, -1, 1)
    weight = (torch.rand(sources, filters, channels, bins) + 0.5) * sign
    bias = 0.2 * torch.rand(sources, channels) - 0.1
    targets = torch.rand(batch, sources, channels, frames, bins)
    return features, weight, bias, torch.rand(batch, channels, frames, bins), targets


def _wide(tensors):
    return tuple(x.double() for x in tensors)


def _with_gradients(function, given, *rest, grad=1.5):
    leaves = [x.detach().requires_grad_() for x in given[:3]]
    loss = function(*leaves, *given[3:], *rest)
    return loss.detach(), torch.autograd.grad(grad * loss, leaves)


# The mathematics


@pytest.mark.parametrize("reading", READINGS)
def test_it_is_the_last_deconvolution_relu_and_loss(reading):
    features, weight, bias, mixture, targets = _wide(_example())
    features = noise(*features.shape)
    estimates = [
        F.conv_transpose2d(h.movedim(2, 1)[..., None], w[:, :, None], b).relu()
        for h, w, b in zip(features.unbind(1), weight, bias, strict=True)
    ]
    chosen = LossWeights(0.1, 0.2, 0.3, reading)
    expected = soft_mask_loss(torch.stack(estimates, 1), mixture, targets, chosen)
    out = linear_soft_mask_loss(features, weight, bias, mixture, targets, chosen)
    torch.testing.assert_close(out, expected)


@pytest.mark.parametrize("reading", READINGS)
@pytest.mark.parametrize("weights", [(0.001, 0.01, 0.03), (0.5, 0.7, 0.9)])
def test_the_derived_gradients_are_autograds(reading, weights):
    given, chosen = _wide(_example()), LossWeights(*weights, reading)
    _, expected = _with_gradients(linear_soft_mask_loss, given, chosen, grad=1)
    grads = linear_soft_mask_loss_backward(*given, chosen)
    for grad, true in zip(grads, expected, strict=True):
        torch.testing.assert_close(grad, true)


# The operator and its kernels


@pytest.fixture
def poisoned(kernel_device, monkeypatch):
    """Kernels run, into memory that is NaN before; gives the device."""
    memory = PoisonedMemory()
    monkeypatch.setattr("sepfast.kernels.launch.empty", memory)
    with ops.use_backend("triton"):
        yield kernel_device
    assert memory.guards_hold()


@pytest.fixture
def tiny_blocks(poisoned, monkeypatch):
    """The smallest tiles, shared by several programs."""
    sizes = blocks_of(ROWS=16, BINS=16, FILTERS=16, STEP=16)
    monkeypatch.setattr("sepfast.kernels.launch.lookup", sizes)
    monkeypatch.setattr("sepfast.kernels.launch.processors", lambda device: 5)
    return poisoned


def _assert_like_float64(given, device, *rest):
    true = _with_gradients(linear_soft_mask_loss, _wide(given), *rest)
    there = [x.to(device) for x in given]
    out = _with_gradients(ops.linear_soft_mask_loss, there, *rest)
    bound = ACCURACY["linear_soft_mask_loss"]["highest"]
    assert_near(out[0], true[0], bound.forward)
    for grad, expected in zip(out[1], true[1], strict=True):
        assert_near(grad, expected, bound.backward)


@pytest.mark.parametrize("reading", READINGS)
@pytest.mark.parametrize(("sources", "filters"), [(2, 1), (3, 17), (5, 65)])
def test_kernels_are_the_float64_reference(poisoned, reading, sources, filters):
    given = _example(sources, filters, channels=1, bins=33)
    _assert_like_float64(given, poisoned, LossWeights(0.1, 0.2, 0.3, reading))


@pytest.mark.parametrize("reading", READINGS)
@pytest.mark.parametrize(
    "shape",
    [
        {"batch": 3, "channels": 1, "frames": 17, "bins": 5},
        {"batch": 35, "channels": 3, "frames": 1, "bins": 18},
        {"batch": 1, "channels": 1, "frames": 1, "bins": 1},
    ],
    ids=["rows", "all", "one"],
)
def test_tiles_cross_items_and_are_shared_out(tiny_blocks, reading, shape):
    given = _example(3, 19, **shape)
    _assert_like_float64(given, tiny_blocks, LossWeights(5, 6, 7, reading))


@pytest.mark.parametrize("empty", ["batch", "frames", "bins", "channels"])
def test_nothing_has_no_loss_and_no_slope(poisoned, empty):
    given = [x.to(poisoned) for x in _example(**{empty: 0})]
    loss, grads = _with_gradients(ops.linear_soft_mask_loss, given)
    assert loss == 0
    assert [grad.shape for grad in grads] == [x.shape for x in given[:3]]
    assert not any(grad.any() for grad in grads)


@pytest.mark.parametrize("backend", ["reference", "triton"])
def test_it_is_the_loss_of_stored_estimates(poisoned, backend):
    given = tuple(x.to(poisoned) for x in _example())
    features, weight, bias, *rest = given
    with ops.use_backend(backend):
        estimates = torch.einsum("bstn,sncf->bsctf", features, weight) + bias[:, :, None, None]
        expected = ops.soft_mask_loss(estimates.relu(), *rest)
        out = ops.linear_soft_mask_loss(*given)
    torch.testing.assert_close(out, expected)


@pytest.mark.parametrize("backend", ["reference", "triton"])
@pytest.mark.parametrize("bias", [-1.0, 0.0])
def test_silence_is_shared_equally_and_has_no_slope(poisoned, backend, bias):
    features, weight, _, *rest = (x.to(poisoned) for x in _example())
    given = [torch.zeros_like(features), weight, weight.new_full((4, 2), bias), *rest]
    with ops.use_backend(backend):
        loss, grads = _with_gradients(ops.linear_soft_mask_loss, given)
    expected = soft_mask_loss(torch.ones_like(rest[1]), *rest)
    torch.testing.assert_close(loss, expected)
    assert not any(grad.any() for grad in grads)


@pytest.mark.parametrize("backend", ["reference", "triton"])
def test_what_the_relu_cuts_has_no_slope(poisoned, backend):
    """Source 1 is silent at all bins, and 0 before its ReLU."""
    features, weight, bias, *rest = (x.abs().to(poisoned) for x in _example())
    features[:, 1], bias[1] = 0, 0
    with ops.use_backend(backend):
        given = [features, weight, bias, *rest]
        _, (of_features, of_weight, of_bias) = _with_gradients(ops.linear_soft_mask_loss, given)
    assert not of_features[:, 1].any()
    assert not of_weight[1].any()
    assert not of_bias[1].any()
    assert of_features[:, 0].all()


@pytest.mark.parametrize("backend", ["reference", "triton"])
@pytest.mark.parametrize("broken", range(5))
def test_what_is_broken_breaks_the_loss(poisoned, backend, broken):
    given = [x.to(poisoned) for x in _example()]
    given[broken].view(-1)[-1] = torch.nan
    with ops.use_backend(backend):
        assert ops.linear_soft_mask_loss(*given).isnan()


def test_no_estimates_are_stored(kernel_device, monkeypatch):
    """All that kernels write is far smaller than the estimates, whatever the targets' size."""
    given = [x.to(kernel_device) for x in _example(filters=1, batch=20, bins=300)]
    sizes = []

    class Memory(PoisonedMemory):
        def __call__(self, shape, like, dtype=None):
            sizes.append(torch.Size(shape).numel())
            return super().__call__(shape, like, dtype)

    monkeypatch.setattr("sepfast.kernels.launch.empty", Memory())
    monkeypatch.setattr("sepfast.kernels.launch.Kernel.launch", lambda *args, **options: None)
    monkeypatch.setattr("sepfast.kernels.launch.processors", lambda device: 1)
    with ops.use_backend("triton"):
        _with_gradients(ops.linear_soft_mask_loss, given)
    assert len(sizes) == 4
    assert max(sizes) <= given[4].numel() / 20


def test_only_the_loss_has_a_gradient(poisoned):
    given = [x.to(poisoned) for x in _example()]
    given[0].requires_grad_()
    loss = ops.linear_soft_mask_loss(*given)
    assert loss.requires_grad
    assert loss.shape == ()
    total = torch.ops.sepfast.linear_soft_mask_loss(*given, 0.001, 0.01, 0.03, "code")[1]
    assert not total.requires_grad


# What is refused


def test_more_sources_than_kernels_take_run_in_pytorch(kernel_device):
    given = [x.to(kernel_device) for x in _example(sources=9)]
    sentence = "linear_soft_mask_loss_forward is not shipped for 16 sources, precision"
    with ops.use_backend("triton"), pytest.raises(InputError, match=sentence):
        ops.linear_soft_mask_loss(*given)
    assert ops.linear_soft_mask_loss(*given).isfinite()


@pytest.mark.parametrize(("at", "name"), [(3, "mixture"), (4, "targets")])
def test_constants_have_no_gradient(at, name):
    given = _example()
    given[at].requires_grad_()
    with pytest.raises(InputError, match=f"{name}: got a tensor that requires a gradient"):
        ops.linear_soft_mask_loss(*given)
    with torch.no_grad():
        ops.linear_soft_mask_loss(*given)


@pytest.mark.parametrize(
    ("at", "shape", "sentence"),
    [
        (0, (2, 4, 3), r"features: got shape \(2, 4, 3\), takes \(B, S, T, N\)"),
        (0, (2, 1, 3, 5), "with S at least 2"),
        (0, (2, 4, 3, 0), "and N at least 1"),
        (1, (4, 6, 2, 7), r"weight: got shape \(4, 6, 2, 7\), takes \(4, 5, C, F\) beside feat"),
        (1, (4, 5, 14), r"weight: got shape \(4, 5, 14\), takes \(4, 5, C, F\)"),
        (2, (4,), r"bias: got shape \(4,\), takes \(4, 2\) beside features of \(2, 4, 3, 5\)"),
        (3, (2, 2, 7, 3), r"mixture: got shape \(2, 2, 7, 3\), takes \(2, 2, 3, 7\)"),
        (4, (2, 4, 2, 3, 6), r"targets: got shape .*, takes \(2, 4, 2, 3, 7\)"),
    ],
)
def test_shapes_that_do_not_fit_are_named(at, shape, sentence):
    given = list(_example())
    given[at] = torch.rand(shape)
    with pytest.raises(InputError, match=sentence):
        ops.linear_soft_mask_loss(*given)
