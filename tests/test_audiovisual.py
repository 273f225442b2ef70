"""System D's networks: their sizes, their equations, padded batches, and training in two steps."""

import pytest
import torch
from conftest import noise
from torch import nn

from sepfast import InputError, create_model, fuse, list_models, load, modules, ops, save
from sepfast.models import model_options
from sepfast.reference import (
    FRAMINGS,
    LSTM,
    VL2M,
    AmplitudeMaskLoss,
    AVConcat,
    AVConcatRef,
    Refining,
    VL2MRef,
    ideal_amplitude_mask,
    target_binary_mask,
)

MODELS = {"vl2m": VL2M, "vl2m-ref": VL2MRef, "av-concat": AVConcat, "av-concat-ref": AVConcatRef}
REFINING = ["vl2m-ref", "av-concat-ref"]
BINS, LANDMARKS = 257, 6
SMALL = {"hidden": 3, "layers": 2, "landmarks": LANDMARKS}
LENGTHS = torch.tensor([5, 2, 0])


def small(name, seed=0, **options):
    """A small network in float64, whose inputs make themselves heard; some hold a VL2M."""
    torch.manual_seed(seed)
    model = create_model(name, **SMALL | options).double()
    if name in REFINING and "mask_model" not in options:
        model.hold(small("vl2m", seed + 1))
    return model


def batch(count=3, frames=5):
    """Motion, the normalised spectrogram, compressed mixture and target, and the binary mask."""
    motion = noise(count, frames, LANDMARKS)
    mixture, target = (noise(count, frames, BINS, seed=seed).abs() for seed in (1, 2))
    spectrogram = (mixture - mixture.mean(0)) / mixture.std(0)
    mask = target_binary_mask(target, target.mean((0, 1)), target.std((0, 1)))
    return motion, spectrogram, mixture, target, mask


def loss_of(model, inputs, lengths=None, oracle=False):
    motion, spectrogram, mixture, target, mask = inputs
    if isinstance(model, VL2M):
        return model.loss(motion, mask, lengths)
    given = (mask,) if oracle and isinstance(model, Refining) else ()
    return model.loss(motion, spectrogram, mixture, target, lengths, *given)


def learning(model):
    return {name: p for name, p in model.named_parameters() if p.requires_grad}


def blstm(features, hidden, layers):
    """Numbers of a stack with PyTorch's two biases and peepholes of i, f and o."""
    first, *others = [features] + [2 * hidden] * (layers - 1)
    each = [4 * hidden * (size + hidden + 2) + 3 * hidden for size in (first, *others)]
    return 2 * sum(each)


class TestSizes:
    @pytest.mark.parametrize(
        ("name", "parameters"),
        [
            ("vl2m", blstm(136, 250, 5) + 501 * BINS),
            (
                "vl2m-ref",
                2 * blstm(BINS, 250, 1) + 2 * 500 * 250 + 250 + blstm(250, 250, 1) + 501 * BINS,
            ),
            ("av-concat", blstm(136 + BINS, 250, 3) + 501 * BINS),
            ("av-concat-ref", blstm(2 * BINS, 250, 3) + 501 * BINS),
        ],
    )
    def test_are_the_papers(self, name, parameters):
        assert name in list_models()
        with torch.device("meta"):
            model = create_model(name)
            assert type(model) is MODELS[name]
            assert sum(p.numel() for p in model.parameters()) == parameters
            plain = create_model(name, peephole=False)
        stacks = [m for m in model.modules() if isinstance(m, LSTM)]
        saved = sum(2 * 3 * 250 * m.num_layers for m in stacks)
        assert sum(p.numel() for p in plain.parameters()) == parameters - saved
        assert {m.hidden_size for m in stacks} == {250}
        assert model.framing is FRAMINGS["landmarks"]
        assert (model.bins, model.sample_rate, model.power) == (BINS, 16000, 0.3)
        assert model.sources == ("speech", "noise")

    @pytest.mark.parametrize("name", REFINING)
    def test_a_vl2m_adds_its_own(self, name):
        with torch.device("meta"):
            alone, holding = create_model(name), create_model(name, mask_model=True)
        sizes = [sum(p.numel() for p in m.parameters()) for m in (alone, holding)]
        assert sizes[1] - sizes[0] == blstm(136, 250, 5) + 501 * BINS
        assert learning(holding).keys() == learning(alone).keys()

    @pytest.mark.parametrize("name", MODELS)
    def test_options_give_sizes(self, name):
        assert {"hidden", "layers", "peephole", "landmarks"} <= model_options(name).keys()
        model = create_model(name, **SMALL)
        stack = model.encoder
        assert (stack.hidden_size, stack.num_layers, stack.peephole) == (3, 2, True)
        assert model.output.weight.shape == (BINS, 6)

    @pytest.mark.parametrize(
        ("options", "message"),
        [
            ({"hidden": 0}, "hidden: got 0, takes 1 or more"),
            ({"layers": -1}, "layers: got -1, takes 1 or more"),
            ({"landmarks": 0}, "landmarks: got 0, takes 1 or more"),
            ({"power": 0}, "power: got 0, takes more than 0"),
            ({"sources": ["speech"]}, "sources: got 1 names, takes 2"),
            ({"framing": "mel"}, "framing: got 'mel', takes one of"),
        ],
    )
    @pytest.mark.parametrize("name", ["vl2m", "vl2m-ref"])
    def test_bad_options_are_named(self, name, options, message):
        with pytest.raises(InputError, match=message):
            create_model(name, **options)


