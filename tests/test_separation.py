"""Separating waveforms and streams: as published, in any pieces, at any rate, of any length."""

import copy
import math

import numpy as np
import pytest
import torch

from sepfast import InputError, Separator, create_model, fuse, use_backend
from sepfast.bench.published import covered_samples
from sepfast.bench.published import separate as published
from sepfast.reference import DeepConvSep, masked_istft, stft_magnitude
from sepfast.separation import deepconvsep
from sepfast.separation.fades import context_count, fades

RATE = 44100


@pytest.fixture(scope="module")
def separator(stereo_model):
    return Separator(stereo_model)


def _stack(stems: dict[str, torch.Tensor]) -> torch.Tensor:
    return torch.stack(list(stems.values()))


def _error(out, true) -> float:
    out, true = np.asarray(out, np.float64), np.asarray(true, np.float64)
    return np.linalg.norm(out - true) / np.linalg.norm(true)


def test_is_the_published_program_sample_for_sample(stereo_model, separator, mixture):
    expected = published(stereo_model, mixture.astype(np.float64))
    covered = covered_samples(mixture.shape[-1])
    out = _stack(separator(mixture, RATE)).numpy()
    assert 0 < mixture.shape[-1] - covered < 20 * 256
    assert np.abs(out - expected)[..., :covered].max() < 1e-6 * np.abs(expected).max()
    # It leaves the end silent; ours goes on.
    assert not expected[..., covered + 768 :].any()
    assert (np.abs(out[..., covered + 768 :]).max(-1) > 0).all()


def test_floors_are_put_back_as_published(stereo_model, mixture):
    """A training set without a silent frame has minima above 0."""
    model = copy.deepcopy(stereo_model)
    model.set_statistics(model.maximum * 0.01, model.maximum)
    excerpt = mixture[:, :40_000]
    expected = published(model, excerpt.astype(np.float64))
    covered = covered_samples(40_000)
    out = _stack(Separator(model)(excerpt, RATE)).numpy()
    assert np.abs(out - expected)[..., :covered].max() < 1e-6 * np.abs(expected).max()


def test_large_weights_do_not_magnify_rounding(stereo_model, mixture):
    """Weights of many sizes up to a hundred, as the published ones have, against float64."""
    model = copy.deepcopy(stereo_model)
    torch.manual_seed(1)
    for name, parameter in model.named_parameters():
        if name.endswith("weight"):
            parameter.mul_(torch.empty_like(parameter).exponential_() * 7)
    loud = model(model.scale(torch.rand(1, 2, 30, 513))).std()
    for source in model.sources:
        model.decoder[source][1].bias.fill_(10 * float(loud))  # nowhere 0 / 0
    assert max(p.abs().max() for p in model.parameters()) > 50
    excerpt = mixture[:, :60000].astype(np.float64)
    true = published(copy.deepcopy(model).double(), excerpt)
    covered = covered_samples(60000)
    out = _stack(Separator(model)(excerpt, RATE))
    assert _error(out[..., :covered], true[..., :covered]) < 2**-21  # 4 float32 roundings


