"""Systems A and B: their sizes, options and the layers they are made of."""

import copy

import pytest
import safetensors.torch
import torch
from conftest import assert_near
from torch import nn

from sepfast import InputError, create_model, fuse, list_models, load, save, unfuse
from sepfast.models import model_options
from sepfast.reference import SOURCES, DeepConvSep


def _plain(model, x):
    """A forward pass written from the paper with plain layers, untied and without a pool."""
    vertical, horizontal = model.encoder
    codes = horizontal(vertical(x))
    hidden = torch.relu(model.bottleneck[0](codes.flatten(1)))
    out = []
    for source in SOURCES:
        y = torch.relu(model.expand[source][0](hidden)).reshape(codes.shape)
        out.append(model.decoder[source][1](model.decoder[source][0](y)))
    return torch.relu(torch.cat(out, 1))


def test_sizes_are_the_papers():
    model = create_model("deepconvsep-stereo")
    assert sum(p.numel() for p in model.parameters()) == 678_536
    assert model.code_shape == (30, 16, 1)
    mono = create_model("deepconvsep")
    assert (mono.context, mono.code_shape) == (25, (30, 14, 1))
    assert create_model("deepconvsep", context=30).code_shape == (30, 16, 1)


@pytest.mark.parametrize(("name", "channels"), [("deepconvsep", 1), ("deepconvsep-stereo", 2)])
def test_forward_is_the_papers(name, channels):
    model = create_model(name)
    x = torch.rand(3, channels, model.context, 513)
    y = model(x)
    assert y.shape == (3, 4 * channels, model.context, 513)
    torch.testing.assert_close(y, _plain(model, x))
    shares = model.shares(y)
    assert shares.shape == (3, 4, channels, model.context, 513)
    torch.testing.assert_close(shares.sum(1), torch.ones(3, channels, model.context, 513))


def test_tied_decoder_is_the_encoders_transpose():
    model = create_model("deepconvsep", tied=True)
    assert not list(model.decoder.parameters())
    x = torch.rand(2, 1, 25, 513, requires_grad=True)
    # The decoder without its bias is the gradient of the encoder's convolutions, as published.
    codes = torch.rand(2, 30, 14, 1)
    (expected,) = torch.autograd.grad(model.encoder(x), x, codes)
    torch.testing.assert_close(model._deconvolve("bass", codes, None), expected)
    nn.init.constant_(model.tied_bias, 0.5)
    torch.testing.assert_close(model._deconvolve("bass", codes, None), expected + 0.5)


def test_pool_is_torchs_pool_and_unpool():
    model = create_model("deepconvsep", f1=171, pool=342, n2=5)
    vertical, horizontal = model.encoder
    pool = nn.MaxPool2d((1, 342), return_indices=True)
    x = torch.randn(2, 1, 25, 513)
    pooled, indices = pool(vertical(x))
    codes, peaks = model.encode(x)
    torch.testing.assert_close(codes, horizontal(pooled))
    wide = model.decoder["drums"][0](codes)
    expected = nn.MaxUnpool2d((1, 342))(wide, indices, output_size=(25, 343))
    torch.testing.assert_close(model._unpool(wide, peaks), expected)
    assert model(x).shape == (2, 4, 25, 513)


def test_dropout_is_at_the_bottleneck_in_training_only():
    model = create_model("deepconvsep", dropout=0.5)
    codes = torch.rand(4, 30, 14, 1)
    dropped = model.bottleneck(codes.flatten(1))
    kept = model.eval().bottleneck(codes.flatten(1))
    assert (dropped == 0).sum() > (kept == 0).sum()
    assert torch.equal(model.bottleneck(codes.flatten(1)), kept)


def test_encoder_is_equivariant_to_time():
    model = create_model("deepconvsep-stereo")
    x = torch.rand(1, 2, 75, 513)
    codes, _ = model.encode(x)
    torch.testing.assert_close(codes[:, :, 15:31], model.encode(x[:, :, 15:45])[0])


def test_scaling_by_factor_and_by_statistics():
    mono = create_model("deepconvsep")
    x = torch.rand(1, 25, 513)
    torch.testing.assert_close(mono.scale(x), 0.3 * x)
    torch.testing.assert_close(
        mono.scale_targets(x.expand(4, 1, 25, 513)), 0.3 * x.expand(4, 1, 25, 513)
    )
    assert mono.levels() is None

    stereo, low = create_model("deepconvsep-stereo"), torch.rand(10, 513)
    high = low + torch.rand(10, 513) + 0.1
    stereo.set_statistics(low, high)
    magnitudes = torch.rand(2, 7, 513)
    expected = (magnitudes - low[8:, None]) / (high - low)[8:, None]
    torch.testing.assert_close(stereo.scale(magnitudes), expected)
    levels = stereo.levels()
    torch.testing.assert_close(levels.base.flatten(0, 2), low[:8])
    back = expected * (high - low)[2:4, None] + low[2:4, None]  # drums
    ours = (magnitudes - levels.floor) * levels.gain[1] + levels.base[1]
    torch.testing.assert_close(ours, back)
    stereo.set_statistics(torch.zeros(10, 513), high)
    assert stereo.levels().floor is None


