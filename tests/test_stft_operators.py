"""The STFT and its inverse as operators, by PyTorch and by kernels: PyTorch's own numbers."""

import warnings

import pytest
import torch
import torch.nn.functional as F
from conftest import assert_near, kernels_on, noise, require_kernels
from contract import blocks_of
from framings import HARDLY_ANY, HOLES, framings, spans, window_weight
from hypothesis import given, settings
from hypothesis import strategies as st

from sepfast import InputError, ops
from sepfast.reference import FRAMINGS, Framing, istft, istft_backward, stft, stft_backward


def _window(framing):
    """A framing's window for PyTorch, which centres short ones: zeros behind, as many as ours."""
    window = framing.window_on(torch.zeros(0, dtype=torch.float64))
    return F.pad(window, (0, framing.n_fft - framing.span)) * framing.scale


def _torch_stft(x, framing, center):
    spectrum = torch.stft(
        x,
        framing.n_fft,
        framing.hop,
        window=_window(framing),
        center=center,
        pad_mode="constant",
        return_complex=True,
    )
    return torch.view_as_real(spectrum).transpose(-3, -2)


def _torch_istft(spectrum, framing, center, length):
    z = torch.view_as_complex(spectrum.transpose(-3, -2).contiguous())
    window = _window(framing)
    return torch.istft(z, framing.n_fft, framing.hop, window=window, center=center, length=length)


TRANSFORMS = [  # n_fft, hop, window's length
    (256, 100, 256),
    (256, 37, 171),
    (512, 160, 400),
]


