"""Each fused layer is its plain one but for `forward`, in models and by itself."""

import inspect
import warnings

import pytest
import torch
from conftest import DEVICE, relative_error
from torch import nn

from sepfast import InputError, fuse, modules, reference, unfuse
from sepfast.fusion import FuseReport, Replaced, Skipped
from sepfast.reference import Framing


class OwnForward(reference.SoftMask):
    def forward(self, estimates):
        return super().forward(estimates) * 2


class OwnName(reference.SoftMask):
    pass


def patched():
    layer = reference.SoftMask()
    layer.forward = lambda estimates: estimates
    return layer


def pooled():
    return reference.ConvPair(1, 2, 3, 4, 5, pool=2)


def scripted():
    with warnings.catch_warnings(action="ignore", category=DeprecationWarning):
        return torch.jit.script(reference.SoftMask())


@pytest.mark.parametrize(
    ("make", "kind", "reason"),
    [
        (OwnForward, "OwnForward", "its class overrides the forward of SoftMask"),
        (OwnName, "OwnName", "is of a subclass of SoftMask, which would be lost"),
        (patched, "SoftMask", "its forward was replaced on the instance"),
        (pooled, "ConvPair", "a max-pool stands between its convolutions"),
        (scripted, "SoftMask", "is TorchScript, fuse before scripting"),
    ],
)
def test_what_is_skipped_is_left_alone_and_says_why(make, kind, reason):
    layer = make()
    model = nn.Sequential(nn.Linear(3, 3), layer, reference.SoftMask())
    before, state = type(layer), dict(vars(layer))
    report = fuse(model)
    (skipped,) = report.skipped
    assert (skipped.name, skipped.layer) == ("1", kind)
    assert skipped.reason == reason
    assert [replaced.name for replaced in report.replaced] == ["2"]
    assert (type(layer), vars(layer)) == (before, state)
    assert f"1 ({kind}): stays, {reason}" in str(report)


def test_strict_raises_and_changes_nothing():
    model = nn.ModuleList([reference.SoftMask(), *(pooled() for _ in range(5))])
    classes = [type(layer) for layer in model.modules()]
    message = r"1 \(ConvPair: a max-pool stands .*\), 2 .*, 3 .* and 2 more$"
    with pytest.raises(InputError, match=message):
        fuse(model, strict=True)
    assert [type(layer) for layer in model.modules()] == classes
    mask = reference.SoftMask()
    assert fuse(mask, strict=True).replaced == (Replaced("", "SoftMask", "soft_mask"),)
    assert type(mask) is modules.SoftMask


def test_a_layer_of_two_names_is_swapped_once():
    mask = reference.SoftMask()
    model = nn.ModuleDict({"a": mask, "b": nn.Sequential(mask)})
    assert fuse(model).replaced == (Replaced("a", "SoftMask", "soft_mask"),)
    assert model["b"][0] is mask
    assert type(mask) is modules.SoftMask


def test_layers_in_a_users_own_model_are_fused(launched):
    class Own(nn.Module):
        def __init__(self):
            super().__init__()
            self.layers = nn.Sequential(nn.Linear(6, 6), nn.ReLU(), reference.SoftMask(dim=-1))

        def forward(self, x):
            return self.layers(x)

    model, x = Own().to(DEVICE), torch.rand(5, 6, device=DEVICE)
    before = model(x)
    assert fuse(model).replaced == (Replaced("layers.2", "SoftMask", "soft_mask"),)
    torch.testing.assert_close(model(x), before)
    assert launched == ["sepfast_soft_mask_forward"]


@pytest.mark.parametrize("rule", modules.RULES, ids=lambda rule: rule.fused.__name__)
def test_a_fused_class_is_its_plain_one_but_for_forward(rule):
    assert rule.fused.__bases__ == (rule.layer,)
    assert rule.fused.__name__ == rule.layer.__name__
    assert rule.fused is getattr(modules, rule.fused.__name__)
    own = set(vars(rule.fused)) - set(vars(type("Empty", (nn.Module,), {"__doc__": ""})))
    made = {"__annotations__", "__firstlineno__", "__static_attributes__"}
    # A model has its sources side by side, which no forward of a layer could do; what an LSTM
    # stacks are layers, in whatever form its sequences come.
    others = {
        reference.DeepConvSep: {"decode", "expanded", "loss", "_as_built"},
        reference.LSTM: {"layer"},
    }
    assert own <= made | others.get(rule.layer, {"forward"})
    for name in own - made - {"_as_built"}:
        assert parameters(getattr(rule.fused, name)) == parameters(getattr(rule.layer, name))