def test_bins_that_never_sound_do_not_divide_by_zero():
    model = create_model("deepconvsep-stereo")
    model.set_statistics(torch.zeros(10, 513), torch.zeros(10, 513))
    assert model.scale(torch.rand(2, 3, 513)).isfinite().all()
    with pytest.raises(InputError, match="maximum: got values below minimum"):
        model.set_statistics(torch.ones(10, 513), torch.zeros(10, 513))
    with pytest.raises(InputError, match=r"minimum: got \(8, 513\)"):
        model.set_statistics(torch.ones(8, 513), torch.ones(10, 513))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"contxt": 30}, "got option 'contxt', takes channels, context"),
        ({"t2": 26}, "t2: got 26, takes 1 to the context of 25 frames"),
        ({"f1": 514}, "f1: got 514"),
        ({"pool": 2}, "pool: got 2"),
        ({"framing": "hop-1"}, "framing: got 'hop-1'"),
    ],
)
def test_bad_options_are_named(options, message):
    with pytest.raises(InputError, match=message):
        create_model("deepconvsep", **options)


def test_unknown_model_is_named():
    with pytest.raises(InputError, match="model: got 'demucs', takes one of deepconvsep"):
        create_model("demucs")
    assert set(list_models()) >= {"deepconvsep", "deepconvsep-stereo", "denoiser"}
    assert model_options("deepconvsep")["context"] == 25


@pytest.mark.parametrize(
    "options",
    [{}, {"merge": "project"}, {"published": True}, {"bins": 40, "features": 7}],
)
def test_denoiser(options):
    model = create_model("denoiser", **options)
    bins = options.get("bins", 513)
    assert model(torch.rand(2, 2, 30, bins)).shape == (2, 2, 30, bins)
    directions, layers = (1, 2) if options.get("published") else (2, 1)
    assert len([n for n, _ in model.recurrent.named_parameters()]) == 4 * layers * directions


def test_denoiser_sums_its_directions():
    model = create_model("denoiser")
    x = torch.rand(1, 2, 5, 513)
    sequence, _ = model.recurrent(model.encoder(x)[0])
    summed = sequence[..., :128] + sequence[..., 128:]
    torch.testing.assert_close(model(x), model.decoder(summed[None]))


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("deepconvsep", {"tied": True, "context": 30}),
        ("deepconvsep-stereo", {"dropout": 0.1}),
        ("denoiser", {"published": True}),
    ],
)
def test_saved_models_come_back(tmp_path, name, options):
    model = create_model(name, **options)
    before = copy.deepcopy(model.state_dict())
    save(model, tmp_path / "model.safetensors")
    again = load(tmp_path / "model.safetensors")
    assert not again.training
    assert (again.model_name, again.model_options) == (name, options)
    assert before.keys() == again.state_dict().keys()
    assert all(torch.equal(before[k], v) for k, v in again.state_dict().items())


