"""Training: it learns, it goes on where it stopped, and what is wrong is said in one sentence."""

import csv
import pickle
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch
import typer
from test_examples import Memory, noise
from typer.testing import CliRunner

from sepfast import InputError, create_model, load
from sepfast.training import TrainingOptions, defaults_for, train, train_folder
from sepfast.training.history import Silent

SMALL = {"context": 8, "n1": 4, "n2": 4, "units": 16}
QUICK = TrainingOptions(
    batch_size=4,
    batches_per_epoch=3,
    epochs=4,
    optimizer="adam",
    learning_rate=1e-3,
    validation_batches=2,
)


def fresh(name: str = "deepconvsep", **options) -> torch.nn.Module:
    torch.manual_seed(1)
    return create_model(name, **{**SMALL, **options})


def tones(samples: int = 30_000, seed: int = 0, name: str = "tones") -> Memory:
    """Four sources with a band each, (5, 1, samples)."""
    random = np.random.default_rng(seed)
    time = np.arange(samples) / 44100
    sources = [
        np.sin(2 * np.pi * random.uniform(hertz, 1.3 * hertz) * time)
        * (1 + np.sin(2 * np.pi * random.uniform(2, 9) * time))
        for hertz in (800, 6000, 80, 2500)
    ]
    waveforms = 0.2 * np.array(sources, np.float32)[:, None]
    return Memory(np.concatenate([waveforms.sum(0, keepdims=True), waveforms]), name)


SONGS = [tones(seed=0, name="a"), tones(seed=1, name="b")]
VALIDATION = [tones(seed=2, name="c")]


pytestmark = pytest.mark.usefixtures("one_thread", "own_cache")


class Recorder(Silent):
    """Keeps what it is told, and interrupts after a number of steps."""

    def __init__(self, interrupt_after: int = 10**9) -> None:
        self.steps, self.notes, self.best = [], [], []
        self.interrupt_after = interrupt_after

    def note(self, text):
        self.notes.append(text)

    def progress(self, task, done, total):
        if task == "training":
            self.steps.append((done, total))
            if len(self.steps) == self.interrupt_after:
                raise KeyboardInterrupt

    def epoch(self, epoch, best):
        self.best.append(best)


def losses(history) -> list[tuple[float, float | None]]:
    return [(epoch.training_loss, epoch.validation_loss) for epoch in history.epochs]