@pytest.mark.parametrize("samples", [1, 801])
@pytest.mark.parametrize(("n_fft", "hop", "span"), [*TRANSFORMS, (256, 300, 256)])
def test_centred_spectra_are_pytorchs(place, n_fft, hop, span, samples):
    framing = Framing(n_fft, hop, window_length=span, symmetric=False, front=n_fft // 2)
    x = noise(2, samples)
    expected = _torch_stft(x, framing, center=True)
    out = ops.stft(place.put(x), framing)
    # Ours go on until no frame sees a sample.
    assert_near(out[:, : expected.shape[1]], expected, place.bound("stft"))


@pytest.mark.parametrize("more", [0, 1, 777])
@pytest.mark.parametrize(("n_fft", "hop", "span"), [*TRANSFORMS, (256, 300, 256)])
def test_spectra_of_whole_frames_are_pytorchs(place, n_fft, hop, span, more):
    framing = Framing(n_fft, hop, "hamming", window_length=span, rule="valid", scale=0.5)
    x = noise(2, n_fft + more)
    expected = _torch_stft(x, framing, center=False)
    out = ops.stft(place.put(x), framing)
    assert span < n_fft or out.shape == expected.shape
    assert_near(out[:, : expected.shape[1]], expected, place.bound("stft"))


@pytest.mark.parametrize("frames", [1, 7])
@pytest.mark.parametrize(("n_fft", "hop", "span"), TRANSFORMS)
def test_centred_samples_are_pytorchs(place, n_fft, hop, span, frames):
    framing = Framing(n_fft, hop, "hamming", window_length=span, front=n_fft // 2)
    spectrum = noise(2, frames, n_fft // 2 + 1, 2)  # 0 Hz and Nyquist with imaginary parts, too
    whole = (frames - 1) * hop + span - n_fft // 2
    for length in (1, whole):
        expected = _torch_istft(spectrum, framing, True, length)
        out = ops.istft(place.put(spectrum), framing, length)
        assert_near(out, expected, place.bound("istft"))


@pytest.mark.parametrize("frames", [1, 7])
@pytest.mark.parametrize(("n_fft", "hop", "span"), TRANSFORMS)
def test_samples_of_whole_frames_are_pytorchs(place, n_fft, hop, span, frames):
    framing = Framing(n_fft, hop, "hamming", window_length=span, scale=0.5)
    spectrum = noise(2, frames, n_fft // 2 + 1, 2)
    for length in (1, framing.covered(frames)):
        expected = _torch_istft(spectrum, framing, False, length)
        out = ops.istft(place.put(spectrum), framing, length)
        assert_near(out, expected, place.bound("istft"))


def test_behind_the_frames_there_are_zeros(place):
    framing = Framing(256, 100, "hamming", window_length=180, front=128)
    spectrum = place.put(noise(2, 3, 129, 2))
    end = framing.covered(3) - 128
    long = ops.istft(spectrum, framing, end + 900)
    assert torch.equal(long[:, :end], ops.istft(spectrum, framing, end))
    assert long[:, end - 1].all()
    assert not long[:, end:].any()


@pytest.mark.parametrize("center", [True, False])
def test_a_length_behind_the_frames_is_pytorchs(place, center):
    framing = Framing(256, 64, "hamming", front=128 if center else 0)
    spectrum = noise(2, 5, 129, 2)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # PyTorch says so, once in a process
        expected = _torch_istft(spectrum, framing, center, 2000)
    assert_near(ops.istft(place.put(spectrum), framing, 2000), expected, place.bound("istft"))


@pytest.mark.parametrize("name", FRAMINGS)
def test_papers_spectra_are_pytorchs_and_come_back(place, name):
    torch.set_float32_matmul_precision("high")  # for which all sizes are shipped
    framing = FRAMINGS[name]
    x = noise(2, 61 if framing.hop == 16 else 2801)
    ends = framing.n_fft, framing.covered(framing.frames(x.shape[-1]))
    behind = max(ends) - framing.front - x.shape[-1]
    padded = F.pad(x, (framing.front, max(0, behind)))
    expected = _torch_stft(padded, framing, center=False)
    spectrum = ops.stft(place.put(x), framing)
    assert_near(spectrum[:, : expected.shape[1]], expected, place.bound("stft"))

    seen = min(x.shape[-1], framing.covered(spectrum.shape[1]) - framing.front)
    y = ops.istft(spectrum, framing, x.shape[-1])
    assert_near(y[:, :seen], x[:, :seen], 2 * place.bound("istft"))
    assert not y[:, seen:].any()
    assert seen == x.shape[-1] or name == "informed"


@HARDLY_ANY
@pytest.mark.parametrize("rule", ["ceil+2", "valid"])
def test_leading_axes_and_hardly_any_samples(place, lead, samples, rule):
    framing = Framing(256, 80, "hamming", front=20, rule=rule)
    x = noise(*lead, samples)
    leaf = place.put(x).requires_grad_()
    spectrum = ops.stft(leaf, framing)
    expected = stft(x, framing)
    assert_near(spectrum, expected, place.bound("stft"))
    assert_near(
        ops.istft(spectrum, framing, samples),
        istft(expected, framing, samples),
        2 * place.bound("istft"),
    )
    grad = noise(*expected.shape)
    (out,) = torch.autograd.grad(spectrum, leaf, place.put(grad))
    assert_near(out, stft_backward(grad, framing, samples), place.bound("stft", "backward"))


@pytest.mark.parametrize(
    "framing",
    [
        Framing(256, 256, symmetric=False),  # starts on 0
        Framing(256, 255),  # and ends on it
        Framing(256, 200, "rectangular", window_length=199),
        Framing(256, 300, "hamming"),
    ],
    ids=str,
)
def test_windows_that_leave_samples_out_are_refused(place, framing):
    spectrum = place.put(noise(3, framing.bins, 2))
    with pytest.raises(InputError) as refusal:
        ops.istft(spectrum, framing, 100)
    assert str(refusal.value) == (
        f"framing: got a {framing.window} window of {framing.span} with hop {framing.hop}, which "
        "leaves samples that no frame weighs and cannot be inverted, takes one that can"
    )


def test_what_does_not_fit_is_refused(place):
    framing = Framing(256, 64)
    spectrum = place.put(noise(3, 129, 2))
    for function, wanted in [
        (lambda: ops.istft(spectrum, framing, -1), "length: got -1, takes 0 or more"),
        (
            lambda: ops.istft(spectrum[:, :128], framing, 9),
            "spectrum: got shape (3, 128, 2), takes (..., frames, 129, 2)",
        ),
        (
            lambda: ops.istft(spectrum[0], framing, 9),
            "spectrum: got shape (129, 2), takes (..., frames, 129, 2)",
        ),
        (
            lambda: ops.istft(spectrum[..., :1], framing, 9),
            "spectrum: got shape (3, 129, 1), takes (..., frames, 129, 2)",
        ),
        (
            lambda: ops.stft(spectrum[0, 0, 0], framing),
            "waveform: got a single number, takes (..., samples)",
        ),
    ]:
        with pytest.raises(InputError) as refusal:
            function()
        assert str(refusal.value) == wanted


def test_silence_stays_silent(place):
    framing = Framing(256, 100, front=128)
    x = torch.zeros(2, 700, requires_grad=True)
    spectrum = ops.stft(place.put(x), framing)
    assert not spectrum.any()
    assert not ops.istft(spectrum, framing, 700).any()


def test_nan_reaches_the_frames_that_see_it_and_no_other(place):
    x = noise(2, 1201)
    broken = x.clone()
    broken[0, 500:507] = torch.nan
    sees = spans(HOLES, 1201)[:, 500:507].any(1)
    assert 0 < sees.sum() < 5
    out = ops.stft(place.put(broken), HOLES)
    assert out[0, sees, :, 0].isnan().all()
    expected = stft(x, HOLES)
    assert_near(out[0, ~sees], expected[0, ~sees], place.bound("stft"))
    assert_near(out[1], expected[1], place.bound("stft"))


def test_nan_reaches_the_samples_of_its_frame_and_no_other(place):
    spectrum = noise(2, 12, 129, 2)
    broken = spectrum.clone()
    broken[0, 5, 77] = torch.nan
    out = ops.istft(place.put(broken), HOLES, 1200)
    hit = spans(HOLES, 1200)[5]
    assert out[0, hit].isnan().all()
    expected = istft(spectrum, HOLES, 1200)
    assert_near(out[0, ~hit], expected[0, ~hit], place.bound("istft"))
    assert_near(out[1], expected[1], place.bound("istft"))


def test_spectra_add_up(place):
    framing = Framing(256, 100, front=128)
    x, y = noise(2, 777)
    out, of_x, of_y = (ops.stft(place.put(z), framing) for z in (x - 3 * y, x, y))
    assert_near(out, of_x - 3 * of_y, 3 * place.bound("stft"))


def test_no_energy_is_lost(place):
    framing = Framing(256, 256, "rectangular", rule="valid", scale=1 / 16)
    x = noise(2560)
    power = ops.stft(place.put(x), framing).double().square().sum(-1)
    whole = 2 * power.sum() - power[:, 0].sum() - power[:, -1].sum()
    assert abs(float(whole / x.square().sum()) - 1) <= place.bound("stft")


@pytest.mark.parametrize("framing", [HOLES, Framing(512, 160, front=256), Framing(256, 300)])
def test_gradients_are_transposes(place, framing):
    x = noise(2, 1100)
    leaf = place.put(x).requires_grad_()
    spectrum = ops.stft(leaf, framing)
    grad = noise(*spectrum.shape, seed=1)
    (back,) = torch.autograd.grad(spectrum, leaf, place.put(grad))
    _assert_same_product(spectrum, grad, x, back, place.bound("stft"))

    if framing.hop > framing.span:
        return
    leaf = place.put(grad).requires_grad_()
    y = ops.istft(leaf, framing, 1100)
    (back,) = torch.autograd.grad(y, leaf, place.put(x))
    _assert_same_product(y, x, grad, back, place.bound("istft"))


def _assert_same_product(a, b, c, d, bound):
    """<a, b> = <c, d>, against the lengths of a and b."""
    a, b, c, d = (x.detach().cpu().double() for x in (a, b, c, d))
    assert abs(float((a * b).sum() - (c * d).sum())) <= bound * float(a.norm() * b.norm())


def test_stretches_meet_without_a_seam(kernels, monkeypatch):
    """However many frames and blocks a program has; the borders of its blocks cross frames."""
    framing = Framing(256, 100, front=200)
    x = kernels.put(noise(1200))
    grad = kernels.put(noise(framing.frames(1200), framing.bins, 2, seed=1))

    # One program may walk along all of a line, however many others would then have nothing to do.

    def evaluate(frames, blocks):
        stand_in = blocks_of(FRAMES=frames, BLOCKS=blocks)
        monkeypatch.setattr("sepfast.kernels.launch.lookup", stand_in)
        leaf = x.clone().requires_grad_()
        spectrum = ops.stft(leaf, framing)
        (back,) = torch.autograd.grad(spectrum, leaf, grad)
        return spectrum, back, ops.istft(grad, framing, 1200)

    whole = evaluate(4, 64)
    true = [
        stft(x.double().cpu(), framing),
        stft_backward(grad.double().cpu(), framing, 1200),
        istft(grad.double().cpu(), framing, 1200),
    ]
    for out, expected in zip(whole, true, strict=True):
        assert_near(out, expected, kernels.bound("stft"))
    for blocks in (1, 2):
        assert all(map(torch.equal, evaluate(4, blocks), whole))
    for frames in (2, 16):
        for out, expected in zip(evaluate(frames, 2), whole, strict=True):
            assert_near(out, expected, kernels.bound("stft"))


@given(framing=framings(hops=600), samples=st.integers(0, 1500))
@settings(max_examples=12, deadline=None, derandomize=True)
def test_kernels_are_the_float64_reference(framing, samples):
    samples = min(samples, 20 * framing.hop)  # a few frames
    x = noise(2, samples, seed=samples)
    grad = noise(2, framing.frames(samples), framing.bins, 2, seed=1)
    device = require_kernels("cuda" if torch.cuda.is_available() else "cpu")
    with kernels_on(device) as place:
        leaf = place.put(x).requires_grad_()
        out = ops.stft(leaf, framing)
        assert_near(out, stft(x, framing), place.bound("stft"))
        (back,) = torch.autograd.grad(out, leaf, place.put(grad))
        true = stft_backward(grad, framing, samples)
        assert_near(back, true, place.bound("stft", "backward"))

        leaf = place.put(grad).requires_grad_()
        try:
            framing.check_invertible()
        except InputError:
            with pytest.raises(InputError, match="cannot be inverted"):
                ops.istft(leaf, framing, samples)
            return
        # Where a sample weighs next to nothing, dividing by that magnifies rounding.
        weight = window_weight(framing, grad.shape[1], samples)
        y = ops.istft(leaf, framing, samples)
        true = istft(grad, framing, samples)
        assert_near(y.double().cpu() * weight, true * weight, place.bound("istft"))
        incoming = x * weight
        (back,) = torch.autograd.grad(y, leaf, place.put(incoming))
        true = istft_backward(incoming.float().double(), framing, grad.shape[1])
        assert_near(back, true, place.bound("istft", "backward"))
