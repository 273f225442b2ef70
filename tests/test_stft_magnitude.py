"""Magnitudes: against PyTorch's, at silence, and their gradient."""

import pytest
import torch
from conftest import assert_near, kernels_on, noise, relative_error, require_kernels
from contract import blocks_of
from framings import HARDLY_ANY, HOLES, framings, spans
from hypothesis import example, given, settings
from hypothesis import strategies as st

from sepfast import InputError, ops
from sepfast.reference import (
    FRAMINGS,
    Framing,
    magnitude,
    stft,
    stft_magnitude,
    stft_magnitude_backward,
)

SMALL = Framing(16, 4, front=8, rule="ceil+2", scale=0.25)


@pytest.mark.parametrize("power", [1.0, 0.3, 2.0])
def test_magnitude_backward(power):
    framing = SMALL
    x = torch.randn(2, 50, dtype=torch.float64, requires_grad=True)
    scale, offset = torch.rand(2, 1, framing.bins, dtype=torch.float64), torch.rand(framing.bins)
    y = stft_magnitude(x, framing, power=power, scale=scale, offset=offset.double())
    grad = torch.randn_like(y)
    (expected,) = torch.autograd.grad(y, x, grad)
    ours = stft_magnitude_backward(grad, x.detach(), framing, power=power, scale=scale)
    torch.testing.assert_close(ours, expected)


def test_silence_has_no_slope():
    x = torch.zeros(40, dtype=torch.float64)
    y = stft_magnitude(x, SMALL, power=0.3)
    assert not y.any()
    assert not stft_magnitude_backward(torch.ones_like(y), x, SMALL, power=0.3).any()
    x.requires_grad_()
    magnitude(stft(x, SMALL)).sum().backward()
    assert not x.grad.any()


# The operator, by PyTorch and by kernels


