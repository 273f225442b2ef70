"""Recordings through system E's models: what comes out, in any pieces, of any length and rate."""

import copy

import numpy as np
import pytest
import torch
import typer
from typer.testing import CliRunner

from sepfast import InputError, Separator, create_model, save
from sepfast.cli.separate import separate
from sepfast.data.audio import read, write
from sepfast.separation import style_transfer

RATE = 16000
pytestmark = pytest.mark.usefixtures("one_thread")


def made(name="udt", **options):
    torch.manual_seed(2)
    model = create_model(name, **{"framing": "landmarks", "hidden": 6, **options}).eval()
    for key, buffer in model.named_buffers():
        if "running" in key:
            buffer.uniform_(0.5, 1.5)
    return model


def by_hand(model, x):
    """All at once and in float64: (channels, samples), of what is wanted."""
    f, wide = model.framing, copy.deepcopy(model).double()
    padded = np.pad(np.asarray(x, np.float64), ((0, 0), (f.front, f.n_fft)))
    window = 0.5 - 0.5 * np.cos(2 * np.pi * np.arange(f.span) / f.span)
    starts = [t * f.hop for t in range(f.frames(x.shape[-1]))]
    frames = np.stack([padded[:, s : s + f.span] * window for s in starts], 1)
    spectrum = np.fft.rfft(frames, f.n_fft)
    with torch.no_grad():
        estimate = wide(torch.from_numpy(np.abs(spectrum) ** model.power)).clamp(min=0).numpy()
    spectrum = estimate ** (1 / model.power) * np.exp(1j * np.angle(spectrum))
    out, norm = np.zeros_like(padded), np.zeros(padded.shape[-1])
    for t, start in enumerate(starts):
        frame = np.fft.irfft(spectrum[:, t], f.n_fft)[:, : f.span] * window
        out[:, start : start + f.span] += frame
        norm[start : start + f.span] += window**2
    return (out / np.maximum(norm, 1e-12))[:, f.front :][:, : x.shape[-1]]


def error(out, true):
    return np.linalg.norm(np.asarray(out, np.float64) - true) / np.linalg.norm(true)


@pytest.mark.parametrize("name", ["udt", "denoising-vae"])
def test_the_paper_by_hand(name):
    model, x = made(name), torch.randn(2, 7001) / 10
    out = Separator(model)(x, RATE)
    assert list(out) == ["target", "rest"]
    assert error(out["target"], by_hand(model, x)) < 2e-6
    assert torch.equal(out["rest"], x - out["target"])


def test_the_published_framing(mixture):
    """2048 and 16, of which an estimate has 1024 bins."""
    model, x = made(framing="style-transfer", hidden=4), mixture[:1, 5000:6500]
    assert error(Separator(model)(x, RATE)["target"], by_hand(model, x)) < 2e-6


@pytest.mark.parametrize("samples", [1, 159, 160, 5000])
def test_spans_are_the_whole(monkeypatch, samples):
    model, x = made(), torch.randn(1, samples)
    whole = Separator(model)(x, RATE)["target"]
    monkeypatch.setattr(style_transfer, "_CPU_FRAMES", 5)
    separator = Separator(model)
    pieces = list(separator.stream(x.split(333, 1), RATE, 1))
    assert torch.cat(pieces, -1).shape == (2, 1, samples)
    torch.testing.assert_close(torch.cat(pieces, -1)[0], whole, rtol=1e-4, atol=1e-6)
    assert len(pieces) >= samples // (5 * 160)


@pytest.mark.parametrize("samples", [700, 1500, 4001])
def test_spans_of_the_published_framing_are_the_whole(monkeypatch, samples):
    model, x = made(framing="style-transfer", hidden=4), torch.randn(1, samples) / 10
    monkeypatch.setattr(style_transfer, "_CPU_FRAMES", 60)
    out = torch.cat(list(Separator(model).stream(x.split(333, 1), RATE, 1)), -1)
    assert error(out[0], by_hand(model, x)) < 2e-6


def test_memory_does_not_grow_with_a_recording(monkeypatch):
    """The network never hears more than a span and what that depends on."""
    monkeypatch.setattr(style_transfer, "_CPU_FRAMES", 50)
    separator, heard = Separator(made()), []
    model = separator._track.model
    model.register_forward_pre_hook(lambda layer, inputs: heard.append(inputs[0].shape[1]))
    for samples in (40_000, 80_000):
        blocks = torch.randn(1, samples).split(4000, 1)
        assert sum(piece.shape[-1] for piece in separator.stream(blocks, RATE, 1)) == samples
    before = (model.framing.span - 1) // model.framing.hop
    assert max(heard) <= 50 + before + 2 * model.reach
    assert len(heard) > 80_000 // (50 * 160)


def test_nothing_becomes_nothing():
    out = Separator(made())(torch.empty(2, 0), RATE)
    assert [stem.shape for stem in out.values()] == [(2, 0), (2, 0)]


def test_silence_stays_silent():
    x = torch.randn(1, 9000)
    x[:, 3000:] = 0
    target = Separator(made())(x, RATE)["target"]
    assert target.isfinite().all()
    assert target[:, :2900].any()
    assert not target[:, 3000 + 400 :].any()


def test_channels_are_separated_on_their_own():
    separator, x = Separator(made()), torch.randn(2, 4000)
    both, one = separator(x, RATE)["target"], separator(x[1:], RATE)["target"]
    torch.testing.assert_close(both[1:], one)


def test_another_rate():
    x = torch.randn(1, 44101) / 10
    out = Separator(made())(x, 44100)
    assert {name: stem.shape for name, stem in out.items()} == dict.fromkeys(out, x.shape)
    torch.testing.assert_close(out["target"] + out["rest"], x)


def test_what_cannot_be():
    with pytest.raises(InputError, match="overlap: got 3, takes None: UDT has no contexts"):
        Separator(made(), overlap=3)
    with pytest.raises(InputError, match="side: got side information, takes None: DenoisingVAE"):
        Separator(made("denoising-vae"))(torch.randn(1, 500), RATE, side=[1.0])


def test_the_command(tmp_path, mixture):
    model = made()
    save(model, tmp_path / "udt.safetensors")
    write(tmp_path / "mix.wav", mixture[:, :20_000], 44100)
    app = typer.Typer()
    app.command()(separate)
    arguments = [tmp_path / "mix.wav", "-m", tmp_path / "udt.safetensors"]
    arguments += ["-o", tmp_path / "stems", "--device", "cpu"]
    result = CliRunner().invoke(app, [str(argument) for argument in arguments])
    assert result.exit_code == 0, result.output
    expected = Separator(model)(mixture[:, :20_000], 44100)
    for source, stem in expected.items():
        written, rate = read(tmp_path / "stems" / "mix" / f"{source}.wav")
        assert rate == 44100
        np.testing.assert_allclose(written, stem, atol=1e-5)
