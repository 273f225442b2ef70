"""System C's network: its sizes, its equations, and batches of different lengths."""

import pytest
import torch
from torch import nn

from sepfast import InputError, create_model, list_models, load, save
from sepfast.models import model_options
from sepfast.reference import BLSTM, FRAMINGS, Informed

SMALL = {"hidden": 6, "framing": "landmarks", "side_features": 3}
BINS = 257


def small(seed=0, **options) -> Informed:
    """A small network in float64, louder than fresh ones so that the attention has preferences."""
    torch.manual_seed(seed)
    model = create_model("informed", **SMALL | options).double()
    for parameter in model.parameters():
        nn.init.normal_(parameter)
    return model


def batch(*sizes, features=3, frames=7, steps=5):
    """Mixtures (B, N, F) and side information (B, M, D), of B `sizes` or else one."""
    random = torch.Generator().manual_seed(1)
    count = sizes[0] if sizes else 1
    mixture = torch.rand(count, frames, BINS, generator=random, dtype=torch.float64)
    side = torch.randn(count, steps, features, generator=random, dtype=torch.float64)
    return mixture, side


def plain(model, mixture, side):
    """The network as the paper writes it, over frames one by one where it does."""
    g, _ = nn.LSTM.forward(model.mixture_encoder, mixture)
    h, _ = nn.LSTM.forward(model.side_encoder, side)
    hidden, alpha = [], torch.zeros(len(g), g.shape[1], h.shape[1], dtype=g.dtype)
    for n in range(g.shape[1]):
        s = torch.einsum("be,ej,bmj->bm", g[:, n], model.attention.weight, h)
        alpha[:, n] = s.exp() / s.exp().sum(1, keepdim=True)
        c = torch.einsum("bm,bmj->bj", alpha[:, n], h)
        weight, bias = model.connection.weight, model.connection.bias
        hidden.append(torch.tanh(torch.cat([c, g[:, n]], 1) @ weight.T + bias))
    q, _ = nn.LSTM.forward(model.decoder, torch.stack(hidden, 1))
    return torch.clamp(q @ model.output.weight.T + model.output.bias, min=0), alpha


class TestSizes:
    def test_are_the_papers(self):
        model = create_model("informed")
        assert sum(p.numel() for p in model.parameters()) == 32_160_996
        assert model.attention.weight.shape == (1026, 1026)
        assert model.framing is FRAMINGS["informed"]
        assert model.framing.frames(131_584) == 256
        assert (model.sample_rate, model.sources) == (16000, ("vocals", "accompaniment"))
        estimate, weights = model(torch.rand(1, 3, 513), torch.ones(1, 2, 1))
        assert (estimate.shape, weights.shape) == ((1, 3, 513), (1, 3, 2))

    def test_of_the_baseline_are_mixture_encoder_and_decoder(self):
        """BL1: a decoder whose first layer reads the mixture's encoding alone."""
        with torch.device("meta"):
            full, baseline = create_model("informed"), create_model("informed", attention=False)
        side_path = [*full.side_encoder.parameters(), *full.attention.parameters()]
        saved = sum(p.numel() for p in side_path) + 1026 * 513
        sizes = [sum(p.numel() for p in m.parameters()) for m in (full, baseline)]
        assert sizes[0] - sizes[1] == saved
        assert sizes[1] == 22_140_054
        assert baseline.connection.weight.shape == (513, 1026)

    def test_options(self):
        assert "informed" in list_models()
        known = model_options("informed")
        assert (known["hidden"], known["side_features"], known["attention"]) == (513, 1, True)
        model = create_model("informed", hidden=5, side_features=2, framing="landmarks")
        assert model.mixture_encoder.weight_ih_l0.shape == (20, BINS)
        assert model.side_encoder.weight_ih_l0.shape == (20, 2)
        assert model.output.weight.shape == (BINS, 10)

    @pytest.mark.parametrize(
        ("options", "message"),
        [
            ({"hidden": 0}, "hidden: got 0, takes 1 or more"),
            ({"side_features": 0}, "side_features: got 0"),
            ({"framing": "mel"}, "framing: got 'mel', takes one of"),
            ({"sources": ["vocals"]}, "sources: got 1 names, takes 2"),
            ({"layers": 2}, "got option 'layers', takes hidden"),
        ],
    )
    def test_bad_options_are_named(self, options, message):
        with pytest.raises(InputError, match=message):
            create_model("informed", **options)