class TestForward:
    """Against the paper's equations, of stacks that `test_lstm.py` holds to theirs."""

    def test_vl2m_sees_motion_alone(self):
        model, (motion, spectrogram, *_) = small("vl2m"), batch()
        r = model.encoder(motion)[0]
        scores = r @ model.output.weight.T + model.output.bias
        torch.testing.assert_close(model(motion), scores)
        assert torch.equal(model(motion, spectrogram), model(motion))
        torch.testing.assert_close(model.mask(scores), 1 / (1 + torch.exp(-scores)))

    def test_concat_takes_both_side_by_side(self):
        model, (motion, spectrogram, *_) = small("av-concat"), batch()
        r = model.encoder(torch.cat([motion, spectrogram], 2))[0]
        scores = model(motion, spectrogram)
        torch.testing.assert_close(scores, r @ model.output.weight.T + model.output.bias)
        torch.testing.assert_close(model.mask(scores), 10 / (1 + torch.exp(-scores)))

    def test_concat_ref_takes_what_the_mask_leaves(self):
        model, (_, spectrogram, _, _, mask) = small("av-concat-ref"), batch()
        r = model.encoder(torch.cat([mask * spectrogram, spectrogram], 2))[0]
        expected = r @ model.output.weight.T + model.output.bias
        torch.testing.assert_close(model(None, spectrogram, None, mask), expected)

    def test_vl2m_ref_joins_what_it_makes_of_mask_and_spectrogram(self):
        model, (_, spectrogram, _, _, mask) = small("vl2m-ref"), batch()
        r_m, r_y = model.mask_encoder(mask)[0], model.spectrogram_encoder(spectrogram)[0]
        w_m, w_y, b = model.from_mask.weight, *model.from_spectrogram.parameters()
        h = torch.einsum("zr,btr->btz", w_m, r_m) + torch.einsum("zr,btr->btz", w_y, r_y) + b
        assert h.shape == (3, 5, 3)
        expected = model.encoder(h)[0] @ model.output.weight.T + model.output.bias
        torch.testing.assert_close(model(None, spectrogram, None, mask), expected)

    @pytest.mark.parametrize("name", REFINING)
    def test_without_a_mask_it_is_the_vl2ms(self, name):
        model, (motion, spectrogram, _, _, oracle) = small(name), batch()
        made = model.mask_model.mask(model.mask_model(motion))
        scores = model(motion, spectrogram)
        torch.testing.assert_close(scores, model(None, spectrogram, None, made))
        assert not torch.allclose(scores, model(motion, spectrogram, None, oracle))

    @pytest.mark.parametrize("name", MODELS)
    def test_estimates_are_the_masked_mixture(self, name):
        model, (motion, spectrogram, mixture, *_) = small(name), batch()
        scores = model(motion, spectrogram, LENGTHS)
        estimate = model.estimate(scores, mixture, LENGTHS)
        mask = model.mask(scores, LENGTHS)
        torch.testing.assert_close(estimate, mask * mixture)
        for i, n in enumerate(LENGTHS):
            assert (mask[i, :n] > 0).all()
            assert not mask[i, n:].any()
            assert not estimate[i, n:].any()

    @pytest.mark.parametrize(
        ("name", "change", "message"),
        [
            ("vl2m", {0: (3, 5, 7)}, r"motion: got shape \(3, 5, 7\), takes \(batch, frames, 6\)"),
            ("vl2m", {4: (3, 4, BINS)}, r"binary_mask: got shape .* takes \(3, 5, 257\)"),
            ("av-concat", {0: (5, 6)}, r"motion: got shape \(5, 6\)"),
            ("av-concat", {0: (3, 4, 6)}, r"spectrogram: got shape .* takes \(3, 4, 257\)"),
            ("av-concat", {1: (3, 5, 9)}, r"spectrogram: got shape .* takes \(batch, frames, 257"),
            ("av-concat", {3: (1, 5, BINS)}, r"target: got shape .* takes \(3, 5, 257\)"),
            ("vl2m-ref", {0: None}, r"motion: got None, takes \(3, 5, 6\)"),
            ("vl2m-ref", {2: (3, 5, 1)}, r"mixture: got shape .* takes \(3, 5, 257\)"),
        ],
    )
    def test_shapes_that_do_not_fit_are_named(self, name, change, message):
        inputs = list(batch())
        for at, shape in change.items():
            inputs[at] = None if shape is None else torch.zeros(shape).double()
        with pytest.raises(InputError, match=message):
            loss_of(small(name), inputs)

    @pytest.mark.parametrize("name", MODELS)
    def test_lengths_that_do_not_fit_are_named(self, name):
        with pytest.raises(InputError, match=r"lengths: got .* takes integers of shape \(3,\)"):
            loss_of(small(name), batch(), torch.tensor([1, 2]))


