"""Softplus, batch normalisation and dropout: PyTorch's numbers, Philox's bits, every tiling."""

import pytest
import torch
import torch.nn.functional as F
from conftest import assert_near, noise, require_kernels
from contract import blocks_of, launches
from torch import library

from sepfast import InputError, ops, reference
from sepfast.reference.philox import dropped, kept, philox

SEED = torch.tensor([-(2**62) - 12345])


def made(batch=3, channels=2, frames=37):
    """x, which spreads over the bend of softplus, bias, weight and offset."""
    vectors = (noise(channels, seed=seed) for seed in (1, 2, 3))
    return [3 * noise(batch, channels, frames), *vectors]


def outcome(function, args, **options):
    """The results of `softplus_norm`, and the gradients of all that is given."""
    leaves = [None if x is None else x.detach().requires_grad_() for x in args]
    y, mean, variance = function(*leaves, **options)
    grad = noise(*y.shape, seed=9).to(y)
    given = [x for x in leaves if x is not None]
    return [y.detach(), mean, variance, *torch.autograd.grad(y, given, grad)]


def check(place, args, **options):
    """The operator against the reference and PyTorch's own gradient, both in float64."""
    args = [None if x is None else place.put(x) for x in args]
    wide = [None if x is None else x.cpu().double() for x in args]
    true = outcome(reference.softplus_norm, wide, **options)
    if options.get("seed") is not None:
        options["seed"] = options["seed"].to(place.device)
    found = outcome(ops.softplus_norm, args, **options)
    for at, (x, expected) in enumerate(zip(found, true, strict=True)):
        stage = "backward" if at > 2 else "forward"
        assert_near(x, expected, place.bound("softplus_norm", stage))
    return found


def by_pytorch(x, bias, weight, offset):
    mean, variance = torch.zeros(2, x.shape[1], dtype=x.dtype)
    s = F.softplus(x + bias[:, None])
    return F.batch_norm(s, mean, variance, weight, offset, True, 1.0), mean, variance


def test_the_reference_is_pytorchs_layers():
    args = made()
    y, mean, variance, *grads = outcome(ops.softplus_norm, args)
    true, true_mean, unbiased, *true_grads = outcome(by_pytorch, args)
    found = y, mean, variance * (3 * 37 / (3 * 37 - 1)), *grads
    for x, expected in zip(found, (true, true_mean, unbiased, *true_grads), strict=True):
        torch.testing.assert_close(x, expected)


def test_gradients_are_those_of_differences():
    leaves = [x.requires_grad_() for x in made(2, 2, 3)]
    assert torch.autograd.gradcheck(
        lambda *x: ops.softplus_norm(*x, dropout=0.4, seed=SEED)[0], leaves
    )


@pytest.mark.parametrize("dropout", [0.0, 0.3])
def test_pytorch_gives_the_operators_gradients(place, dropout):
    check(place, made(), dropout=dropout, seed=SEED)


@pytest.mark.parametrize(
    ("shape", "processors"),
    [((1, 1, 5), 1), ((7, 1, 1), 4), ((18, 1, 9), 1), ((3, 1, 64), 4), ((2, 1, 129), 4)],
)
def test_every_tiling_gives_the_same(kernels, monkeypatch, shape, processors):
    """Tiles within a line, of several lines, and of several lines' ends; channels shared out."""
    monkeypatch.setattr("sepfast.kernels.launch.lookup", blocks_of(TILE=64))
    monkeypatch.setattr("sepfast.kernels.launch.processors", lambda device: processors)
    monkeypatch.setattr("sepfast.kernels.softplus_norm._TILES", 1)
    check(kernels, made(*shape), dropout=0.3, seed=SEED)


def test_few_channels_are_shared_out(kernels, monkeypatch):
    monkeypatch.setattr("sepfast.kernels.launch.processors", lambda device: 132)
    with launches() as launched:
        ops.softplus_norm(torch.ones(1, 4, 10**5, device=kernels.device))
        ops.softplus_norm(torch.ones(2, 512, 200, device=kernels.device))
    stages = [launch.constants["STAGE"] for launch in launched]
    assert stages == ["statistics", "apply", "whole"]


@pytest.mark.parametrize("absent", [(1,), (2,), (3,), (1, 2, 3)], ids=str)
def test_vectors_may_be_absent(place, absent):
    args = [None if at in absent else x for at, x in enumerate(made(2, 2, 9))]
    check(place, args)


