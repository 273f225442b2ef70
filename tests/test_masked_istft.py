"""Shares of a mixture to samples: stems that add up, levels, silence and NaN."""

import pytest
import torch
from conftest import assert_near, noise
from framings import HOLES, spans
from sharing_out import KINDS, SMALL, levels_of, shares_of

from sepfast import InputError, ops
from sepfast.reference import (
    FRAMINGS,
    Framing,
    Levels,
    istft,
    masked_istft,
    masked_istft_backward,
    soft_mask,
    stft,
)


@pytest.mark.parametrize("framing", [FRAMINGS["deepconvsep"], Framing(16, 4, front=12)])
def test_shares_that_add_up_give_the_mixture_back(framing):
    x = torch.randn(2, 3001, dtype=torch.float64)
    frames = framing.frames(3001)
    shares = soft_mask(torch.rand(4, 2, frames, framing.bins, dtype=torch.float64), dim=0)
    stems = masked_istft(shares, x, framing)
    assert stems.shape == (4, 2, 3001)
    torch.testing.assert_close(stems.sum(0), x, atol=1e-12, rtol=0)


def test_masked_istft_backward_is_autograds():
    framing = Framing(16, 4, front=8, rule="ceil+2")
    x = torch.randn(2, 50, dtype=torch.float64)
    shape = (3, 2, framing.frames(50), framing.bins)
    shares = torch.rand(shape, dtype=torch.float64, requires_grad=True)
    out = masked_istft(shares, x, framing)
    grad = torch.randn_like(out)
    (expected,) = torch.autograd.grad(out, shares, grad)
    torch.testing.assert_close(masked_istft_backward(grad, x, framing), expected)


def test_levels_without_a_floor_are_a_gain():
    framing = Framing(16, 4, front=8, rule="ceil+2")
    x = torch.randn(1, 60, dtype=torch.float64)
    shares = torch.rand(2, 1, framing.frames(60), 9, dtype=torch.float64)
    gain, floor, base = (
        torch.rand(2, 1, 1, 9).double(),
        torch.zeros(1, 1, 9),
        torch.zeros(2, 1, 1, 9),
    )
    expected = masked_istft(shares, x, framing, Levels(gain, floor.double(), base.double()))
    torch.testing.assert_close(masked_istft(shares, x, framing, Levels(gain)), expected)


def test_levels_scale_magnitudes_and_keep_the_phase():
    framing = Framing(16, 4, front=8, rule="ceil+2")
    x = torch.randn(1, 60, dtype=torch.float64)
    x[:, :30] = 0  # frames without any phase: taken as 0
    spectrum = torch.view_as_complex(stft(x, framing))
    shape = (2, 1, *spectrum.shape[1:])
    shares = torch.rand(shape, dtype=torch.float64)
    floor, gain, base = (
        torch.rand(s, dtype=torch.float64) for s in ((1, 1, 9), (2, 1, 1, 9), (2, 1, 1, 9))
    )
    wanted = shares * ((spectrum.abs() - floor) * gain) + base
    expected = torch.polar(wanted.abs(), spectrum.angle() + torch.where(wanted < 0, torch.pi, 0))
    expected = istft(torch.view_as_real(expected), framing, 60)
    torch.testing.assert_close(
        masked_istft(shares, x, framing, Levels(gain, floor, base)), expected
    )


@pytest.mark.parametrize(
    ("sources", "channels", "lead", "kind"),
    [
        (1, 1, (), "none"),
        (2, 3, (), "gain"),
        (3, 2, (2,), "floor"),
        (4, 1, (1, 2), "none"),
        (5, 2, (), "floor"),
        (3, 2, (0,), "gain"),
        (3, 2, (2, 0), "none"),
        (2, 0, (), "floor"),
        (0, 2, (2,), "none"),
    ],
)
def test_sources_channels_and_batches(place, sources, channels, lead, kind):
    x = noise(*lead, channels, 300)
    shares = shares_of(SMALL, *lead, sources, channels, samples=300)
    wide, levels = levels_of(place, kind, sources, channels, SMALL.bins)
    leaf = place.put(shares).requires_grad_()
    out = ops.masked_istft(leaf, place.put(x), SMALL, levels)
    assert_near(out, masked_istft(shares, x, SMALL, wide), place.bound("masked_istft"))
    grad = noise(*out.shape)
    (back,) = torch.autograd.grad(out, leaf, place.put(grad))
    true = masked_istft_backward(grad, x, SMALL, wide)
    assert_near(back, true, place.bound("masked_istft", "backward"))


