"""The STFT and its inverse in PyTorch: against numpy and scipy, and their transposes."""

import numpy as np
import pytest
import scipy.signal
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from sepfast import InputError
from sepfast.reference import FRAMINGS, Framing, istft, istft_backward, stft, stft_backward

SMALL = [
    Framing(16, 4, front=8, rule="ceil+2", scale=0.25),
    Framing(15, 4, "hamming", symmetric=False, rule="valid"),
    Framing(16, 5, window_length=12, symmetric=False, front=7),
    Framing(8, 8, "rectangular", front=3),
]


@pytest.mark.parametrize(
    ("name", "symmetric"),
    [("hann", True), ("hann", False), ("hamming", False), ("blackmanharris", True)],
)
def test_windows_are_scipys(name, symmetric):
    ours = {"blackmanharris": "blackman-harris"}.get(name, name)
    framing = Framing(400, 100, ours, symmetric=symmetric)
    expected = scipy.signal.get_window(name, 400, fftbins=not symmetric)
    assert (
        np.abs(framing.window_on(torch.zeros(1, dtype=torch.float64)).numpy() - expected).max()
        < 1e-15
    )


def test_papers_frame_counts():
    # A and B: ceil(L / hop) + 2. C: 131,584 samples are 256 frames. D: 100 frames a second.
    assert FRAMINGS["deepconvsep"].frames(44100) == 175
    assert FRAMINGS["informed"].frames(131584) == 256
    assert FRAMINGS["landmarks"].frames(16000) == 102
    assert [FRAMINGS[n].bins for n in FRAMINGS] == [513, 513, 513, 257, 1025]


def test_deepconvsep_is_numpy_frame_by_frame():
    x = np.random.default_rng(0).standard_normal(3000)
    line = np.concatenate([np.zeros(512), x, np.zeros(2000)])
    spectrum = stft(torch.from_numpy(x), FRAMINGS["deepconvsep"])
    for t in (0, 5, 13):
        frame = np.hanning(1024) * line[t * 256 : t * 256 + 1024]
        expected = np.fft.rfft(frame, norm="ortho")
        assert np.abs(torch.view_as_complex(spectrum[t]).numpy() - expected).max() < 1e-13
    assert spectrum.shape == (14, 513, 2)


@pytest.mark.parametrize("framing", SMALL)
@pytest.mark.parametrize("samples", [1, 2, 15, 16, 61])
def test_backwards_are_transposes(framing, samples):
    x = torch.randn(2, samples, dtype=torch.float64, requires_grad=True)
    spectrum = stft(x, framing)
    grad = torch.randn_like(spectrum)
    torch.testing.assert_close(
        stft_backward(grad, framing, samples), _vector_jacobian(spectrum, x, grad)
    )

    z = torch.randn_like(spectrum).requires_grad_()
    y = istft(z, framing, samples)
    grad = torch.randn_like(y)
    torch.testing.assert_close(
        istft_backward(grad, framing, z.shape[-3]), _vector_jacobian(y, z, grad)
    )


def _vector_jacobian(y, x, grad):
    """Autograd's, also where no frame exists and y hangs on nothing."""
    return torch.autograd.grad(y, x, grad)[0] if y.requires_grad else torch.zeros_like(x)


@given(
    n_fft=st.integers(2, 40),
    hops=st.integers(1, 8),
    samples=st.integers(0, 300),
    window=st.sampled_from(["hann", "hamming", "blackman-harris"]),
)
@settings(max_examples=60, deadline=None)
def test_identity_comes_back(n_fft, hops, samples, window):
    # Zeros of a window in front, so that no sample lies at its edge, where it may weigh nothing.
    framing = Framing(n_fft, max(1, n_fft // (hops + 1)), window, symmetric=False, front=n_fft)
    x = torch.from_numpy(np.random.default_rng(samples).standard_normal((2, samples)))
    try:
        framing.check_invertible()
    except InputError:
        return
    y = istft(stft(x, framing), framing, samples)
    assert y.shape == x.shape
    torch.testing.assert_close(y, x, atol=1e-9, rtol=0)


@pytest.mark.parametrize("name", ["deepconvsep", "deepconvsep-512", "landmarks", "style-transfer"])
@pytest.mark.parametrize("samples", [1, 255, 256, 4097])
def test_papers_framings_invert(name, samples):
    framing = FRAMINGS[name]
    x = torch.randn(2, samples, dtype=torch.float64)
    torch.testing.assert_close(istft(stft(x, framing), framing, samples), x, atol=1e-10, rtol=0)


def test_parseval_and_linearity():
    framing = Framing(64, 64, "rectangular", rule="valid", scale=1 / 8)
    x, y = torch.randn(2, 640, dtype=torch.float64)
    power = stft(x, framing).square().sum(-1)
    mirrored = 2 * power.sum() - power[:, 0].sum() - power[:, -1].sum()
    torch.testing.assert_close(mirrored, x.square().sum())
    torch.testing.assert_close(stft(x + 2 * y, framing), stft(x, framing) + 2 * stft(y, framing))


def test_half_types_come_and_go():
    x = torch.randn(100)
    for dtype in (torch.float16, torch.bfloat16):
        spectrum = stft(x.to(dtype), SMALL[0])
        assert spectrum.dtype == dtype
        assert istft(spectrum, SMALL[0], 100).dtype == dtype


def test_bad_framings_are_named():
    with pytest.raises(InputError, match="window: got 'kaiser'"):
        Framing(window="kaiser")
    with pytest.raises(InputError, match="window_length: got 2000"):
        Framing(window_length=2000)
    with pytest.raises(InputError, match="cannot be inverted"):
        istft(torch.zeros(3, 9, 2), Framing(16, 20), 10)
    with pytest.raises(InputError, match="spectrum: got shape"):
        istft(torch.zeros(3, 7, 2), Framing(16, 4), 10)
