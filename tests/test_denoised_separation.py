"""Separating with denoisers: each context as in training, in any pieces, at any rate."""

import numpy as np
import pytest
import soundfile
import torch
import typer
from denoising import SMALL, fresh, learnt_separator, song
from typer.testing import CliRunner

from sepfast import InputError, Separator, create_model, load, save
from sepfast.data.audio import read
from sepfast.evaluation.informed import from_model
from sepfast.reference import masked_istft, stft_magnitude
from sepfast.separation import deepconvsep, denoised, load_denoisers
from sepfast.separation.fades import context_count, fades

RATE = 44100

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A small separator; not to be changed."""
    return learnt_separator(tmp_path_factory.mktemp("separator"))


def _stack(stems: dict[str, torch.Tensor]) -> torch.Tensor:
    return torch.stack(list(stems.values()))


def _made(name: str = "deepconvsep-stereo", **options):
    """A separator with clear masks, and extrema that no two bins or sources share."""
    torch.manual_seed(0)
    model = create_model(name, **{**SMALL, **options})
    for bias in [model.tied_bias] if model.tied_bias is not None else _last_biases(model):
        torch.nn.init.constant_(bias, 3)
    low = torch.rand_like(model.minimum) * 0.1
    model.set_statistics(low, low + 0.5 + torch.rand_like(low))
    return model.eval().requires_grad_(False)


def _last_biases(model):
    return [model.decoder[source][1].bias for source in model.sources]


def _denoisers(model, *sources: str, **options):
    """Untrained ones with something to say, that is now and then below 0."""
    made = {}
    for source in sources:
        denoiser = made[source] = fresh(model, source, channels=model.channels, **options)
        torch.nn.init.normal_(denoiser.decoder.weight, std=0.2)
    return made


def _naive(model, denoisers, mixture: torch.Tensor) -> torch.Tensor:
    """A whole track, context by context: the stems of the denoised sources."""
    framing, context, overlap = model.framing, model.context, model.overlap
    levels = stft_magnitude(mixture, framing)
    frames, step = levels.shape[1], context - overlap
    count = context_count(frames, context, overlap)
    padded = torch.nn.functional.pad(levels, (0, 0, 0, (count - 1) * step + context - frames))
    out = torch.zeros(len(denoisers), *padded.shape)
    for k, weights in enumerate(fades(0, count, count, context, overlap)):
        at = slice(k * step, k * step + context)
        scaled = model.scale(padded[:, at])[None]
        shares = model.shares(model(scaled))[0]
        for d, (source, denoiser) in enumerate(denoisers.items()):
            place = model.sources.index(source)
            clean = denoiser(shares[place] * scaled)[0]
            low, high = model.minimum.unflatten(0, (5, -1)), model.maximum.unflatten(0, (5, -1))
            restored = clean * (high - low)[place][:, None] + low[place][:, None]
            out[d, :, at] += restored.clamp(min=0) * weights[:, None]
    return masked_istft(out[..., :frames, :] / levels.clamp(min=1e-6), mixture, framing)


@pytest.mark.parametrize("options", [{}, {"published": True}, {"merge": "project"}])
def test_is_the_walk_through_contexts(options):
    model = _made()
    denoisers = _denoisers(model, "vocals", "bass", **options)
    x = torch.randn(2, 12_345)
    plain, stems = Separator(model)(x, RATE), Separator(model, denoisers=denoisers)(x, RATE)
    with torch.no_grad():
        expected = _naive(model, denoisers, x)
    torch.testing.assert_close(
        torch.stack([stems["vocals"], stems["bass"]]), expected, atol=2e-5, rtol=1e-4
    )
    assert expected.std() > 0.01
    assert (expected - torch.stack([plain["vocals"], plain["bass"]])).std() > 0.01
    assert torch.equal(stems["drums"], plain["drums"])
    assert torch.equal(stems["other"], plain["other"])
    assert list(stems) == list(plain)


def test_negative_magnitudes_are_cut():
    model = _made()
    model.set_statistics(model.minimum * 0, model.maximum)
    denoisers = _denoisers(model, "vocals")
    for parameter in denoisers["vocals"].decoder.parameters():
        torch.nn.init.constant_(parameter, 0)
    torch.nn.init.constant_(denoisers["vocals"].decoder.bias, -1)
    stems = Separator(model, denoisers=denoisers)(torch.randn(2, 5000), RATE)
    assert not stems["vocals"].any()


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("deepconvsep-stereo", {}),
        ("deepconvsep-stereo", {"f1": 171, "pool": 342}),
        ("deepconvsep", {"tied": True}),
    ],
)
def test_whole_is_chunked_and_as_on_a_gpu(monkeypatch, name, options):
    model = _made(name, **options)
    denoisers = _denoisers(model, "vocals", "drums", "bass", "other")
    x = torch.randn(2, 18_000)
    monkeypatch.setattr(deepconvsep, "_CPU_FRAMES", 10**6)
    whole = _stack(Separator(model, denoisers=denoisers)(x, RATE))
    assert whole.std() > 0.01
    monkeypatch.setattr(deepconvsep, "_CPU_FRAMES", 20)
    monkeypatch.setattr(denoised, "_BATCH", 3)
    separator = Separator(model, denoisers=denoisers)
    torch.testing.assert_close(_stack(separator(x, RATE)), whole, atol=1e-5, rtol=0)
    pieces = list(separator.stream(x.split(7777, -1), RATE, 2))
    assert max(piece.shape[-1] for piece in pieces) < 40 * 256  # it holds a few contexts
    torch.testing.assert_close(torch.cat(pieces, -1), whole, atol=1e-5, rtol=0)
    monkeypatch.setattr(denoised, "_GPU_FRAMES", 20)
    fused = Separator(model)
    some = {source: denoisers[source] for source in ("other", "vocals")}
    fused._track = denoised.DenoisedTrack(model, model.overlap, some, fused=True)
    out, plain = fused(x, RATE), Separator(model)(x, RATE)
    expected = [whole[0], plain["drums"], plain["bass"], whole[3]]
    torch.testing.assert_close(_stack(out), torch.stack(expected), atol=1e-4, rtol=0)


@pytest.mark.parametrize("name", ["deepconvsep", "deepconvsep-stereo"])
@pytest.mark.parametrize("channels", [1, 2])
@pytest.mark.parametrize("rate", [RATE, 16_000])
def test_silence_lengths_channels_and_rates(name, channels, rate):
    model = _made(name)
    separator = Separator(model, denoisers=_denoisers(model, "vocals"))
    for samples in (0, 1, 5000):
        x = 0.1 * torch.randn(channels, samples)
        kept = x.clone()
        stems = separator(x, rate)
        assert all(stem.shape == x.shape for stem in stems.values())
        assert all(bool(stem.isfinite().all()) for stem in stems.values())
        assert torch.equal(x, kept)
    assert stems["vocals"].std() > 1e-3
    silent = separator(torch.zeros(channels, 5000), rate)
    assert not silent["vocals"].any()


def test_a_mono_model_denoises_each_channel_by_itself():
    model = _made("deepconvsep")
    separator = Separator(model, denoisers=_denoisers(model, "vocals"))
    x = torch.randn(1, 8000)
    both = separator(torch.cat([x, x]), RATE)["vocals"]
    alone = separator(x, RATE)["vocals"]
    torch.testing.assert_close(both, alone.expand(2, -1), atol=1e-5, rtol=0)


def test_denoisers_that_do_not_fit_are_refused(trained):
    vocals = fresh(trained)
    elsewhere = _made()
    cases = [
        ({"piano": vocals}, "denoiser: got one of 'piano', takes one of vocals, drums"),
        ({"drums": vocals}, "denoiser: got one of vocals, takes one of drums"),
        ({"vocals": trained}, "denoisers: got a DeepConvSep for vocals, takes a Denoiser"),
        (
            {"vocals": create_model("denoiser", channels=1)},
            "denoiser: got one of vocals with 1 channels, takes 2 as the separator has",
        ),
        (
            {"vocals": create_model("denoiser", bins=257)},
            "denoiser: got one of vocals with 257 bins, takes 513 as the separator has",
        ),
        (
            {"vocals": fresh(elsewhere)},
            f"trained with separator {elsewhere.digest()}, takes .* one, {trained.digest()}$",
        ),
    ]
    for denoisers, match in cases:
        with pytest.raises(InputError, match=match):
            Separator(trained, denoisers=denoisers)
    for name in ("informed", "udt"):
        with pytest.raises(InputError, match="denoisers: got one of vocals, takes None"):
            from_model(create_model(name), denoisers={"vocals": vocals})
    Separator(trained, denoisers={"drums": create_model("denoiser")})  # of nothing: for all


def test_files_are_read_by_their_sources(trained, tmp_path):
    paths = []
    for source in ("drums", "vocals"):
        paths.append(tmp_path / f"{source}.safetensors")
        save(fresh(trained, source), paths[-1])
    found = load_denoisers(reversed(paths))
    assert list(found) == ["vocals", "drums"]
    x = torch.randn(2, 3000)
    given = {source: fresh(trained, source).eval() for source in found}
    stems = [_stack(Separator(trained, denoisers=d)(x, RATE)) for d in (found, given)]
    assert torch.equal(*stems)
    other = tmp_path / "other.safetensors"
    save(create_model("denoiser"), other)
    save(trained, tmp_path / "separator.safetensors")
    for files, match in [
        ([*paths, paths[0]], "drums.safetensors: is the second denoiser of drums"),
        ([other], "other.safetensors: holds a denoiser of no source"),
        ([tmp_path / "separator.safetensors"], "holds deepconvsep-stereo, takes a denoiser"),
    ]:
        with pytest.raises(InputError, match=match):
            load_denoisers(files)


def _command(function):
    app = typer.Typer()
    app.command()(function)
    return lambda *arguments: CliRunner().invoke(app, [str(argument) for argument in arguments])


def test_the_commands_denoise(trained, tmp_path, monkeypatch):
    from sepfast.cli.evaluate import evaluate
    from sepfast.cli.separate import separate

    (folder := tmp_path / "songs" / "one").mkdir(parents=True)
    names = ("mixture", "vocals", "drums", "bass", "other")
    for name, waveform in zip(names, song(3, 8000).waveforms, strict=True):
        soundfile.write(folder / f"{name}.wav", waveform.T, 8000, subtype="FLOAT")
    mixture = folder / "mixture.wav"
    model, vocals = tmp_path / "model.safetensors", tmp_path / "vocals.safetensors"
    save(trained, model)
    save(fresh(trained), vocals)
    common = ("-m", model, "--denoise", vocals, "--device", "cpu")
    done = _command(separate)(mixture, *common, "-o", tmp_path / "stems")
    assert done.exit_code == 0, done.output
    expected = Separator(load(model), denoisers=load_denoisers([vocals]))(*read(mixture))
    for source, stem in expected.items():
        wave, _ = read(tmp_path / "stems" / "mixture" / f"{source}.wav")
        np.testing.assert_array_equal(wave, stem.numpy())

    scored = []

    def score(name, stems, estimates, rate, **options):
        scored.append(estimates)
        raise InputError("scoring takes a minute")

    monkeypatch.setattr("sepfast.evaluation.songs.score_song", score)
    _command(evaluate)(tmp_path / "songs", *common, "-o", tmp_path / "scores")
    for source, stem in expected.items():
        np.testing.assert_array_equal(scored[0][source], stem.numpy())
    refused = _command(evaluate)(tmp_path / "songs", "--oracle", "mixture", *common[2:], "-o", "x")
    assert "--denoise: takes a --model that separates songs" in str(refused.exception)
