"""Precision, clipping, models kept along the way, and what a run says of itself."""

import json
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
import typer
from learning import QUICK, SONGS, VALIDATION, Recorder, files, fresh, losses
from typer.testing import CliRunner

from sepfast import InputError, create_model, load
from sepfast.training import TrainingOptions, train
from sepfast.training.graph import graphed
from sepfast.training.update import Update

pytestmark = pytest.mark.usefixtures("one_thread")

LOW = replace(QUICK, precision="bfloat16")
STILL = replace(QUICK, learning_rate=1e-30, epochs=1)


def run(folder: Path, options: TrainingOptions, *, resume: bool = False, dropout: float = 0.0):
    """A run on the CPU: its model and its history."""
    model = fresh(dropout=dropout)
    return model, train(model, SONGS, VALIDATION, options, folder, device="cpu", resume=resume)


@pytest.fixture(scope="module")
def plain(tmp_path_factory):
    """Four epochs with the options as they are: folder, model, history."""
    folder = tmp_path_factory.mktemp("plain")
    return folder, *run(folder, QUICK)


@pytest.fixture
def float16_anywhere(monkeypatch):
    """The gradients' scale works on a CPU too, only slowly; so it can be tried."""
    monkeypatch.setattr("sepfast.training.update._check_scalable", lambda device: None)


# Precision


def test_bfloat16_is_near_float32_and_leaves_float32(plain, tmp_path):
    model, history = run(tmp_path, LOW)
    assert losses(history) != losses(plain[2])
    for ours, exact in zip(losses(history), losses(plain[2]), strict=True):
        assert ours == pytest.approx(exact, rel=1e-2)
    kept = load(tmp_path / "best.safetensors")
    for weight in (*model.parameters(), *kept.parameters()):
        assert weight.dtype == torch.float32


def test_validation_stays_in_float32(tmp_path):
    (_, exact), (_, low) = (
        run(tmp_path / "exact", STILL),
        run(tmp_path / "low", replace(STILL, precision="bfloat16")),
    )
    assert low.epochs[0].training_loss != exact.epochs[0].training_loss
    assert low.epochs[0].validation_loss == exact.epochs[0].validation_loss


def test_a_run_in_bfloat16_goes_on(tmp_path):
    once = run(tmp_path / "once", LOW, dropout=0.5)
    run(tmp_path / "twice", replace(LOW, epochs=2), dropout=0.5)
    twice = run(tmp_path / "twice", LOW, resume=True, dropout=0.5)
    assert losses(twice[1]) == losses(once[1])
    assert all(map(torch.equal, once[0].parameters(), twice[0].parameters()))


@pytest.mark.parametrize(
    ("name", "sizes", "inputs"),
    [
        ("informed", {"hidden": 4, "context": 8, "side_steps": 8}, [(2, 8, 513), (2, 8, 1)]),
        ("vl2m", {"hidden": 4, "layers": 1}, [(2, 6, 136)]),
    ],
)
def test_other_systems_run_in_bfloat16(name, sizes, inputs):
    """Near float32, as far as their networks go."""
    model = create_model(name, **sizes).eval()
    given = [torch.rand(shape) for shape in inputs]
    with torch.no_grad():
        exact = model(*given)
        with Update(model, LOW).autocast():
            low = model(*given)
    exact, low = (value[0] if isinstance(value, tuple) else value for value in (exact, low))
    assert 0 < (low.float() - exact).abs().max() < 0.05 * exact.abs().max()


def test_onednn_is_kept_out_of_lstms_alone():
    """In bfloat16 on a CPU, and only while the loss is computed."""
    before = torch._C._get_mkldnn_enabled()
    update = Update(torch.nn.LSTM(2, 2), replace(QUICK, precision="bfloat16"))
    with update.autocast():
        assert not torch._C._get_mkldnn_enabled()
    assert torch._C._get_mkldnn_enabled() == before


def test_float16_is_for_a_gpu(tmp_path):
    options = replace(QUICK, precision="float16")
    message = "precision: got float16 on cpu, takes float32 or bfloat16 there"
    with pytest.raises(InputError, match=message):
        run(tmp_path / "run", options)
    assert files(tmp_path) == []


