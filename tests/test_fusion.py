"""Models with fused layers in them: what `fuse` swaps, what it leaves, and that nothing is lost."""

import copy
import inspect
import os
import pickle
import warnings

import pytest
import torch
from conftest import relative_error
from torch import nn

from sepfast import InputError, create_model, fuse, modules, reference, unfuse, use_backend
from sepfast.fusion import FuseReport, Replaced, Skipped
from sepfast.reference import Framing

# A process runs kernels in the interpreter or on a GPU, as `kernel_device` has it.
DEVICE = "cpu" if os.environ.get("TRITON_INTERPRET") == "1" else "cuda"
SOURCES = ("vocals", "drums", "other")
SMALL = {"context": 4, "n1": 3, "n2": 2, "units": 5, "sources": SOURCES}
MODELS = ["deepconvsep", "deepconvsep-stereo"]
#: Layers of `System` that run fused.
FUSED = {"model.encoder", "model.decoder.drums", "model.mask", "loss"}


class System(nn.Module):
    """A user's own module: a model's shares, and its loss."""

    def __init__(self, name="deepconvsep"):
        super().__init__()
        torch.manual_seed(0)
        self.model = create_model(name, **SMALL, dropout=0.2)
        for weight in self.model.parameters():
            nn.init.uniform_(weight, 0, 0.2)  # no ReLU is dead, so that no gradient is all zeros
        self.loss = reference.SoftMaskLoss()
        self.to(DEVICE)

    def forward(self, mixture, targets):
        estimates = self.model(mixture)
        loss = self.loss(estimates.unflatten(1, targets.shape[1:3]), mixture, targets)
        return self.model.shares(estimates), loss


def example(system, batch=2, dtype=torch.float32):
    """A mixture and its targets."""
    random = torch.Generator().manual_seed(1)
    shape = (batch, len(SOURCES), system.model.channels, system.model.context, 513)
    targets = torch.rand(shape, generator=random, dtype=torch.float64)
    targets = targets.to(DEVICE, dtype)
    return targets.sum(1), targets


def step(system):
    """Shares, loss and the gradient of all parameters through both, in the parameters' type."""
    parameters = list(system.parameters())
    mixture, targets = example(system, dtype=parameters[0].dtype)
    torch.manual_seed(2)  # of dropout
    shares, loss = system(mixture, targets)
    objective = loss + (shares * targets).sum()
    grads = torch.autograd.grad(objective, parameters)
    return shares.detach(), loss.detach(), torch.cat([grad.flatten() for grad in grads])


@pytest.fixture
def launched(monkeypatch, kernel_device):
    """The names of the kernels that run; operators run kernels in here, and nothing else."""
    from sepfast.kernels import launch

    names, plain = [], launch.Kernel.launch

    def spy(kernel, *args, **options):
        names.append(kernel.name)
        return plain(kernel, *args, **options)

    monkeypatch.setattr(launch.Kernel, "launch", spy)
    with use_backend("triton"):
        yield names


def alike(some, others):
    return all(relative_error(a, b) < 1e-5 for a, b in zip(some, others, strict=True))


@pytest.mark.parametrize("name", MODELS)
@pytest.mark.parametrize("training", [True, False])
def test_fused_is_plain_to_rounding(name, training, launched):
    plain = System(name).train(training)
    double, fused = copy.deepcopy(plain).double(), copy.deepcopy(plain)
    report = fuse(fused)
    assert {r.name for r in report.replaced} >= FUSED
    true, expected = step(double), step(plain)
    assert launched == []
    rounding = torch.finfo(torch.float32).eps  # the error of a scalar can be 0 by luck
    for out, theirs, exact in zip(step(fused), expected, true, strict=True):
        assert relative_error(out, exact) <= 2 * relative_error(theirs, exact) + rounding
    assert any("soft_mask_forward" in kernel for kernel in launched)
    assert any("soft_mask_backward" in kernel for kernel in launched)
    assert any("soft_mask_loss" in kernel for kernel in launched)


@pytest.mark.parametrize("name", MODELS)
def test_tensors_are_the_same_objects(name):
    model = create_model(name, **SMALL)
    before = {**dict(model.named_parameters()), **dict(model.named_buffers())}
    keys = list(model.state_dict())
    fuse(model)
    after = {**dict(model.named_parameters()), **dict(model.named_buffers())}
    assert keys == list(model.state_dict())
    assert before.keys() == after.keys()
    assert all(before[key] is after[key] for key in before)


def test_an_optimizer_made_before_updates_the_model(launched):
    updates = []
    for swap in (unfuse, fuse):
        system = System().eval()
        optimizer = torch.optim.SGD(system.parameters(), lr=1.0)
        before = copy.deepcopy(system.state_dict())
        swap(system)
        system(*example(system))[1].backward()
        optimizer.step()
        updates.append({k: p.detach() - before[k] for k, p in system.named_parameters()})
    assert launched
    for key, update in updates[0].items():
        assert relative_error(updates[1][key], update) < 1e-4, key


def test_hooks_survive_and_fire(launched):
    system, fired = System(), []
    system.model.mask.register_forward_pre_hook(lambda *args: fired.append("before"))
    system.model.mask.register_forward_hook(lambda *args: fired.append("behind"))
    system.model.mask.register_full_backward_hook(lambda *args: fired.append("backward"))
    fuse(system)
    step(system)
    assert fired == ["before", "behind", "backward"]
    assert launched


