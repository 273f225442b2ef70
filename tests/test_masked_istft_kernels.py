"""Shares of a mixture to samples by kernels: seams, every framing against float64, float16."""

import torch
from conftest import assert_near, kernels_on, noise, require_kernels
from contract import blocks_of, launches
from framings import framings, window_weight
from hypothesis import given, settings
from hypothesis import strategies as st
from sharing_out import KINDS, SMALL, levels_of, shares_of

from sepfast import InputError, ops
from sepfast.reference import Framing, masked_istft, masked_istft_backward


@KINDS
def test_the_gradient_of_the_mixtures_samples_is_autograds(place, kind):
    x, shares = noise(2, 301), shares_of(SMALL, 3, 2, samples=301)
    wide, levels = levels_of(place, kind, 3, 2, SMALL.bins)
    grad = noise(3, 2, 301)

    def of_samples(line):
        return torch.autograd.grad(masked_istft(shares.to(line), line, SMALL, wide), line, grad)[0]

    true = of_samples(x.clone().requires_grad_())
    leaf = place.put(x).requires_grad_()
    out = ops.masked_istft(place.put(shares), leaf, SMALL, levels)
    (back,) = torch.autograd.grad(out, leaf, place.put(grad))
    assert_near(back, true, place.bound("masked_istft", "backward"))


def test_both_gradients_at_once_are_those_one_by_one(place):
    x, shares = noise(1, 500), shares_of(SMALL, 2, 1, samples=500)
    grad = place.put(noise(2, 1, 500))

    def gradients(of_shares, of_x):
        leaves = [
            place.put(shares).requires_grad_(of_shares),
            place.put(x).requires_grad_(of_x),
        ]
        ops.masked_istft(*leaves, SMALL).backward(grad)
        return [leaf.grad for leaf in leaves]

    both, first, second = gradients(True, True), gradients(True, False), gradients(False, True)
    assert first[1] is None
    assert second[0] is None
    assert torch.equal(both[0], first[0])
    assert torch.equal(both[1], second[1])


def test_stretches_meet_without_a_seam(kernels, monkeypatch):
    """However many frames, blocks and sources a program has; block borders cross frames."""
    framing = Framing(256, 90, front=128)
    x = kernels.put(noise(1, 700))
    shares = kernels.put(shares_of(framing, 3, 1, samples=700))
    grad = kernels.put(noise(3, 1, 700))
    wide, levels = levels_of(kernels, "floor", 3, 1, framing.bins)

    # One program may walk along all of a line, however many others would then have nothing to do.

    def evaluate(frames, blocks, sources):
        stand_in = blocks_of(FRAMES=frames, BLOCKS=blocks, SOURCES=sources)
        monkeypatch.setattr("sepfast.kernels.launch.lookup", stand_in)
        leaf = shares.clone().requires_grad_()
        out = ops.masked_istft(leaf, x, framing, levels)
        return out, *torch.autograd.grad(out, leaf, grad)

    whole = evaluate(4, 64, 2)
    true = masked_istft(shares.double().cpu(), x.double().cpu(), framing, wide)
    assert_near(whole[0], true, kernels.bound("masked_istft"))
    for blocks in (1, 2):
        assert all(map(torch.equal, evaluate(4, blocks, 2), whole))
    for frames, sources in ((1, 4), (16, 1)):
        for out, expected in zip(evaluate(frames, 2, sources), whole, strict=True):
            assert_near(out, expected, kernels.bound("masked_istft"))


@given(
    framing=framings(hops=256),
    sources=st.integers(1, 5),
    kind=st.sampled_from(["none", "gain"]),
    samples=st.integers(0, 1500),
)
@settings(max_examples=10, deadline=None, derandomize=True)
def test_kernels_are_the_float64_reference(framing, sources, kind, samples):
    try:
        framing.check_invertible()
    except InputError:
        return
    samples = min(samples, 10 * framing.hop)  # a few frames
    x, shares = noise(1, samples, seed=samples), shares_of(framing, sources, 1, samples=samples)
    # Where a sample weighs next to nothing, dividing by that magnifies rounding.
    weight = window_weight(framing, shares.shape[-2], samples)
    device = require_kernels("cuda" if torch.cuda.is_available() else "cpu")
    with kernels_on(device) as place:
        wide, levels = levels_of(place, kind, sources, 1, framing.bins)
        leaf = place.put(shares).requires_grad_()
        out = ops.masked_istft(leaf, place.put(x), framing, levels)
        true = masked_istft(shares, x, framing, wide)
        assert_near(out.double().cpu() * weight, true * weight, place.bound("masked_istft"))
        grad = (noise(*out.shape) * weight).float().double()
        (back,) = torch.autograd.grad(out, leaf, place.put(grad))
        true = masked_istft_backward(grad, x, framing, wide)
        assert_near(back, true, place.bound("masked_istft", "backward"))


def test_shares_in_float16_are_those_numbers(kernels):
    """Beside a float32 mixture; where there is a kernel for them, it is that which reads them."""
    framing = Framing(1024, 256, front=512, rule="ceil+2")
    waveform = kernels.put(noise(1, 1500))
    shares = kernels.put(noise(3, 1, framing.frames(1500), framing.bins)).abs().half()
    expected = ops.masked_istft(shares.float(), waveform, framing)
    for demand in ("highest", "high"):
        torch.set_float32_matmul_precision(demand)
        with launches() as launched:
            ops.masked_istft(shares, waveform, framing)
        stage = {"highest": "forward", "high": "compact"}[demand]
        assert [launch.kernel for launch in launched] == [f"sepfast_masked_istft_{stage}"]
        out = ops.masked_istft(shares, waveform, framing)
        assert out.dtype == torch.float32
        assert_near(out, expected, kernels.bound("masked_istft"))


def test_shares_in_float16_have_a_gradient_in_float16(place):
    framing = Framing(256, 64, front=128, rule="ceil+2")
    waveform = place.put(noise(1, 500)).float()
    shares = torch.rand(2, 1, framing.frames(500), framing.bins, device=place.device).half()
    wide = shares.float().requires_grad_()
    shares.requires_grad_()
    ops.masked_istft(shares, waveform, framing).square().sum().backward()
    ops.masked_istft(wide, waveform, framing).square().sum().backward()
    assert shares.grad.dtype == torch.float16
    torch.testing.assert_close(shares.grad, wide.grad.half(), rtol=2e-3, atol=1e-3)