def test_the_scale_of_the_gradients_is_kept(float16_anywhere, tmp_path):
    options = replace(QUICK, precision="float16", clip_norm=1e9)
    model, once = run(tmp_path / "once", options)
    run(tmp_path / "twice", replace(options, epochs=2))
    again, twice = run(tmp_path / "twice", options, resume=True)
    assert losses(once) == losses(twice)
    assert all(map(torch.equal, model.parameters(), again.parameters()))
    states = [torch.load(tmp_path / name / "last.pt")["scaler"] for name in ("once", "twice")]
    assert states[0] == states[1]
    assert states[0]["scale"] < 65536  # some of the first steps were left out
    assert states[0]["_growth_tracker"] < 6  # since then, in both halves
    # The norm is that of gradients without the scale.
    assert 0 < once.epochs[-1].gradient_norm < 1e4


def test_a_step_whose_gradients_overflow_is_left_out(float16_anywhere):
    model = torch.nn.Linear(1, 1)
    update = Update(model, replace(QUICK, precision="float16", clip_norm=1.0))
    before = [weight.clone() for weight in model.parameters()]
    for inputs, moved in ((1e38, False), (1.0, True)):
        update.optimizer.zero_grad()
        update(model(torch.full((1, 1), inputs)).sum())
        after = list(model.parameters())
        assert [not torch.equal(a, b) for a, b in zip(before, after, strict=True)] == [moved] * 2
        assert update.state()["scaler"]["scale"] == 32768


# Clipping


def test_a_limit_that_is_never_reached_changes_nothing_and_is_logged(plain, tmp_path):
    _, history = run(tmp_path, replace(QUICK, clip_norm=1e9))
    assert losses(history) == losses(plain[2])
    assert all(epoch.gradient_norm > 0 for epoch in history.epochs)
    assert all(epoch.gradient_norm is None for epoch in plain[2].epochs)
    header, first, *_ = (tmp_path / "log.csv").read_text().splitlines()
    assert header.endswith(",gradient_norm")
    assert float(first.rpartition(",")[2]) == history.epochs[0].gradient_norm


@pytest.mark.parametrize("limit", [0.5, 50.0])
def test_gradients_are_clipped_by_the_norm_of_all_of_them(limit):
    model = torch.nn.Linear(2, 1)
    model.requires_grad_(True)
    update = Update(model, replace(QUICK, clip_norm=limit))
    (norm,) = update(model(torch.tensor([[2.0, 3.0]])).sum() * 4)
    expected = torch.tensor([8.0, 12.0, 4.0])
    assert norm == pytest.approx(expected.norm().item())
    gradients = torch.cat([weight.grad.flatten() for weight in model.parameters()])
    factor = min(1.0, limit / expected.norm().item())
    assert torch.allclose(gradients, expected * factor, rtol=1e-5)


def test_clipping_does_not_wait_for_the_device():
    """On the meta device there are no numbers that the host could look at."""
    model = torch.nn.Linear(2, 1, device="meta")
    for weight in model.parameters():
        weight.grad = torch.empty_like(weight)
    (norm,) = Update(model, replace(QUICK, clip_norm=1.0))._clipped()
    assert norm.device.type == "meta"


# CUDA graphs


def test_precision_and_clipping_are_part_of_the_step_that_is_captured(monkeypatch, tmp_path):
    """What a graph is made of is the loss under autocast and the update with its clipping."""
    steps, types = [], []

    def captured(step, optimizer, device, note, obstacle):
        assert obstacle is None

        def counted(batch):
            result = step(batch)
            steps.append(tuple(result.shape))
            return result

        return counted

    def loss(self, batch):
        types.append(torch.is_autocast_enabled("cpu"))
        return original(self, batch)

    from sepfast.training.course_deepconvsep import DeepConvSepCourse

    original = DeepConvSepCourse.loss
    monkeypatch.setattr(DeepConvSepCourse, "loss", loss)
    monkeypatch.setattr("sepfast.training.trainer.graphed", captured)
    run(tmp_path, replace(LOW, clip_norm=1.0, cuda_graph=True, epochs=1))
    assert steps == [(3,)] * 3
    assert types == [True] * 3 + [False] * 2  # and two of validation