def test_statistics_next_to_their_mean_keep_their_digits(kernels, monkeypatch):
    """Deviations of 1e-5 of the mean, in tiles that lie further apart than that.

    Their means are rounded to 3e-5, and lie 0.1 apart; a sum of squares less a square would be off
    by several times the variance.
    """
    monkeypatch.setattr("sepfast.kernels.launch.lookup", blocks_of(TILE=64))
    x = 1000 + 0.01 * noise(4, 1, 60) + torch.arange(4)[:, None, None] / 10
    x = kernels.put(x)
    _, mean, variance = ops.softplus_norm(x)
    torch.testing.assert_close(mean, x.double().mean((0, 2)).float(), rtol=1e-7, atol=0)
    true = x.double().var((0, 2), correction=0).float()
    torch.testing.assert_close(variance, true, rtol=5e-4, atol=0)


@pytest.mark.parametrize("shape", [(0, 2, 5), (3, 2, 0), (3, 0, 5)], ids=str)
def test_nothing_is_nothing(place, shape):
    args = [place.put(x) for x in made(*shape)]
    y, mean, variance, *grads = outcome(ops.softplus_norm, args)
    assert y.shape == shape
    assert mean.isnan().all()
    assert variance.isnan().all()
    assert not any(x.any() for x in grads)


# Dropout

#: Counter, key and result, from the tests of the authors' own library.
VECTORS = [
    ("0 0 0 0", "0 0", "6627e8d5 e169c58d bc57ac4c 9b00dbd8"),
    (" ".join(["ffffffff"] * 4), "ffffffff ffffffff", "408f276d 41c83b0e a20bc7c6 6d5451fd"),
    (
        "243f6a88 85a308d3 13198a2e 03707344",
        "a4093822 299f31d0",
        "d16cfe09 94fdcceb 5001e420 24126ea1",
    ),
]


@pytest.mark.parametrize(("counter", "key", "words"), VECTORS)
def test_philox_is_the_published_one(counter, key, words):
    a, b, c = ([torch.tensor(int(x, 16)) for x in text.split()] for text in (counter, key, words))
    assert philox(tuple(a), tuple(b)) == tuple(c)


@pytest.mark.parametrize(
    ("shape", "seed"),
    [((2, 2, 1), 0), ((1, 2, 7), 2**63 - 1), ((3, 1, 8), -1), ((2, 1, 150), 2**32 + 5)],
)
def test_kernels_and_pytorch_drop_the_same(kernels, monkeypatch, shape, seed):
    monkeypatch.setattr("sepfast.kernels.launch.lookup", blocks_of(TILE=64))
    seed = torch.tensor([seed], device=kernels.device)
    x, offset = noise(*shape).to(kernels.device).float(), torch.full(shape[1:2], 1e3)
    y, _, _ = ops.softplus_norm(
        x, None, None, offset.to(x.device), dropout=0.5, seed=seed
    )  # of a thousand: 0 is what was dropped
    assert torch.equal(y != 0, kept(shape, 0.5, seed))


@pytest.mark.parametrize("dropout", [0.1, 0.3, 0.5, 0.999])
def test_as_many_are_dropped_as_asked_for(dropout):
    count = 64 * 37 * 251
    off = float(kept((64, 37, 251), dropout, SEED).double().mean()) - (1 - dropout)
    assert abs(off) < 5 * (dropout * (1 - dropout) / count) ** 0.5
    x = dropped(torch.ones(2, 3, 50), dropout, SEED)
    assert set(x.unique().tolist()) <= {0.0, float(torch.tensor(1 / (1 - dropout)))}


def test_what_is_dropped_goes_by_the_seed_and_the_place():
    shape = (4, 3, 1001)
    first = kept(shape, 0.5, SEED)
    assert torch.equal(first, kept(shape, 0.5, SEED.clone()))
    lines = first.flatten(0, 1)
    others = [kept(shape, 0.5, SEED + step).flatten(0, 1) for step in (1, 2**32)]
    # Two of any are alike in half of their places, give or take five deviations.
    pairs = [(lines, other) for other in others] + [(lines[:-1], lines[1:])]
    pairs += [(lines[:, step:], lines[:, :-step]) for step in (1, 2, 4, 8, 16)]
    for a, b in pairs:
        alike = (a == b).double()
        assert abs(float(alike.mean()) - 0.5) < 2.5 / alike.numel() ** 0.5


@pytest.mark.parametrize("way", ["forward", "backward"])
@pytest.mark.parametrize("operator", ["softplus_norm", "softplus_affine"])
def test_there_is_something_to_tune_them_on(operator, way):
    from sepfast.bench.tuning_jobs import jobs, prepare

    job = next(job for job in jobs() if job.stage == f"{operator}_{way}")
    run, tensors = prepare(job, 3, torch.device("cpu"))
    with ops.use_backend("reference"):
        out = run(tensors)
    assert out.shape == tensors["x"].shape
    assert out.isfinite().all()
    assert out.any()


