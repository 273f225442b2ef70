"""System D in use: mixtures and faces to voices, and what is refused."""

import math

import numpy as np
import pytest
import torch
from conftest import noise
from talking import VIDEO_RATE, crowd, face

from sepfast import InputError, create_model, fuse
from sepfast.data.speaker_statistics import speaker_statistics
from sepfast.data.talker_examples import TalkerExamples, talker_features
from sepfast.data.talker_mixtures import draw_mixtures
from sepfast.data.talkers import find_utterances
from sepfast.reference import FRAMINGS, Refining, istft, stft
from sepfast.separation import (
    Enhancer,
    Recording,
    RecordingStatistics,
    audiovisual,
    enhancer,
    read_statistics,
    write_statistics,
)

RATE, HOP, POWER = 16000, 160, 0.3
FRAMING = FRAMINGS["landmarks"]
NAMES = ["vl2m", "vl2m-ref", "av-concat", "av-concat-ref"]


def small(name="av-concat", seed=0, **options):
    """A small network with preferences; some hold a VL2M."""
    torch.manual_seed(seed)
    model = create_model(name, hidden=4, layers=1, **options).eval()
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    if isinstance(model, Refining):
        model.hold(small("vl2m", seed + 1))
    return model


def level(name, mask):
    """A model whose mask is the same everywhere."""
    model = small(name)
    share = mask if name == "vl2m" else mask / 10
    torch.nn.init.zeros_(model.output.weight)
    bias = 40.0 if share == 1 else math.log(share / (1 - share))
    torch.nn.init.constant_(model.output.bias, bias)
    return model


def pointwise(model=None):
    """An enhancer whose network looks at one frame alone, at what is heard and what is seen."""
    enhancer = Enhancer(model or small())

    def forward(motion, spectrogram, lengths):
        return 0.5 * spectrogram.tanh() + 0.3 * motion.tanh().sum(-1, keepdim=True).tanh() - 2

    enhancer._model.forward = forward
    return enhancer


def filmed(samples, rate=RATE, seed=0):
    """Landmarks for as many samples, and their rate."""
    return face(math.ceil(samples / rate * VIDEO_RATE), VIDEO_RATE, seed), VIDEO_RATE


def wave(*shape, seed=0):
    return 0.2 * noise(*shape, seed=seed).float()


def test_the_equations():
    """The whole way, written out in float64."""
    model, x = small("av-concat-ref"), wave(2, 9001)
    landmarks, video_rate = filmed(9001)
    spectrum = stft(x.double(), FRAMING)
    magnitudes = torch.view_as_complex(spectrum).abs()
    levels = torch.view_as_complex(stft(x.double().mean(0), FRAMING)).abs() ** POWER
    motion = torch.from_numpy(_motion(landmarks, len(levels)))
    heard, seen = ((v - v.mean(0)) / _deviation(v) for v in (levels, motion))
    double = small("av-concat-ref").double()
    mask = double.mask(double(seen[None], heard[None]))[0].detach()
    estimate = (mask * magnitudes**POWER) ** (1 / POWER)
    expected = istft(spectrum / magnitudes[..., None] * estimate[..., None], FRAMING, 9001)
    out = Enhancer(model)(x, RATE, landmarks, video_rate)
    assert out.dtype == torch.float32
    torch.testing.assert_close(
        out.double(), expected, atol=2e-5 * float(expected.abs().max()), rtol=0
    )


def _motion(landmarks, frames):
    """At 100 frames a second from 25: three between each two, and the last one held."""
    n, m = len(landmarks), 4 * len(landmarks)
    at = np.linspace(0, n * (1 - 1 / m), m).clip(max=n - 1)
    raised = np.stack([np.interp(at, np.arange(n), column) for column in landmarks.T], 1)
    raised = np.pad(raised, ((0, max(0, frames - m)), (0, 0)), mode="edge")[:frames]
    return np.diff(raised, axis=0, prepend=raised[:1])


