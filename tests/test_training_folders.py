"""Training from a folder of songs, and from the command line."""

from dataclasses import replace

import pytest
import torch
import typer
from learning import QUICK, SMALL, STEREO, Recorder, folder_of, losses
from typer.testing import CliRunner

from sepfast import InputError, load
from sepfast.training import train_folder

pytestmark = pytest.mark.usefixtures("one_thread", "own_cache")


# From a folder


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