def test_the_operator_with_a_seed_is_registered():
    args = [x.float().requires_grad_() for x in made(2, 2, 9)]
    mean, variance = torch.rand(2, 2) + 0.5
    x, bias, weight, _ = (x.detach() for x in args)
    checks = "test_schema", "test_faketensor", "test_autograd_registration"
    operators = torch.ops.sepfast
    forward = *args, SEED, 1e-5, 0.3
    library.opcheck(operators.softplus_norm.default, forward, test_utils=checks)
    backward = x, bias, weight, mean, variance, SEED, 1e-5, 0.3, x
    library.opcheck(operators.softplus_norm_backward.default, backward, test_utils=checks[:2])


def test_dropout_compiles_in_one_graph():
    torch._dynamo.reset()
    compiled = torch.compile(ops.softplus_norm, fullgraph=True, backend="aot_eager")
    options = {"dropout": 0.3, "seed": SEED}
    expected = outcome(ops.softplus_norm, made(), **options)
    assert all(map(torch.equal, outcome(compiled, made(), **options), expected))


# Types, and what is refused


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16], ids=str)
@pytest.mark.parametrize("backend", ["reference", "triton"])
def test_half_types_take_vectors_in_float32(backend, dtype):
    if backend == "triton":
        require_kernels("cpu")
    args = [x.to(dtype if x.ndim == 3 else torch.float32) for x in made()]
    with ops.use_backend(backend):
        found = outcome(ops.softplus_norm, args)
    assert [x.dtype for x in found] == [dtype, *[torch.float32] * 2, dtype, *[torch.float32] * 3]
    true = outcome(reference.softplus_norm, [x.double() for x in args])
    for x, expected in zip(found[1:3], true[1:3], strict=True):
        torch.testing.assert_close(x.double(), expected, rtol=1e-6, atol=0)
    # The incoming gradient is rounded, too, and cancels in part in that of the bias.
    for x, expected in zip(found, true, strict=True):
        assert_near(x, expected, 10 * torch.finfo(dtype).eps)


def test_autocast_takes_all_in_float32(place):
    args = [x.to(place.device).bfloat16() for x in made()]
    with torch.autocast(place.device, torch.bfloat16):
        y, mean, variance = ops.softplus_norm(*args)
    assert y.dtype == mean.dtype == variance.dtype == torch.float32
    assert_near(y, reference.softplus_norm(*(x.cpu().double() for x in args))[0], 5e-7)


def test_statistics_are_constants(place):
    args = [place.put(x).requires_grad_() for x in made()]
    y, mean, variance = ops.softplus_norm(*args)
    assert y.requires_grad
    assert not mean.requires_grad
    assert not variance.requires_grad


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"x": torch.zeros(3, 2)}, r"x: got shape \(3, 2\), takes \(B, C, T\)"),
        ({"x": torch.zeros(1, 2, 1)}, r"x: got shape \(1, 2, 1\), takes more than one value"),
        ({"bias": torch.zeros(3)}, r"bias: got shape \(3,\), takes \(2,\) or None"),
        ({"weight": torch.zeros(2, 1)}, r"weight: got shape \(2, 1\), takes \(2,\) or None"),
        ({"offset": torch.zeros(2).half()}, "offset is torch.float16 on cpu, takes torch.float32"),
        ({"dropout": 0.3}, r"seed: got None with dropout, takes \(1,\) of int64"),
        ({"dropout": 1.0}, "dropout: got 1.0, takes 0 to below 1"),
        ({"dropout": 0.3, "seed": torch.tensor(3)}, r"seed: got shape \(\), takes \(1,\) or None"),
        ({"dropout": 0.3, "seed": torch.zeros(1)}, "seed is torch.float32 on cpu, takes integers"),
    ],
)
def test_what_does_not_fit_is_named(change, sentence):
    args = {"x": torch.zeros(3, 2, 5), "bias": torch.zeros(2)} | change
    with pytest.raises(InputError, match=sentence):
        ops.softplus_norm(**args)


@pytest.mark.gpu
def test_offsets_pass_32_bits():
    require_kernels("cuda")
    x = noise(2**14 + 1, 1, 2**7).cuda().half()
    with ops.use_backend("triton"):
        alone, *_ = ops.softplus_norm(x)
        y, *_ = ops.softplus_norm(x.expand(-1, 2**10 + 1, -1))
    assert torch.equal(y[:, -1:], alone)