def test_bad_checkpoints_are_named(tmp_path):
    good, bad = tmp_path / "good.safetensors", tmp_path / "bad.safetensors"
    save(create_model("deepconvsep"), good)
    content = good.read_bytes()
    other = {"format": "sepfast", "model": "deepconvsep", "options": '{"context": 30}'}
    strange = other | {"options": '{"scale_factor": 0}'}
    weights = create_model("deepconvsep").state_dict()
    cases = {
        "is broken": content[: len(content) // 2],
        "is a pickle": b"\x80\x02}q\x00.",
        "names no model of this version": content.replace(b'"deepconvsep"', b'"deepconvxxx"'),
        r"names no model of this version \(.*division": safetensors.torch.save(weights, strange),
        "no sepfast model": safetensors.torch.save(weights),
        "weights are of another model": safetensors.torch.save(weights, other),
    }
    for message, data in cases.items():
        bad.write_bytes(data)
        with pytest.raises(InputError, match=message) as error:
            load(bad)
        assert "bad.safetensors" in str(error.value)
        assert "\n" not in str(error.value)
    with pytest.raises(InputError, match="no such file"):
        load(tmp_path / "missing.safetensors")


def test_a_checkpoint_that_may_not_be_read_is_named(tmp_path, monkeypatch):
    path = tmp_path / "secret.safetensors"
    save(create_model("denoiser"), path)

    def refused(*args, **kwargs):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(type(path), "open", refused)
    with pytest.raises(InputError, match=r"secret.safetensors: cannot be read \(Permission"):
        load(path)


def test_failed_save_leaves_what_was_there(tmp_path, monkeypatch):
    path = tmp_path / "model.safetensors"
    save(create_model("denoiser"), path)
    before = path.read_bytes()

    def interrupted(*args, **kwargs):
        raise KeyboardInterrupt

    monkeypatch.setattr("safetensors.torch.save", interrupted)
    with pytest.raises(KeyboardInterrupt):
        save(create_model("deepconvsep"), path)
    assert path.read_bytes() == before
    assert [p.name for p in tmp_path.iterdir()] == ["model.safetensors"]
    with pytest.raises(InputError, match="without a name"):
        save(nn.Linear(1, 1), path)


SMALL = {"framing": "landmarks", "context": 5, "n1": 6, "n2": 4, "units": 7}


def _small(place, **options):
    """A small stereo model on a place, and a batch of three with its targets."""
    torch.manual_seed(0)
    model = create_model("deepconvsep-stereo", **SMALL | options)
    for name, parameter in model.named_parameters():
        # Where estimates are next to 0, the gradient of their shares is a matter of rounding.
        torch.nn.init.normal_(parameter, 3.0 if _last_bias(name) else 0.0, 0.02)
    mixture, targets = torch.rand(3, 2, 5, 257), torch.rand(3, 4, 2, 5, 257)
    model.to(place.device, place.dtype)
    return model, place.put(mixture), place.put(targets)


def _last_bias(name):
    return name == "tied_bias" or (name.startswith("decoder") and name.endswith("1.bias"))


def _outcome(model, mixture, targets):
    """Estimates, loss and the gradients of all parameters."""
    model.zero_grad()
    loss = model.loss(mixture, targets)
    loss.backward()
    grads = [parameter.grad for parameter in model.parameters()]
    return [model(mixture).detach(), loss.detach(), *grads]


@pytest.mark.parametrize("options", [{}, {"tied": True}, {"t2": 1}], ids=str)
def test_fused_model_computes_and_learns_the_same(place, options):
    model, *batch = _small(place, **options)
    plain = copy.deepcopy(model).cpu().double()
    true = _outcome(plain, *(x.cpu().double() for x in batch))
    names = list(model.state_dict())
    report = fuse(model, strict=True)
    assert type(model).__module__ == "sepfast.modules.deepconvsep"
    assert "deconv_pair, linear_soft_mask_loss" in str(report)
    for ours, theirs in zip(_outcome(model, *batch), true, strict=True):
        assert_near(ours, theirs, 1e-5 if place.dtype == torch.float32 else 1e-12)
    assert list(model.state_dict()) == names
    unfuse(model)
    assert type(model) is DeepConvSep


def test_fused_training_stores_no_estimates(kernels, monkeypatch):
    """No kernel writes as much as the estimates take."""
    model, mixture, targets = _small(kernels)
    fuse(model)
    from sepfast.kernels import launch

    sizes = []
    empty = launch.empty

    def counted(shape, *rest):
        sizes.append(torch.Size(shape).numel())
        return empty(shape, *rest)

    monkeypatch.setattr("sepfast.kernels.launch.empty", counted)
    model.loss(mixture, targets).backward()
    assert sizes
    assert max(sizes) < targets.numel() / 2


def test_fused_model_with_hooks_calls_its_layers():
    model = create_model("deepconvsep", **SMALL)
    fuse(model)
    called = []
    for layer in (model.decoder["drums"], model.decoder["drums"][1], model.expand["bass"][0]):
        handle = layer.register_forward_hook(lambda layer, *_: called.append(layer))
        model(torch.rand(1, 1, 5, 257))
        model.loss(torch.rand(1, 1, 5, 257), torch.rand(1, 4, 1, 5, 257))
        assert called == [layer, layer]
        handle.remove()
        called.clear()


def test_fused_model_with_an_adapter_calls_it():
    model = create_model("deepconvsep", **SMALL)
    x = torch.rand(2, 1, 5, 257)
    fuse(model)
    before = model(x)

    class Doubled(nn.Linear):
        def forward(self, input):
            return 2 * super().forward(input)

    model.expand["bass"][0].__class__ = Doubled
    after = model(x)
    torch.testing.assert_close(after[:, :2], before[:, :2])
    assert (after[:, 2] - before[:, 2]).abs().max() > 0.01


def test_fused_model_with_a_layer_put_in_calls_it():
    model = create_model("deepconvsep", **SMALL)
    x, targets = torch.rand(2, 1, 5, 257), torch.rand(2, 4, 1, 5, 257)
    width = model.expand["bass"][0].out_features
    model.expand["bass"].append(nn.Linear(width, width))
    plain = model(x), model.loss(x, targets)
    fuse(model)
    torch.testing.assert_close((model(x), model.loss(x, targets)), plain)


def test_model_with_a_pool_is_not_fused():
    model = create_model("deepconvsep", f1=171, pool=342, n2=5)
    report = fuse(model)
    assert [each.operator for each in report.replaced] == ["soft_mask"]
    assert {each.name for each in report.skipped} >= {"", "encoder", "decoder.vocals"}
    assert {each.reason for each in report.skipped} == {
        "a max-pool stands between its convolutions"
    }


def test_fused_loss_compiles_in_one_graph():
    model = create_model("deepconvsep", **SMALL)
    fuse(model)
    x, t = torch.rand(2, 1, 5, 257), torch.rand(2, 4, 1, 5, 257)
    torch.compiler.reset()
    compiled = torch.compile(model.loss, fullgraph=True, backend="aot_eager")
    torch.testing.assert_close(compiled(x, t), model.loss(x, t))