@pytest.mark.parametrize("rule", ["ceil+2", "pad-end", "valid"])
@pytest.mark.parametrize("samples", [0, 1])
def test_hardly_any_samples(place, rule, samples):
    framing = Framing(256, 100, "hamming", front=20, rule=rule)
    x, shares = noise(2, samples), shares_of(framing, 3, 2, samples=samples)
    wide, levels = levels_of(place, "floor", 3, 2, framing.bins)
    leaf = place.put(shares).requires_grad_()
    out = ops.masked_istft(leaf, place.put(x), framing, levels)
    assert_near(out, masked_istft(shares, x, framing, wide), place.bound("masked_istft"))
    (back,) = torch.autograd.grad(out.sum(), leaf)
    true = masked_istft_backward(torch.ones_like(out).double().cpu(), x, framing, wide)
    assert_near(back, true, place.bound("masked_istft", "backward"))


@pytest.mark.parametrize("name", FRAMINGS)
def test_all_of_a_mixture_is_the_mixture(place, name):
    torch.set_float32_matmul_precision("high")  # for which all sizes are shipped
    framing = FRAMINGS[name]
    x = noise(1, 21 if framing.hop == 16 else 1501)
    whole = torch.ones(1, 1, framing.frames(x.shape[-1]), framing.bins)
    (out,) = ops.masked_istft(place.put(whole), place.put(x), framing)
    seen = min(x.shape[-1], framing.covered(whole.shape[2]) - framing.front)
    assert_near(out[:, :seen], x[:, :seen], place.bound("masked_istft"))
    assert not out[:, seen:].any()
    assert seen == x.shape[-1] or name == "informed"


@pytest.mark.parametrize("sources", [1, 2, 5])
def test_stems_add_up_to_the_mixture(place, sources):
    x = noise(2, 401)
    shares = shares_of(SMALL, sources, 2, samples=401)
    stems = ops.masked_istft(place.put(shares / shares.sum(0)), place.put(x), SMALL)
    assert stems.shape == (sources, 2, 401)
    assert_near(stems.double().sum(0), x, place.bound("masked_istft"))


@KINDS
def test_silence_stays_silent(place, kind):
    """Even where a level lifts it: base is what the phase of 0, 0, is given."""
    shares = shares_of(SMALL, 3, 2, samples=400)
    wide, levels = levels_of(place, kind, 3, 2, SMALL.bins)
    x = torch.zeros(2, 400, dtype=torch.float64)
    out = ops.masked_istft(place.put(shares), place.put(x), SMALL, levels)
    if kind == "floor":
        assert_near(out, masked_istft(shares, x, SMALL, wide), place.bound("masked_istft"))
    else:
        assert not out.any()


@KINDS
def test_digital_silence_in_a_part_of_the_mixture(place, kind):
    x = noise(2, 701)
    x[0, 200:600] = 0
    x[1, :500] = 0
    shares = shares_of(SMALL, 3, 2, samples=701)
    wide, levels = levels_of(place, kind, 3, 2, SMALL.bins)
    leaves = [place.put(part).requires_grad_() for part in (shares, x)]
    out = ops.masked_istft(*leaves, SMALL, levels)
    assert_near(out, masked_istft(shares, x, SMALL, wide), place.bound("masked_istft"))
    if kind != "floor":
        assert not out[:, 1, :270].any()
    grad = noise(*out.shape)
    of_shares, of_x = torch.autograd.grad(out, leaves, place.put(grad))
    true = masked_istft_backward(grad, x, SMALL, wide)
    assert_near(of_shares, true, place.bound("masked_istft", "backward"))
    assert of_x.isfinite().all()


@pytest.mark.parametrize("kind", ["none", "floor"])
def test_nan_in_the_mixture_reaches_the_frames_that_see_it_and_no_other(place, kind):
    x, shares = noise(1, 1200), shares_of(HOLES, 2, 1, samples=1200)
    wide, levels = levels_of(place, kind, 2, 1, HOLES.bins)
    broken = x.clone()
    broken[0, 500:507] = torch.nan
    out = ops.masked_istft(place.put(shares), place.put(broken), HOLES, levels)
    hit = spans(HOLES, 1200)[5:7].any(0)  # from 372 and 472, 180 samples each
    assert out[..., hit].isnan().all()
    true = masked_istft(shares, x, HOLES, wide)
    assert_near(out[..., ~hit], true[..., ~hit], place.bound("masked_istft"))