@pytest.mark.parametrize("power", [1.0, 2.0, 0.3])
@pytest.mark.parametrize(("n_fft", "hop", "span"), [(256, 100, 256), (512, 160, 400)])
def test_magnitudes_are_pytorchs(place, n_fft, hop, span, power):
    """PyTorch centres a short window; a frame that starts later has the same magnitudes."""
    late = (n_fft - span) // 2
    framing = Framing(n_fft, hop, window_length=span, symmetric=False, front=n_fft // 2 - late)
    x = noise(2, 901)
    spectrum = torch.stft(
        x,
        n_fft,
        hop,
        span,
        torch.hann_window(span, dtype=torch.float64),
        pad_mode="constant",
        return_complex=True,
    )
    expected = spectrum.abs().mT ** power
    out = ops.stft_magnitude(place.put(x), framing, power=power)
    assert_near(out[:, : expected.shape[1]], expected, place.bound("stft_magnitude"))


@pytest.mark.parametrize("name", FRAMINGS)
def test_papers_magnitudes_and_their_gradients(place, name):
    torch.set_float32_matmul_precision("high")  # for which all sizes are shipped
    framing = FRAMINGS[name]
    x = noise(1, 21 if framing.hop == 16 else 1801)
    leaf = place.put(x).requires_grad_()
    out = ops.stft_magnitude(leaf, framing)
    assert_near(out, stft(x, framing).norm(dim=-1), place.bound("stft_magnitude"))
    grad = noise(*out.shape)
    (back,) = torch.autograd.grad(out, leaf, place.put(grad))
    true = stft_magnitude_backward(grad, x, framing)
    assert_near(back, true, place.bound("stft_magnitude", "backward"))


@pytest.mark.parametrize("power", [1.0, 2.0, 0.3])
def test_silence_is_silent_and_has_no_slope(place, power):
    framing = Framing(256, 100, front=128)
    leaf = place.put(torch.zeros(2, 300)).requires_grad_()
    out = ops.stft_magnitude(leaf, framing, power=power)
    assert not out.any()
    (grad,) = torch.autograd.grad(out.sum(), leaf)
    assert not grad.any()


@pytest.mark.parametrize("power", [1.0, 0.3])
def test_silence_in_a_part_changes_nothing_elsewhere(place, power):
    framing = Framing(256, 100, "hamming")
    x = noise(1, 1500)
    x[:, 300:900] = 0
    leaf = place.put(x).requires_grad_()
    scale, offset = noise(129).abs() + 0.5, noise(129, seed=1)
    scaling = {"power": power, "scale": place.put(scale), "offset": place.put(offset)}
    out = ops.stft_magnitude(leaf, framing, **scaling)
    true = stft_magnitude(x, framing, power=power, scale=scale, offset=offset)
    assert_near(out, true, place.bound("stft_magnitude"))
    assert torch.equal(out[0, 4].detach(), place.put(offset))
    # Large where the magnitude is, as a slope at next to nothing is all rounding.
    grad = stft_magnitude(x, framing) * noise(*out.shape).sign()
    (back,) = torch.autograd.grad(out, leaf, place.put(grad))
    true = stft_magnitude_backward(grad, x, framing, power=power, scale=scale)
    assert_near(back, true, place.bound("stft_magnitude", "backward"))


@pytest.mark.parametrize("loud", [1e-15, 1e15])
def test_the_faintest_and_the_loudest_samples_count(place, loud):
    """Squares of such spectra lie at the ends of what float32 can hold."""
    framing = Framing(256, 128, "hamming")
    x = noise(1, 600)
    out = ops.stft_magnitude(place.put(x * loud), framing)
    assert_near(out / loud, stft_magnitude(x, framing), place.bound("stft_magnitude"))


def test_nan_reaches_the_frames_that_see_it_and_no_other(place):
    x = noise(2, 1201)
    broken = x.clone()
    broken[0, 500:507] = torch.nan
    sees = spans(HOLES, 1201)[:, 500:507].any(1)
    out = ops.stft_magnitude(place.put(broken), HOLES)
    true = stft_magnitude(x, HOLES)
    assert out[0, sees].isnan().all()
    assert_near(out[0, ~sees], true[0, ~sees], place.bound("stft_magnitude"))
    assert_near(out[1], true[1], place.bound("stft_magnitude"))


def test_nan_behind_a_short_window_has_no_slope(place):
    """Frame 0 spans 100 of 256 samples: what lies behind them is not its own."""
    framing = Framing(256, 300, "hamming", window_length=100)
    x = noise(1, 600)
    broken = x.clone()
    broken[:, 100:300] = torch.nan
    leaf = place.put(broken).requires_grad_()
    (back,) = torch.autograd.grad(ops.stft_magnitude(leaf, framing).sum(), leaf)
    true = stft_magnitude_backward(torch.ones(1, 2, 129).double(), x, framing)
    assert_near(back, true, place.bound("stft_magnitude", "backward"))
    assert not back[:, 100:300].any()


@HARDLY_ANY
@pytest.mark.parametrize("rule", ["ceil+2", "valid"])
def test_leading_axes_and_hardly_any_samples(place, lead, samples, rule):
    framing = Framing(256, 80, "hamming", front=20, rule=rule)
    x = noise(*lead, samples)
    leaf = place.put(x).requires_grad_()
    out = ops.stft_magnitude(leaf, framing)
    assert_near(out, stft_magnitude(x, framing), place.bound("stft_magnitude"))
    (back,) = torch.autograd.grad(out.sum(), leaf)
    true = stft_magnitude_backward(torch.ones_like(out).double().cpu(), x, framing)
    assert_near(back, true, place.bound("stft_magnitude", "backward"))


@pytest.mark.parametrize(
    "shapes", [((129,), (2, 1, 129)), ((2, 1, 129), None), (None, (2, 1, 129)), (None, (129,))]
)
def test_channels_take_their_own_scaling(place, shapes):
    framing = Framing(256, 100)
    x = noise(3, 2, 500)
    scale, offset = (None if shape is None else noise(*shape, seed=1) for shape in shapes)
    given = {
        name: None if part is None else place.put(part)
        for name, part in (("scale", scale), ("offset", offset))
    }
    out = ops.stft_magnitude(place.put(x), framing, power=0.5, **given)
    true = stft_magnitude(x, framing, power=0.5, scale=scale, offset=offset)
    assert_near(out, true, place.bound("stft_magnitude"))


def test_what_does_not_fit_is_refused(place):
    framing = Framing(256, 64)
    x = place.put(noise(3, 2, 400))
    takes = "takes (129,) or (2, 1, 129)"
    for options, wanted in [
        ({"scale": x.new_ones(128)}, f"scale: got shape (128,), {takes}"),
        ({"offset": x.new_ones(3, 1, 129)}, f"offset: got shape (3, 1, 129), {takes}"),
        ({"offset": x.new_ones(2, 129)}, f"offset: got shape (2, 129), {takes}"),
        ({"power": 0}, "power: got 0.0, takes a number above 0"),
        ({"power": float("nan")}, "power: got nan, takes a number above 0"),
        (
            {"scale": x.new_ones(129, requires_grad=True)},
            "scale: got a tensor that requires a gradient, takes a constant",
        ),
    ]:
        with pytest.raises(InputError) as refusal:
            ops.stft_magnitude(x, framing, **options)
        assert str(refusal.value) == wanted


def test_stretches_meet_without_a_seam(kernels, monkeypatch):
    """However many frames and blocks a program has; the borders of its blocks cross frames."""
    framing = Framing(256, 90, front=128)
    x = kernels.put(noise(1100))
    grad = kernels.put(noise(framing.frames(1100), 129, seed=1))

    def differentiated(function, line):
        leaf = line.clone().requires_grad_()
        out = function(leaf, framing, power=0.3)
        return out, *torch.autograd.grad(out, leaf, grad.to(leaf))

    def evaluate(frames, blocks):
        stand_in = blocks_of(FRAMES=frames, BLOCKS=blocks)
        monkeypatch.setattr("sepfast.kernels.launch.lookup", stand_in)
        return differentiated(ops.stft_magnitude, x)

    # Next to silence a power below 1 is steep: its gradient has fewer digits, PyTorch's own, too.
    true, of_true = differentiated(stft_magnitude, x.double().cpu())
    _, of_single = differentiated(stft_magnitude, x.cpu())
    bound = 2 * relative_error(of_single, of_true)
    # One program may walk along all of a line, however many others would then have nothing to do.
    whole = evaluate(4, 64)
    for out, grads in (whole, evaluate(1, 2), evaluate(16, 2)):
        assert_near(out, true, kernels.bound("stft_magnitude"))
        assert_near(grads, of_true, bound)
    for blocks in (1, 2):
        assert all(map(torch.equal, evaluate(4, blocks), whole))


#: Of 80 samples, a frame sees a few through the end of its window alone.
STEEP = Framing(512, 186, "blackman-harris", window_length=209, front=240, rule="ceil+2")


@given(
    framing=framings(hops=600),
    power=st.sampled_from([1.0, 2.0, 0.3, 1.7]),
    samples=st.integers(0, 1500),
)
@example(framing=STEEP, power=0.3, samples=80)
@settings(max_examples=12, deadline=None, derandomize=True)
def test_kernels_are_the_float64_reference(framing, power, samples):
    samples = min(samples, 20 * framing.hop)  # a few frames
    x = noise(2, samples, seed=samples)
    device = require_kernels("cuda" if torch.cuda.is_available() else "cpu")
    with kernels_on(device) as place:
        leaf = place.put(x).requires_grad_()
        out = ops.stft_magnitude(leaf, framing, power=power)
        true = stft_magnitude(x, framing, power=power)
        assert_near(out, true, place.bound("stft_magnitude"))
        grad = true  # as above
        (back,) = torch.autograd.grad(out, leaf, place.put(grad))
        true = stft_magnitude_backward(grad, x, framing, power=power)
        # Next to silence, as above: what the ends of a window hardly see.
        own = stft_magnitude_backward(grad.float(), x.float(), framing, power=power)
        bound = max(place.bound("stft_magnitude", "backward"), 2 * relative_error(own, true))
        assert_near(back, true, bound)