def parameters(function):
    """Names, kinds and defaults; PyTorch's own layers have no annotations."""
    own = inspect.signature(function).parameters.values()
    return [(each.name, each.kind, each.default) for each in own]


FRAMING = Framing(256, 64, front=192)


def layers():
    """Each layer and what it takes: 2 channels, 500 samples, 4 sources."""
    samples, frames, bins = torch.rand(2, 500), FRAMING.frames(500), FRAMING.bins
    shares = torch.rand(4, 2, frames, bins)
    scale, offset = torch.rand(bins), torch.rand(2, 1, bins)
    levels = reference.Levels(torch.rand(4, 2, 1, bins), torch.rand(2, 1, bins), shares[:, :, :1])
    return {
        "mask": (reference.SoftMask(dim=0), shares),
        "conv": (reference.ConvPair(2, 3, 4, 9, 3), torch.rand(2, 2, 5, 9)),
        "deconv": (reference.DeconvPair(2, 3, 4, 9, 3), torch.rand(2, 4, 5, 1)),
        "loss": (reference.SoftMaskLoss(), shares, shares[:, 0], shares.flip(1)),
        "stft": (reference.STFT(FRAMING), samples),
        "istft": (reference.ISTFT(FRAMING), torch.rand(2, frames, bins, 2), 500),
        "magnitude": (reference.STFTMagnitude(FRAMING, power=0.5), samples),
        "scaled": (reference.STFTMagnitude(FRAMING), samples, scale, offset),
        "trained": (reference.STFTMagnitude(FRAMING), samples, nn.Parameter(scale), offset),
        "inverse": (reference.MaskedISTFT(FRAMING), shares, samples),
        "levels": (reference.MaskedISTFT(FRAMING), shares, samples, levels),
    }


def on_device(value):
    if isinstance(value, reference.Levels):
        return reference.Levels(*map(on_device, value))
    return value.to(DEVICE) if isinstance(value, torch.Tensor) else value


@pytest.mark.parametrize("name", layers())
def test_each_layer_fused_is_itself_plain(name, launched):
    torch.manual_seed(0)
    layer, *inputs = layers()[name]
    inputs = [on_device(value) for value in inputs]
    expected = layer(*inputs)
    assert launched == []
    fuse(layer, strict=True)
    out = layer(*inputs)
    assert launched
    assert out.requires_grad == expected.requires_grad
    assert relative_error(out.detach(), expected.detach()) < 5e-6


@pytest.mark.parametrize("kind", ["STFT", "ISTFT", "STFTMagnitude", "MaskedISTFT"])
def test_a_framing_without_a_kernel_is_skipped(kind):
    layer = getattr(reference, kind)(Framing(400, 100))
    reason = "as n_fft 400 is no power of two from 256 to 4096"
    assert fuse(layer) == FuseReport((), (Skipped("", kind, reason),))
    assert type(layer) is getattr(reference, kind)


def test_printed_layers_show_their_options():
    printed = {name: repr(layer) for name, (layer, *_) in layers().items()}
    assert printed.pop("mask") == "SoftMask(dim=0)"
    assert all("kernel_size=(3, 1)" in printed.pop(name) for name in ("conv", "deconv"))
    assert "alpha=0.001" in printed.pop("loss")
    assert "power=0.5" in printed["magnitude"]
    assert all("hop=64" in text for text in printed.values())


class Pair(nn.Sequential):
    def forward(self, x):
        return super().forward(x)


def test_a_rule_can_look_at_an_instance(monkeypatch):
    rule = modules.Rule(
        nn.Sequential,
        Pair,
        "pair",
        concerns=lambda layer: len(layer) == 2,
        obstacle=lambda layer: None if layer[0].bias is not None else "has no bias",
    )
    monkeypatch.setattr("sepfast.fusion.RULES", (rule,))
    pairs = [nn.Sequential(nn.Linear(1, 1, bias=b), nn.ReLU()) for b in (True, False)]
    model = nn.Sequential(*pairs, nn.Sequential(nn.ReLU()))
    report = fuse(model)
    assert report.replaced == (Replaced("0", "Sequential", "pair"),)
    assert report.skipped == (Skipped("1", "Sequential", "has no bias"),)
    unfuse(model)
    assert {type(layer) for layer in model} == {nn.Sequential}
