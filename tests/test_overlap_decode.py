"""Overlapping contexts decoded in one go: the definition, the model, and what is refused."""

import pytest
import torch
import torch.nn.functional as F
from conftest import assert_near, noise, require_kernels
from contract import blocks_of

from sepfast import InputError, ops
from sepfast.kernels.tuning import shipped
from sepfast.reference import DeepConvSep, overlap_decode, overlap_decode_backward, soft_mask
from sepfast.separation.fades import fades

NAMES = ("codes", "horizontal", "horizontal_bias", "vertical", "vertical_bias", "fades")


def made(contexts=3, sources=2, n2=2, n1=3, channels=2, bins=5, reach=3, span=2, biased=True):
    """Random inputs, with the ReLU clear of its kink: a source is loud or silent at a bin."""
    torch.manual_seed(0)
    shapes = (
        (contexts, sources, n2, reach),
        (sources, n2, n1, span),
        (sources, n1),
        (sources, n1, channels, bins),
        (sources, channels),
        (contexts, reach + span - 1),
    )
    x = {n: torch.rand(s).double() + 0.5 for n, s in zip(NAMES, shapes, strict=True)}
    x["vertical"] *= torch.where(torch.rand(sources, 1, channels, bins) < 0.3, -1, 1)
    if not biased:
        x["horizontal_bias"] = x["vertical_bias"] = None
    return x


def by_definition(codes, horizontal, horizontal_bias, vertical, vertical_bias, fades, step):
    """Context by context, as the models decode."""
    contexts, length = fades.shape
    sources, _, channels, bins = vertical.shape
    out = codes.new_zeros(sources, channels, (contexts - 1) * step + length, bins)
    for k in range(contexts):
        estimates = []
        for s in range(sources):
            biases = [b if b is None else b[s] for b in (horizontal_bias, vertical_bias)]
            wide = F.conv_transpose2d(codes[k, s, None, :, :, None], horizontal[s, ..., None])
            if biases[0] is not None:
                wide = wide + biases[0][:, None, None]
            image = F.conv_transpose2d(wide, vertical[s, :, :, None], biases[1])
            estimates.append(image[0].relu())  # (C, T, F)
        masks = soft_mask(torch.stack(estimates), 0) * fades[k, :, None]
        before = k * step, out.shape[2] - k * step - length
        out = out + F.pad(masks, (0, 0, *before))
    return out


def check(place, x, step, *, compact=False):
    """An operator's result and gradients against the definition's in float64."""
    x = {n: t if t is None else place.put(t) for n, t in x.items()}
    names = [n for n in NAMES[:-1] if x[n] is not None]

    def run(function, tensors, grad, *options):
        leaves = {n: t if t is None else t.detach() for n, t in tensors.items()}
        for name in names:
            leaves[name].requires_grad_()
        out = function(*leaves.values(), step, *options)
        return out, torch.autograd.grad(out, [leaves[n] for n in names], grad.to(out))

    wide = {n: t if t is None else t.cpu().double() for n, t in x.items()}
    frames = (len(x["fades"]) - 1) * step + x["fades"].shape[1]
    sources, _, channels, bins = x["vertical"].shape
    grad = noise(sources, channels, frames, bins).half()
    true, true_grads = run(by_definition, wide, grad)
    out, grads = run(ops.overlap_decode, x, grad, compact)
    bound = place.bound("overlap_decode")
    assert out.dtype == (torch.float16 if compact else place.dtype)
    assert_near(out, true, max(bound, 2**-11) if compact else bound)
    for found, wanted in zip(grads, true_grads, strict=True):
        if sources > 1:
            assert_near(found, wanted, place.bound("overlap_decode", "backward"))
        else:  # whose share is always one
            assert found.shape == wanted.shape
            assert found.abs().max() < 1e-4


@pytest.mark.parametrize("step", [1, 2, 3, 4])
def test_every_step_is_the_definition(place, step):
    check(place, made(contexts=11), step)


@pytest.mark.parametrize(("sources", "n1"), [(1, 17), (2, 1), (3, 65), (4, 50), (5, 3)])
def test_sources_and_features_of_any_number(place, sources, n1):
    check(place, made(sources=sources, n1=n1), 3)


@pytest.mark.parametrize(
    "sizes",
    [
        {"contexts": 1},
        {"sources": 3, "channels": 1, "bins": 1, "n2": 1, "reach": 1, "span": 1, "contexts": 9},
        {"channels": 3, "bins": 67, "reach": 5, "span": 4},
        {"reach": 1, "span": 7},
        {"reach": 7, "span": 1},
        {"biased": False},
    ],
    ids=str,
)
def test_odd_sizes(place, sizes):
    x = made(**sizes)
    check(place, x, min(3, x["fades"].shape[1]))


@pytest.mark.parametrize("n1", [5, 70])
def test_several_programs_meet(place, monkeypatch, n1):
    held = {"HELD": 1, "FEATURES": 64} if n1 <= 64 else {}
    monkeypatch.setattr("sepfast.kernels.launch.lookup", blocks_of(ROWS=16, BINS=16, **held))
    check(place, made(contexts=4, bins=11, n1=n1, reach=6, span=4), 4)


def test_compact_results_are_rounded_once(place):
    check(place, made(contexts=10), 1, compact=True)


def test_the_references_gradient_is_the_definitions():
    x = {n: t.requires_grad_(n != "fades") for n, t in made(contexts=10).items()}
    out = by_definition(*x.values(), 2)
    grad = noise(*out.shape)
    expected = torch.autograd.grad(out, [x[n] for n in NAMES[:-1]], grad)
    with torch.no_grad():
        found = overlap_decode_backward(grad, *x.values(), 2)
    torch.testing.assert_close(tuple(found), expected)