def test_short_tracks_are_one_context(stereo_model, separator):
    """Up to 30 frames nothing overlaps: the whole chain, from the reference layers alone."""
    x = torch.randn(2, 28 * 256)
    shares = stereo_model.shares(
        stereo_model(stereo_model.scale(stft_magnitude(x, stereo_model.framing))[None])
    )
    expected = masked_istft(shares[0], x, stereo_model.framing, stereo_model.levels())
    torch.testing.assert_close(_stack(separator(x, RATE)), expected, atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize(("context", "overlap"), [(30, 15), (30, 25), (25, 20), (30, 0), (7, 4)])
def test_fades_add_up_to_one(context, overlap):
    step = context - overlap
    for frames in (1, context, context + 1, 5 * context + 3):
        count = context_count(frames, context, overlap)
        assert (count - 1) * step + context >= frames
        total = torch.zeros((count - 1) * step + context)
        for k, weights in enumerate(fades(0, count, count, context, overlap)):
            total[k * step : k * step + context] += weights
        torch.testing.assert_close(total[:frames], torch.ones(frames))


def test_fades_are_the_published_walk():
    """Weights of a walk that fades each context, 25 of 30 frames, into what lies there."""
    count, rise = 9, np.linspace(0, 1, 25)
    walk = np.zeros((count, (count - 1) * 5 + 30))
    for k in range(count - 1):
        old = walk[:, k * 5 : k * 5 + 30]
        new = np.zeros((count, 30))
        new[k] = 1
        fade = np.concatenate([rise, np.ones(5)]) if k else np.ones(30)
        old[:] = (1 - fade) * old + fade * new
    weights = fades(0, count, count, 30, 25)
    for k in range(count - 1):
        np.testing.assert_allclose(weights[k], walk[k, k * 5 : k * 5 + 30], atol=1e-7)
    assert not weights[-1, :25].any()
    assert (weights[-1, 25:] == 1).all()


@pytest.mark.parametrize("name", ["deepconvsep", "deepconvsep-stereo"])
@pytest.mark.parametrize("options", [{}, {"tied": True}, {"f1": 171, "pool": 342, "n2": 5}])
def test_whole_is_chunked(monkeypatch, name, options):
    torch.manual_seed(0)
    model = create_model(name, **options)
    for bias in [model.tied_bias] if model.tied_bias is not None else _last_biases(model):
        # Where all estimates are next to 0, rounding alone decides who gets the mixture.
        torch.nn.init.constant_(bias, 3)
    x = torch.randn(2, 40_000)
    monkeypatch.setattr(deepconvsep, "_CPU_FRAMES", 10**6)
    whole = _stack(Separator(model)(x, RATE))
    for frames in (15, 60):
        monkeypatch.setattr(deepconvsep, "_CPU_FRAMES", frames)
        torch.testing.assert_close(_stack(Separator(model)(x, RATE)), whole, atol=2e-6, rtol=0)


def _fused(model, overlap=None) -> Separator:
    """As on a GPU: no spectrum is stored."""
    separator = Separator(model, overlap=overlap)
    used = model.overlap if overlap is None else overlap
    separator._track = deepconvsep.DeepConvSepTrack(model, used, fused=True)
    return separator


@pytest.mark.parametrize("name", ["deepconvsep", "deepconvsep-stereo"])
@pytest.mark.parametrize("options", [{}, {"tied": True}, {"f1": 171, "pool": 342, "n2": 5}])
def test_spectrum_taken_twice_is_the_one_that_is_stored(monkeypatch, name, options):
    monkeypatch.setattr(deepconvsep, "_GPU_FRAMES", 60)
    torch.manual_seed(0)
    model = create_model(name, **options)
    low = torch.rand(4 * model.channels + model.channels, 513) * 0.1
    model.set_statistics(low, low + 1)
    for bias in [model.tied_bias] if model.tied_bias is not None else _last_biases(model):
        torch.nn.init.constant_(bias, 3)
    x = torch.randn(2, 40_000)
    expected = _stack(Separator(model)(x, RATE))
    assert _error(_stack(_fused(model)(x, RATE)), expected) < 1e-5


def test_kernels_separate_a_track(kernels, monkeypatch):
    """The whole chain in kernels, in spans of some contexts."""
    monkeypatch.setattr(deepconvsep, "_GPU_FRAMES", 8)
    torch.manual_seed(0)
    model = create_model("deepconvsep-stereo", context=6, t2=3, n1=5, n2=4, units=7)
    model.set_statistics(torch.zeros(10, 513), torch.rand(10, 513) + 0.5)
    for bias in _last_biases(model):
        torch.nn.init.constant_(bias, 3)
    x = torch.randn(2, 3000)
    with use_backend("reference"):
        expected = _stack(Separator(model)(x, RATE))
    model = copy.deepcopy(model).to(kernels.device)
    fuse(model)
    out = _stack(_fused(model)(x.to(kernels.device), RATE)).cpu()
    assert _error(out, expected) < 1e-5
    torch.set_float32_matmul_precision("high")  # shares in float16
    assert 0 < _error(_stack(_fused(model)(x.to(kernels.device), RATE)).cpu(), out) < 2e-3


def _last_biases(model):
    return [model.decoder[source][1].bias for source in model.sources]


@pytest.mark.parametrize("size", [1000, 77_777, 200_000])
def test_pieces_are_bit_for_bit_the_whole(separator, mixture, size):
    x = torch.from_numpy(mixture)
    whole = _stack(separator(x, RATE))
    pieces = list(separator.stream(x.split(size, -1), RATE, 2))
    assert max(p.shape[-1] for p in pieces) < 70_000
    assert torch.equal(torch.cat(pieces, -1), whole)


@pytest.mark.parametrize("samples", [0, 1, 2, 255, 256, 257, 6144, 6145, 30_000])
@pytest.mark.parametrize("channels", [1, 2])
@pytest.mark.parametrize("name", ["deepconvsep", "deepconvsep-stereo"])
def test_stems_add_up_at_any_length(name, channels, samples):
    x = 0.1 * torch.randn(channels, samples)
    kept = x.clone()
    stems = Separator(create_model(name))(x, RATE)
    assert list(stems) == ["vocals", "drums", "bass", "other"]
    assert all(s.shape == x.shape and s.dtype == torch.float32 for s in stems.values())
    torch.testing.assert_close(sum(stems.values()), x, atol=1e-6, rtol=0)
    assert torch.equal(x, kept)


def test_mono_model_on_stereo_is_the_mean_of_its_channels():
    separator = Separator(create_model("deepconvsep"))
    x = torch.randn(2, 20_000)
    of_mean = _stack(separator(x.mean(0, keepdim=True), RATE))
    torch.testing.assert_close(
        _stack(separator(x, RATE)).mean(1, keepdim=True), of_mean, atol=1e-6, rtol=0
    )


def test_stereo_model_on_mono_is_two_equal_channels(separator, mixture):
    mono = mixture.mean(0, keepdims=True)[:, :30_000]
    twice = _stack(separator(np.repeat(mono, 2, 0), RATE))
    torch.testing.assert_close(_stack(separator(mono, RATE)), twice.mean(1, keepdim=True))


@pytest.mark.parametrize("rate", [8000, 22050.0, 48000, 96000])
@pytest.mark.parametrize("samples", [1, 1001, 40_000])
def test_other_rates_keep_length_and_sum(rate, samples):
    seconds = torch.arange(samples) / rate
    x = torch.stack([torch.sin(2 * torch.pi * f * seconds) for f in (300, 1000)])
    stems = Separator(create_model("deepconvsep-stereo"))(x, rate)
    total = sum(stems.values())
    assert total.shape == x.shape
    # There and back through two resamplers: exact but for the ends' ringing.
    inner = slice(2000, -2000)
    assert (total - x)[:, inner].abs().max() < 1e-3 if samples > 4000 else True


def test_float64_and_numpy_come_in(separator, mixture):
    excerpt = mixture[:, :9000]
    a = _stack(separator(excerpt, RATE))
    assert torch.equal(a, _stack(separator(torch.from_numpy(excerpt).double(), RATE)))


def test_silence_stays_silent():
    stems = Separator(create_model("deepconvsep-stereo"))(torch.zeros(2, 50_000), RATE)
    assert not any(s.any() for s in stems.values())


@pytest.mark.parametrize(
    ("waveform", "rate", "message"),
    [
        (torch.zeros(100), RATE, r"waveform: got shape \(100,\), takes \(channels, samples\)"),
        (torch.zeros(3, 100), RATE, "waveform: got 3 channels, takes 1 or 2"),
        (torch.zeros(2, 100, dtype=torch.int16), RATE, "waveform: got torch.int16"),
        (torch.full((2, 100), torch.nan), RATE, "holds NaN or infinite samples"),
        (torch.zeros(2, 100), 0, "sample_rate: got 0"),
        (torch.zeros(2, 100), 44100.5, "sample_rate: got 44100.5"),
        (torch.zeros(2, 100), math.nan, "sample_rate: got nan"),
        (torch.zeros(2, 100), math.inf, "sample_rate: got inf"),
    ],
)
def test_bad_waveforms_are_named(separator, waveform, rate, message):
    with pytest.raises(InputError, match=message):
        separator(waveform, rate)


def test_bad_options_are_named(stereo_model):
    with pytest.raises(InputError, match="overlap: got 30, takes 0 to 29"):
        Separator(stereo_model, overlap=30)
    with pytest.raises(InputError, match="model: got a Denoiser"):
        Separator(create_model("denoiser"))
    assert isinstance(stereo_model, DeepConvSep)
