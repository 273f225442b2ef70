"""System D's loss: the definition, padded frames, what is refused; and its masks."""

import pytest
import torch
from conftest import assert_near, noise, require_kernels
from contract import blocks_of, launches

from sepfast import InputError, fuse, modules, ops, reference
from sepfast.reference import (
    amplitude_mask,
    amplitude_mask_loss,
    amplitude_mask_loss_backward,
    ideal_amplitude_mask,
    target_binary_mask,
)

LENGTHS = torch.tensor([7, 3, 0])


def made(batch=3, frames=7, bins=5):
    """Scores, mixture and target."""
    scores, mixture, target = (noise(batch, frames, bins, seed=seed) for seed in range(3))
    return 2 * scores, mixture.abs(), target.abs()


def by_definition(scores, mixture, target, lengths=None):
    """Sequence by sequence, over the frames that count."""
    counts = [scores.shape[1]] * len(scores) if lengths is None else lengths.tolist()
    total = torch.zeros((), dtype=scores.dtype)
    for z, y, s, count in zip(scores, mixture, target, counts, strict=True):
        heard = slice(0, max(0, count))
        p = 10 / (1 + torch.exp(-z[heard]))
        total = total + ((p * y[heard] - s[heard]) ** 2).sum()
    return total


def outcome(function, args, lengths):
    scores = args[0].detach().requires_grad_()
    loss = function(scores, *args[1:], lengths)
    return loss.detach(), torch.autograd.grad(1.5 * loss, scores)[0]


def check(place, args, lengths=None):
    """The operator's loss and gradient against the definition's."""
    args = [place.put(x) for x in args]
    true = outcome(by_definition, [x.cpu().double() for x in args], lengths)
    there = None if lengths is None else lengths.to(place.device)
    found = outcome(ops.amplitude_mask_loss, args, there)
    for x, expected, stage in zip(found, true, ("forward", "backward"), strict=True):
        assert_near(x, expected, place.bound("amplitude_mask_loss", stage))
    return found


@pytest.mark.parametrize("lengths", [None, LENGTHS, torch.tensor([-3, 8, 2**40])])
@pytest.mark.parametrize("block", [16, 1024])
def test_lengths_are_those_of_the_definition(place, monkeypatch, lengths, block):
    """Blocks that end within a frame, beyond all that counts, and beyond the sequence."""
    monkeypatch.setattr("sepfast.kernels.launch.lookup", blocks_of(BLOCK=block))
    check(place, made(), lengths)


@pytest.mark.parametrize(("frames", "bins"), [(1, 1), (1, 257), (257, 1), (13, 513)])
def test_every_size_takes_lengths(place, frames, bins):
    check(place, made(2, frames, bins), torch.tensor([frames - 1, frames]))


@pytest.mark.parametrize("dtype", [torch.int32, torch.uint8], ids=str)
def test_lengths_are_integers_of_any_type(place, dtype):
    check(place, made(), LENGTHS.to(dtype))


def test_padding_is_not_looked_at(place):
    args = [place.put(x) for x in made()]
    lengths = LENGTHS.to(place.device)
    padding = torch.arange(7, device=place.device) >= lengths[:, None]
    expected = outcome(ops.amplitude_mask_loss, args, lengths)
    for value in (torch.nan, torch.inf):
        for x in args:
            x[padding] = value
        found = outcome(ops.amplitude_mask_loss, args, lengths)
        assert all(map(torch.equal, found, expected))
        assert not found[1][padding].any()


def test_a_broken_score_breaks_the_loss(place):
    args = [place.put(x) for x in made()]
    args[0][1, 2, 3] = torch.nan
    loss, grad = outcome(ops.amplitude_mask_loss, args, LENGTHS.to(place.device))
    assert loss.isnan()
    assert grad.isnan().sum() == 1


@pytest.mark.parametrize(
    ("score", "mask"), [(1e4, 10), (torch.inf, 10), (-1e4, 0), (-torch.inf, 0), (0, 5)]
)
def test_extreme_scores_are_those_of_the_limits(place, score, mask):
    ones = place.put(torch.ones(1, 2, 3))
    loss, grad = outcome(ops.amplitude_mask_loss, [score * ones, ones, 3 * ones], None)
    assert loss == 6 * (mask - 3) ** 2
    assert grad.isfinite().all()
    assert bool(grad.any()) == (score == 0)


