"""Models with fused layers in them: what `fuse` swaps and leaves, and that nothing is lost."""

import copy
import pickle

import pytest
import torch
from conftest import DEVICE, relative_error
from torch import nn

from sepfast import InputError, create_model, fuse, modules, reference, unfuse
from sepfast.fusion import FuseReport, Replaced, Skipped

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


def test_report_reads_well():
    done, left = Replaced("mask", "SoftMask", "soft_mask"), Skipped("", "ConvPair", "it is late")
    assert str(FuseReport((done,), (left,))).splitlines() == [
        "1 replaced, 1 skipped",
        "  mask (SoftMask): runs soft_mask",
        "  the model itself (ConvPair): stays, it is late",
    ]


@pytest.mark.parametrize("swap", [fuse, unfuse])
@pytest.mark.parametrize("model", [None, "deepconvsep", reference.SoftMask])
def test_what_is_no_module_is_refused(swap, model):
    with pytest.raises(InputError, match=r"^model: got a \w+, takes a torch.nn.Module$"):
        swap(model)


def test_other_instances_stay_plain():
    fused, other = reference.SoftMask(), reference.SoftMask()
    fuse(fused)
    assert type(other) is reference.SoftMask
    assert reference.SoftMask.forward is not modules.SoftMask.forward


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