def _deviation(values):
    deviation = values.std(0, correction=0)
    return torch.where(deviation == 0, 1, deviation)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("channels", [1, 2])
def test_a_mask_of_one_gives_back_the_mixture(name, channels):
    x = wave(channels, 8001)
    kept = x.clone()
    out = Enhancer(level(name, 1))(x, RATE, *filmed(8001))
    torch.testing.assert_close(out, x, atol=1e-5, rtol=0)
    assert torch.equal(x, kept)


@pytest.mark.parametrize("name", ["vl2m", "av-concat"])
def test_a_mask_is_of_compressed_magnitudes(name):
    x = wave(1, 5000)
    out = Enhancer(level(name, 0.5))(x, RATE, *filmed(5000))
    torch.testing.assert_close(out, x * 0.5 ** (1 / POWER), atol=1e-6, rtol=0)


@pytest.mark.parametrize("rate", [RATE, 8000, 44100, 11025.0])
@pytest.mark.parametrize("samples", [1, 159, 160, 4097, 12_345])
def test_lengths_are_kept_at_any_rate(rate, samples):
    x = wave(2, samples)
    out = Enhancer(level("av-concat", 1))(x.numpy(), rate, *filmed(samples, rate))
    assert out.shape == x.shape
    if samples > 10_000:  # tones below all limits come through both ways
        seconds = torch.arange(samples) / rate
        tone = torch.stack([torch.sin(2 * torch.pi * hz * seconds) for hz in (300, 700)]) / 4
        out = Enhancer(level("av-concat", 1))(tone, rate, *filmed(samples, rate))
        inner = slice(500, -500)
        torch.testing.assert_close(out[:, inner], tone[:, inner], atol=1e-4, rtol=0)


@pytest.mark.parametrize("seconds", [1.0, 1.37])
@pytest.mark.parametrize("spans", [1, 3])
def test_chunks_do_not_matter_where_the_network_looks_at_single_frames(monkeypatch, seconds, spans):
    x = wave(2, round(seconds * RATE) + 7)
    whole = pointwise()(x, RATE, *filmed(x.shape[1]))
    monkeypatch.setattr(audiovisual, "LONGEST", 30)
    monkeypatch.setattr(audiovisual, "OVERLAP", 8)
    monkeypatch.setattr(audiovisual, "_CPU_FRAMES", 22 * spans)
    monkeypatch.setattr(enhancer, "_FRAMES", 13)
    chunked = pointwise()(x, RATE, *filmed(x.shape[1]))
    torch.testing.assert_close(chunked, whole, atol=2e-6, rtol=0)


def test_contexts_are_cross_faded_and_see_no_padding(monkeypatch):
    """A network whose masks differ from context to context, and one told what lies where."""
    monkeypatch.setattr(audiovisual, "LONGEST", 30)
    monkeypatch.setattr(audiovisual, "OVERLAP", 8)
    monkeypatch.setattr(audiovisual, "_CPU_BATCH", 100)
    seen = []
    steady = Enhancer(level("av-concat", 1))

    def forward(motion, spectrogram, lengths):
        seen.append((len(motion), motion.shape[1], lengths))
        rising = torch.arange(len(motion)) % 2 * 0.2 - math.log(9)
        return rising[:, None, None].expand(spectrogram.shape)

    steady._model.forward = forward
    seconds = torch.arange(16_000) / RATE
    x = torch.sin(2 * torch.pi * 1000 * seconds)[None] / 4
    out = steady(x, RATE, *filmed(16_000))
    (contexts, frames, lengths), total = seen[0], FRAMING.frames(16_000)
    assert frames <= 30
    assert lengths.tolist() == [frames] * (contexts - 1) + [total - (contexts - 1) * (frames - 8)]
    # The envelope goes from one level to the other in 8 frames: no step at a border.
    loud = out[0, 160:-160].square().reshape(-1, 160).mean(1).sqrt()
    assert loud.max() / loud.min() > 1.5
    assert (loud[1:] / loud[:-1]).log().abs().max() < 0.15


