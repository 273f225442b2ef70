"""Models as files: what is in them, that they give the model's numbers, and what is refused."""

import json
import math
import subprocess
import sys

import onnx
import pytest
import torch
from typer.testing import CliRunner

import sepfast
from sepfast import InputError, create_model, ops
from sepfast.cli.app import _app
from sepfast.export import export_program, network_of, write_export, written
from sepfast.reference import magnitude, masked_spectrum

_RECURRENT = {"hidden": 2, "layers": 1}
_HOLDING = {**_RECURRENT, "mask_model": True, "mask_hidden": 2, "mask_layers": 1}
_SEPARATING = {"n1": 2, "n2": 2, "units": 3, "context": 4}
_BLOCKS = {"hidden": 2, "blocks": 2, "kernel": 1}

#: The smallest of each.
SMALL = {
    "deepconvsep": _SEPARATING,
    "deepconvsep-stereo": _SEPARATING,
    "denoiser": {"features": 3, "bins": 7},
    "informed": {"hidden": 2, "side_steps": 257},
    "vl2m": _RECURRENT,
    "vl2m-ref": _HOLDING,
    "av-concat": _RECURRENT,
    "av-concat-ref": _HOLDING,
    "udt": _BLOCKS,
    "denoising-vae": _BLOCKS,
}

pytestmark = pytest.mark.usefixtures("one_thread")


def small(name, **options):
    torch.manual_seed(0)
    return create_model(name, **SMALL[name], **options)


# The others are of the same classes, or stand in tests below.
@pytest.mark.parametrize(
    "name", ["deepconvsep", "denoiser", "informed", "vl2m-ref", "av-concat-ref", "udt"]
)
def test_fused_programs_take_other_sizes(name):
    model = small(name)
    program, network = export_program(model, fused=True).module(), network_of(model)
    others = dict.fromkeys(network.free, 3)
    inputs = network.example(**others)
    for out, true in zip(_tuple(program(*inputs)), _tuple(network(*inputs)), strict=True):
        torch.testing.assert_close(out, true)


def test_a_fused_file_runs_in_a_process_that_imports_sepfast(tmp_path):
    model, path = small("av-concat"), tmp_path / "model.pt2"
    assert write_export(model, path, fused=True).error <= 1e-6
    inputs = network_of(model).example(batch=1, frames=5)
    torch.save(inputs, tmp_path / "inputs.pt")
    code = (
        "import sys, torch, sepfast\n"
        "program = torch.export.load('model.pt2').module()\n"
        "assert 'sepfast.lstm' in str(program.graph)\n"
        "torch.save(program(*torch.load('inputs.pt')), 'out.pt')\n"
    )
    subprocess.run([sys.executable, "-c", code], cwd=tmp_path, check=True, capture_output=True)
    torch.testing.assert_close(torch.load(tmp_path / "out.pt"), network_of(model)(*inputs))


# Peepholes, and convolutions.
@pytest.mark.parametrize("name", ["vl2m", "deepconvsep-stereo"])
def test_onnx_gives_the_models_numbers_at_any_size(name, tmp_path):
    model, path = small(name), tmp_path / "model.onnx"
    made = write_export(model, path)
    assert made.error <= 1e-6
    assert made.checked[0] != made.checked[1]
    told = {each.key: each.value for each in onnx.load(path).metadata_props}
    assert json.loads(told["sepfast"]) == made.description
    assert made.description["framing"]["bins"] == model.framing.bins
    assert [p.name for p in tmp_path.iterdir()] == ["model.onnx"]


# What PyTorch warns of while it imports its compiler.
@pytest.mark.filterwarnings("ignore:.torch.jit.script_method. is deprecated:DeprecationWarning")
def test_a_compiled_package_runs_operators(tmp_path, monkeypatch):
    # One alone, as headers take a quarter of a minute: `export_all.py` has the unfused ones.
    monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", str(tmp_path / "cache"))
    # Headers that are compiled ahead, and code that is made fast, take longer than all else.
    for knob, value in (("precompile_headers", False), ("compile_wrapper_opt_level", "O0")):
        monkeypatch.setattr(f"torch._inductor.config.aot_inductor.{knob}", value)
    made = write_export(small("vl2m"), tmp_path / "model.pt2", format="aoti", fused=True)
    assert made.error <= 1e-6
    package = torch._inductor.aoti_load_package(str(made.path))
    assert json.loads(package.get_metadata()["sepfast"]) == made.description


def test_plain_recurrent_programs_are_of_fixed_frames():
    model = small("vl2m")
    program, network = export_program(model, frames=2), network_of(model)
    assert "sepfast" not in str(program.graph)
    inputs = network.example(batch=1, frames=2)
    torch.testing.assert_close(program.module()(*inputs), network(*inputs))


def test_magnitudes_are_those_that_separation_gives_each_source():
    model = small("deepconvsep-stereo")
    floors = torch.rand_like(model.minimum)
    model.set_statistics(floors, floors + 1 + torch.rand_like(floors))
    spectrum = torch.randn(3, 2, model.context, model.framing.bins, 2)
    loud = magnitude(spectrum)
    shares = model.shares(model(model.scale(loud)))
    wanted = magnitude(masked_spectrum(shares, spectrum, model.levels()))
    torch.testing.assert_close(network_of(model)(loud).abs(), wanted, rtol=1e-4, atol=1e-4)


