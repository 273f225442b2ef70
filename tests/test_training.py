"""Training: it learns, leaves what it should, ends when it should and goes on where it stopped."""

import csv
from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest
import torch
from learning import QUICK, SMALL, SONGS, VALIDATION, Recorder, files, fresh, losses
from test_examples import noise

from sepfast import create_model, load
from sepfast.training import train
from sepfast.training.history import Silent

pytestmark = pytest.mark.usefixtures("one_thread", "own_cache")


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
