"""The block of convolution, softplus, normalisation and dropout: plain, fused, and found."""

import copy

import pytest
import torch
from conftest import assert_near, noise, require_kernels
from contract import launches
from torch import nn

from sepfast import InputError, fuse, modules, ops, reference, unfuse
from sepfast.modules import softplus_norm as fused
from sepfast.reference.philox import draw_seed, kept


def block(*, transposed=False, dropout=0.3, seed=0, **norm):
    """A plain block in float64, whose statistics have something to say."""
    torch.manual_seed(seed)
    made = reference.ConvSoftplusNorm(3, 2, 5, transposed=transposed, dropout=dropout)
    if norm:
        made.norm = nn.BatchNorm1d(2, **norm)
    for x in (*made.norm.parameters(), made.norm.running_mean):
        if x is not None:
            nn.init.normal_(x)
    return made.double()


def batch(seed=0, batch=3, frames=9):
    return 2 * noise(batch, 3, frames, seed=seed)


def outcome(layer, x, seed=0):
    """The result and the gradients of the input and of all parameters."""
    x = x.detach().requires_grad_()
    torch.manual_seed(seed)
    y = layer(x)
    parameters = [p for p in layer.parameters() if p.requires_grad]
    return [y.detach(), *torch.autograd.grad(y, [x, *parameters], noise(*y.shape, seed=9).to(y))]


def same(layer, other, x, bound=1e-12):
    """Equal results and gradients, and the same buffers behind that."""
    for a, b in zip(outcome(layer, x), outcome(other, x), strict=True):
        assert_near(a, b, bound)
    for a, b in zip(layer.buffers(), other.buffers(), strict=True):
        torch.testing.assert_close(a, b)


@pytest.fixture
def runs(monkeypatch):
    """The normalisations that run by an operator."""
    found = []

    def record(x, conv, norm, *rest):
        found.append(norm)
        return run(x, conv, norm, *rest)

    run = fused._run
    monkeypatch.setattr(fused, "_run", record)
    return found


@pytest.mark.parametrize("transposed", [False, True])
def test_the_plain_block_is_pytorchs_layers(transposed):
    plain = block(transposed=transposed, dropout=0.0)
    layers = nn.Sequential(copy.deepcopy(plain.conv), nn.Softplus(), copy.deepcopy(plain.norm))
    for step in range(3):
        same(plain, layers, batch(step))
    same(plain.eval(), layers.eval(), batch(7))
    assert plain(batch()).shape == (3, 2, 9)


@pytest.mark.parametrize("transposed", [False, True])
def test_the_fused_block_is_the_plain_one(place, transposed, runs):
    """Step by step, with dropout, and then in evaluation."""
    plain = block(transposed=transposed).to(place.device, place.dtype)
    other = copy.deepcopy(plain)
    assert [e.operator for e in fuse(other, strict=True).replaced] == ["softplus_norm"]
    assert type(other) is modules.ConvSoftplusNorm
    bound = 1e-12 if place.dtype == torch.float64 else 1e-5  # the convolution's gradients cancel
    for step in range(3):
        same(other, plain, place.put(batch(step)), bound)
    assert int(other.norm.num_batches_tracked) == 3
    same(other.eval(), plain.eval(), place.put(batch(7)), bound)
    assert len(runs) == 4
    unfuse(other)
    assert type(other) is reference.ConvSoftplusNorm


def frozen(plain):
    plain.norm.eval()


def without_bias(plain):
    plain.conv.bias = None


def circular(plain):
    plain.conv.padding_mode = "circular"
    plain.conv._reversed_padding_repeated_twice = [2, 2]


def forgotten(plain):
    plain.norm.track_running_stats = False


@pytest.mark.parametrize("change", [frozen, without_bias, circular, forgotten])
def test_what_is_changed_runs_fused_and_the_same(change, runs):
    plain = block()
    change(plain)
    other = copy.deepcopy(plain)
    fuse(other, strict=True)
    same(other, plain, batch())
    other.eval()
    same(other, plain.eval(), batch(1))
    assert len(runs) == 2


@pytest.mark.parametrize(
    "norm",
    [{"affine": False}, {"track_running_stats": False}, {"momentum": 0.7}, {"eps": 1e-2}],
    ids=str,
)
def test_normalisations_of_all_kinds_run_fused(norm, runs):
    plain = block(**norm)
    other = copy.deepcopy(plain)
    fuse(other, strict=True)
    same(other, plain, batch())
    same(other.eval(), plain.eval(), batch(1))
    assert len(runs) == 2


def test_cumulative_averages_run_plain_until_they_are_fixed(runs):
    plain = block(momentum=None)
    other = copy.deepcopy(plain)
    fuse(other, strict=True)
    for step in range(2):
        same(other, plain, batch(step))
    assert not runs
    same(other.eval(), plain.eval(), batch())
    assert len(runs) == 1


def test_a_synchronised_normalisation_runs_plain(runs):
    """Alone it has nobody to synchronise with, and is an `nn.BatchNorm1d`."""
    plain = block()
    other = copy.deepcopy(plain)
    fuse(other, strict=True)
    other = nn.SyncBatchNorm.convert_sync_batchnorm(other)
    assert type(other) is modules.ConvSoftplusNorm
    same(other, plain, batch())
    same(other.eval(), plain.eval(), batch(1))
    assert not runs
    unfuse(other)
    report = fuse(other)
    assert report.skipped[0].reason == "its normalisation is a SyncBatchNorm"


