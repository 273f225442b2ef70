"""What goes wrong on the way: it is said in one sentence, and the run goes on behind it.

Processes that are killed are children of a server that has imported everything already.
"""

import json
import multiprocessing
import multiprocessing.forkserver
import os
import resource
import signal
import threading
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from learning import (
    QUICK,
    SMALL,
    SONGS,
    VALIDATION,
    Recorder,
    files,
    folder_of,
    fresh,
    losses,
    snapshot,
    tones,
)

from sepfast import InputError, load
from sepfast.training import train, train_folder
from sepfast.training.history import Silent
from sepfast.training.lock import locked

pytestmark = pytest.mark.usefixtures("one_thread")

KEPT = replace(QUICK, checkpoint_every=1, keep=2)


@pytest.fixture(scope="module")
def straight(tmp_path_factory):
    """Four epochs with dropout, at once: the history, the weights, the files."""
    folder = tmp_path_factory.mktemp("straight")
    model = fresh(dropout=0.5)
    history = train(model, SONGS, VALIDATION, KEPT, folder, device="cpu")
    return history, model.state_dict(), files(folder)


@pytest.fixture(scope="module")
def children():
    """Makes processes that start at once: `children(function, *arguments)`, to be joined."""
    context = multiprocessing.get_context("forkserver")
    # An optimizer's first step imports Dynamo, which takes as long as all the rest.
    context.set_forkserver_preload([__name__, "torch._dynamo"])
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONPATH", str(Path(__file__).parent))  # where the server finds this
        multiprocessing.forkserver.ensure_running()
    return lambda function, *arguments: context.Process(target=function, args=arguments)


def check_as_straight(straight, folder: Path) -> None:
    """Gone on with, a run ends as the one that was not interrupted, with the same files."""
    model = fresh(dropout=0.5)
    resume = (folder / "last.pt").exists()
    history = train(model, SONGS, VALIDATION, KEPT, folder, device="cpu", resume=resume)
    assert losses(history) == losses(straight[0])
    assert all(torch.equal(straight[1][key], value) for key, value in model.state_dict().items())
    assert files(folder) == straight[2]
    assert files(folder / "epochs") == ["epoch-0003.safetensors", "epoch-0004.safetensors"]


# Killed


def training(folder: Path, ready) -> None:
    """Train, and say when that begins."""
    torch.set_num_threads(1)
    ready.send(None)
    train(fresh(dropout=0.5), SONGS, VALIDATION, KEPT, folder, device="cpu")


