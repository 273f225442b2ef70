"""What a run sounds and looks like while it learns, which changes nothing of what it learns."""

import importlib.util
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from learning import QUICK, SONGS, VALIDATION, Recorder, files, fresh, losses, tones

from sepfast import InputError, Separator, create_model, load
from sepfast.data.audio import read
from sepfast.training import train
from sepfast.training.folder import RunFolder
from sepfast.training.listening import Listening, listening

pytestmark = pytest.mark.usefixtures("one_thread")

HEARD = replace(QUICK, listen=2, tensorboard=True, checkpoint_every=2)
SOURCES = ("vocals", "drums", "bass", "other")


@pytest.fixture(scope="module")
def heard(tmp_path_factory):
    """Four epochs with dropout, listened to: folder, model, history."""
    folder = tmp_path_factory.mktemp("heard")
    model = fresh(dropout=0.5)
    return folder, model, train(model, SONGS, VALIDATION, HEARD, folder, device="cpu")


def events(folder: Path):
    """What TensorBoard reads in a run."""
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    found = EventAccumulator(str(folder / "tensorboard"), size_guidance={"audio": 0, "images": 0})
    return found.Reload()


def curve(found, name: str) -> list[tuple[int, float]]:
    return [(event.step, event.value) for event in found.Scalars(name)]


def test_listening_changes_nothing(heard, tmp_path):
    """Neither losses nor weights, with dropout, whose random numbers it might have drawn."""
    model = fresh(dropout=0.5)
    plain = train(model, SONGS, VALIDATION, QUICK, tmp_path, device="cpu")
    assert losses(plain) == losses(heard[2])
    for key, value in model.state_dict().items():
        assert torch.equal(value, heard[1].state_dict()[key])


def test_modes_and_random_numbers_are_left_as_they_were(tmp_path):
    """As where it listens in mid-training, to a model of which a part rests."""
    model = fresh(dropout=0.5).train()
    next(model.children()).eval()
    modes = [module.training for module in model.modules()]
    generator = torch.get_rng_state()
    Listening(model, VALIDATION[0], 1, tmp_path, None).epoch(SimpleNamespace(epoch=1))
    assert [module.training for module in model.modules()] == modes
    assert torch.equal(torch.get_rng_state(), generator)


def test_every_second_epoch_leaves_what_its_model_makes_of_the_excerpt(heard):
    folder = heard[0]
    assert files(folder / "validation") == ["epoch-0002", "epoch-0004"]
    for epoch in files(folder / "validation"):
        out = folder / "validation" / epoch
        assert files(out) == sorted([*(f"{source}.wav" for source in SOURCES), "spectrograms.png"])
        separator = Separator(load(folder / "epochs" / f"{epoch}.safetensors"))
        for source, stem in separator(VALIDATION[0].waveforms[0], 44100).items():
            waveform, rate = read(out / f"{source}.wav")
            assert rate == 44100
            assert np.array_equal(waveform, stem.numpy())


def test_the_excerpt_is_six_seconds_from_the_middle(tmp_path):
    reads = []
    song = SimpleNamespace(
        samples=10 * 44100, read=lambda *span: reads.append(span) or np.zeros((5, 1, 9), np.float32)
    )
    Listening(fresh(), song, 1, tmp_path, None)
    assert reads == [(2 * 44100, 8 * 44100)]


def test_a_model_with_side_information_is_told_the_truth(tmp_path):
    """System C, whose second source is the rest of the mixture."""
    model = create_model("informed", hidden=2, context=8, side_steps=8)
    song = tones(4000, name="speech")
    song.waveforms = song.waveforms[:2]
    options = replace(QUICK, epochs=1, validation_batches=20, listen=1)
    train(model, [song], [song], options, tmp_path, device="cpu")
    out = tmp_path / "validation" / "epoch-0001"
    assert files(out) == ["accompaniment.wav", "spectrograms.png", "vocals.wav"]
    parts = [read(out / f"{name}.wav")[0] for name in ("vocals", "accompaniment")]
    assert np.abs(sum(parts) - song.waveforms[0]).max() < 1e-6