def test_slopes_of_loud_scores_keep_their_digits(place):
    """Where the sigmoid is next to 1, what is missing to it."""
    scores = place.put(torch.linspace(-40, 40, 81))[None, :, None]
    _, grad = outcome(ops.amplitude_mask_loss, [scores, 1 + 0 * scores, 0 * scores], None)
    z = scores.cpu().double()
    small = torch.exp(-z.abs())
    expected = 1.5 * 200 * torch.where(z < 0, small, 1) * small / (1 + small) ** 3
    # exp rounds its argument, of up to 40, and is off by as much.
    rounding = torch.finfo(scores.dtype).eps
    torch.testing.assert_close(grad.cpu().double(), expected, rtol=80 * rounding, atol=0)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16], ids=str)
def test_sums_of_half_types_are_float32(place, dtype):
    ones = torch.ones(2, 300, 257, dtype=dtype, device=place.device)
    lengths = torch.tensor([300, 7], device=place.device)
    loss, grad = outcome(ops.amplitude_mask_loss, [0 * ones, ones, 4 * ones], lengths)
    assert loss.dtype == torch.float32
    assert loss == 307 * 257
    assert grad.dtype == dtype
    assert (grad[:, :7] == 1.5 * 5).all()
    assert not grad[1, 7:].any()


@pytest.mark.parametrize("shape", [(0, 7, 5), (3, 0, 5), (3, 7, 0)], ids=str)
@pytest.mark.parametrize("limited", [False, True])
def test_nothing_is_nothing(place, shape, limited):
    args = [place.put(x) for x in made(*shape)]
    lengths = torch.ones(shape[0], dtype=torch.int64, device=place.device) if limited else None
    loss, grad = outcome(ops.amplitude_mask_loss, args, lengths)
    assert loss == 0
    assert grad.shape == shape


def test_the_references_gradient_is_autograds_and_that_of_differences():
    args = made()
    _, expected = outcome(amplitude_mask_loss, args, LENGTHS)
    torch.testing.assert_close(1.5 * amplitude_mask_loss_backward(*args, LENGTHS), expected)
    scores, *levels = made(2, 3, 2)
    assert torch.autograd.gradcheck(
        lambda z: ops.amplitude_mask_loss(z, *levels, torch.tensor([2, 3])), scores.requires_grad_()
    )


def test_lengths_compile_in_one_graph():
    torch._dynamo.reset()
    compiled = torch.compile(ops.amplitude_mask_loss, fullgraph=True, backend="aot_eager")
    expected = outcome(ops.amplitude_mask_loss, made(), LENGTHS)
    assert all(map(torch.equal, outcome(compiled, made(), LENGTHS), expected))


@pytest.mark.parametrize("backend", ["reference", "triton"])
def test_a_loss_that_is_not_used_has_no_gradient(backend):
    if backend == "triton":
        require_kernels("cpu")
    scores, mixture, target = (x.float() for x in made())
    with ops.use_backend(backend), torch.no_grad():
        assert not ops.amplitude_mask_loss(scores.requires_grad_(), mixture, target).requires_grad


@pytest.mark.parametrize(
    ("at", "given", "sentence"),
    [
        (0, torch.zeros(3, 7), r"scores: got shape \(3, 7\), takes \(B, T, F\)"),
        (1, torch.zeros(3, 7, 4), r"mixture: got shape \(3, 7, 4\), takes \(3, 7, 5\) as scores"),
        (2, torch.zeros(3, 6, 5), r"target: got shape \(3, 6, 5\), takes \(3, 7, 5\) as scores"),
        (3, torch.ones(2).long(), r"lengths: got shape \(2,\), takes \(3,\)"),
        (3, torch.ones(3), "lengths is torch.float32 on cpu, takes integers on cpu"),
        (3, torch.ones(3).bool(), "lengths is torch.bool on cpu, takes integers on cpu"),
        (3, torch.ones(3, device="meta").long(), "lengths is torch.int64 on meta, takes integers"),
        (1, torch.zeros(3, 7, 5, requires_grad=True), "mixture: got a tensor that requires"),
        (2, torch.zeros(3, 7, 5, requires_grad=True), "target: got a tensor that requires"),
    ],
)
def test_what_does_not_fit_is_named(at, given, sentence):
    args = [*(x.float() for x in made()), LENGTHS]
    args[at] = given
    with pytest.raises(InputError, match=sentence):
        ops.amplitude_mask_loss(*args)