@pytest.mark.parametrize("frames", [1, 3000, 3001, 3200, 5800, 5801, 60_002])
def test_contexts_are_as_few_and_as_even_as_can_be(frames):
    context, overlap = audiovisual.contexts_of(frames)
    assert overlap < context <= 3000
    if frames > 3000:
        count = math.ceil((frames - 200) / 2800)
        covered = count * (context - 200) + 200
        assert 0 <= covered - frames < count
    else:
        assert (context, overlap) == (frames, 0)


@pytest.mark.parametrize("name", NAMES)
def test_silence_stays_silent(name):
    enhancer = Enhancer(small(name))
    out = enhancer(torch.zeros(2, 5000), RATE, *filmed(5000))
    assert torch.equal(out, torch.zeros(2, 5000))
    x = wave(1, 9000)
    x[:, 2000:7000] = 0  # and so it does between sounds, with a face that does not move
    still = np.full((20, 136), 7.0)
    out = enhancer(x, RATE, still, VIDEO_RATE)
    assert out.isfinite().all()
    assert not out[:, 2000 + 400 : 7000 - 400].any()
    assert out[:, :1500].any()


def test_own_statistics_are_those_of_the_recording_whatever_its_level():
    """Louder by a factor, the mean and the deviation are louder by the same."""
    x, told = wave(1, 8000), filmed(8000)
    enhancer = Enhancer(small())
    out = enhancer(x, RATE, *told)
    torch.testing.assert_close(enhancer(3 * x, RATE, *told), 3 * out, atol=1e-4, rtol=1e-3)
    same = enhancer.statistics([(x, RATE, *told)])
    assert torch.equal(enhancer(x, RATE, *told, statistics=same), out)
    more = enhancer.statistics([Recording(x, RATE, *told), Recording(3 * x, RATE, *told)])
    apart = (enhancer(x, RATE, *told, statistics=more) - out).abs().max()
    assert apart > 0.01 * out.abs().max()
    np.testing.assert_array_equal(more.motion.mean, same.motion.mean)