def test_float16_runs_without_a_graph_and_says_why(monkeypatch, float16_anywhere):
    monkeypatch.setattr("sepfast.training.graph.cuda", SimpleNamespace(Stream=str))
    weights = torch.nn.Linear(1, 1)
    notes, cuda = [], torch.device("cuda:0")
    for precision, noted in (("bfloat16", 0), ("float16", 1)):
        update = Update(weights, replace(QUICK, precision=precision))
        step = graphed(len, update.optimizer, cuda, notes.append, update.obstacle)
        assert (step is len) == bool(noted)
        assert len(notes) == noted
    assert notes[0].startswith("training without a CUDA graph: float16 looks at the gradients")


@pytest.mark.gpu
@pytest.mark.parametrize("precision", ["float32", "bfloat16", "float16"])
def test_a_gpu_trains_in_every_precision_with_a_graph_where_there_can_be_one(tmp_path, precision):
    options = replace(QUICK, precision=precision, clip_norm=0.1)
    report, runs = Recorder(), []
    for graph in (False, True):
        chosen, folder = replace(options, cuda_graph=graph), tmp_path / str(graph)
        model = fresh()
        runs.append(train(model, SONGS, VALIDATION, chosen, folder, device="cuda", report=report))
    assert [note for note in report.notes if "float16" in note] == (
        report.notes if precision == "float16" else []
    )
    for ours, exact in zip(losses(runs[1]), losses(runs[0]), strict=True):
        assert ours == pytest.approx(exact, rel=1e-2)


# Models along the way


def test_the_newest_models_of_every_second_epoch_are_kept(plain, tmp_path):
    options = replace(QUICK, checkpoint_every=2, keep=1)
    run(tmp_path, replace(options, epochs=3))
    assert files(tmp_path / "epochs") == ["epoch-0002.safetensors"]
    model, _ = run(tmp_path, options, resume=True)
    assert files(tmp_path / "epochs") == ["epoch-0004.safetensors"]
    kept = load(tmp_path / "epochs" / "epoch-0004.safetensors").state_dict()
    assert all(torch.equal(kept[key], value) for key, value in model.state_dict().items())
    assert all(map(torch.equal, model.parameters(), plain[1].parameters()))
    assert not (plain[0] / "epochs").exists()


def test_what_is_kept_may_differ_when_a_run_goes_on_and_other_files_stay(tmp_path):
    run(tmp_path, replace(QUICK, epochs=3, checkpoint_every=1, keep=3))
    (tmp_path / "epochs" / "epoch-0001.safetensors.bak").touch()
    run(tmp_path, replace(QUICK, checkpoint_every=1, keep=2), resume=True)
    assert files(tmp_path / "epochs") == [
        "epoch-0001.safetensors.bak",
        "epoch-0003.safetensors",
        "epoch-0004.safetensors",
    ]


def test_the_oldest_goes_after_the_newest_is_in_place(tmp_path, monkeypatch):
    from sepfast.training import folder

    save = folder.save

    def full(model, path):
        if path.name == "epoch-0002.safetensors":
            raise InputError(f"{path}: cannot be written (No space left on device)")
        save(model, path)

    monkeypatch.setattr(folder, "save", full)
    with pytest.raises(InputError, match=r"epoch-0002\.safetensors: cannot be written"):
        run(tmp_path, replace(QUICK, checkpoint_every=1, keep=1))
    assert files(tmp_path / "epochs") == ["epoch-0001.safetensors"]


# Older runs, and values


def test_a_run_of_an_earlier_version_goes_on(plain, tmp_path):
    """What that left: no word of the options that it did not have, and no gradients' norms."""
    run(tmp_path, replace(QUICK, epochs=2))
    state = torch.load(tmp_path / "last.pt")
    new = {"precision", "clip_norm", "checkpoint_every", "keep", "tensorboard", "listen"}
    assert not new & set(state["identity"])
    for epoch in state["epochs"]:
        del epoch["gradient_norm"]
    torch.save(state, tmp_path / "last.pt")
    (tmp_path / "run.json").unlink()
    _, history = run(tmp_path, QUICK, resume=True)
    assert losses(history) == losses(plain[2])
    (session,) = json.loads((tmp_path / "run.json").read_text())["sessions"]
    assert session["first_epoch"] == 3


