"""Convolution pairs in anyone's `nn.Sequential`: what `fuse` takes and leaves."""

import copy
import pickle

import pytest
import torch
from conftest import assert_near, noise
from pairing import assert_same, gradients, pair, twin
from torch import nn

from sepfast import InputError, fuse, modules, unfuse
from sepfast.fusion import FuseReport, Replaced, Skipped

SOURCES = ("voice", "drums", "bass", "other")


SMALL = {"bins": 17, "context": 6, "n1": 5, "n2": 3, "t2": 3, "units": 7}


class Thesis(nn.Module):
    """The stereo network as its author has it: PyTorch's layers alone, named as in her weights."""

    def __init__(self, bins=513, context=30, n1=50, n2=30, t2=15, units=128):
        super().__init__()
        self.codes = (n2, context - t2 + 1, 1)
        width = n2 * self.codes[1]
        self.encoder = nn.Sequential(nn.Conv2d(2, n1, (1, bins)), nn.Conv2d(n1, n2, (t2, 1)))
        self.layer_first = nn.Sequential(nn.Linear(width, units), nn.ReLU())
        for source in SOURCES:
            layer = nn.Sequential(nn.Linear(units, width), nn.ReLU())
            self.add_module(f"layer_{source}", layer)
        for source in SOURCES:
            decoder = nn.Sequential(
                nn.ConvTranspose2d(n2, n1, (t2, 1)), nn.ConvTranspose2d(n1, 2, (1, bins))
            )
            self.add_module(f"decode_{source}", decoder)
        self.example = (2, 2, context, bins)

    def forward(self, x):
        hidden = self.layer_first(self.encoder(x).flatten(1))
        estimates = []
        for source in SOURCES:
            codes = self.get_submodule(f"layer_{source}")(hidden).unflatten(1, self.codes)
            estimates.append(self.get_submodule(f"decode_{source}")(codes))
        return torch.cat(estimates, dim=1).relu()


def thesis(**sizes):
    torch.manual_seed(0)
    model = Thesis(**sizes)
    for weight in model.parameters():
        nn.init.uniform_(weight, 0, 0.1)  # no ReLU is near its corner
    return model


ALL = ["conv_pair", *["deconv_pair"] * 4]


# Someone's own network


def test_a_copy_of_the_thesis_network_is_fused_whole():
    model = thesis()
    tensors, keys = dict(model.named_parameters()), list(model.state_dict())
    assert sum(tensor.numel() for tensor in tensors.values()) == 678_536
    report = fuse(model, strict=True)
    decoders = [Replaced(f"decode_{s}", "Sequential", "deconv_pair") for s in SOURCES]
    assert report.replaced == (Replaced("encoder", "Sequential", "conv_pair"), *decoders)
    layers = [f"layer_{s}.0" for s in ("first", *SOURCES)]
    decoded = [f"decode_{s}.{i}" for s in SOURCES for i in (0, 1)]
    names = ["encoder.0", "encoder.1", *layers, *decoded]
    assert keys == [f"{name}.{kind}" for name in names for kind in ("weight", "bias")]
    assert list(model.state_dict()) == keys
    assert all(tensors[name] is tensor for name, tensor in model.named_parameters())
    assert fuse(model) == FuseReport()


def test_fused_is_plain_to_rounding(place, called):
    model = thesis(**({} if place.dtype == torch.float64 else SMALL))
    plain = model.to(place.device, place.dtype)
    fused = copy.deepcopy(plain)
    fuse(fused)
    x = place.put(noise(*plain.example).abs())
    expected = gradients(plain, x)
    assert called == []
    bounds = [5 * place.bound("conv_pair", stage) for stage in ("forward", "backward")]
    for i, (one, other) in enumerate(zip(gradients(fused, x), expected, strict=True)):
        assert_near(one, other, bounds[i > 0])
    assert called == ALL


def test_unfuse_brings_the_plain_layers_back(called):
    model = thesis(**SMALL)
    classes = [type(layer) for layer in model.modules()]
    fuse(model)
    unfuse(model)
    assert [type(layer) for layer in model.modules()] == classes
    model(torch.rand(model.example))
    assert called == []


