"""Training by several processes: what one computes with the same batches, and one end for all.

Two processes, over gloo on the CPU. They are children of a server that has imported all already.
"""

import io
import json
import multiprocessing
import multiprocessing.forkserver
import os
import signal
import socket
import subprocess
import sys
from contextlib import redirect_stderr, redirect_stdout
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from learning import SMALL as DEEPCONVSEP
from learning import SONGS, VALIDATION, files, folder_of, fresh, losses
from models_in_processes import CASES, LONGER, OTHERS, by_songs, trained
from talking import crowd, talk
from test_examples import Memory
from timbres import RATE, write_recordings

from sepfast import InputError
from sepfast.cli import main
from sepfast.training import train
from sepfast.training.processes import Processes, formed
from sepfast.training.trainer import _seed

pytestmark = pytest.mark.usefixtures("one_thread", "own_cache")


# Processes


@pytest.fixture(scope="module")
def children():
    """Makes processes that start at once: `children(function, *arguments)`, to be joined."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload([__name__, "torch._dynamo"])
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONPATH", str(Path(__file__).parent))
        multiprocessing.forkserver.ensure_running()
    return lambda function, *arguments: context.Process(target=function, args=arguments)


def member(rank: int, port: int, cache: str, folder: Path, function, *arguments) -> None:
    """What a process of two does; what it returns, or the error, is kept in the folder."""
    torch.set_num_threads(1)
    os.environ.update(
        RANK=str(rank), LOCAL_RANK=str(rank), WORLD_SIZE="2", LOCAL_WORLD_SIZE="2",
        MASTER_ADDR="127.0.0.1", MASTER_PORT=str(port), XDG_CACHE_HOME=cache,
    )  # fmt: skip
    try:
        found = function(*arguments)
    except InputError as error:
        found = type(error).__name__, str(error)
    torch.save(found, folder / f"{rank}.pt")


def free_port() -> int:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return found.getsockname()[1]


@pytest.fixture
def two(children, tmp_path_factory):
    """Runs a function in two processes: what each returns; None for one that was killed."""
    return lambda function, *arguments: results(
        children, tmp_path_factory.mktemp("world"), function, *arguments
    )


def results(children, folder: Path, function, *arguments) -> list:
    port, cache = free_port(), os.environ["XDG_CACHE_HOME"]
    both = [children(member, rank, port, cache, folder, function, *arguments) for rank in range(2)]
    for process in both:
        process.start()
    for process in both:
        process.join(120)
        process.kill()
    paths = [folder / f"{rank}.pt" for rank in range(2)]
    return [torch.load(path, weights_only=False) if path.exists() else None for path in paths]


def all_cases(root: Path) -> dict:
    """One group for all of them."""
    with formed("cpu"):
        return trained(root, CASES | OTHERS)


@pytest.fixture(scope="module")
def compared(children, tmp_path_factory):
    """The data's folder; what two processes found, and what one did."""
    roots = [tmp_path_factory.mktemp(name) for name in ("two", "one")]
    for root in roots:
        crowd(root / "talkers", speakers=3, utterances=2, seconds=0.12)
        talk(root / "talkers/s1", "long", seconds=0.2, seed=5)
        talk(root / "talkers/s2", "short", seconds=0.1, seed=6)
    write_recordings(roots[0] / "pairs", 5, RATE // 2, paired=True)
    both = results(children, roots[0], all_cases, roots[0])
    return roots[0], both, trained(roots[1], CASES)


# It is what one process computes


@pytest.mark.parametrize("name", CASES)
def test_two_processes_compute_what_one_does(compared, name):
    """Losses, weights and clipping; validation too, whose batches they divide among themselves.

    A row's result may depend on how many are beside it by a few units of the last place, and
    sums are in another order: 1e-5 of what has become of a weight by two epochs.
    """
    _, both, alone = compared
    expected, weights, steps, notes = alone[name]
    for found, own, _, _ in (each[name] for each in both):
        assert np.array(found) == pytest.approx(np.array(expected), rel=1e-5)
        for key, weight in weights.items():
            torch.testing.assert_close(own[key], weight, rtol=1e-5, atol=1e-6)
    assert both[0][name][0] == both[1][name][0]
    assert (both[0][name][2:], both[1][name][2:]) == ((steps, notes), (0, []))


@pytest.mark.parametrize("name", CASES)
def test_the_cases_learn(compared, name):
    """Else two processes that did nothing would agree with one."""
    found = compared[2][name][0]
    assert found[1][1] < found[0][1]
    assert abs(found[1][1] / found[0][1] - 1) > 1e-4


@pytest.mark.parametrize("name", OTHERS)
def test_system_e_is_trained_with_statistics_of_its_own_on_a_cpu(compared, name):
    """Running statistics are the same in both: else validation would not be."""
    _, both, _ = compared
    first, second = (each[name][0] for each in both)
    assert first == second
    assert np.isfinite(first).all()


# What is left is the first's


def test_the_run_is_the_firsts_and_one_process_goes_on_with_it(compared, tmp_path):
    """The files are those of a run of one process, and `run.json` says how many there were."""
    root, _, _ = compared
    folder = root / "deepconvsep"
    assert files(folder / "run") == ["best.safetensors", "last.pt", "log.csv", "run.json"]
    history, model = by_songs(fresh(), folder, LONGER, device="cpu", resume=True)
    straight, expected = by_songs(fresh(), tmp_path, LONGER, device="cpu")
    assert np.array(losses(history)) == pytest.approx(np.array(losses(straight)), rel=1e-5)
    for own, weight in zip(model.parameters(), expected.parameters(), strict=True):
        torch.testing.assert_close(own, weight, rtol=1e-5, atol=1e-6)
    sessions = json.loads((folder / "run" / "run.json").read_text())["sessions"]
    assert [session["processes"] for session in sessions] == [2, 1]


# All end together


class Breaking(Memory):
    """A song that in the second process, after so many times, does something else than be read."""

    def breaks(self, left: int, instead) -> "Breaking":
        self.left, self.instead = left, instead
        return self

    def read(self, start, stop):
        self.left -= second()
        if self.left == 0:
            self.instead()
        return super().read(start, stop)


def second() -> bool:
    """Whether this is the second process."""
    return os.environ["RANK"] == "1"


def refuse() -> None:
    raise InputError("drums.wav: cannot be read")


def die() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def attempted(folder: Path, songs=SONGS, resume: bool = False, **changes):
    """How a training ends and with how many epochs, or what is said."""
    options = replace(LONGER, **{"epochs": 50, "silence": 0.0, "remix": 0.0, **changes})
    try:
        history = train(
            fresh(dropout=0.5), songs, VALIDATION, options, folder, device="cpu", resume=resume
        )
    except InputError as error:
        return type(error).__name__, str(error)
    return history.ended, len(history.epochs)


def attempts(root: Path) -> dict:
    """What happens to the second process of two, which in the end is killed."""
    found, song = {}, Breaking(SONGS[0].waveforms, "breaks")
    try:
        with formed("cpu"):
            found["rows"] = attempted(root / "rows", batch_size=1)
            found["others"] = attempted(root / "others", songs=SONGS[: 1 + second()])
            found["song"] = attempted(root / "song", songs=[song.breaks(18, refuse)])
            found["taken"] = attempted(root / "song")
            limit = 1e-9 if second() else 1e9
            found["time"] = attempted(root / "time", time_limit=limit)
            found["graph"] = attempted(root / "graph", epochs=1, cuda_graph=True)
            found["killed"] = attempted(root / "killed", songs=[song.breaks(18, die)])
    except InputError as error:
        found["killed"] = type(error).__name__, str(error)
    return found


def test_what_happens_to_one_ends_all_with_one_sentence(two, tmp_path):
    """They go on to train together; one that is killed ends the others, and the run goes on."""
    first, other = two(attempts, tmp_path)
    assert other is None
    assert first["rows"][1].startswith("batch_size: got 1, 2 processes take at least as many")
    assert first["others"][1].startswith("processes: number 1 has other songs or options")
    assert first["song"] == ("Agreed", "drums.wav: cannot be read")
    assert first["taken"][1].endswith("resume it or take another folder")
    assert first["time"] == ("time limit", 1)
    assert first["graph"] == ("epochs", 1)
    assert first["killed"][0] == "Lost"
    assert "the processes have lost each other" in first["killed"][1]
    song = Memory(SONGS[0].waveforms, "breaks")
    for name in ("song", "killed"):
        done = len(torch.load(tmp_path / name / "last.pt")["epochs"])
        assert 0 < done < 4
        ended = attempted(tmp_path / name, songs=[song], epochs=4, resume=True)
        assert ended == ("epochs", 4)


def program(*tries) -> list[tuple[int, str]]:
    """What the program exits with and prints, for a port, and arguments of either process."""
    found = []
    for port, *arguments in tries:
        os.environ["MASTER_PORT"] = str(port)
        sys.argv = ["sepfast", "train", *arguments[second()]]
        text = io.StringIO()
        with redirect_stdout(text), redirect_stderr(text), pytest.raises(SystemExit) as ended:
            main()
        found.append((ended.value.code, text.getvalue()))
    return found


def test_the_program_says_once_what_is_wrong_in_any_process(two, tmp_path):
    """A plan that none can make; a folder that one of two machines does not have."""
    data = folder_of(tmp_path / "data", 1)
    arguments = ["-o", str(tmp_path / "run"), "--device", "cpu"]
    plan = ([str(data), *arguments, "--set", "nothing=1"],) * 2
    place = ([str(data), *arguments], [str(tmp_path / "nowhere"), *arguments])
    first, other = two(program, (free_port(), *plan), (free_port(), *place))
    assert [code for code, _ in first] == [code for code, _ in other] == [2, 2]
    assert [text for _, text in other] == ["", ""]
    assert "nothing" in first[0][1]
    assert "nowhere" in first[1][1].splitlines()[-1]
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("environment", "match"),
    [
        ({}, "WORLD_SIZE: got 2 without RANK, LOCAL_RANK, .* started by torchrun"),
        ({"RANK": "one"}, "take whole numbers"),
        ({"RANK": "0"}, "processes: cannot be brought together"),
    ],
)
def test_processes_that_cannot_be_brought_together(monkeypatch, environment, match):
    """The last of them finds its port taken."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        whole = {
            "LOCAL_RANK": "0", "LOCAL_WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1",
            "MASTER_PORT": str(taken.getsockname()[1]),
        }  # fmt: skip
        for name, value in {
            "WORLD_SIZE": "2",
            **(whole | environment if environment else {}),
        }.items():
            monkeypatch.setenv(name, value)
        with pytest.raises(InputError, match=match) as caught, formed("cpu"):
            pass
    assert "\n" not in str(caught.value)


def test_more_processes_than_gpus(monkeypatch):
    monkeypatch.setattr("torch.cuda.is_available", lambda: True)
    monkeypatch.setattr("torch.cuda.device_count", lambda: 2)
    many = Processes(rank=5, size=8, local_rank=1, local_size=4)
    with pytest.raises(InputError, match="got 4 on a machine with 2 GPUs, takes one for each"):
        many.place(None)
    with pytest.raises(InputError, match="device: got 'cuda:1', 8 processes take cuda or cpu"):
        many.place("cuda:1")
    assert many.place("cpu").type == "cpu"


def test_each_process_draws_noise_of_its_own():
    """Seeds of dropout: the first's are those of a process that is alone."""
    seeds = {_seed(3, epoch, rank) for epoch in range(1, 9) for rank in range(8)}
    assert len(seeds) == 64
    (alone,) = np.random.SeedSequence((3, 1)).generate_state(1, np.uint64)
    assert _seed(3, 1, 0) == alone


# From a terminal


def test_torchrun_trains(tmp_path):
    """A line for each epoch, once; and the model, at the end."""
    data, out = folder_of(tmp_path / "data", 5), tmp_path / "run"
    settings = [f"--set={name}={value}" for name, value in DEEPCONVSEP.items()]
    done = subprocess.run(
        [
            *(sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", "2"),
            *("--master-port", str(free_port()), "-m", "sepfast", "train", data, "-o", out),
            *("-m", "deepconvsep", "--device", "cpu", "--batch-size", "3", "--epochs", "2"),
            *("--batches-per-epoch", "2", "--set=validation_batches=1", *settings),
        ],
        capture_output=True,
        text=True,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
    said = done.stdout.splitlines()
    assert [line.split(":")[0] for line in said[-3:]] == [
        "epoch 1", "epoch 2", str(out / "best.safetensors")
    ]  # fmt: skip
    assert done.stdout.count("epoch 1: ") == 1
    assert files(out) == ["best.safetensors", "last.pt", "log.csv", "run.json"]