@pytest.mark.parametrize(
    ("change", "match"),
    [
        ({"precision": "bfloat16"}, "precision is 'float32' there and 'bfloat16' here"),
        ({"clip_norm": 2.0}, r"clip_norm is 0\.0 there and 2\.0 here"),
    ],
)
def test_what_an_epoch_computes_may_not_differ(plain, change, match):
    with pytest.raises(InputError, match=match):
        run(plain[0], replace(QUICK, epochs=5, **change), resume=True)


@pytest.mark.parametrize(
    ("change", "match"),
    [
        ({"precision": "half"}, "precision: got 'half', takes one of float32, bfloat16, float16"),
        ({"clip_norm": -1.0}, r"clip_norm: got -1\.0, takes 0\.0 or more"),
        ({"clip_norm": float("nan")}, "clip_norm: got nan"),
        ({"checkpoint_every": -1}, "checkpoint_every: got -1"),
        ({"keep": 0}, "keep: got 0, takes a whole number, 1 or more"),
        ({"listen": 0.5}, r"listen: got 0\.5, takes a whole number"),
    ],
)
def test_values_out_of_range_are_refused(change, match):
    with pytest.raises(InputError, match=match):
        replace(QUICK, **change)


def test_the_command_hands_the_options_on(tmp_path, monkeypatch):
    from sepfast.cli import train as module

    taken = []

    def train_folder(data, output, model, options, **kwargs):
        taken.append(options)
        raise KeyboardInterrupt

    monkeypatch.setattr("sepfast.training.train_folder", train_folder)
    app = typer.Typer()
    app.command()(module.train)
    given = "--precision bfloat16 --clip-norm 5 --checkpoint-every 10 --keep 3 --listen 7"
    arguments = [*given.split(), "--tensorboard"]
    CliRunner().invoke(app, [str(tmp_path), "-o", str(tmp_path / "run"), *arguments])
    (options,) = taken
    assert (options.precision, options.clip_norm, options.checkpoint_every) == ("bfloat16", 5, 10)
    assert (options.keep, options.tensorboard, options.listen) == (3, True, 7)


# What a run says of itself


def test_a_run_tells_what_it_was_made_with(tmp_path, monkeypatch):
    monkeypatch.setattr("sys.argv", ["/somewhere/bin/sepfast", "train", "songs", "-o", "run"])
    monkeypatch.setenv("API_TOKEN", "a secret")
    model = fresh()
    train(model, SONGS, [], replace(QUICK, epochs=1, seed=3), tmp_path, data="songs")
    train(model, SONGS, [], replace(QUICK, epochs=2, seed=3), tmp_path, data="songs", resume=True)
    text = (tmp_path / "run.json").read_text()
    record = json.loads(text)
    assert record["model"] == "deepconvsep"
    assert record["model_options"] == model.model_options
    assert (record["seed"], record["data"]) == (3, "songs")
    first, second = record["sessions"]
    assert (first["first_epoch"], second["first_epoch"]) == (1, 2)
    assert (first["options"]["epochs"], second["options"]["epochs"]) == (1, 2)
    assert first["options"]["optimizer"] == "adam"
    assert first["command"] == ["sepfast", "train", "songs", "-o", "run"]
    assert first["versions"]["torch"] == torch.__version__
    assert set(first["versions"]) == {"sepfast", "torch", "numpy", "triton", "python", "platform"}
    assert first["device"]
    assert first["began"].endswith("+00:00")
    assert "a secret" not in text


def test_a_record_that_is_broken_is_begun_anew(tmp_path):
    train(fresh(), SONGS, VALIDATION, replace(QUICK, epochs=1), tmp_path)
    report = Recorder()
    for broken in ("{", "[]", '{"sessions": 3}'):
        (tmp_path / "run.json").write_text(broken)
        train(fresh(), SONGS, VALIDATION, QUICK, tmp_path, resume=True, report=report)
        assert len(json.loads((tmp_path / "run.json").read_text())["sessions"]) == 1
    assert len(report.notes) == 3
    assert "run.json: is broken" in report.notes[0]
