"""Runs that are made from the papers' experiments."""

import json
from pathlib import Path

import pytest
import torch
import typer
from learning import folder_of, tones, write_song
from talking import crowd
from typer.testing import CliRunner

from sepfast import InputError, load
from sepfast.data import find_utterances, read_manifest
from sepfast.data.songs import find_songs_of
from sepfast.experiments import (
    experiment,
    list_experiments,
)
from sepfast.training import defaults_for, train_folder

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture
def command():
    """`sepfast train` with arguments: its result."""
    from sepfast.cli import train as module

    app = typer.Typer()
    app.command()(module.train)
    return lambda *arguments: CliRunner().invoke(app, [str(argument) for argument in arguments])


def settings(**values) -> list[str]:
    return [part for key, value in values.items() for part in ("--set", f"{key}={value}")]


SMALL = settings(context=8, t2=4, n1=4, n2=4, units=16, batch_size=4, batches_per_epoch=2)


def identity_of(run: Path) -> dict:
    return torch.load(run / "last.pt", weights_only=True)["identity"]


def test_an_experiment_is_trained_and_leaves_what_it_was(command, tmp_path, monkeypatch):
    """Songs of both splits are drawn from; a flag goes before --set, which goes before the file."""
    data = folder_of(tmp_path / "data" / "train", 4).parent
    for number in (4, 5):
        write_song(data / "test" / f"song {number}", tones(12_000, seed=number))
    monkeypatch.chdir(tmp_path)
    arguments = ("--config", "a-2", "--data", data, "--device", "cpu", "--patience", 3, *SMALL)
    more = settings(test=0.3, validation=0.2, reading="paper", milestones="1,2", patience=4)
    done = command(*arguments, *more, "--epochs", 1)
    assert done.exit_code == 0, done.output
    run = tmp_path / "runs" / "a-2"
    assert (run / "experiment.toml").read_text("utf-8") == experiment("a-2").text
    assert experiment(run / "experiment.toml") == experiment("a-2")
    identity = identity_of(run)
    assert (len(identity["training song"]), len(identity["validation song"])) == (3, 1)
    assert (identity["learning_rate"], identity["milestones"]) == (1e-3, (1, 2))
    assert (identity["loss"]["reading"], identity["loss"]["alpha"]) == ("paper", 0.001)
    assert json.loads((run / "run.json").read_text())["sessions"][0]["options"]["patience"] == 3
    assert load(run / "best.safetensors").context == 8
    test, _ = find_songs_of(data, str(run / "test.txt"))
    (tmp_path / "other.txt").write_text("song 1\nsong 9\n")
    with pytest.raises(InputError, match="of which 'song 9' is none"):
        find_songs_of(data, "other.txt")
    with pytest.raises(InputError, match="split: got 'tests', takes train, test or a file"):
        find_songs_of(data, "tests")
    used = {*map(str, identity["training song"]), *map(str, identity["validation song"])}
    assert len(test) == 2
    assert not any(song.name in text for song in test for text in used)
    again = command(*arguments, *more, "--epochs", 2, "--resume")
    assert "epoch 2: training loss" in again.output


def test_the_first_validates_on_the_test(tmp_path):
    data = folder_of(tmp_path / "data" / "train", 2).parent
    folder_of(data / "test", 3)
    each = experiment("a-1")
    small = {**each.model_options, "context": 8, "t2": 4, "n1": 2, "n2": 2, "units": 4}
    options = defaults_for("deepconvsep")
    options = type(options)(batch_size=2, batches_per_epoch=1, epochs=1)
    train_folder(data, tmp_path / "run", each.model, options, model_options=small, **each.run)
    identity = identity_of(tmp_path / "run")
    assert (len(identity["training song"]), len(identity["validation song"])) == (2, 3)
    with pytest.raises(InputError, match="holds no test songs"):
        train_folder(data / "train", tmp_path / "no", each.model, validate_on_test=True)
    for beside in ({"test": 0.2}, {"validation": 0.2}):
        with pytest.raises(InputError, match="takes neither validation nor test"):
            train_folder(data, tmp_path / "no", each.model, validate_on_test=True, **beside)
    with pytest.raises(InputError, match=r"test: got 0\.2, takes a fraction for validation"):
        train_folder(data, tmp_path / "no", each.model, test=0.2, validation=data)


def test_extra_songs_are_trained_on_alone(tmp_path):
    options = type(defaults_for("deepconvsep"))(batch_size=2, batches_per_epoch=1, epochs=1)
    small = {"context": 8, "n1": 2, "n2": 2, "units": 4}
    data, more = folder_of(tmp_path / "data", 5), folder_of(tmp_path / "more", 3)
    for name, extra in (("without", None), ("with", more)):
        train_folder(
            data, tmp_path / name, "deepconvsep", options, model_options=small, extra=extra
        )
    plain, richer = (identity_of(tmp_path / name) for name in ("without", "with"))
    assert richer["validation song"] == plain["validation song"]
    assert richer["training song"][:4] == plain["training song"]
    assert len(richer["training song"]) == 7