@pytest.mark.parametrize("oracle", [False, True], ids=["estimated", "oracle"])
@pytest.mark.parametrize("name", MODELS)
class TestLengths:
    def test_a_batch_is_one_by_one(self, name, oracle):
        model, inputs = small(name), batch()
        total = loss_of(model, inputs, LENGTHS, oracle)
        alone = [
            loss_of(model, [x[i : i + 1, :n] for x in inputs], None, oracle)
            for i, n in enumerate(LENGTHS)
        ]
        torch.testing.assert_close(total, torch.stack(alone).sum())
        assert alone[2] == 0
        scores = model(inputs[0], inputs[1], LENGTHS)
        shorter = model(inputs[0][1:2, :2], inputs[1][1:2, :2])
        torch.testing.assert_close(scores[1:2, :2], shorter)

    def test_padding_may_be_anything(self, name, oracle):
        model, inputs = small(name), batch()
        wanted = list(learning(model).values())
        results = []
        for value in (None, torch.nan, torch.inf):
            for x in inputs if value is not None else ():
                x[torch.arange(5) >= LENGTHS[:, None]] = value
            loss = loss_of(model, inputs, LENGTHS, oracle)
            motion, spectrogram, mixture, *_ = inputs
            estimate = model.estimate(model(motion, spectrogram, LENGTHS), mixture, LENGTHS)
            results.append((loss, estimate, *torch.autograd.grad(loss, wanted)))
        for other in results[1:]:
            assert all(map(torch.equal, results[0], other))


class TestLoss:
    def test_of_vl2m_is_the_cross_entropy(self):
        model, inputs = small("vl2m"), batch()
        m, estimate = inputs[4], model.mask(model(inputs[0]))
        expected = -(m * estimate.log() + (1 - m) * (1 - estimate).log()).sum()
        torch.testing.assert_close(loss_of(model, inputs), expected)

    def test_of_scores_however_loud_it_is_finite(self):
        model, inputs = small("vl2m"), batch()
        with torch.no_grad():
            model.output.bias.fill_(1e4)
        loss = loss_of(model, inputs, LENGTHS)
        wrong = sum((1 - x[:n]).sum() for x, n in zip(inputs[4], LENGTHS, strict=True))
        torch.testing.assert_close(loss, 1e4 * wrong, rtol=1e-3, atol=0)
        loss.backward()
        assert all(p.grad.isfinite().all() for p in model.parameters())

    @pytest.mark.parametrize("name", [n for n in MODELS if n != "vl2m"])
    def test_of_the_others_is_the_squared_error(self, name):
        model, inputs = small(name), batch()
        motion, spectrogram, mixture, target, _ = inputs
        p = 10 / (1 + torch.exp(-model(motion, spectrogram)))
        expected = ((p * mixture - target) ** 2).sum()
        torch.testing.assert_close(loss_of(model, inputs), expected)

    @pytest.mark.parametrize("name", MODELS)
    def test_half_types_sum_in_float32(self, name):
        model, inputs = small(name).bfloat16(), [x.bfloat16() for x in batch()]
        loss = loss_of(model, inputs, LENGTHS)
        assert loss.dtype == torch.float32
        wide = loss_of(small(name), batch(), LENGTHS)
        torch.testing.assert_close(loss.double(), wide, rtol=0.02, atol=0)

    @pytest.mark.parametrize("oracle", [False, True])
    @pytest.mark.parametrize("name", MODELS)
    def test_all_learn_but_a_held_vl2m(self, name, oracle):
        model = small(name)
        loss_of(model, batch(), LENGTHS, oracle).backward()
        for each, parameter in model.named_parameters():
            if each.startswith("mask_model."):
                assert parameter.grad is None
                assert not parameter.requires_grad
            else:
                assert parameter.grad.abs().sum() > 0, each

    @pytest.mark.parametrize("name", REFINING)
    def test_the_oracles_mask_helps(self, name):
        """What the mask says to take of the mixture is known to none that does not see the mask."""
        torch.manual_seed(0)
        mixture = batch(2, 4)[2]
        mask = (torch.rand(2, 4, 1) > 0.5).double().expand(2, 4, BINS)
        losses = []
        for given in (mask, torch.full_like(mask, 0.5)):
            torch.manual_seed(0)
            model = small(name, layers=1, hidden=8, mask_model=False)
            nn.init.constant_(model.output.bias, -2.5)  # where the sigmoid is not flat
            optimiser = torch.optim.Adam(model.parameters(), 0.03)
            for _ in range(25):
                loss = model.loss(None, torch.ones_like(mask), mixture, mask * mixture, None, given)
                optimiser.zero_grad()
                loss.backward()
                optimiser.step()
            losses.append(loss.item())
        assert losses[0] < 0.5 * losses[1]
        assert ideal_amplitude_mask(mask * mixture, mixture).equal(mask)


