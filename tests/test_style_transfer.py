"""System E's models: their pathways, their losses, and what is drawn in training."""

import copy

import pytest
import torch
import torch.nn.functional as F

from sepfast import InputError, create_model, load, save
from sepfast.reference import UDT, DenoisingVAE

SMALL = {"framing": "landmarks", "hidden": 6}
NAMES = ["udt", "denoising-vae"]


def made(name="udt", **options):
    """A small model in float64 whose normalisations have something to say."""
    torch.manual_seed(1)
    model = create_model(name, **{**SMALL, **options}).double().eval()
    for key, buffer in model.named_buffers():
        if "running" in key:
            buffer.uniform_(0.5, 1.5)
    return model


def magnitudes(rows=2, frames=9):
    return torch.rand(rows, frames, 257, dtype=torch.float64)


def by_hand(blocks, x):
    """Blocks in evaluation mode, written out; x is (B, channels, T)."""
    for block in blocks:
        conv, norm = block.conv, block.norm
        convolve = F.conv_transpose1d if "Transpose" in type(conv).__name__ else F.conv1d
        x = (1 + convolve(x, conv.weight, conv.bias, padding=2).exp()).log()
        mean, variance = norm.running_mean[:, None], norm.running_var[:, None]
        x = (x - mean) / (variance + norm.eps).sqrt() * norm.weight[:, None] + norm.bias[:, None]
    return x


def coders(model):
    """E_s, E_t, D_s, D_t as lists of blocks."""
    return (
        [*model.mixture_encoder, model.shared_encoder],
        [*model.clean_encoder, model.shared_encoder],
        [model.shared_decoder, *model.mixture_decoder],
        [model.shared_decoder, *model.clean_decoder],
    )


def test_sizes_are_the_papers():
    with torch.device("meta"):
        udt, baseline = create_model("udt"), create_model("denoising-vae")
    block = 1024 * 1024 * 5 + 3 * 1024  # a convolution with its bias, a normalisation's two
    assert sum(p.numel() for p in udt.parameters()) == 10 * block
    assert sum(p.numel() for p in baseline.parameters()) == 6 * block
    for model in (udt, baseline):
        assert {m.dropout for m in model.modules() if hasattr(m, "conv")} == {0.3}
        assert (model.framing.n_fft, model.framing.hop, model.power) == (2048, 16, 0.7)
        assert (model.sample_rate, model.sources, model.reach) == (16000, ("target", "rest"), 12)


def test_four_pathways():
    model, x = made(), magnitudes()
    mixture_encoder, clean_encoder, mixture_decoder, clean_decoder = coders(model)
    inner = x[..., :256].transpose(1, 2)
    of_mixture, of_clean = by_hand(mixture_encoder, inner), by_hand(clean_encoder, inner)
    paths = {
        model.reconstruct_mixture: by_hand(mixture_decoder, of_mixture),
        model: by_hand(clean_decoder, of_mixture),
        model.reconstruct_clean: by_hand(clean_decoder, of_clean),
        model.mix: by_hand(mixture_decoder, of_clean),
    }
    outputs = []
    for path, expected in paths.items():
        outputs.append(path(x))
        torch.testing.assert_close(outputs[-1][..., :256], expected.transpose(1, 2))
        assert not outputs[-1][..., 256].any()
    torch.testing.assert_close(model.encode_mixture(x), of_mixture)
    torch.testing.assert_close(model.encode_clean(x), of_clean)
    assert all(not torch.equal(outputs[0], other) for other in outputs[1:])


def test_the_loss_of_udt_is_the_papers():
    weights = {"reconstruction": 2.0, "consistency": 0.3, "latent": 0.7}
    model = made(**weights)
    mixture, clean = magnitudes(2, 9), magnitudes(3, 7)  # nothing of theirs has to fit
    e_s, e_t, d_s, d_t = coders(model)
    m, c = (x[..., :256].transpose(1, 2) for x in (mixture, clean))
    z_s, z_t = by_hand(e_s, m), by_hand(e_t, c)

    def error(a, b):
        return (a - b).square().mean()

    expected = 2 * (error(by_hand(d_s, z_s), m) + error(by_hand(d_t, z_t), c))
    expected += 0.3 * error(by_hand(e_s, by_hand(d_s, z_s)), z_s)
    expected += 0.3 * error(by_hand(e_t, by_hand(d_t, z_s)), z_s)
    expected += 0.3 * error(by_hand(e_t, by_hand(d_t, z_t)), z_t)
    expected += 0.3 * error(by_hand(e_s, by_hand(d_s, z_t)), z_t)
    expected += 0.7 * (z_s.square().mean() + z_t.square().mean())
    torch.testing.assert_close(model.loss(mixture, clean), expected)
    mixture[..., 256] = 9  # nobody looks at Nyquist
    torch.testing.assert_close(model.loss(mixture, clean), expected)