class TestForward:
    def test_is_the_papers(self):
        model = small()
        mixture, side = batch(2)
        estimate, weights = model(mixture, side)
        true, alpha = plain(model, mixture, side)
        torch.testing.assert_close(estimate, true)
        torch.testing.assert_close(weights, alpha)
        assert (weights.amax(2) - weights.amin(2)).max() > 0.1  # else equal ones would pass

    def test_baseline_has_no_side_path(self):
        model = small(attention=False)
        mixture, _ = batch(2)
        assert {name.split(".")[0] for name in model.state_dict()} == {
            "mixture_encoder",
            "connection",
            "decoder",
            "output",
        }
        estimate, weights = model(mixture)
        g = model.mixture_encoder(mixture)
        hidden = torch.tanh(g @ model.connection.weight.T + model.connection.bias)
        torch.testing.assert_close(estimate, model.output(model.decoder(hidden)).relu())
        assert weights is None

    def test_every_parameter_learns(self):
        for attention in (True, False):
            model = small(attention=attention)
            mixture, side = batch(2)
            model(mixture, side if attention else None)[0].sum().backward()
            for name, parameter in model.named_parameters():
                assert parameter.grad.abs().sum() > 0, name

    def test_weights_carry_gradients(self):
        model = small()
        mixture, side = batch(2)
        (model(mixture, side)[1] ** 2).sum().backward()
        assert model.attention.weight.grad.abs().sum() > 0
        assert model.side_encoder.weight_ih_l0.grad.abs().sum() > 0

    def test_side_information_changes_the_estimate(self):
        model = small()
        mixture, side = batch(1)
        assert (model(mixture, side)[0] - model(mixture, -side)[0]).abs().max() > 1e-3

    def test_one_frame_and_one_step_do(self):
        estimate, weights = small()(*batch(1, frames=1, steps=1))
        assert estimate.shape == (1, 1, BINS)
        torch.testing.assert_close(weights, torch.ones_like(weights))

    @pytest.mark.parametrize("sizes", [(0, 4, 3), (2, 0, 3), (2, 4, 0)])
    def test_nothing_comes_of_nothing(self, sizes):
        count, frames, steps = sizes
        mixture, side = batch(count, frames=frames, steps=steps)
        estimate, weights = small()(mixture, side)
        assert estimate.shape == (count, frames, BINS)
        assert weights.shape == (count, frames, steps)
        assert estimate.isfinite().all()

    @pytest.mark.parametrize(
        ("arguments", "message"),
        [
            ((torch.ones(2, 5, 9), None), r"mixture: got shape \(2, 5, 9\), takes .* 257\)"),
            ((torch.ones(5, BINS), None), "mixture: got shape"),
            ((torch.ones(2, 5, BINS), None), r"side: got None, takes \(2, steps, 3\)"),
            ((torch.ones(2, 5, BINS), torch.ones(2, 4, 1)), r"side: got shape \(2, 4, 1\)"),
            ((torch.ones(2, 5, BINS), torch.ones(1, 4, 3)), r"side: got shape \(1, 4, 3\)"),
            ((torch.ones(2, 5, BINS), torch.ones(2, 4)), r"side: got shape \(2, 4\)"),
        ],
    )
    def test_shapes_that_do_not_fit_are_named(self, arguments, message):
        with pytest.raises(InputError, match=message):
            create_model("informed", **SMALL)(*arguments)

    def test_baseline_takes_no_side_information(self):
        model = small(attention=False)
        mixture, side = batch(1)
        with pytest.raises(InputError, match="side: got a tensor, takes None in a model without"):
            model(mixture, side)
        with pytest.raises(InputError, match="side_lengths: got a tensor"):
            model(mixture, side_lengths=torch.tensor([1]))

    @torch.no_grad()
    def test_compiles(self):
        """In several graphs: PyTorch traces no recurrent layers."""
        model = small()
        mixture, side = batch(2)
        torch.compiler.reset()
        compiled = torch.compile(model, backend="aot_eager")
        for ours, theirs in zip(compiled(mixture, side), model(mixture, side), strict=True):
            torch.testing.assert_close(ours, theirs)