class TestTwoSteps:
    @pytest.mark.parametrize("name", REFINING)
    def test_the_second_takes_a_copy_that_stays(self, name):
        model, vl2m, inputs = small(name, mask_model=False), small("vl2m", 5), batch()
        with pytest.raises(InputError, match="binary_mask: got None, takes a mask in a model"):
            loss_of(model, inputs)
        loss_of(model, inputs, oracle=True)
        model.hold(vl2m)
        assert model.mask_model is not vl2m
        assert all(p.requires_grad for p in vl2m.parameters())
        before = {n: x.clone() for n, x in model.state_dict().items()}
        optimiser = torch.optim.Adam([p for p in model.parameters() if p.requires_grad])
        loss_of(model, inputs).backward()
        optimiser.step()
        for n, x in model.state_dict().items():
            assert torch.equal(x, before[n]) == n.startswith("mask_model."), n

    def test_a_vl2m_of_another_kind_is_refused(self):
        model = small("vl2m-ref", mask_model=False)
        with pytest.raises(InputError, match="mask_model: got one of peephole False, takes True"):
            model.hold(small("vl2m", peephole=False))
        with pytest.raises(InputError, match="mask_model: got one of landmarks 8, takes 6"):
            model.hold(small("vl2m", landmarks=8))
        with pytest.raises(InputError, match="mask_model: got a AVConcat, takes a VL2M"):
            model.hold(small("av-concat"))
        assert model.mask_model is None

    def test_it_goes_where_the_model_is(self):
        model = create_model("vl2m-ref", **SMALL)
        model.hold(small("vl2m"))
        assert {p.dtype for p in model.parameters()} == {torch.float32}


@pytest.mark.parametrize("name", MODELS)
def test_saved_models_enhance_alone(name, tmp_path):
    model = small(name).float()
    if name in REFINING:
        model.hold(create_model("vl2m", hidden=4, layers=1, landmarks=LANDMARKS))
    save(model, tmp_path / "model.safetensors")
    again = load(tmp_path / "model.safetensors")
    assert type(again) is MODELS[name]
    assert learning(again).keys() == learning(model).keys()
    motion, spectrogram, *_ = (x.float() for x in batch())
    assert torch.equal(again(motion, spectrogram, LENGTHS), model(motion, spectrogram, LENGTHS))


def test_no_length_of_a_header_looks_like_a_pickle(tmp_path):
    """A file begins with the length of its header, whose first byte may be a pickle's first."""
    starts = set()
    for letters in range(8, 264, 8):
        model = create_model("vl2m", hidden=1, layers=1, landmarks=1, sources=("s" * letters, "n"))
        save(model, tmp_path / "model.safetensors")
        starts.add((tmp_path / "model.safetensors").read_bytes()[0])
        assert load(tmp_path / "model.safetensors").sources == model.sources
    assert 0x80 in starts


@pytest.mark.parametrize("name", MODELS)
def test_fused_they_are_themselves(name):
    model, inputs = small(name), batch()
    expected, fresh = loss_of(model, inputs, LENGTHS), model.state_dict().keys()
    fused = {replaced.operator for replaced in fuse(model).replaced}
    assert ("amplitude_mask_loss" in fused) == (name != "vl2m")
    assert name == "vl2m" or type(model.error) is modules.AmplitudeMaskLoss
    assert model.state_dict().keys() == fresh
    with ops.use_backend("reference"):
        torch.testing.assert_close(loss_of(model, inputs, LENGTHS), expected)


def test_the_loss_is_a_layer():
    assert type(small("av-concat").error) is AmplitudeMaskLoss
    assert isinstance(small("vl2m").output, nn.Linear)