def test_where_there_is_nothing_to_hear_a_note_says_so(tmp_path):
    report = Recorder()
    history = train(fresh(), SONGS, [], replace(QUICK, epochs=1, listen=1), tmp_path, report=report)
    assert len(history.epochs) == 1
    assert report.notes == ["listen: nothing is written, there is no validation song"]
    course, notes = SimpleNamespace(), []
    model = create_model("vl2m", hidden=2, layers=1)
    assert listening(model, course, [1], 1, tmp_path, None, notes.append) is None
    assert listening(model, course, [1], 0, tmp_path, None, notes.append) is None
    assert notes == ["listen: nothing is written, VL2M does not learn from whole songs"]
    assert not (tmp_path / "validation").exists()


# TensorBoard


def test_the_curves_are_those_of_the_log(heard):
    found, epochs = events(heard[0]), heard[2].epochs
    for name, attribute in {
        "loss/training": "training_loss",
        "loss/validation": "validation_loss",
        "learning rate": "learning_rate",
        "seconds": "seconds",
    }.items():
        expected = [(epoch.epoch, np.float32(getattr(epoch, attribute))) for epoch in epochs]
        assert curve(found, name) == expected
    assert "gradient norm" not in found.Tags()["scalars"]


def test_sounds_and_pictures_are_on_the_board(heard):
    found = events(heard[0])
    assert sorted(found.Tags()["audio"]) == sorted(SOURCES)
    assert [event.step for event in found.Audio("vocals")] == [2, 4]
    assert found.Audio("vocals")[0].sample_rate == 44100
    pictures = found.Images("spectrograms")
    assert [event.step for event in pictures] == [2, 4]
    assert pictures[0].width == 1400


def test_the_norm_of_clipped_gradients_is_a_curve(tmp_path):
    options = replace(QUICK, epochs=2, clip_norm=1e-3, tensorboard=True)
    history = train(fresh(), SONGS, [], options, tmp_path)
    expected = [(epoch.epoch, np.float32(epoch.gradient_norm)) for epoch in history.epochs]
    found = events(tmp_path)
    assert curve(found, "gradient norm") == expected
    assert "loss/validation" not in found.Tags()["scalars"]


def test_an_epoch_that_was_not_saved_is_not_there_twice(tmp_path, monkeypatch):
    """Killed behind what is shown of epoch 2 and in front of its checkpoint."""
    save = RunFolder.save

    def killed(self, model, update, history):
        if len(history.epochs) == 2:
            raise KeyboardInterrupt
        save(self, model, update, history)

    options = replace(QUICK, tensorboard=True, epochs=3)
    with monkeypatch.context() as patch:
        patch.setattr(RunFolder, "save", killed)
        with pytest.raises(KeyboardInterrupt):
            train(fresh(), SONGS, [], options, tmp_path)
    assert [step for step, _ in curve(events(tmp_path), "loss/training")] == [1, 2]
    history = train(fresh(), SONGS, [], options, tmp_path, resume=True)
    expected = [(epoch.epoch, np.float32(epoch.training_loss)) for epoch in history.epochs]
    assert curve(events(tmp_path), "loss/training") == expected


def test_without_tensorboard_one_sentence_says_what_it_takes(tmp_path, monkeypatch):
    find = importlib.util.find_spec

    def missing(name, *rest):
        return None if name == "tensorboard" else find(name, *rest)

    monkeypatch.setattr(importlib.util, "find_spec", missing)
    message = r"^tensorboard: is not installed, takes `pip install 'sepfast\[log\]'`$"
    with pytest.raises(InputError, match=message):
        train(fresh(), SONGS, [], replace(QUICK, tensorboard=True), tmp_path)
    assert files(tmp_path) == []