def test_fusing_twice_is_fusing_once():
    model = create_model("deepconvsep", **SMALL)
    first, second = fuse(model), fuse(model)
    assert Replaced("mask", "SoftMask", "soft_mask") in first.replaced
    assert second == FuseReport((), first.skipped)
    assert type(model.mask) is modules.SoftMask


def test_unfuse_brings_the_plain_layers_back(launched):
    system = System().eval()
    classes, before = [type(layer) for layer in system.modules()], step(system)
    fuse(system)
    assert [type(layer) for layer in system.modules()] != classes
    unfuse(system)
    assert [type(layer) for layer in system.modules()] == classes
    after = step(system)
    assert alike(before, after)
    assert launched == []


@pytest.mark.parametrize("again", [copy.deepcopy, lambda m: pickle.loads(pickle.dumps(m))])
def test_copies_and_pickles_stay_fused(again, launched):
    system = System().eval()
    fuse(system)
    other = again(system)
    assert (type(other.model.mask), type(other.loss)) == (modules.SoftMask, modules.SoftMaskLoss)
    assert alike(step(system), step(other))


def test_torch_save_keeps_a_model_fused(tmp_path):
    model = create_model("deepconvsep", **SMALL)
    fuse(model)
    torch.save(model, tmp_path / "model.pt")
    again = torch.load(tmp_path / "model.pt", weights_only=False)
    assert type(again.mask) is modules.SoftMask


@pytest.fixture
def one_process(tmp_path):
    """A process group of this process alone."""
    store = torch.distributed.FileStore(str(tmp_path / "store"), 1)
    torch.distributed.init_process_group("gloo", store=store, rank=0, world_size=1)
    yield
    torch.distributed.destroy_process_group()


@pytest.mark.skipif(not torch.distributed.is_available(), reason="PyTorch without distributed")
@pytest.mark.parametrize("first", ["fuse", "wrap"])
def test_ddp_wraps_it_before_and_behind(first, one_process, launched):
    system = System().eval()
    twin = copy.deepcopy(system)
    fuse(twin)
    if first == "fuse":
        fuse(system)
    parallel = nn.parallel.DistributedDataParallel(system)
    if first == "wrap":
        names = {replaced.name for replaced in fuse(parallel).replaced}
        assert names >= {f"module.{name}" for name in FUSED}
    for each in (twin, parallel):
        each(*example(system))[1].backward()
    assert launched
    assert alike(*([p.grad for p in each.parameters()] for each in (system, twin)))


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


def test_report_reads_well():
    done, left = Replaced("mask", "SoftMask", "soft_mask"), Skipped("", "ConvPair", "it is late")
    assert str(FuseReport((done,), (left,))).splitlines() == [
        "1 replaced, 1 skipped",
        "  mask (SoftMask): runs soft_mask",
        "  the model itself (ConvPair): stays, it is late",
    ]


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


@pytest.mark.parametrize("swap", [fuse, unfuse])
@pytest.mark.parametrize("model", [None, "deepconvsep", reference.SoftMask])
def test_what_is_no_module_is_refused(swap, model):
    with pytest.raises(InputError, match=r"^model: got a \w+, takes a torch.nn.Module$"):
        swap(model)


def test_a_layer_of_two_names_is_swapped_once():
    mask = reference.SoftMask()
    model = nn.ModuleDict({"a": mask, "b": nn.Sequential(mask)})
    assert fuse(model).replaced == (Replaced("a", "SoftMask", "soft_mask"),)
    assert model["b"][0] is mask
    assert type(mask) is modules.SoftMask


def test_other_instances_stay_plain():
    fused, other = reference.SoftMask(), reference.SoftMask()
    fuse(fused)
    assert type(other) is reference.SoftMask
    assert reference.SoftMask.forward is not modules.SoftMask.forward


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


@pytest.mark.parametrize("first", ["fuse", "compile"])
def test_it_compiles_before_and_behind(first, launched):
    torch.compiler.reset()
    model = nn.Sequential(nn.Linear(6, 6), reference.SoftMask()).to(DEVICE)
    x = torch.rand(5, 6, device=DEVICE)
    expected = model(x)
    if first == "fuse":
        fuse(model)
    compiled = torch.compile(model, fullgraph=True, backend="aot_eager")
    if first == "compile":
        torch.testing.assert_close(compiled(x), expected)
        assert launched == []
        assert [replaced.name for replaced in fuse(compiled).replaced] == ["_orig_mod.1"]
    torch.testing.assert_close(compiled(x), expected)
    assert launched == ["sepfast_soft_mask_forward"]
    compiled(x).sum().backward()
    assert launched[2:] == ["sepfast_soft_mask_backward"]
    unfuse(compiled)
    torch.testing.assert_close(compiled(x), expected)
    assert len(launched) == 3


def test_a_layer_compiled_by_itself_can_be_fused(launched):
    torch.compiler.reset()
    mask, x = reference.SoftMask(), torch.rand(5, 6, device=DEVICE)
    compiled = torch.compile(mask, backend="aot_eager")
    torch.testing.assert_close(compiled(x), mask(x))
    assert [replaced.name for replaced in fuse(compiled).replaced] == ["_orig_mod"]
    torch.testing.assert_close(compiled(x), reference.soft_mask(x))
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