def test_an_optimizer_made_before_updates_the_model(called):
    plain, x = thesis(**SMALL), noise(2, 2, 6, 17).float()
    fused = copy.deepcopy(plain)
    for model in (plain, fused):
        optimizer = torch.optim.SGD(model.parameters(), lr=0.01)
        if model is fused:
            fuse(model)
        model(x).sum().backward()
        optimizer.step()
    assert called == ALL
    for one, other in zip(fused.parameters(), plain.parameters(), strict=True):
        assert_near(one, other, 1e-5)


@pytest.mark.parametrize("again", [copy.deepcopy, lambda m: pickle.loads(pickle.dumps(m))])
def test_copies_and_pickles_stay_fused(again, called):
    model, x = thesis(**SMALL), torch.rand(2, 2, 6, 17)
    fuse(model)
    other = again(model)
    assert type(other.encoder) is modules.Sequential
    assert torch.equal(other(x), model(x))
    assert called == ALL * 2
    assert type(model.encoder[:1]) is modules.Sequential  # as nn.Sequential has it


@pytest.mark.parametrize("first", ["fuse", "compile"])
def test_it_compiles_before_and_behind(first, kernels, called):
    torch.compiler.reset()
    plain = thesis(**SMALL).to(kernels.device)
    model, x = copy.deepcopy(plain), kernels.put(noise(*plain.example).abs())
    compiled = torch.compile(model, fullgraph=True, backend="aot_eager")
    if first == "compile":
        compiled(x)
        assert called == []
        assert fuse(compiled).replaced[0].name == "_orig_mod.encoder"
    fuse(model)
    assert_same(compiled, plain, x)
    assert called


def test_it_exports_as_operators():
    model = thesis(**SMALL)
    fuse(model)
    program = torch.export.export(model, (torch.rand(model.example),))
    nodes = [str(node.target) for node in program.graph.nodes]
    assert nodes.count("sepfast.conv_pair.default") == 1
    assert nodes.count("sepfast.deconv_pair.default") == 4


# What is taken


def test_pairs_are_found_anywhere_in_a_sequential(called):
    layers = [*pair(), nn.ReLU(), nn.Dropout(0.0), *twin(), nn.Conv2d(2, 2, 1), *pair(), *twin()]
    plain = nn.Sequential(*layers)
    fused = copy.deepcopy(plain)
    assert fuse(fused, strict=True).replaced == (
        Replaced("", "Sequential", "conv_pair, deconv_pair"),
    )
    assert_same(fused, plain, torch.rand(2, 2, 6, 7))
    assert called == ["conv_pair", "deconv_pair"] * 2


def test_nested_sequentials_are_looked_through(called):
    inner = nn.Sequential(*pair())
    spread = nn.Sequential(nn.Sequential(pair()[0]), nn.Sequential(pair()[1]))
    model = nn.Sequential(inner, nn.ReLU(), nn.Sequential(*twin()), spread)
    names = [each.name for each in fuse(model, strict=True).replaced]
    assert names == ["0", "2"]
    model(torch.rand(1, 2, 6, 7))
    assert called == ["conv_pair", "deconv_pair"]


@pytest.mark.parametrize("make", [pair, twin])
@pytest.mark.parametrize("biased", [(False, True), (True, False), (False, False)])
def test_layers_may_have_no_bias(make, biased, called):
    plain = nn.Sequential(*make())
    for layer, keeps in zip(plain, biased, strict=True):
        layer.bias = layer.bias if keeps else None
    fused = copy.deepcopy(plain)
    fuse(fused, strict=True)
    assert_same(fused, plain, torch.rand(2, 2, 6, 7) if make is pair else torch.rand(2, 4, 4, 1))
    assert len(called) == 1


def test_padding_may_be_valid(called):
    model = nn.Sequential(*pair(padding="valid"))
    fuse(model, strict=True)
    model(torch.rand(2, 2, 6, 7))
    assert called == ["conv_pair"]


class OwnConv(nn.Conv2d):
    pass