def test_the_loss_of_the_baseline():
    model = made("denoising-vae", latent=0.7)
    mixture, clean = magnitudes(), magnitudes()
    z = by_hand(model.encoder, mixture[..., :256].transpose(1, 2))
    estimate = by_hand(model.decoder, z).transpose(1, 2)
    expected = (estimate - clean[..., :256]).square().mean() + 0.7 * z.square().mean()
    torch.testing.assert_close(model.loss(mixture, clean), expected)
    torch.testing.assert_close(model(mixture)[..., :256], estimate)
    with pytest.raises(InputError, match=r"clean: got shape \(1, 9, 257\), takes \(2, 9, 257\)"):
        model.loss(mixture, clean[:1])


def test_a_part_of_the_loss_that_weighs_nothing_teaches_nothing():
    model = made(reconstruction=0, consistency=0)
    model.loss(magnitudes(), magnitudes()).backward()
    for name, weight in model.named_parameters():
        assert ("decoder" in name) == (weight.grad is None or not weight.grad.any()), name


def test_which_mixture_stands_beside_which_clean_sound_is_all_one():
    model, mixture, clean = made(), magnitudes(3), magnitudes(3)
    turned = model.loss(mixture, clean.roll(1, 0))
    torch.testing.assert_close(model.loss(mixture, clean), turned)


@pytest.mark.parametrize("name", NAMES)
def test_only_training_draws(name):
    model, x = made(name), magnitudes()
    assert torch.equal(model(x), model(x))
    plain = copy.deepcopy(model).train()
    for block in plain.modules():
        if hasattr(block, "conv"):
            block.dropout = 0.0
    drawn = []
    for seed in (0, 0, 1):
        torch.manual_seed(seed)
        drawn.append(copy.deepcopy(plain)(x))
    # Of the noise on the latent alone, dropout is off.
    assert torch.equal(drawn[0], drawn[1])
    assert not torch.allclose(drawn[0], drawn[2])


def test_noise_on_the_latent_is_standard_normal():
    model = made().train()
    latent = torch.zeros(4, 6, 5000, dtype=torch.float64)
    noise = model._sampled(latent)
    assert abs(float(noise.mean())) < 5 / 120_000**0.5
    assert abs(float(noise.var()) - 1) < 5 * (2 / 120_000) ** 0.5
    assert model.eval()._sampled(latent) is latent


@pytest.mark.parametrize("name", NAMES)
def test_a_frame_depends_on_its_reach(name):
    model, x = made(name, kernel=3), magnitudes(1, 40)
    reach = model.reach
    assert reach == 6
    y = x.clone()
    y[:, 20] += 1
    changed = (model(x) != model(y)).any(-1)[0].nonzero()[:, 0]
    assert (int(changed[0]), int(changed[-1])) == (20 - reach, 20 + reach)


@pytest.mark.parametrize("name", NAMES)
def test_an_estimate_is_no_less_than_silence(name):
    model, x = made(name), magnitudes()
    assert (model(x) < 0).any()
    assert torch.equal(model.estimate(x), model(x).clamp(min=0))


@pytest.mark.parametrize(("name", "kind"), [("udt", UDT), ("denoising-vae", DenoisingVAE)])
def test_a_file_brings_a_model_back(tmp_path, name, kind):
    model = create_model(name, **SMALL, latent=0.5).train()
    x = magnitudes().float()
    model.loss(x, x)  # moves the running statistics
    save(model.eval(), tmp_path / "model.safetensors")
    again = load(tmp_path / "model.safetensors").eval()
    assert (type(again), again.latent) == (kind, 0.5)
    assert torch.equal(again(x), model(x))


@pytest.mark.parametrize(
    ("option", "value"),
    [
        ("hidden", -1), ("blocks", 1), ("kernel", 4), ("dropout", 1.0), ("power", 0),
        ("latent", -1), ("consistency", float("nan")), ("sources", ["target"]),
        ("framing", "none"),
    ],
)  # fmt: skip
def test_options_that_cannot_be(option, value):
    with pytest.raises(InputError, match=option):
        create_model("udt", **{**SMALL, option: value})


@pytest.mark.parametrize("name", NAMES)
def test_shapes_that_do_not_fit(name):
    model, x = made(name), magnitudes()
    with pytest.raises(InputError, match=r"mixture: got shape \(2, 9, 256\), takes .*257"):
        model(x[..., 1:])
    with pytest.raises(InputError, match="clean: got shape"):
        model.loss(x, x[0])