class TestLengths:
    FRAMES, STEPS = torch.tensor([4, 7, 1, 5]), torch.tensor([5, 2, 3, 1])

    def test_batch_is_one_by_one(self):
        model = small()
        mixture, side = batch(4)
        estimate, weights = model(mixture, side, self.FRAMES, self.STEPS)
        for i, (n, m) in enumerate(zip(self.FRAMES, self.STEPS, strict=True)):
            own, own_weights = model(mixture[i : i + 1, :n], side[i : i + 1, :m])
            torch.testing.assert_close(estimate[i, :n], own[0])
            torch.testing.assert_close(weights[i, :n, :m], own_weights[0])
            assert not estimate[i, n:].any()
            assert not weights[i, n:].any()
            assert not weights[i, :, m:].any()

    def test_padding_may_be_anything(self):
        model = small()
        mixture, side = batch(4)
        before = model(mixture, side, self.FRAMES, self.STEPS)
        for i, (n, m) in enumerate(zip(self.FRAMES, self.STEPS, strict=True)):
            mixture[i, n:], side[i, m:] = torch.nan, torch.inf
        for ours, theirs in zip(model(mixture, side, self.FRAMES, self.STEPS), before, strict=True):
            assert torch.equal(ours, theirs)

    def test_padding_gives_no_gradient(self):
        model = small()
        mixture, side = (x.requires_grad_() for x in batch(4))
        estimate, weights = model(mixture, side, self.FRAMES, self.STEPS)
        ((estimate**2).sum() + (weights**2).sum()).backward()
        for i, (n, m) in enumerate(zip(self.FRAMES, self.STEPS, strict=True)):
            assert not mixture.grad[i, n:].any()
            assert not side.grad[i, m:].any()
            assert mixture.grad[i, :n].any(dim=1).all()
        assert all(p.grad.isfinite().all() for p in model.parameters())

    def test_full_lengths_are_none(self):
        model = small()
        mixture, side = batch(2)
        given = model(mixture, side, torch.tensor([7, 7]), torch.tensor([5, 5]))
        for ours, theirs in zip(given, model(mixture, side), strict=True):
            torch.testing.assert_close(ours, theirs)

    def test_one_of_the_two_can_have_lengths(self):
        for attention in (True, False):
            model = small(attention=attention)
            mixture, side = batch(4)
            side = side if attention else None
            estimate, _ = model(mixture, side, mixture_lengths=self.FRAMES)
            own, _ = model(mixture[:1, :4], None if side is None else side[:1])
            torch.testing.assert_close(estimate[:1, :4], own)

    def test_without_valid_memory_the_context_is_0(self):
        model = small()
        mixture, side = batch(2)
        estimate, weights = model(mixture, side, side_lengths=torch.tensor([0, 5]))
        assert not weights[0].any()
        g = model.mixture_encoder(mixture)
        hidden = torch.tanh(model.connection(torch.cat([torch.zeros_like(g), g], -1)))
        alone = model.output(model.decoder(hidden)).relu()
        torch.testing.assert_close(estimate[0], alone[0])
        torch.testing.assert_close(estimate[1], model(mixture, side)[0][1])

    def test_mixture_without_frames_has_estimate_0(self):
        model = small()
        mixture, side = batch(2)
        estimate, _ = model(mixture, side, torch.tensor([0, 7]))
        assert not estimate[0].any()
        torch.testing.assert_close(estimate[1], model(mixture, side)[0][1])

    def test_types_of_integers_do(self):
        model = small()
        mixture, side = batch(4)
        true, _ = model(mixture, side, self.FRAMES, self.STEPS)
        ours, _ = model(mixture, side, self.FRAMES.int(), self.STEPS.short())
        assert torch.equal(ours, true)

    @pytest.mark.parametrize(
        ("lengths", "message"),
        [
            (torch.tensor([8, 1]), "mixture_lengths: got 8, takes 0 to 7"),
            (torch.tensor([1, -1]), "mixture_lengths: got -1"),
            (torch.tensor([1]), r"of shape \(1,\), takes integers of shape \(2,\)"),
            (torch.tensor([1.0, 2.0]), "mixture_lengths: got torch.float32"),
        ],
    )
    def test_bad_lengths_are_named(self, lengths, message):
        with pytest.raises(InputError, match=message):
            small()(*batch(2), lengths)

    def test_blstm_is_torchs_on_each_sequence(self):
        torch.manual_seed(0)
        layers, x = BLSTM(3, 4).double(), torch.randn(3, 6, 3, dtype=torch.float64)
        lengths = torch.tensor([6, 0, 2])
        encoded = layers(x, lengths)
        assert encoded.shape == (3, 6, 8)
        torch.testing.assert_close(encoded[2, :2], nn.LSTM.forward(layers, x[2:, :2])[0][0])
        assert not encoded[1].any()
        assert not encoded[2, 2:].any()


class TestScale:
    def test_each_spectrogram_by_its_own_maximum(self):
        magnitudes = torch.rand(3, 4, BINS) * torch.tensor([1.0, 50.0, 0.0])[:, None, None]
        scaled, factor = create_model("informed", **SMALL).scale(magnitudes)
        assert factor.shape == (3, 1, 1)
        torch.testing.assert_close(scaled.amax((1, 2)), torch.tensor([1.0, 1.0, 0.0]))
        torch.testing.assert_close(factor[:2], magnitudes[:2].amax((1, 2), keepdim=True))
        torch.testing.assert_close(scaled * factor, magnitudes)

    def test_a_single_one(self):
        scaled, factor = create_model("informed", **SMALL).scale(torch.full((2, 5), 4.0))
        assert torch.equal(scaled, torch.ones(2, 5))
        assert factor.item() == 4


@pytest.mark.parametrize(
    "options", [SMALL, SMALL | {"attention": False}, SMALL | {"sources": ("bass", "rest")}]
)
def test_saved_models_come_back(tmp_path, options):
    model = create_model("informed", **options)
    save(model, tmp_path / "model.safetensors")
    again = load(tmp_path / "model.safetensors")
    assert type(again) is Informed
    assert again.sources == model.sources
    mixture, side = (x.float() for x in batch(2))
    given = (mixture, side if again.attention is not None else None)
    assert torch.equal(again(*given)[0], model.eval()(*given)[0])


@pytest.mark.gpu
def test_on_a_gpu_lengths_may_be_on_either_side():
    model = small()
    mixture, side = batch(4)
    true = model(mixture, side, TestLengths.FRAMES, TestLengths.STEPS)
    model.cuda()
    for device in ("cpu", "cuda"):
        lengths = (x.to(device) for x in (TestLengths.FRAMES, TestLengths.STEPS))
        for ours, theirs in zip(model(mixture.cuda(), side.cuda(), *lengths), true, strict=True):
            torch.testing.assert_close(ours.cpu(), theirs)