def test_the_layer_is_swapped_and_stays_itself(kernels):
    layer = reference.AmplitudeMaskLoss()
    args = [*map(kernels.put, made()), LENGTHS.to(kernels.device)]
    expected = layer(*args)
    fuse(layer, strict=True)
    assert type(layer) is modules.AmplitudeMaskLoss
    with launches() as launched:
        layer(*args)
    assert [launch.kernel for launch in launched] == ["sepfast_amplitude_mask_loss_forward"]
    torch.testing.assert_close(layer(*args), expected)


@pytest.mark.parametrize("stage", ["forward", "backward"])
def test_there_is_something_to_tune_it_on(stage):
    from sepfast.bench.tuning_jobs import jobs, prepare

    job = next(job for job in jobs() if job.stage == f"amplitude_mask_loss_{stage}")
    run, tensors = prepare(job, 3, torch.device("cpu"))
    with ops.use_backend("reference"):
        out = run(tensors)
    assert out.shape == (tensors["scores"].shape if stage == "backward" else ())
    assert out.isfinite().all()
    assert out.any()


@pytest.mark.gpu
def test_offsets_pass_32_bits():
    require_kernels("cuda")
    args = [x.cuda().half() for x in made(1, 8192, 64)]
    batch = 2**31 // (8192 * 64) + 2
    with ops.use_backend("triton"):
        _, alone = outcome(ops.amplitude_mask_loss, args, None)
        many = [x.expand(batch, -1, -1) for x in args]
        lengths = torch.full((batch,), 8192, device="cuda")
        _, grad = outcome(ops.amplitude_mask_loss, many, lengths)
    assert torch.equal(grad[-1:], alone)


# The masks


def test_amplitude_masks_are_10_sigmoids():
    scores = torch.tensor([-torch.inf, 0, torch.inf])
    assert amplitude_mask(scores).tolist() == [0, 5, 10]


def test_ideal_masks_undo_the_mixture():
    target = torch.tensor([0.0, 2.0, 3.0, 1.0, 0.0, torch.nan])
    mixture = torch.tensor([0.0, 1.0, 0.1, 0.0, 5.0, 1.0])
    mask = ideal_amplitude_mask(target, mixture)
    assert mask[:5].tolist() == [0, 2, 10, 10, 0]
    assert mask[5].isnan()


def test_ideal_masks_are_those_without_a_loss():
    mixture = noise(2, 3, 4).abs() + 0.1
    target = mixture * torch.rand(2, 3, 4, dtype=torch.float64) * 9 + 0.1
    mask = ideal_amplitude_mask(target, mixture)
    torch.testing.assert_close(mask * mixture, target)
    scores = (mask / (10 - mask)).log()
    assert amplitude_mask_loss(scores, mixture, target) < 1e-20


def test_binary_masks_are_what_stands_out():
    magnitudes = torch.tensor([[1.0, 5.0], [1.5, 4.9], [2.0, 5.1]])
    mean, std = torch.tensor([0.5, 5.0]), torch.tensor([2.0, 0.0])
    expected = [[0, 1], [0, 0], [1, 1]]
    assert target_binary_mask(magnitudes, mean, std).tolist() == expected
    assert target_binary_mask(magnitudes, mean, std, 0.5).tolist() == [[0, 1], [1, 0], [1, 1]]
    # Of two speakers, each by its own.
    both = target_binary_mask(
        magnitudes.expand(2, -1, -1),
        torch.stack([mean, 0 * mean])[:, None],
        torch.stack([std, 0 * std])[:, None],
    )
    assert both[0].tolist() == expected
    assert both[1].all()