def test_style_transfer_with_the_mixtures_phase_is_what_the_separator_gives():
    model = small("denoising-vae").eval()
    wave = torch.randn(1, 3000)
    spectrum = ops.stft(wave, model.framing)
    loud = magnitude(spectrum)
    ratio = network_of(model)(loud) / loud.clamp(min=1e-8)
    line = ops.istft(spectrum * ratio[..., None], model.framing, wave.shape[1])
    expected = sepfast.Separator(model)(wave, model.sample_rate)["target"]
    torch.testing.assert_close(line, expected, rtol=1e-3, atol=1e-5)


def test_the_model_stays_as_it_is():
    model = small("av-concat").train()
    before = [type(module) for module in model.modules()]
    export_program(model, fused=True)
    assert [type(module) for module in model.modules()] == before
    assert model.training
    assert all(weight.requires_grad for weight in model.parameters())


def test_a_file_is_checked_with_other_sizes_than_it_was_traced_with(tmp_path):
    made = write_export(small("denoising-vae"), tmp_path / "model.pt2")
    assert made.checked == (((2, 32, 1025),), ((1, 35, 1025),))


@pytest.mark.parametrize(("name", "most"), [("vl2m", 1), ("av-concat", 10)])
def test_masks_are_masks_and_not_what_they_are_made_of(name, most):
    network = network_of(small(name))
    mask = network(*(x - 0.5 for x in network.example()))
    assert 0 <= mask.min() < mask.max() <= most


@pytest.mark.parametrize("attention", [True, False])
def test_a_louder_mixture_has_a_target_as_much_louder(attention):
    """Each spectrogram is divided by its own maximum, and the target brought back."""
    network = network_of(small("informed", attention=attention))
    mixture, *side = network.example()
    quiet, loud = (_tuple(network(level * mixture, *side))[0] for level in (1, 8))
    assert quiet.max() > 0
    torch.testing.assert_close(loud, 8 * quiet)


@pytest.mark.parametrize(
    ("make", "name", "options", "sentence"),
    [
        (lambda: torch.nn.ReLU(), "a.pt2", {}, "model: got a ReLU, takes one of create_model's"),
        (lambda: create_model("vl2m-ref"), "a.pt2", {}, "without a VL2M to make its mask"),
        (lambda: small("udt"), "a.pt2", {"format": "tflite"}, "format: got 'tflite', takes one of"),
        (lambda: small("udt"), "a.pt", {}, "takes a name that ends in .pt2, for export"),
        (lambda: small("udt"), "a.onnx", {"fused": True}, "fused: got it with onnx"),
        (lambda: small("udt"), "a.pt2", {"frames": 3}, "frames: got 3, takes None, as this file"),
        (lambda: small("deepconvsep"), "a.pt2", {"frames": 3}, "takes its context of 4"),
        (lambda: small("vl2m"), "a.pt2", {}, "frames: got None, takes how many the file"),
        (lambda: small("vl2m"), "a.pt2", {"frames": 0}, "frames: got 0, takes how many the file"),
    ],
)
def test_what_cannot_be_exported_is_refused(make, name, options, sentence, tmp_path):
    with pytest.raises(InputError, match=sentence):
        write_export(make(), tmp_path / name, **options)
    assert not list(tmp_path.iterdir())


def test_missing_tools_are_named(tmp_path, monkeypatch):
    monkeypatch.setattr(
        "sepfast.export.onnx.importlib.util.find_spec",
        lambda name: None if name == "onnxscript" else True,
    )
    with pytest.raises(InputError, match=r"onnxscript is not installed; pip install"):
        write_export(small("udt"), tmp_path / "a.onnx")
    monkeypatch.setattr("torch._inductor.config.cpp.cxx", ("no-such-compiler",))
    with pytest.raises(InputError, match=r"aoti takes a C\+\+ compiler, such as g\+\+"):
        write_export(small("udt"), tmp_path / "a.pt2", format="aoti")


def test_a_file_with_other_numbers_is_not_written(tmp_path, monkeypatch):
    path = tmp_path / "model.pt2"
    path.write_text("what was there")
    monkeypatch.setattr(written, "run", lambda path, format, x: (x[0] * float("nan"),))
    with pytest.raises(InputError, match=r"was not written, as it gives other numbers"):
        write_export(small("denoising-vae"), path)
    assert path.read_text() == "what was there"
    assert list(tmp_path.iterdir()) == [path]


def test_nan_in_the_second_output_is_not_passed_over():
    network = network_of(small("informed"))
    inputs = network.example()
    target, alpha = network(*inputs)
    assert written._error(network, (target, alpha), inputs) < 1e-6
    assert math.isnan(written._error(network, (target, alpha * float("nan")), inputs))


def test_the_command_says_what_it_wrote(tmp_path):
    model = small("denoising-vae")
    sepfast.save(model, tmp_path / "model.safetensors")
    out = tmp_path / "model.pt2"
    result = CliRunner().invoke(_app(), ["export", f"{tmp_path}/model.safetensors", "-o", str(out)])
    assert result.exit_code == 0, result.output
    assert "  takes mixture (batch, frames, 1025 bins): magnitudes of the mixture" in result.output
    held = {"sepfast": ""}
    program = torch.export.load(out, extra_files=held).module()
    assert json.loads(held["sepfast"])["sources"] == ["target", "rest"]
    inputs = network_of(model).example(batch=1, frames=9)
    torch.testing.assert_close(program(*inputs), network_of(model)(*inputs))


def _tuple(out):
    return out if isinstance(out, tuple) else (out,)