def test_hooks_and_parametrizations_run_as_they_would(runs):
    other = block().eval()
    fuse(other, strict=True)
    expected = other(batch())
    seen = []
    handle = other.norm.register_forward_hook(lambda layer, args, out: seen.append(out))
    assert_near(other(batch()), expected, 1e-12)
    assert len(seen) == 1
    handle.remove()
    nn.utils.parametrizations.weight_norm(other.conv)
    assert_near(other(batch()), expected, 1e-12)
    assert len(runs) == 1
    unfuse(other)
    assert fuse(other).skipped[0].reason == "its convolution is a ParametrizedConv1d"


def test_one_value_cannot_be_normalised():
    for layer in (block(), block()):
        with pytest.raises(ValueError, match=r"more than (1|one) value"):
            layer(batch(batch=1, frames=1))
        fuse(layer)
        with pytest.raises(InputError, match="more than one value"):
            layer(batch(batch=1, frames=1))


def test_no_batch_is_pytorchs_own_answer():
    plain = block(dropout=0.0).eval()
    other = copy.deepcopy(plain)
    fuse(other, strict=True)
    assert other(batch(batch=0)).shape == plain(batch(batch=0)).shape == (0, 2, 9)


@pytest.mark.parametrize("options", [{"kernel": 4}, {"dropout": 1.0}, {"dropout": -0.1}], ids=str)
def test_what_makes_no_block_is_refused(options):
    with pytest.raises(InputError, match=f"{next(iter(options))}: got"):
        reference.ConvSoftplusNorm(3, 2, **options)


def test_dropout_goes_by_pytorchs_seed():
    layer = block()
    fuse(layer)
    first, again, other = (outcome(layer, batch(), seed)[0] for seed in (1, 1, 2))
    assert torch.equal(first, again)
    assert not torch.equal(first == 0, other == 0)
    torch.manual_seed(1)
    assert torch.equal(first != 0, kept((3, 2, 9), 0.3, draw_seed(torch.device("cpu"))))


def test_the_block_compiles_in_one_graph():
    torch._dynamo.reset()
    plain = block().float()
    other = copy.deepcopy(plain)
    fuse(other, strict=True)
    compiled = torch.compile(other, fullgraph=True, backend="aot_eager")
    same(compiled, plain, batch().float(), 1e-5)


# What users have


def sequential(*behind, beta=1, threshold=20):
    torch.manual_seed(0)
    first = nn.Conv1d(3, 4, 5, padding=2), nn.Softplus(beta, threshold), nn.BatchNorm1d(4)
    second = nn.ConvTranspose1d(4, 3, 4, 2, 1, 1), nn.Softplus(), nn.BatchNorm1d(3)
    return nn.Sequential(nn.Identity(), *first, *behind, *second).double()


@pytest.mark.parametrize("place_of", ["train", "eval"])
def test_blocks_are_found_among_neighbours(place_of, runs):
    plain = getattr(sequential(nn.Dropout(0.0)), place_of)()
    other = copy.deepcopy(plain)
    report = fuse(other, strict=True)
    assert [e.operator for e in report.replaced] == ["softplus_norm"]
    same(other, plain, batch())
    assert runs == [other[3], other[7]]
    unfuse(other)
    assert type(other) is nn.Sequential


def test_dropout_behind_a_block_is_part_of_it(runs):
    """In training from the operator, others than `nn.Dropout` drops; frozen from `nn.Dropout`."""
    layers = sequential(nn.Dropout(0.5))[:5]
    fuse(layers, strict=True)
    x = batch(frames=200)
    first, again, other = (outcome(layers, x, seed)[0] for seed in (1, 1, 2))
    assert torch.equal(first, again)
    assert not torch.equal(first, other)
    assert abs(float((first == 0).double().mean()) - 0.5) < 0.05
    layers[4].eval()
    whole = outcome(layers, x)[0]
    torch.testing.assert_close(first, torch.where(first == 0, 0, 2 * whole))
    layers[3].eval()
    layers[4].train()
    plain = copy.deepcopy(layers)
    unfuse(plain)
    same(layers, plain, x)
    assert len(runs) == 5


def test_what_is_no_block_stays_as_it_is(runs):
    layers = sequential(beta=2)
    plain = copy.deepcopy(layers)
    report = fuse(layers)
    reason = "its Softplus has beta 2 and threshold 20"
    assert [e.reason for e in report.skipped] == [reason]
    same(layers, plain, batch())
    assert runs == [layers[6]]
    layers = sequential()[:4]
    layers[2].register_forward_hook(lambda *args: None)
    with pytest.raises(InputError, match="its Softplus has hooks"):
        fuse(layers, strict=True)
    assert fuse(nn.Sequential(nn.Conv1d(3, 4, 5), nn.BatchNorm1d(4), nn.Softplus())).replaced == ()


def test_children_may_be_exchanged(runs):
    layers = sequential()[:4].eval()
    fuse(layers, strict=True)
    layers[2] = nn.ReLU()
    assert_near(layers(batch()), layers[3](layers[1](batch()).relu()), 1e-12)
    assert not runs


def test_a_block_takes_one_launch_each_way(kernels):
    layer = block().to(kernels.device, kernels.dtype)
    fuse(layer, strict=True)
    x = kernels.put(batch())
    with launches() as launched:
        outcome(layer, x)
        outcome(layer.eval(), x)
    names = [launch.kernel.removeprefix("sepfast_softplus_") for launch in launched]
    assert names == ["norm_forward", "norm_backward", "affine_forward", "affine_backward"]


@pytest.mark.gpu
def test_replays_of_a_graph_draw_new_seeds():
    require_kernels("cuda")
    layer, x = block().float().cuda(), batch(frames=200).float().cuda()
    fuse(layer, strict=True)
    with ops.use_backend("triton"), torch.no_grad():
        layer(x)
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            y = layer(x)
        dropped = []
        for _ in range(2):
            graph.replay()
            dropped.append((y == 0).cpu())
    assert not torch.equal(*dropped)
    assert int(layer.norm.num_batches_tracked) == 3