def test_it_is_the_models_contexts_cross_faded():
    torch.manual_seed(0)
    model = DeepConvSep(channels=2, context=7, n1=5, n2=3, t2=3, units=9).double()
    model.requires_grad_(False)
    encoded = torch.rand(12, 3, 5, 1).double()
    weights = fades(0, 12, 12, 7, 4).double()
    shares = model.shares(model.decode(encoded))  # (K, S, C, T, F)
    true = torch.zeros(4, 2, 11 * 3 + 7, 513).double()
    for k, masks in enumerate(shares):
        true[:, :, 3 * k : 3 * k + 7] += masks * weights[k, :, None]

    hidden = model.bottleneck(encoded.flatten(1))
    codes = [e(hidden).unflatten(1, model.code_shape)[..., 0] for e in model.expand.values()]
    layers = [model.decoder_weights(name) for name in model.sources]
    horizontal, horizontal_bias, vertical, vertical_bias = map(
        torch.stack, zip(*layers, strict=True)
    )
    out = overlap_decode(
        torch.stack(codes, 1), horizontal[..., 0], horizontal_bias, vertical[:, :, :, 0],
        vertical_bias, weights, 3,
    )  # fmt: skip
    torch.testing.assert_close(out, true)
    torch.testing.assert_close(out.sum(0), torch.ones_like(out[0]))


def test_silence_is_shared_equally(place):
    x = {n: place.put(t) for n, t in made(sources=3).items()}
    x["vertical"][:, :, 0, 2] = 0
    x["vertical_bias"][:, 0] = -1
    x["vertical"].requires_grad_()
    out = ops.overlap_decode(*x.values(), 4)
    faded = x["fades"].flatten() / 3
    torch.testing.assert_close(out[:, 0, :, 2], faded.expand(3, -1))
    (grad,) = torch.autograd.grad(out.square().sum(), x["vertical"])
    assert grad.isfinite().all()
    assert not grad[:, :, 0, 2].any()


def test_a_broken_estimate_is_not_taken_for_silence(place):
    x = {n: place.put(t) for n, t in made().items()}
    x["codes"][0, 0, 0, 0] = torch.nan
    out = ops.overlap_decode(*x.values(), 4)
    assert out[:, :, 0].isnan().all()
    assert out[:, :, 2:].isfinite().all()


def test_no_contexts_are_no_frames(place):
    x = {n: place.put(t).requires_grad_(n != "fades") for n, t in made(contexts=0).items()}
    out = ops.overlap_decode(*x.values(), 2, True)
    assert out.shape == (2, 2, 0, 5)
    assert out.dtype == torch.float16
    (grad,) = torch.autograd.grad(out.sum(), x["vertical"])
    assert not grad.any()


@pytest.mark.parametrize(
    ("name", "shape", "sentence"),
    [
        ("codes", (3, 2, 3), r"codes: got shape \(3, 2, 3\), takes \(contexts, sources, filters"),
        ("codes", (3, 0, 2, 3), r"codes: got shape \(3, 0, 2, 3\), takes .* none but the contexts"),
        ("horizontal", (3, 2, 3, 2), r"horizontal: got shape .*, takes \(2, 2, N1, t2\)"),
        ("horizontal", (2, 2, 3, 0), r"horizontal: got shape .*, takes \(2, 2, N1, t2\)"),
        ("horizontal_bias", (2, 4), r"horizontal_bias: got shape \(2, 4\), takes \(2, 3\)"),
        ("vertical", (2, 3, 5), r"vertical: got shape \(2, 3, 5\), takes \(2, 3, C, F\)"),
        ("vertical_bias", (2, 3), r"vertical_bias: got shape \(2, 3\), takes \(2, 2\)"),
        ("fades", (3, 5), r"fades: got shape \(3, 5\), takes \(3, 4\)"),
    ],
)
def test_shapes_that_do_not_fit_are_named(name, shape, sentence):
    x = made() | {name: torch.rand(shape).double()}
    with pytest.raises(InputError, match=f"^{sentence}"):
        ops.overlap_decode(*x.values(), 2)


@pytest.mark.parametrize("step", [0, -1, 5])
def test_a_step_out_of_range_is_named(step):
    with pytest.raises(InputError, match=rf"^step: got {step}, takes 1 to the 4 frames"):
        ops.overlap_decode(*made().values(), step)


def test_fades_are_constant():
    x = made()
    x["fades"].requires_grad_()
    with pytest.raises(InputError, match="fades: got a tensor that requires a gradient"):
        ops.overlap_decode(*x.values(), 2)


def test_more_sources_than_kernels_are_shipped_for_run_in_pytorch(kernels):
    x = {n: kernels.put(t) for n, t in made(sources=9).items()}
    with pytest.raises(InputError, match="not shipped for 9 sources, precision 'tf32x3'"):
        ops.overlap_decode(*x.values(), 2)


def test_what_is_shipped_for_few_features_is_shipped_for_many():
    found = {"few": set(), "many": set()}
    for device, key, _ in shipped("sepfast_overlap_decode_forward"):
        found[key["features"]].add((device.split(":")[0], key["precision"], key["sources"]))
    assert found["few"] == found["many"]


@pytest.mark.gpu
def test_offsets_pass_32_bits():
    require_kernels("cuda")
    x = {n: t.cuda().float() for n, t in made(n1=640, reach=15, span=16, bins=3).items()}
    count = 2**31 // (2 * 640 * 30) + 2
    many = x | {n: x[n][:1].expand(count, -1, *x[n].shape[2:]) for n in ("codes", "fades")}
    with ops.use_backend("triton"):
        alone = ops.overlap_decode(*x.values(), 30)[:, :, :30]
        line = ops.overlap_decode(*many.values(), 30)
    assert torch.equal(line[:, :, -30:], alone)