def half_written(folder: Path, suffix: str, save: int, renamed: bool) -> None:
    """Train, and be killed in the so-many-th writing of a file, or behind its renaming."""
    torch.set_num_threads(1)
    write, replace_, left = Path.write_bytes, Path.replace, save

    def kill(path: Path) -> None:
        nonlocal left
        if path.suffix == suffix:
            left -= 1
            if left == 0:
                os.kill(os.getpid(), signal.SIGKILL)

    def write_half(path, data):
        write(path, bytes(data)[: len(data) // 2])
        if not renamed:
            kill(path)
        return write(path, data)

    def replace_and_die(path, target):
        replace_(path, target)
        if renamed:
            kill(path)

    Path.write_bytes, Path.replace = write_half, replace_and_die
    train(fresh(dropout=0.5), SONGS, VALIDATION, KEPT, folder, device="cpu")


def killed(process) -> bool:
    """Run a process; whether it was killed."""
    process.start()
    process.join()
    assert process.exitcode in (0, -signal.SIGKILL)
    return process.exitcode != 0


def test_a_run_killed_at_any_moment_goes_on_as_if_it_had_not_been(straight, children, tmp_path):
    """Two moments, which are drawn anew each time."""
    seconds = 5 * straight[0].epochs[-1].seconds
    for moment in np.random.default_rng().random(2):
        folder, (ours, theirs) = tmp_path / str(moment), multiprocessing.Pipe()
        process = children(training, folder, theirs)
        process.start()
        ours.recv()
        time.sleep(moment * seconds)
        process.kill()
        process.join()
        check_as_straight(straight, folder)


@pytest.mark.parametrize(
    ("suffix", "save", "renamed"),
    [(".pt", 1, False), (".pt", 3, False), (".pt", 3, True), (".safetensors", 4, True)],
)
def test_a_run_killed_while_it_writes_goes_on(straight, children, tmp_path, suffix, save, renamed):
    """In half a checkpoint; and behind one that the next is to tell of."""
    assert killed(children(half_written, tmp_path, suffix, save, renamed))
    left = [name for name in files(tmp_path) if name.startswith(".sepfast-")]
    assert len(left) == (not renamed)
    check_as_straight(straight, tmp_path)


# Workers


class Killer(Silent):
    """Kills a worker process after so many steps."""

    def __init__(self, steps: int) -> None:
        self.left = steps

    def progress(self, task, done, total):
        self.left -= task == "training"
        if self.left == 0:
            os.kill(multiprocessing.active_children()[0].pid, signal.SIGKILL)
            time.sleep(0.5)


def test_a_worker_that_is_killed_is_said_and_the_run_goes_on(straight, tmp_path):
    options = replace(KEPT, workers=1)
    with pytest.raises(InputError) as caught:
        train(fresh(dropout=0.5), SONGS, VALIDATION, options, tmp_path, report=Killer(5))
    assert str(caught.value) == (
        "training: a process that reads examples has died (Killed), as where memory is short; "
        "the run can be resumed, with fewer workers too"
    )
    check_as_straight(straight, tmp_path)


# Songs


def train_on(data: Path, out: Path, workers: int = 0, **kwargs):
    """A run in which every batch has both songs, and workers do not read all of it ahead."""
    options = replace(QUICK, batch_size=8, batches_per_epoch=4, epochs=3, workers=workers)
    return train_folder(data, out, "deepconvsep", options, model_options=SMALL, **kwargs)


@pytest.fixture(scope="module")
def unbroken(tmp_path_factory):
    """The losses with songs that stay as they are."""
    folder = tmp_path_factory.mktemp("unbroken")
    return losses(train_on(folder_of(folder / "data", 2), folder / "run"))


@pytest.mark.parametrize("workers", [0, 1])
@pytest.mark.parametrize("damage", ["gone", "short"])
def test_a_song_that_breaks_on_the_way_is_named(unbroken, tmp_path, workers, damage):
    data, out = folder_of(tmp_path / "data", 2), tmp_path / "run"
    stem = data / "song 1" / "drums.wav"
    whole = stem.read_bytes()

    class Breaker(Silent):
        def epoch(self, epoch, best):
            if damage == "gone":
                stem.unlink(missing_ok=True)
            else:
                stem.write_bytes(whole[: len(whole) // 4])

    options = {"workers": workers, "report": Breaker()}
    with pytest.raises(InputError, match=r"song 1/drums\.wav: ") as caught:
        train_on(data, out, **options)
    assert "\n" not in str(caught.value)
    stem.write_bytes(whole)
    assert losses(train_on(data, out, resume=True)) == unbroken


def test_numbers_that_are_not_finite_leave_the_last_good_epoch(tmp_path):
    song = tones(name="turns bad")

    class Turning(Recorder):
        def epoch(self, epoch, best):
            super().epoch(epoch, best)
            if epoch.epoch == 2:
                self.before = snapshot_of(tmp_path)
                song.waveforms[:] = np.nan

    report = Turning()
    match = "not finite in step 1 of epoch 3, on turns bad; last.pt has the epoch before"
    with pytest.raises(InputError, match=match):
        train(fresh(), [song], VALIDATION, KEPT, tmp_path, report=report)
    assert snapshot_of(tmp_path) == report.before
    assert len(torch.load(tmp_path / "last.pt")["epochs"]) == 2
    best = load(tmp_path / "best.safetensors")
    assert all(bool(weight.isfinite().all()) for weight in best.parameters())


def snapshot_of(folder: Path) -> dict[str, bytes]:
    """The files of a run, the kept models included."""
    top = {path.name: path.read_bytes() for path in folder.iterdir() if path.is_file()}
    return top | snapshot(folder / "epochs")


# The disk


def short_of_room(folder: Path, limit: int) -> None:
    """Go on with a run, where no file may be longer than so many bytes."""
    torch.set_num_threads(1)
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))
    try:
        train(fresh(dropout=0.5), SONGS, VALIDATION, KEPT, folder, device="cpu", resume=True)
    except InputError as error:
        os.write(os.open(folder / "said", os.O_CREAT | os.O_WRONLY), str(error).encode())


@pytest.mark.parametrize("name", ["last.pt", "best.safetensors", "run.json"])
def test_a_full_disk_leaves_the_checkpoint_before(straight, children, tmp_path, name):
    options = replace(KEPT, epochs=2, checkpoint_every=0)
    train(fresh(dropout=0.5), SONGS, VALIDATION, options, tmp_path, device="cpu")
    limit = (tmp_path / name).stat().st_size - 1
    before = snapshot(tmp_path)
    assert not killed(children(short_of_room, tmp_path, limit))
    said = (tmp_path / "said").read_text()
    (tmp_path / "said").unlink()
    assert said == f"{tmp_path / name}: cannot be written (File too large)"
    assert (tmp_path / "last.pt").read_bytes() == before["last.pt"]
    assert not [path for path in tmp_path.rglob("*") if path.name.startswith(".sepfast-")]
    check_as_straight(straight, tmp_path)


# Two at once


def holding(folder: Path, ready) -> None:
    """Train until killed; at the first step a child is forked, as workers are."""
    torch.set_num_threads(1)

    class Waiting(Silent):
        def progress(self, task, done, total):
            child = os.fork()
            if child:
                ready.send(child)
            time.sleep(60)
            os._exit(1)

    train(fresh(dropout=0.5), SONGS, VALIDATION, KEPT, folder, device="cpu", report=Waiting())


def test_a_second_training_is_refused_until_the_first_is_gone(straight, children, tmp_path):
    """Killed, it leaves no lock, though its child outlives it."""
    out = tmp_path / "run"
    ours, theirs = multiprocessing.Pipe()
    first = children(holding, out, theirs)
    first.start()
    child = ours.recv()
    before = snapshot(out)
    for resume in (False, True):
        with pytest.raises(InputError) as caught:
            train(fresh(dropout=0.5), SONGS, VALIDATION, KEPT, out, device="cpu", resume=resume)
        assert str(caught.value) == (
            f"{out}: another process is training there, takes a folder of its own"
        )
        with pytest.raises(InputError, match="another process is training there"):
            train_folder(tmp_path / "nowhere", out, "deepconvsep", QUICK, resume=resume)
    assert snapshot(out) == before
    first.kill()
    while Path(f"/proc/{first.pid}").exists():  # to join it is to wait for its child too
        time.sleep(0.01)
    check_as_straight(straight, out)
    assert Path(f"/proc/{child}/stat").read_text().rpartition(")")[2].split()[0] == "S"  # asleep
    os.kill(child, signal.SIGKILL)
    first.join()


def test_a_lock_is_its_threads_alone_and_leaves_no_folder(tmp_path):
    out, refused = tmp_path / "run", []

    def other():
        try:
            with locked(out):
                refused.append(False)
        except InputError:
            refused.append(True)

    with locked(out):
        with locked(out):
            pass
        for _ in range(2):  # the inner one has not given it back
            thread = threading.Thread(target=other)
            thread.start()
            thread.join()
    assert refused == [True, True]
    assert not out.exists()
    other()
    assert refused[-1] is False


def test_a_folder_that_cannot_be_locked_is_trained_in_with_a_note(tmp_path, monkeypatch):
    def flock(descriptor, how):
        raise OSError(95, "Operation not supported")

    monkeypatch.setattr("fcntl.flock", flock)
    report = Recorder()
    train(fresh(), SONGS, [], replace(QUICK, epochs=1), tmp_path, report=report)
    assert report.notes == [
        f"{tmp_path}: cannot be locked against a second training (Operation not supported)"
    ]


def test_a_folder_that_cannot_be_made_is_said(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(InputError, match=r"file: cannot be written \(File exists\)"):
        train(fresh(), SONGS, [], QUICK, tmp_path / "file")


def test_a_session_is_told_for_each_time(tmp_path):
    """Also for one that was killed and gone on with from its beginning."""
    with pytest.raises(KeyboardInterrupt):
        train(fresh(), SONGS, [], QUICK, tmp_path, report=Recorder(interrupt_after=2))
    train(fresh(), SONGS, [], QUICK, tmp_path, resume=True)
    sessions = json.loads((tmp_path / "run.json").read_text())["sessions"]
    assert [session["first_epoch"] for session in sessions] == [1, 1]