def files(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


# It learns


def test_the_loss_falls_when_a_song_is_learnt_by_heart(tmp_path):
    options = replace(QUICK, batches_per_epoch=12, learning_rate=5e-3)
    history = train(fresh(scale_factor=1.0), SONGS[:1], SONGS[:1], options, tmp_path)
    first, last = history.epochs[0], history.epochs[-1]
    assert last.training_loss < 0.25 * first.training_loss
    assert last.validation_loss < first.validation_loss


def test_both_optimizers_update_and_the_learning_rate_steps_down(tmp_path):
    for name in ("adadelta", "adam"):
        model = fresh()
        before = [weight.clone() for weight in model.parameters()]
        options = replace(QUICK, optimizer=name, milestones=(1, 3))
        history = train(model, SONGS, [], options, tmp_path / name)
        assert [epoch.learning_rate for epoch in history.epochs] == pytest.approx(
            [1e-3, 1e-4, 1e-4, 1e-5]
        )
        assert all(not torch.equal(a, b) for a, b in zip(before, model.parameters(), strict=True))


def test_the_learning_rate_of_an_epoch_is_the_one_used(tmp_path):
    """Adam's first steps are as large as its learning rate."""
    model = fresh()
    weights = [torch.nn.utils.parameters_to_vector(model.parameters())]

    class Keeper(Silent):
        def epoch(self, epoch, best):
            weights.append(torch.nn.utils.parameters_to_vector(model.parameters()))

    options = replace(QUICK, milestones=(1,), epochs=2, batches_per_epoch=1)
    train(model, SONGS, [], options, tmp_path, report=Keeper())
    steps = [(b - a).abs().max().item() for a, b in pairwise(weights)]
    assert steps[0] == pytest.approx(1e-3, rel=0.01)
    assert 0.5e-4 < steps[1] < 1.1e-4


def test_a_step_is_the_papers_loss_on_the_batch_it_should_be(tmp_path):
    from sepfast.data.examples import Examples, Excerpts, batch_features, excerpt_framing
    from sepfast.reference import soft_mask_loss

    options = replace(QUICK, epochs=1, batches_per_epoch=1, seed=3, target_slope=0.5)
    history = train(fresh(), SONGS, VALIDATION, options, tmp_path)
    model = fresh()
    samples = excerpt_framing(model.framing).covered(8)
    batch = Examples(Excerpts(SONGS, samples), 4, 3)[1, 0]
    mixture, targets = batch_features(model, batch, target_slope=0.5)
    expected = soft_mask_loss(model(mixture).unflatten(1, (4, 1)), mixture, targets)
    assert history.epochs[0].training_loss == pytest.approx(expected.item(), rel=1e-6)


def test_dropout_works_in_training_and_rests_in_validation(tmp_path):
    still = replace(QUICK, learning_rate=1e-30, epochs=2, batches_per_epoch=1)
    runs = {
        dropout: train(
            fresh(dropout=dropout), SONGS, VALIDATION, still, tmp_path / str(dropout)
        ).epochs
        for dropout in (0.0, 0.9)
    }
    assert runs[0.9][0].training_loss != runs[0.0][0].training_loss
    assert runs[0.9][0].validation_loss == runs[0.0][0].validation_loss


def test_one_epoch_through_all_songs(tmp_path):
    report = Recorder()
    options = replace(QUICK, epochs=1, batches_per_epoch=0)
    train(fresh(), SONGS, [], options, tmp_path, report=report)
    covered = 7 * 256 + 1024
    assert report.steps[-1] == (-(-2 * -(-30_000 // covered) // 4),) * 2


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_a_gpu_computes_what_a_cpu_does(tmp_path):
    runs = [
        train(fresh(), SONGS, VALIDATION, QUICK, tmp_path / device, device=device)
        for device in ("cpu", "cuda")
    ]
    assert np.array(losses(runs[1])) == pytest.approx(np.array(losses(runs[0])), rel=1e-2)


# What it leaves


def test_a_run_leaves_a_log_a_checkpoint_and_the_best_model(tmp_path):
    model, report = fresh(), Recorder()
    history = train(model, SONGS, VALIDATION, QUICK, tmp_path, report=report)
    assert files(tmp_path) == ["best.safetensors", "last.pt", "log.csv", "run.json"]
    rows = list(csv.DictReader((tmp_path / "log.csv").read_text().splitlines()))
    assert [int(row["epoch"]) for row in rows] == [1, 2, 3, 4]
    for row, epoch in zip(rows, history.epochs, strict=True):
        assert float(row["training_loss"]) == epoch.training_loss
        assert float(row["validation_loss"]) == epoch.validation_loss
        assert float(row["learning_rate"]) == epoch.learning_rate
        assert float(row["seconds"]) > 0
    assert history.ended == "epochs"
    assert not model.training
    assert report.steps == [(step, 12) for step in range(1, 13)]
    assert report.best[0]


def test_the_best_model_is_that_of_the_best_epoch(tmp_path):
    """The loss on the other song rises again: the best epoch is not the last."""
    options = replace(QUICK, epochs=8, learning_rate=3e-2, batches_per_epoch=4)
    model = fresh()
    history = train(model, SONGS, [noise(20_000, channels=1)], options, tmp_path)
    best = history.best
    assert best.validation_loss == min(epoch.validation_loss for epoch in history.epochs)
    assert best.epoch < 8
    train(
        again := fresh(),
        SONGS,
        [noise(20_000, channels=1)],
        replace(options, epochs=best.epoch),
        tmp_path / "again",
    )
    kept = load(tmp_path / "best.safetensors").state_dict()
    assert all(torch.equal(kept[key], value) for key, value in again.state_dict().items())
    assert any(not torch.equal(kept[key], value) for key, value in model.state_dict().items())


def test_training_leaves_the_callers_random_numbers_alone(tmp_path):
    torch.manual_seed(7)
    expected = torch.rand(3)
    model = fresh(dropout=0.5)
    torch.manual_seed(7)
    train(model, SONGS, [], QUICK, tmp_path)
    assert torch.equal(torch.rand(3), expected)


# How it ends


def test_early_stopping_waits_for_its_patience(tmp_path):
    still = replace(QUICK, learning_rate=1e-30, epochs=50, patience=3)
    history = train(fresh(), SONGS, VALIDATION, still, tmp_path)
    assert len(history.epochs) == 4
    assert history.best.epoch == 1
    assert history.ended == "patience"
    resumed = train(fresh(), SONGS, VALIDATION, still, tmp_path, resume=True)
    assert len(resumed.epochs) == 4


def test_the_time_limit_ends_an_epoch_under_way(tmp_path, monkeypatch):
    """Each look at the clock is a second; the limit passes in the first epoch."""
    clock = iter(range(10**6))
    monkeypatch.setattr("sepfast.training.trainer.time.monotonic", lambda: next(clock))
    options = replace(QUICK, batches_per_epoch=50, time_limit=10.0)
    report = Recorder()
    history = train(fresh(), SONGS, VALIDATION, options, tmp_path, report=report)
    assert history.ended == "time limit"
    assert len(history.epochs) == 1
    assert 1 <= len(report.steps) < 50
    assert (tmp_path / "best.safetensors").exists()


def test_a_time_limit_too_short_for_an_epoch_leaves_one_of_one_step(tmp_path):
    report = Recorder()
    history = train(fresh(), SONGS, [], replace(QUICK, time_limit=1e-9), tmp_path, report=report)
    assert (len(history.epochs), len(report.steps)) == (1, 1)


# It goes on


@pytest.fixture(scope="module")
def straight(tmp_path_factory):
    """Four epochs with dropout, at once: the history, the weights."""
    folder = tmp_path_factory.mktemp("straight")
    model = fresh(dropout=0.5)
    history = train(model, SONGS, VALIDATION, QUICK, folder)
    return history, model.state_dict()


def check_same(straight, history, model):
    assert losses(history) == losses(straight[0])
    assert all(torch.equal(straight[1][key], value) for key, value in model.state_dict().items())


def test_two_epochs_and_two_more_are_four(straight, tmp_path):
    train(fresh(dropout=0.5), SONGS, VALIDATION, replace(QUICK, epochs=2), tmp_path)
    torch.manual_seed(99)
    model = create_model("deepconvsep", **SMALL, dropout=0.5)
    history = train(model, SONGS, VALIDATION, QUICK, tmp_path, resume=True)
    check_same(straight, history, model)
    assert len((tmp_path / "log.csv").read_text().splitlines()) == 5


@pytest.mark.parametrize("steps", [1, 3, 5, 11])
def test_an_interrupted_run_goes_on_as_if_it_had_not_been(straight, tmp_path, steps):
    """In the first epoch, at the end of one, in the middle of others."""
    report = Recorder(interrupt_after=steps)
    with pytest.raises(KeyboardInterrupt):
        train(fresh(dropout=0.5), SONGS, VALIDATION, QUICK, tmp_path, report=report)
    assert not [name for name in files(tmp_path) if "part" in name]
    model = fresh(dropout=0.5)
    history = train(model, SONGS, VALIDATION, QUICK, tmp_path, resume=True)
    check_same(straight, history, model)


def test_workers_make_the_same_batches(straight, tmp_path):
    model = fresh(dropout=0.5)
    options = replace(QUICK, workers=2, epochs=1)
    history = train(model, SONGS, VALIDATION, options, tmp_path)
    assert losses(history) == losses(straight[0])[:1]


def test_adadelta_goes_on_too(tmp_path):
    options = replace(QUICK, optimizer="adadelta", learning_rate=1.0, epochs=2)
    once = train(fresh(), SONGS, [], options, tmp_path / "once")
    train(fresh(), SONGS, [], replace(options, epochs=1), tmp_path / "twice")
    twice = train(fresh(), SONGS, [], options, tmp_path / "twice", resume=True)
    assert losses(once) == losses(twice)


# What is wrong is said


@pytest.fixture
def run(tmp_path):
    """A run of one epoch."""
    train(fresh(), SONGS, VALIDATION, replace(QUICK, epochs=1), tmp_path)
    return tmp_path


def snapshot(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def check_refused(folder: Path, match: str, model=None, songs=SONGS, options=QUICK) -> None:
    """Resuming raises one sentence with `match` in it and changes no file."""
    before = snapshot(folder)
    with pytest.raises(InputError, match=match) as caught:
        train(model or fresh(), songs, VALIDATION, options, folder, resume=True)
    assert "\n" not in str(caught.value)
    assert "last.pt" in str(caught.value)
    assert snapshot(folder) == before


def test_a_run_is_never_overwritten(run):
    before = snapshot(run)
    with pytest.raises(InputError, match=r"last\.pt: is of a run already"):
        train(fresh(), SONGS, VALIDATION, QUICK, run)
    (run / "last.pt").unlink()
    with pytest.raises(InputError, match=r"best\.safetensors: is of a run already"):
        train(fresh(), SONGS, VALIDATION, QUICK, run)
    assert {"last.pt": before["last.pt"], **snapshot(run)} == before


@pytest.mark.parametrize(
    ("change", "match"),
    [
        ({"batch_size": 8}, "batch_size is 4 there and 8 here"),
        ({"seed": 1}, "seed is 0 there and 1 here"),
        ({"optimizer": "adadelta"}, "optimizer is 'adam' there and 'adadelta' here"),
        ({"milestones": (2,)}, r"milestones is \(\) there and \(2,\) here"),
    ],
)
def test_other_options_are_refused(run, change, match):
    check_refused(run, match, options=replace(QUICK, **change))


def test_another_model_or_other_songs_are_refused(run):
    check_refused(run, "model is 'deepconvsep' there", model=fresh("deepconvsep-stereo"))
    check_refused(run, "model_options is .*'units': 16.* there", model=fresh(units=17))
    check_refused(run, "training song is 'b .* there and None here", songs=SONGS[:1])
    check_refused(run, "training song is 'a .* there and 'b ", songs=SONGS[::-1])


def test_no_run_is_refused(tmp_path):
    with pytest.raises(InputError, match=r"last\.pt: there is no such file"):
        train(fresh(), SONGS, VALIDATION, QUICK, tmp_path / "none", resume=True)
    assert not (tmp_path / "none").exists()


class Exploit:
    """Runs code when it is unpickled."""

    def __reduce__(self):
        return pytest.fail, ("unpickled",)


@pytest.mark.parametrize(
    "kind", ["truncated", "empty", "noise", "one byte", "pickle", "zip", "tensor"]
)
def test_a_broken_checkpoint_is_refused(run, kind):
    last = run / "last.pt"
    whole = last.read_bytes()
    if kind == "pickle":
        last.write_bytes(pickle.dumps(Exploit()))
    elif kind == "zip":
        torch.save(Exploit(), last)
    elif kind == "tensor":
        torch.save(torch.zeros(3), last)
    else:
        half = len(whole) // 2
        contents = {
            "truncated": whole[:half],
            "empty": b"",
            "noise": whole[::-1],
            "one byte": whole[:half] + bytes([whole[half] ^ 255]) + whole[half + 1 :],
        }
        last.write_bytes(contents[kind])
    check_refused(run, "broken, or no checkpoint")


def test_a_checkpoint_with_something_missing_is_refused(run):
    state = torch.load(run / "last.pt", weights_only=True)
    for key in ("model", "optimizer", "epochs"):
        torch.save({name: value for name, value in state.items() if name != key}, run / "last.pt")
        check_refused(run, "is broken, its state does not fit")
    state["model"].popitem()
    torch.save(state, run / "last.pt")
    check_refused(run, "is broken, its state does not fit")


def test_a_loss_that_is_not_finite_ends_the_run(tmp_path):
    wild = replace(QUICK, learning_rate=1e30, epochs=3)
    report = Recorder(interrupt_after=3)
    with pytest.raises(KeyboardInterrupt):
        train(fresh(), SONGS, VALIDATION, wild, tmp_path, report=report)
    before = snapshot(tmp_path)
    with pytest.raises(InputError, match=r"not finite in step \d of epoch 1, on .*[ab]") as caught:
        train(fresh(), SONGS, VALIDATION, wild, tmp_path, resume=True)
    assert "\n" not in str(caught.value)
    after = snapshot(tmp_path)
    assert after.pop("run.json") != before.pop("run.json")  # of which it was a session
    assert after == before


def test_a_song_with_nan_is_named(tmp_path):
    bad = tones(name="bad")
    bad.waveforms[..., 10_000:20_000] = np.nan
    with pytest.raises(InputError, match="step 1 of epoch 1, on bad;"):
        train(fresh(), [bad], [], replace(QUICK, batch_size=8), tmp_path)


@pytest.mark.parametrize("workers", [0, 1])
def test_silent_data_is_said_in_one_sentence(tmp_path, workers):
    silent = Memory(np.zeros((5, 1, 20_000), np.float32))
    options = replace(QUICK, silence=0.02, workers=workers)
    with pytest.raises(InputError, match=r"^data: is nearly silent, .* 0 all$"):
        train(fresh(), [silent], [], options, tmp_path)


def test_models_and_devices_that_cannot_be_trained_on_are_refused(tmp_path):
    with pytest.raises(InputError, match="got a Linear, training takes a DeepConvSep"):
        train(torch.nn.Linear(1, 1), SONGS, [], QUICK, tmp_path)
    with pytest.raises(InputError, match="takes one that create_model made"):
        train(type(fresh())(), SONGS, [], QUICK, tmp_path)
    with pytest.raises(InputError, match="device: got 'abacus'"):
        train(fresh(), SONGS, [], QUICK, tmp_path, device="abacus")
    with pytest.raises(InputError, match="songs: got none"):
        train(fresh(), [], [], QUICK, tmp_path)
    assert files(tmp_path) == []


@pytest.mark.parametrize(
    ("change", "match"),
    [
        ({"batch_size": 0}, "batch_size: got 0, takes a whole number, 1 or more"),
        ({"batch_size": 2.5}, r"batch_size: got 2\.5, takes a whole number"),
        ({"epochs": -1}, "epochs: got -1"),
        ({"learning_rate": -1.0}, r"learning_rate: got -1\.0, takes 0\.0 or more"),
        ({"learning_rate": float("nan")}, "learning_rate: got nan"),
        ({"learning_rate": float("inf")}, "learning_rate: got inf"),
        ({"rho": 1.5}, r"rho: got 1\.5, takes 0\.0 to 1\.0"),
        ({"target_slope": 2.0}, "target_slope: got"),
        ({"optimizer": "lion"}, "optimizer: got 'lion', takes one of adadelta, adam, sgd"),
        ({"milestones": (3, 2)}, r"milestones: got \(3, 2\)"),
        ({"milestones": (0,)}, r"milestones: got \(0,\)"),
        ({"workers": "two"}, "workers: got 'two'"),
    ],
)
def test_options_out_of_range_are_refused(change, match):
    with pytest.raises(InputError, match=match):
        replace(QUICK, **change)


def test_defaults_are_the_papers():
    mono, stereo = defaults_for("deepconvsep"), defaults_for("deepconvsep-stereo")
    assert (mono.batch_size, mono.epochs, mono.optimizer) == (30, 30, "adadelta")
    assert (mono.silence, mono.statistics, mono.target_slope) == (0, False, 0)
    assert (stereo.batch_size, stereo.batches_per_epoch, stereo.epochs) == (5, 50, 3250)
    assert (stereo.optimizer, stereo.learning_rate, stereo.rho) == ("adadelta", 1, 0.95)
    assert (stereo.silence, stereo.statistics, stereo.target_slope) == (0.02, True, 0.5)
    with pytest.raises(InputError, match="model: got 'demucs', training takes deepconvsep"):
        defaults_for("demucs")


# From a folder


def write_song(folder: Path, song: Memory, channels: int = 2) -> None:
    folder.mkdir(parents=True)
    names = ("mixture", "vocals", "drums", "bass", "other")
    for name, waveform in zip(names, song.waveforms, strict=True):
        stereo = np.repeat(waveform, channels, axis=0).T
        soundfile.write(folder / f"{name}.wav", stereo, 44100, subtype="FLOAT")


def folder_of(path: Path, count: int) -> Path:
    for number in range(count):
        write_song(path / f"song {number}", tones(12_000, seed=number))
    return path


STEREO = replace(defaults_for("deepconvsep-stereo"), batch_size=2, batches_per_epoch=2, epochs=2)


def test_a_folder_becomes_a_model(tmp_path):
    data, out, report = folder_of(tmp_path / "data", 5), tmp_path / "run", Recorder()
    history = train_folder(
        data, out, "deepconvsep-stereo", STEREO, model_options=SMALL, report=report
    )
    assert all(epoch.validation_loss is not None for epoch in history.epochs)
    model = load(out / "best.safetensors")
    assert model.context == 8
    assert bool((model.maximum != 1).all())
    assert report.notes == []
    identity = torch.load(out / "last.pt", weights_only=True)["identity"]
    assert (len(identity["training song"]), len(identity["validation song"])) == (4, 1)
    assert not set(identity["training song"]) & set(identity["validation song"])


def test_a_folder_run_goes_on(tmp_path):
    data = folder_of(tmp_path / "data", 2)
    whole = train_folder(data, tmp_path / "once", "deepconvsep-stereo", STEREO, model_options=SMALL)
    for epochs in (1, 2):
        torch.manual_seed(epochs)  # on which nothing may depend
        again = train_folder(
            data,
            tmp_path / "twice",
            "deepconvsep-stereo",
            replace(STEREO, epochs=epochs),
            model_options=SMALL,
            resume=epochs == 2,
        )
    assert losses(again) == losses(whole)


def test_few_songs_are_all_trained_on_and_broken_ones_named(tmp_path):
    data, report = folder_of(tmp_path / "data", 3), Recorder()
    (data / "song 1" / "bass.wav").unlink()
    (data / "song 2" / "bass.wav").write_bytes(b"RIFF")
    options = replace(QUICK, epochs=1)
    history = train_folder(
        data, tmp_path / "run", "deepconvsep", options, model_options=SMALL, report=report
    )
    assert history.epochs[0].validation_loss is None
    assert [note.split()[0] for note in report.notes] == ["skipped:", "no", "skipped:"]
    assert "song 1 has no bass" in report.notes[0]
    assert "no validation with fewer than 5 songs (2 here)" in report.notes[1]
    assert "bass.wav" in report.notes[2]


def test_splits_and_a_validation_folder(tmp_path):
    data = folder_of(tmp_path / "data" / "train", 2).parent
    folder_of(data / "test", 3)
    held_out = folder_of(tmp_path / "held out", 2)
    options = replace(QUICK, epochs=1)
    train_folder(
        data, tmp_path / "run", "deepconvsep", options, model_options=SMALL, validation=held_out
    )
    identity = torch.load(tmp_path / "run" / "last.pt", weights_only=True)["identity"]
    assert len(identity["training song"]) == 2
    assert len(identity["validation song"]) == 2


def test_folders_that_cannot_be_trained_on_are_refused(tmp_path):
    data = folder_of(tmp_path / "data" / "test", 2).parent
    with pytest.raises(InputError, match="holds test songs alone"):
        train_folder(data, tmp_path / "run", "deepconvsep")
    for song in (data / "test").iterdir():
        (song / "drums.wav").write_bytes(b"")
    with pytest.raises(InputError, match=r"none of 2 songs can be used, the first because .*drums"):
        train_folder(data / "test", tmp_path / "run", "deepconvsep")
    (tmp_path / "empty").mkdir()
    with pytest.raises(InputError, match="holds no songs"):
        train_folder(tmp_path / "empty", tmp_path / "run", "deepconvsep")
    with pytest.raises(InputError, match=r"validation: got 1\.5"):
        train_folder(
            folder_of(tmp_path / "more", 1), tmp_path / "run", "deepconvsep", validation=1.5
        )
    assert not (tmp_path / "run").exists()


def test_a_folder_with_a_run_is_refused_before_any_work(tmp_path):
    (tmp_path / "log.csv").touch()
    with pytest.raises(InputError, match=r"log\.csv: is of a run already"):
        train_folder(tmp_path / "nowhere", tmp_path, "deepconvsep")


# From the command line


@pytest.fixture
def command():
    """`sepfast train` with arguments: its result."""
    from sepfast.cli import train as module

    app = typer.Typer()
    app.command()(module.train)
    return lambda *arguments: CliRunner().invoke(app, [str(argument) for argument in arguments])


def test_the_command_trains_and_goes_on(command, tmp_path):
    data, run = folder_of(tmp_path / "data", 2), tmp_path / "run"
    small = [part for key, value in SMALL.items() for part in ("--set", f"{key}={value}")]
    arguments = (data, "-o", run, "-m", "deepconvsep", "--batch-size", 2, *small)
    arguments += ("--batches-per-epoch", 2, "--optimizer", "adam", "--learning-rate", 0.001)
    arguments += ("--milestones", "1,2", "--loss", "paper", "--device", "cpu")
    first = command(*arguments, "--epochs", 1)
    assert first.exit_code == 0, first.output
    second = command(*arguments, "--epochs", 3, "--resume")
    assert "epoch 3: training loss" in second.output
    assert "learning rate 1e-05" in second.output
    assert str(run / "best.safetensors") in second.output.replace("\n", "")
    assert "epoch 1:" not in second.output
    saved = torch.load(run / "last.pt", weights_only=True)
    assert saved["identity"]["loss"]["reading"] == "paper"
    assert saved["identity"]["model_options"] == SMALL


@pytest.mark.parametrize(
    ("arguments", "match"),
    [
        (["--set", "context"], "--set: got 'context', takes KEY=VALUE"),
        (["--set", "context=many"], "--set context: got 'many', takes a whole number"),
        (["--set", "tied=perhaps"], "--set tied: got 'perhaps', takes true or false"),
        (["--set", "depth=3"], "--set: got 'depth', the nearest is"),
        (["--milestones", "a"], "milestones: got 'a', takes epochs like 60,120"),
        (["-m", "demucs"], "model: got 'demucs', training takes deepconvsep"),
        (["--validation", "elsewhere"], "elsewhere: there is no such"),
    ],
)
def test_the_command_refuses_in_one_sentence(command, tmp_path, arguments, match):
    result = command(folder_of(tmp_path / "data", 1), "-o", tmp_path / "run", *arguments)
    assert isinstance(result.exception, InputError)
    assert match in str(result.exception)
    assert not (tmp_path / "run").exists()