def test_with_a_speakers_statistics_it_is_what_training_hears(tmp_path):
    utterances, _ = find_utterances(crowd(tmp_path))
    mixtures, _ = draw_mixtures(utterances, seed=0)
    kept = tmp_path / "kept"
    statistics = speaker_statistics(utterances, mixtures, cache_dir=kept)
    features = talker_features(TalkerExamples(mixtures[:1], statistics, 1, None, kept)[0, 0])
    seen = []
    enhancer = Enhancer(small())
    enhancer._model.forward = lambda *given: seen.append(given) or given[1]
    target = mixtures[0].target
    landmarks = np.loadtxt(target.landmarks)
    usual = statistics[target.speaker]
    mixture = mixtures[0].waveforms(kept)[:1]
    enhancer(mixture, RATE, landmarks, VIDEO_RATE, statistics=usual)
    motion, heard, lengths = seen[0]
    assert lengths.tolist() == [target.frames]
    torch.testing.assert_close(heard, features.heard, atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(motion, features.motion)


def test_the_model_is_copied():
    model = small("vl2m-ref")
    before = type(model.encoder)
    enhancer = Enhancer(model.double().train())
    assert type(model.encoder) is before
    assert model.training
    assert model.output.weight.dtype == torch.float64
    assert all(not module.training for module in enhancer._model.modules())
    assert "0 replaced" in str(fuse(enhancer._model))  # all are already
    x, told = wave(1, 3000), filmed(3000)
    torch.testing.assert_close(
        enhancer(x, RATE, *told), Enhancer(fused(small("vl2m-ref")))(x, RATE, *told)
    )


def fused(model):
    fuse(model)
    return model


def test_progress_reaches_the_end():
    told = []
    Enhancer(small())(
        wave(1, 5000), 8000, *filmed(5000, 8000), progress=lambda *now: told.append(now)
    )
    assert told[-1] == (5000, 5000)
    assert told == sorted(told)


ONE = torch.zeros(1, 1600)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((torch.zeros(1600), RATE, *filmed(1600)), r"waveform: got shape \(1600,\)"),
        ((torch.zeros(1, 0), RATE, *filmed(1600)), r"waveform: got shape \(1, 0\).*at least one"),
        ((torch.zeros(0, 5), RATE, *filmed(1600)), r"waveform: got shape \(0, 5\)"),
        ((ONE.int(), RATE, *filmed(1600)), "waveform: got torch.int32 samples"),
        ((ONE.clone().fill_(math.nan), RATE, *filmed(1600)), "waveform: holds NaN.* 0 and 1600"),
        ((ONE.double() + 1e300, RATE, *filmed(1600)), "waveform: holds NaN or infinite"),
        ((ONE, 0, *filmed(1600)), "sample_rate: got 0"),
        ((ONE, 16000.5, *filmed(1600)), "sample_rate: got 16000.5"),
        ((ONE, RATE, np.zeros((5, 135)), 25), r"landmarks: got shape \(5, 135\)"),
        ((ONE, RATE, np.zeros((0, 136)), 25), r"landmarks: got shape \(0, 136\)"),
        ((ONE, RATE, np.full((5, 136), np.nan), 25), "landmarks: holds NaN"),
        ((ONE, RATE, np.zeros((5, 136)), 0), "video_rate: got 0"),
        ((torch.zeros(1, 16000), RATE, np.zeros((20, 136)), 25), "0.80 s; takes 0.9"),
    ],
)
def test_what_cannot_be_enhanced(arguments, message):
    with pytest.raises(InputError, match=message) as caught:
        Enhancer(small())(*arguments)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: create_model("vl2m-ref", hidden=4), "without a VL2M to make its mask"),
        (lambda: create_model("denoiser"), "got a Denoiser, takes one that enhances"),
        (lambda: small(landmarks=6), "6 values of motion"),
        (lambda: small(sample_rate=8000), "at 50 frames a second, takes 136 at 100"),
    ],
)
def test_models_that_do_not_enhance(make, message):
    with pytest.raises(InputError, match=message):
        Enhancer(make())


def test_statistics_in_a_file(tmp_path):
    usual = Enhancer(small()).statistics([(wave(1, 3000), RATE, *filmed(3000))])
    write_statistics(tmp_path / "s1.npz", usual)
    again = read_statistics(tmp_path / "s1.npz")
    for moments, kept in zip(usual, again, strict=True):
        np.testing.assert_array_equal(moments, kept)
    with pytest.raises(InputError, match=r"ends in \.npz"):
        write_statistics(tmp_path / "s1.txt", usual)
    with pytest.raises(InputError, match="got none"):
        Enhancer(small()).statistics([])
    (tmp_path / "broken.npz").write_bytes((tmp_path / "s1.npz").read_bytes()[:300])
    np.savez(tmp_path / "other.npz", mean=np.zeros(3))
    np.save(tmp_path / "array.npy", np.zeros(3))
    for name, message in [
        ("none.npz", "no such file"),
        ("broken.npz", "is no file of statistics"),
        ("other.npz", "is no file of statistics"),
        ("array.npy", "is no file of statistics"),
    ]:
        with pytest.raises(InputError, match=message):
            read_statistics(tmp_path / name)


def test_statistics_that_do_not_fit():
    enhancer = Enhancer(small())
    usual = enhancer.statistics([(wave(1, 3000), RATE, *filmed(3000))])
    flat = usual.motion._replace(deviation=usual.motion.deviation * 0)
    wild = usual.motion._replace(mean=usual.motion.mean * np.nan)
    for wrong, message in [
        (RecordingStatistics(usual.motion, usual.mixtures), r"got mixtures.*takes floats \(257,\)"),
        (usual._replace(motion=flat), "got motion with a deviation of 0"),
        (usual._replace(motion=wild), "got motion with NaN"),
    ]:
        with pytest.raises(InputError, match=message):
            enhancer(wave(1, 3000), RATE, *filmed(3000), statistics=wrong)
