"""Fused convolution pairs in use: hooks and changes of their layers, inputs and types."""

import copy
import warnings

import pytest
import torch
from conftest import assert_near, noise
from pairing import assert_same, gradients, pair, twin
from torch import nn
from torch.nn.utils import parametrizations, prune

from sepfast import InputError, fuse, reference, unfuse
from sepfast.fusion import Skipped

# What someone does to the layers of a pair


def test_hooks_of_its_layers_run(called):
    plain, x = nn.Sequential(*pair()), torch.rand(2, 2, 6, 7)
    fused, fired = copy.deepcopy(plain), []
    fuse(fused)
    first, second = fused
    handles = [
        first.register_forward_pre_hook(lambda *args: fired.append("before")),
        first.register_forward_hook(lambda *args: fired.append("between")),
        second.register_full_backward_pre_hook(lambda *args: fired.append("backward of it")),
        second.register_full_backward_hook(lambda *args: fired.append("backward")),
    ]
    assert_same(fused, plain, x)
    assert fired == ["before", "between", "backward of it", "backward"]
    reason = "its convolution 0 has hooks or a forward of its own, which would not run"
    unfuse(fused)
    assert fuse(fused).skipped == (Skipped("", "Sequential", reason),)
    for handle in handles:
        handle.remove()
    assert called == []
    fuse(fused)
    fused(x)
    assert called == ["conv_pair"]


def test_hooks_of_all_modules_see_its_layers(called):
    model, seen = nn.Sequential(*pair()), []
    fuse(model)
    handle = nn.modules.module.register_module_forward_hook(lambda m, *args: seen.append(m))
    try:
        model(torch.rand(2, 2, 6, 7))
    finally:
        handle.remove()
    assert seen == [*model, model]
    assert called == []


def test_hooks_of_the_sequential_run(called):
    model, fired = nn.Sequential(*pair()), []
    model.register_forward_hook(lambda *args: fired.append("behind"))
    model.register_full_backward_hook(lambda *args: fired.append("backward"))
    fuse(model, strict=True)
    gradients(model, torch.rand(2, 2, 6, 7))
    assert (fired, called) == (["behind", "backward"], ["conv_pair"])


def normed(layer):
    with warnings.catch_warnings(action="ignore"):
        nn.utils.weight_norm(layer)


def replaced(layer):
    layer.forward = lambda x: nn.Conv2d.forward(layer, x) * 2


@pytest.mark.parametrize(
    "change",
    [
        parametrizations.weight_norm,
        parametrizations.spectral_norm,
        normed,
        lambda layer: prune.l1_unstructured(layer, "weight", amount=0.5),
        replaced,
    ],
)
@pytest.mark.parametrize("own", [True, False], ids=["own", "sequential"])
def test_what_changes_a_layer_has_its_effect(change, own, called):
    model = reference.ConvPair(2, 6, 4, 7, 3) if own else nn.Sequential(*pair())
    fuse(model, strict=True)
    change(model[1])
    model.eval()  # spectral_norm iterates in training
    x = torch.rand(2, 2, 6, 7)
    out = model(x)
    assert called == []
    assert torch.equal(out, model[1](model[0](x)))
    unfuse(model)
    assert torch.equal(out, model(x))
    assert fuse(model).replaced == ()


@pytest.mark.parametrize("own", [True, False], ids=["own", "sequential"])
def test_an_adapter_in_the_place_of_a_layer_is_called(own, called):
    model = reference.DeconvPair(2, 6, 4, 7, 3) if own else nn.Sequential(*twin())
    fuse(model)
    model[0] = nn.Sequential(model[0], nn.ReLU())
    codes = torch.randn(2, 4, 4, 1)
    assert torch.equal(model(codes), model[1](model[0](codes)))
    assert called == []


# Inputs


@pytest.mark.parametrize(
    ("make", "shape"),
    [
        (pair, (2, 6, 7)),  # no batch
        (twin, (4, 4, 1)),
        (pair, (2, 2, 6, 10)),  # filters that do not span all bins
        (twin, (2, 4, 4, 5)),
    ],
)
def test_what_has_no_kernel_runs_layer_by_layer(make, shape, kernels, called):
    plain = nn.Sequential(*make()).to(kernels.device)
    fused = copy.deepcopy(plain)
    fuse(fused)
    assert_same(fused, plain, kernels.put(noise(*shape)))
    assert called == []


@pytest.mark.parametrize(
    ("make", "x", "message"),
    [
        (pair, torch.rand(2, 2, 6, 5), "size"),  # PyTorch's words
        (pair, torch.ones(2, 2, 6, 7, dtype=torch.int64), "type"),
        (pair, torch.rand(2, 7), "Expected 3D"),
        (pair, torch.rand(2, 3, 6, 7), r"^vertical: got shape \(6, 2, 1, 7\), takes \(N1, 3, 1"),
        (pair, torch.rand(2, 2, 2, 7), r"^horizontal: got .*, takes \(N2, 6, at most 2, 1"),
        (twin, torch.rand(2, 3, 4, 1), r"^horizontal: got shape \(1, 4, 6, 3, 1\)"),
        (pair, torch.rand(2, 2, 6, 7).double(), r"^conv_pair: vertical is torch.float32"),
    ],
)
def test_what_does_not_fit_is_refused(make, x, message):
    model = nn.Sequential(*make())
    fuse(model)
    with pytest.raises((InputError, RuntimeError), match=message):
        model(x)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float16, torch.bfloat16])
def test_types_of_the_model_work(dtype, called):
    plain = nn.Sequential(*pair()).to(dtype)
    fused = copy.deepcopy(plain)
    fuse(fused)
    assert_same(fused, plain, torch.rand(2, 2, 6, 7, dtype=dtype), 3 * torch.finfo(dtype).eps)
    assert called == ["conv_pair"]


def test_autocast_lowers_it_as_it_lowers_convolutions(called):
    plain, x = nn.Sequential(*pair(), nn.ReLU(), *twin()), torch.rand(2, 2, 6, 7)
    fused = copy.deepcopy(plain)
    fuse(fused)
    with torch.autocast("cpu", torch.bfloat16):
        out, expected = fused(x), plain(x)
    assert out.dtype == expected.dtype == torch.bfloat16
    assert_near(out, expected, 0.02)
    assert called == ["conv_pair", "deconv_pair"]


@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # PyTorch scripts for jvp
def test_transforms_of_functions_see_its_layers(called):
    model, x = nn.Sequential(*pair()), torch.rand(3, 2, 6, 7)
    parameters = dict(model.named_parameters())

    def loss(parameters, example):
        return torch.func.functional_call(model, parameters, (example[None],)).square().sum()

    def results():
        each = torch.func.vmap(torch.func.grad(loss), (None, 0))(parameters, x)
        return [*each.values(), torch.func.jvp(model, (x,), (x.flip(0),))[1]]

    expected = results()
    fuse(model)
    assert all(map(torch.equal, results(), expected))
    assert called == []