def test_nan_in_a_share_reaches_its_frame_of_its_source_and_no_other(place):
    x, shares = noise(1, 1200), shares_of(HOLES, 3, 1, samples=1200)
    broken = shares.clone()
    broken[1, 0, 5, 77] = torch.nan
    out = ops.masked_istft(place.put(broken), place.put(x), HOLES)
    hit = spans(HOLES, 1200)[5]
    true = masked_istft(shares, x, HOLES)
    assert out[1, 0, hit].isnan().all()
    assert_near(out[1, 0, ~hit], true[1, 0, ~hit], place.bound("masked_istft"))
    assert_near(out[[0, 2]], true[[0, 2]], place.bound("masked_istft"))


def test_nan_behind_a_short_window_is_seen_by_no_frame(place):
    """Frames span 100 of 256 samples and touch; behind the last one nothing is seen."""
    framing = Framing(256, 100, "hamming", window_length=100, rule="valid")
    x, shares = noise(1, 420), shares_of(framing, 2, 1, samples=420)
    broken = x.clone()
    broken[:, 400:] = torch.nan
    leaf = place.put(shares).requires_grad_()
    out = ops.masked_istft(leaf, place.put(broken), framing)
    assert_near(out, masked_istft(shares, x, framing), place.bound("masked_istft"))
    grad = noise(*out.shape)
    (back,) = torch.autograd.grad(out, leaf, place.put(grad))
    true = masked_istft_backward(grad, x, framing)
    assert_near(back, true, place.bound("masked_istft", "backward"))


def _refusal(*args):
    with pytest.raises(InputError) as refusal:
        ops.masked_istft(*args)
    return str(refusal.value)


def test_shapes_that_do_not_fit_are_refused_with_the_shape_that_does(place):
    x = place.put(noise(4, 2, 300))
    shares = place.put(shares_of(SMALL, 4, 3, 2, samples=300))
    takes = f"takes (4, sources, 2, {SMALL.frames(300)}, 129)"
    for broken in (
        shares[..., :128],
        shares[..., :-1, :],
        shares[:, :, :1],
        shares[:3],
        shares[0],
        shares[None],
    ):
        assert _refusal(broken, x, SMALL) == f"shares: got shape {tuple(broken.shape)}, {takes}"
    sentence = _refusal(shares[0, 0], x[0, 0], SMALL)
    assert sentence == "waveform: got shape (300,), takes (..., channels, samples)"


def test_levels_that_do_not_fit_are_refused(place):
    x, shares = place.put(noise(2, 300)), place.put(shares_of(SMALL, 3, 2, samples=300))
    gain, floor, base = (x.new_ones(s) for s in ((3, 2, 1, 129), (2, 1, 129), (3, 2, 1, 129)))
    together = "takes gain alone, or gain, floor and base together"
    sentence = _refusal(shares, x, SMALL, Levels(gain, floor))
    assert sentence == f"levels: got gain and floor, {together}"
    sentence = _refusal(shares, x, SMALL, Levels(gain, None, base))
    assert sentence == f"levels: got gain and base, {together}"
    for levels, name, got, takes in [
        (Levels(gain[:1]), "gain", (1, 2, 1, 129), (3, 2, 1, 129)),
        (Levels(gain, floor[:1], base), "floor", (1, 1, 129), (2, 1, 129)),
        (Levels(gain, floor, base[..., 1:]), "base", (3, 2, 1, 128), (3, 2, 1, 129)),
    ]:
        sentence = _refusal(shares, x, SMALL, levels)
        assert sentence == f"levels.{name}: got shape {got}, takes {takes}"
    sentence = _refusal(shares, x, SMALL, Levels(gain.requires_grad_()))
    assert sentence == "levels.gain: got a tensor that requires a gradient, takes a constant"


def test_windows_that_leave_samples_out_are_refused(place):
    framing = Framing(256, 256, symmetric=False)
    x, shares = place.put(noise(1, 600)), place.put(shares_of(framing, 2, 1, samples=600))
    assert _refusal(shares, x, framing) == (
        "framing: got a hann window of 256 with hop 256, which leaves samples that no frame weighs "
        "and cannot be inverted, takes one that can"
    )