@pytest.mark.parametrize(
    "layers",
    [
        [nn.Conv2d(2, 6, (1, 1)), nn.Conv2d(6, 4, (1, 1))],
        [nn.Conv2d(2, 6, (1, 1)), nn.Conv2d(6, 4, (3, 1))],
        [nn.Conv2d(2, 6, (1, 7)), nn.Conv2d(6, 4, (1, 1))],
        [nn.Conv2d(2, 6, (3, 7)), nn.Conv2d(6, 4, (3, 1))],
        [nn.Conv2d(2, 6, (1, 7)), nn.Conv2d(6, 4, (3, 3))],
        [nn.Conv2d(2, 6, (3, 1)), nn.Conv2d(6, 4, (1, 7))],
        [nn.ConvTranspose2d(2, 6, (1, 7)), nn.ConvTranspose2d(6, 4, (3, 1))],
        [nn.Conv2d(2, 6, (1, 7)), nn.ConvTranspose2d(6, 4, (3, 1))],
        [nn.Conv2d(2, 6, (1, 7)), nn.ReLU(), nn.Conv2d(6, 4, (3, 1))],
        [OwnConv(2, 6, (1, 7)), nn.Conv2d(6, 4, (3, 1))],
        [nn.LazyConv2d(6, (1, 7)), nn.LazyConv2d(4, (3, 1))],
        [nn.Conv2d(2, 6, (1, 7))],
        [],
    ],
)
def test_what_is_no_pair_is_no_business(layers):
    model = nn.Sequential(*layers)
    assert fuse(model) == FuseReport()
    assert type(model) is nn.Sequential


@pytest.mark.parametrize(
    ("make", "options", "reason"),
    [
        (pair, {"stride": (2, 1)}, "has stride (2, 1)"),
        (pair, {"padding": (0, 3)}, "has padding (0, 3)"),
        (pair, {"padding": "same"}, "has padding 'same'"),
        (pair, {"dilation": (1, 2), "groups": 2}, "has dilation (1, 2)"),
        (pair, {"groups": 2}, "has groups 2"),
        (pair, {"padding_mode": "reflect"}, "has padding_mode 'reflect'"),
        (twin, {"stride": 2}, "has stride (2, 2)"),
        (twin, {"groups": 2}, "has groups 2"),
        (twin, {"output_padding": (1, 0)}, "has output_padding (1, 0)"),
    ],
)
def test_other_options_are_left_alone_with_the_reason(make, options, reason):
    model = nn.ModuleList([nn.Sequential(*make(**options)), nn.Sequential(*make())])
    report = fuse(model)
    assert [each.name for each in report.replaced] == ["1"]
    assert report.skipped == (Skipped("0", "Sequential", f"its convolution 0 {reason}"),)
    assert type(model[0]) is nn.Sequential


def test_one_pair_of_two_is_taken_and_the_other_said(called):
    plain = nn.Sequential(*pair(), *twin(), *pair(stride=(2, 1)))
    fused = copy.deepcopy(plain)
    with pytest.raises(InputError, match="its convolution 4 has stride"):
        fuse(fused, strict=True)
    assert type(fused) is nn.Sequential
    report = fuse(fused)
    assert report.replaced == (Replaced("", "Sequential", "conv_pair, deconv_pair"),)
    assert report.skipped == (Skipped("", "Sequential", "its convolution 4 has stride (2, 1)"),)
    assert_same(fused, plain, torch.rand(2, 2, 9, 7))
    assert called == ["conv_pair", "deconv_pair"]


class Branch(nn.Sequential):
    pass


class Doubled(nn.Sequential):
    def forward(self, x):
        return super().forward(x) * 2


def test_subclasses_are_left_alone_where_they_hold_a_pair():
    model = nn.ModuleList([Branch(*pair()), Doubled(*twin()), Branch(nn.ReLU()), Doubled()])
    assert fuse(model).skipped == (
        Skipped("0", "Branch", "is of a subclass of Sequential, which would be lost"),
        Skipped("1", "Doubled", "its class overrides the forward of Sequential"),
    )


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_torchscript_has_no_pairs():
    scripted = torch.jit.script(nn.Sequential(*pair()))
    assert fuse(scripted) == FuseReport()