def test_speakers_are_in_all_parts_where_they_are_to_be(tmp_path):
    data = crowd(tmp_path / "data", speakers=3, utterances=5, seconds=0.15)
    each = experiment("d-grid-vl2m-dependent")
    options = type(each.options)(batch_size=4, batches_per_epoch=1, epochs=1, optimizer="adam")
    small = {**each.model_options, "hidden": 3, "layers": 1}
    train_folder(data, tmp_path / "run", each.model, options, model_options=small, **each.run)
    utterances, _ = find_utterances(data)
    drawn = {
        name: read_manifest(tmp_path / "run" / f"{name}.csv", utterances)
        for name in ("train", "validation", "test", "test-3")
    }
    targets = {name: {m.target.key for m in mixtures} for name, mixtures in drawn.items()}
    heard = {
        name: {u.key for m in mixtures for u in m.utterances} for name, mixtures in drawn.items()
    }
    for keys in targets.values():
        assert {key.split("/")[0] for key in keys} == {"s1", "s2", "s3"}
    assert targets["test"] == targets["test-3"]
    assert {len(mixture.utterances) for mixture in drawn["test"]} == {2}
    assert {len(mixture.utterances) for mixture in drawn["test-3"]} == {3}
    assert not heard["train"] & (heard["validation"] | heard["test"] | heard["test-3"])
    with pytest.raises(InputError, match="split: got speakers, informed takes none"):
        train_folder(data, tmp_path / "no", "informed", split="speakers")
    with pytest.raises(InputError, match="extra: got more, vl2m takes none"):
        train_folder(data, tmp_path / "no", "vl2m", extra="more")


def test_both_steps_of_a_refining_model(command, tmp_path):
    data = crowd(tmp_path / "data", speakers=6, utterances=1, seconds=0.12)
    small = settings(hidden=3, layers=1, epochs=1, batch_size=4, validation=0.34, test_talkers=2)
    best = "best.safetensors"
    steps = {
        "mask": ("d-grid-vl2m", []),
        "first": ("d-grid-vl2m-ref", settings(mask_hidden=3, mask_layers=1)),
    }
    steps["second"] = (
        "d-grid-vl2m-ref",
        [
            *steps["first"][1],
            *("--init", tmp_path / "first" / best),
            *("--mask-model", tmp_path / "mask" / best),
        ],
    )
    for folder, (name, more) in steps.items():
        arguments = ("--config", name, "--data", data, "-o", tmp_path / folder, "--device", "cpu")
        done = command(*arguments, *small, *more)
        assert done.exit_code == 0, done.exception
    assert load(tmp_path / "second" / best).mask_model is not None
    assert (tmp_path / "second" / "experiment.toml").read_text() == experiment(name).text


@pytest.mark.parametrize(
    ("arguments", "match"),
    [
        (["--config", "a-1"], "got no data, takes a folder as DATA or --data"),
        (["here", "--data", "there"], "--data: got there beside here"),
        (["here"], "-o: got no folder"),
        (["here", "--config", "a-1", "-m", "informed"], "--model: got informed, a-1 takes deep"),
        (["here", "--config", "a-1", "--set", "batchsize=3"], "the nearest is 'batch_size'"),
        (["here", "--config", "a-1", "--set", "n1=0"], "--set n1: got 0, .* the nearest is 1"),
        (["here", "--config", "a-1", "--set", "alpha=x"], "--set alpha: got 'x', takes a number"),
        (["here", "--config", "c-m1-extra"], "got no --extra, takes a folder of 65 rock and pop"),
        (["here", "--config", "b-denoiser-bass"], "no --separator, takes the best model of b-st"),
    ],
)
def test_the_command_refuses_in_one_sentence(command, tmp_path, monkeypatch, arguments, match):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(InputError, match=match):
        raise command(*arguments).exception
    assert list(tmp_path.iterdir()) == []


def test_the_list_and_one_of_it(monkeypatch):
    from sepfast.cli.experiments import experiments

    monkeypatch.setattr("sepfast.cli.console.console._width", 80)
    app = typer.Typer()
    app.command()(experiments)
    lines = CliRunner().invoke(app, []).output.splitlines()
    assert max(len(line.rstrip()) for line in lines) <= 80
    assert "…" not in "".join(lines)
    first = {line.split()[0]: line for line in lines if line.strip()}
    assert set(list_experiments()) <= set(first)
    assert "SDR -23.49 ± 1.94" in first["a-8"]
    assert "8.05" in first["d-grid-av-concat-ref"]
    shown = CliRunner().invoke(app, ["d-tcd-vl2m-ref"]).output
    assert experiment("d-tcd-vl2m-ref").text in shown
    assert "--init runs/d-tcd-vl2m-ref-first/best.safetensors" in shown
    assert "--mask-model runs/d-tcd-vl2m/best.safetensors" in shown
