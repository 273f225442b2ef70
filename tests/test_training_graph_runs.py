"""Training with a captured step: runs on a CPU say why not, and a GPU replays."""

from dataclasses import replace

import numpy as np
import pytest
import torch
import typer
from learning import QUICK, SONGS, VALIDATION, Recorder, files, fresh, losses
from test_examples import noise
from typer.testing import CliRunner

from sepfast import use_backend
from sepfast.training import TrainingOptions, train

pytestmark = pytest.mark.usefixtures("one_thread")


# In training


def test_a_run_on_a_cpu_says_why_and_is_bit_for_bit_the_one_without(tmp_path):
    options, weights = replace(QUICK, milestones=(2,)), []
    report, runs = Recorder(), []
    for name, change in (("without", {}), ("with", {"cuda_graph": True})):
        model = fresh(dropout=0.5)
        out = tmp_path / name
        chosen = replace(options, **change)
        runs.append(train(model, SONGS, VALIDATION, chosen, out, device="cpu", report=report))
        weights.append(list(model.parameters()))
    assert losses(runs[0]) == losses(runs[1])
    assert all(map(torch.equal, *weights))
    assert report.notes == ["training without a CUDA graph: needs a GPU, this run is on cpu"]


def test_a_run_goes_on_with_the_option_and_without(tmp_path):
    once = train(fresh(), SONGS, [], QUICK, tmp_path / "once", device="cpu")
    for epochs, chosen in ((1, False), (3, True), (4, False)):
        options = replace(QUICK, epochs=epochs, cuda_graph=chosen)
        resumed = epochs > 1
        run = train(fresh(), SONGS, [], options, tmp_path / "run", device="cpu", resume=resumed)
    assert losses(run) == losses(once)


def test_the_command_hands_the_option_on(tmp_path, monkeypatch):
    from sepfast.cli import train as module

    taken = []

    def train_folder(data, output, model, options, **kwargs):
        taken.append(options.cuda_graph)
        raise KeyboardInterrupt

    monkeypatch.setattr("sepfast.training.train_folder", train_folder)
    app = typer.Typer()
    app.command()(module.train)
    for arguments in ([], ["--cuda-graph"], ["--no-cuda-graph"]):
        CliRunner().invoke(app, [str(tmp_path), "-o", str(tmp_path / "run"), *arguments])
    assert taken == [False, True, False]
    assert files(tmp_path) == []


# On a GPU


class Counter(torch.cuda.CUDAGraph):
    """Graphs count their replays."""

    replays = 0

    def replay(self):
        Counter.replays += 1
        super().replay()


@pytest.mark.gpu
@pytest.mark.parametrize(("optimizer", "rate"), [("adam", 1e-3), ("adadelta", 0.3)])
class TestOnGpu:
    """Twelve steps, nine of them replayed, with dropout, two learning rates and validation.

    On noise, of which every bin has a gradient worth the name, rounding moves the losses by 1e-7,
    while another learning rate or dropout moves them by 1e-3.
    """

    @pytest.fixture(autouse=True)
    def counted(self, monkeypatch):
        Counter.replays = 0
        monkeypatch.setattr("sepfast.training.graph.cuda.CUDAGraph", Counter)

    @pytest.fixture
    def options(self, optimizer, rate) -> TrainingOptions:
        return replace(QUICK, optimizer=optimizer, learning_rate=rate, milestones=(2,))

    def losses(self, folder, options, *, resume=False, device="cuda", notes=0) -> np.ndarray:
        report, songs = Recorder(), [noise(30_000, seed, channels=1) for seed in range(3)]
        model = fresh(dropout=0.5)
        history = train(
            model,
            songs[:2],
            songs[2:],
            options,
            folder,
            device=device,
            resume=resume,
            report=report,
        )
        assert len(report.notes) == notes
        return np.array(losses(history))

    def test_the_losses_are_those_without(self, tmp_path, options):
        plain = self.losses(tmp_path / "plain", options)
        assert Counter.replays == 0
        captured = self.losses(tmp_path / "graph", replace(options, cuda_graph=True))
        assert Counter.replays == 9
        # Adam counts in float32 when it is captured, which changes its first steps by 3e-5.
        assert captured == pytest.approx(plain, rel=1e-4)

    def test_runs_go_on_either_way(self, tmp_path, options):
        plain = self.losses(tmp_path / "plain", options)
        for first in (False, True):
            folder = tmp_path / str(first)
            self.losses(folder, replace(options, epochs=2, cuda_graph=first))
            rest = replace(options, cuda_graph=not first)
            assert self.losses(folder, rest, resume=True) == pytest.approx(plain, rel=1e-4)
        assert Counter.replays == 3 + 3

    def test_workers_go_on_pinning_while_a_step_is_captured(self, tmp_path, options):
        plain = self.losses(tmp_path / "plain", options)
        captured = self.losses(tmp_path / "graph", replace(options, workers=2, cuda_graph=True))
        assert Counter.replays == 9
        assert captured == pytest.approx(plain, rel=1e-4)

    def test_a_step_that_waits_is_found_out(self, tmp_path, options):
        """In plain PyTorch the STFT fetches its window from the host, step by step."""
        with use_backend("reference"):
            plain = self.losses(tmp_path / "plain", options)
            left = self.losses(tmp_path / "graph", replace(options, cuda_graph=True), notes=1)
        assert Counter.replays == 0
        assert left == pytest.approx(plain, rel=1e-4)

    def test_a_run_goes_on_where_there_is_no_gpu(self, tmp_path, options):
        self.losses(tmp_path, replace(options, epochs=2, cuda_graph=True))
        more = replace(options, epochs=3)
        assert len(self.losses(tmp_path, more, resume=True, device="cpu")) == 3
