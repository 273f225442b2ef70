"""Training: what is wrong is said in one sentence, and no run is lost by it."""

import pickle
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from learning import QUICK, SONGS, VALIDATION, Recorder, files, fresh, snapshot, tones
from test_examples import Memory

from sepfast import InputError
from sepfast.training import defaults_for, train

pytestmark = pytest.mark.usefixtures("one_thread", "own_cache")


@pytest.fixture
def run(tmp_path):
    """A run of one epoch."""
    train(fresh(), SONGS, VALIDATION, replace(QUICK, epochs=1), tmp_path)
    return tmp_path


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
