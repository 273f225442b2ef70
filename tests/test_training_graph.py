"""The captured training step: when it is captured and replayed, and when it is left alone.

On a CPU a stand-in for `torch.cuda` records what a step launches and runs it again at a replay,
with the numbers that it was launched with and on the memory that it was given, as a GPU does.
"""

import warnings
from collections.abc import Callable
from contextlib import contextmanager
from types import SimpleNamespace

import pytest
import torch

from sepfast.training import TrainingOptions
from sepfast.training.graph import GraphedStep, graph_obstacle, graphed

pytestmark = pytest.mark.usefixtures("one_thread")


CPU = torch.device("cpu")


class Gpu:
    """Stands in for `torch.cuda`: its launches run, or are recorded while a graph is captured.

    Attributes:
        log: what happened, in order.
        sync_mode: as `set_sync_debug_mode` left it.
    """

    def __init__(self) -> None:
        self.log: list[str] = []
        self.sync_mode = "default"
        self.recorded: list[Callable[[], None]] | None = None
        self.main = self._stream("main")
        self.current = self.main

    def launch(self, work: Callable[[], None]) -> None:
        if self.recorded is None:
            work()
        else:
            self.recorded.append(work)

    def _stream(self, name: str) -> SimpleNamespace:
        stream = SimpleNamespace(name=name)
        stream.wait_stream = lambda other: self.log.append(f"{name} waits for {other.name}")
        return stream

    def Stream(self, device):
        return self._stream("side")

    def current_stream(self, device):
        return self.current

    @contextmanager
    def device(self, device):
        yield

    @contextmanager
    def stream(self, stream):
        before, self.current = self.current, stream
        yield
        self.current = before

    def CUDAGraph(self):
        graph = SimpleNamespace(launches=[])

        def replay():
            self.log.append("replay")
            for work in graph.launches:
                work()

        graph.replay = replay
        return graph

    @contextmanager
    def graph(self, graph, *, stream, capture_error_mode):
        assert capture_error_mode == "thread_local"
        self.log.append("capture")
        self.recorded = graph.launches
        with self.stream(stream):
            yield
        self.recorded = None

    def get_sync_debug_mode(self):
        return self.sync_mode

    def set_sync_debug_mode(self, mode):
        self.sync_mode = mode


@pytest.fixture
def gpu(monkeypatch) -> Gpu:
    stand_in = Gpu()
    monkeypatch.setattr("sepfast.training.graph.cuda", stand_in)
    return stand_in


class Task:
    """One weight that is to become the mean of the batches; a GPU may launch its steps.

    Attributes:
        gradients: whether the weight had a gradient when a step began.
    """

    def __init__(self, gpu: Gpu, waits: bool = False) -> None:
        self.gpu, self.waits = gpu, waits
        self.weight = torch.nn.Parameter(torch.ones(()))
        self.optimizer = torch.optim.Adam([self.weight], lr=0.5)
        self.gradients: list[bool] = []
        self.notes: list[str] = []
        self.graphed = GraphedStep(self.step, self.optimizer, CPU, self.notes.append)

    def step(self, batch: tuple[torch.Tensor, ...]) -> torch.Tensor:
        """Distance and weight, (2,); the rate is what the launch was given, the rest is read."""
        self.gpu.log.append(f"step on {self.gpu.current.name}")
        self.gradients.append(self.weight.grad is not None)
        self.weight.grad = torch.ones(())
        result, rate = torch.full((2,), torch.nan), self.optimizer.param_groups[0]["lr"]

        @torch.no_grad()
        def work():
            distance = torch.cat(batch).mean() - self.weight
            self.weight.add_(distance, alpha=rate)
            result.copy_(torch.stack([distance, self.weight]))

        self.gpu.launch(work)
        if self.waits and self.gpu.sync_mode == "warn":
            warnings.warn("called a synchronizing CUDA operation", stacklevel=1)
        return result


def batches(count: int, *sizes: int) -> list[tuple[torch.Tensor, ...]]:
    """Batches of tensors, one of each size."""
    sizes = sizes or (3, 4)
    generator = torch.Generator().manual_seed(sum(sizes))
    return [tuple(torch.rand(size, generator=generator) for size in sizes) for _ in range(count)]


def phases(gpu: Gpu) -> list[str]:
    """What happened, without who waits for whom; a step of a capture is told from an ordinary."""
    return [entry for entry in gpu.log if "waits" not in entry]


def check_same_as_ordinary(task: Task, results: list[torch.Tensor], given, rates) -> None:
    """The results, kept until now, are those of ordinary steps with the same batches and rates."""
    plain = Task(Gpu())
    for result, batch, rate in zip(results, given, rates, strict=True):
        plain.optimizer.param_groups[0]["lr"] = rate
        assert torch.equal(result, plain.step(batch))
    assert torch.equal(task.weight, plain.weight)


ORDINARY = ["step on side"] * 3


CAPTURE = ["capture", "step on side"]


# The order of things


def test_three_ordinary_steps_then_a_capture_then_replays(gpu):
    task, given = Task(gpu), batches(7)
    results = [task.graphed(batch) for batch in given]
    assert phases(gpu) == [*ORDINARY, *CAPTURE, *["replay"] * 4]
    check_same_as_ordinary(task, results, given, [0.5] * 7)
    assert task.notes == []


def test_the_streams_of_an_ordinary_step_wait_for_each_other(gpu):
    Task(gpu).graphed(batches(1)[0])
    assert gpu.log == ["side waits for main", "step on side", "main waits for side"]


def test_a_run_shorter_than_its_first_steps_captures_nothing(gpu):
    task = Task(gpu)
    for batch in batches(3):
        task.graphed(batch)
    assert phases(gpu) == ORDINARY


def test_another_learning_rate_is_captured_anew(gpu):
    task, given, rates = Task(gpu), batches(8), [0.5] * 5 + [0.05] * 3
    results = []
    for batch, rate in zip(given, rates, strict=True):
        task.optimizer.param_groups[0]["lr"] = rate
        results.append(task.graphed(batch))
    again = [*CAPTURE, *["replay"] * 3]
    assert phases(gpu) == [*ORDINARY, *CAPTURE, "replay", "replay", *again]
    check_same_as_ordinary(task, results, given, rates)


def test_a_learning_rate_that_falls_in_the_first_steps_is_captured_once(gpu):
    task = Task(gpu)
    for rate, batch in zip([0.5, 0.05, 0.05, 0.05], batches(4), strict=True):
        task.optimizer.param_groups[0]["lr"] = rate
        task.graphed(batch)
    assert phases(gpu) == [*ORDINARY, *CAPTURE, "replay"]


def test_a_batch_of_another_shape_takes_an_ordinary_step(gpu):
    task, given = Task(gpu), batches(7)
    given[1], given[5] = *batches(1, 2, 4), *batches(1, 3, 5)  # of one tensor alone
    results = [task.graphed(batch) for batch in given]
    # The second step is no part of the first three: their shape is what is captured.
    before = ["step on side"] * 4
    assert phases(gpu) == [*before, *CAPTURE, "replay", "step on side", "replay"]
    check_same_as_ordinary(task, results, given, [0.5] * 7)


def test_gradients_are_gone_before_each_capture(gpu):
    task = Task(gpu)
    for rate, batch in zip([0.5] * 4 + [0.05], batches(5), strict=True):
        task.optimizer.param_groups[0]["lr"] = rate
        task.graphed(batch)
    assert task.gradients == [False, True, True, False, False]


def test_batches_are_left_as_they_are(gpu):
    task, given = Task(gpu), batches(6)
    copies = [[each.clone() for each in batch] for batch in given]
    for batch in given:
        task.graphed(batch)
    for batch, copy in zip(given, copies, strict=True):
        assert all(map(torch.equal, batch, copy))


# What cannot be captured


def test_a_step_that_waits_is_never_captured_and_named(gpu):
    task, given = Task(gpu, waits=True), batches(6)
    results = [task.graphed(batch) for batch in given]
    assert phases(gpu) == ["step on side"] * 6
    check_same_as_ordinary(task, results, given, [0.5] * 6)
    assert len(task.notes) == 1
    expected = (
        "training without a CUDA graph: the step waits for the GPU in test_training_graph.py:"
    )
    assert task.notes[0].startswith(expected)
    assert gpu.sync_mode == "default"


def test_only_what_is_said_of_waiting_is_not_heard(gpu, monkeypatch):
    def mode(name):
        gpu.sync_mode = name
        if name == "warn":
            warnings.warn("Synchronization debug mode is a prototype feature", stacklevel=1)

    def step(batch):
        warnings.warn("the user's", stacklevel=1)
        return task.step(batch)

    monkeypatch.setattr(gpu, "set_sync_debug_mode", mode)
    task = Task(gpu, waits=True)
    task.graphed.step, task.graphed.ordinary = step, 1
    with pytest.warns(UserWarning, match="user") as heard:
        task.graphed(batches(1)[0])
    assert [str(warning.message) for warning in heard] == ["the user's"]
    assert len(task.notes) == 1


def test_a_step_that_fails_leaves_the_sync_mode_as_it_was(gpu):
    task = Task(gpu)
    task.graphed(batches(1)[0])
    task.graphed(batches(1)[0])
    task.graphed.step = lambda batch: pytest.fail(gpu.sync_mode)
    with pytest.raises(pytest.fail.Exception, match="warn"):
        task.graphed(batches(1)[0])
    assert gpu.sync_mode == "default"


def test_obstacles():
    weights = [torch.nn.Parameter(torch.ones(1))]
    cuda, adam = torch.device("cuda:0"), torch.optim.Adam(weights)
    assert graph_obstacle(adam, cuda) is None
    assert graph_obstacle(TrainingOptions().optimizer_of(weights), cuda) is None
    assert graph_obstacle(adam, CPU) == "needs a GPU, this run is on cpu"
    assert "cannot capture SGD" in graph_obstacle(torch.optim.SGD(weights), cuda)
    with torch.autograd.set_detect_anomaly(True, check_nan=False):
        assert "anomaly" in graph_obstacle(adam, cuda)


def test_a_step_is_left_alone_where_there_is_an_obstacle(gpu):
    task, notes = Task(gpu), []
    assert graphed(task.step, task.optimizer, CPU, notes.append) == task.step
    assert notes == ["training without a CUDA graph: needs a GPU, this run is on cpu"]


# The optimizer


def adam_with_a_past() -> torch.optim.Adam:
    weight = torch.nn.Parameter(torch.ones(3))
    optimizer = torch.optim.Adam([weight], lr=0.1)
    weight.grad = torch.ones(3)
    optimizer.step()
    return optimizer


def test_the_steps_are_counted_where_the_weights_are(gpu):
    weight = torch.nn.Parameter(torch.ones(3, device="meta"))  # as if on a GPU
    optimizer = torch.optim.Adam([weight])
    optimizer.state[weight] = {"step": torch.tensor(1.0), "exp_avg": torch.ones(3)}
    GraphedStep(lambda batch: batch, optimizer, CPU, pytest.fail)
    devices = {name: value.device.type for name, value in optimizer.state[weight].items()}
    assert devices == {"step": "meta", "exp_avg": "cpu"}


def test_the_optimizer_saves_what_it_would_without(gpu):
    optimizer = adam_with_a_past()
    before = optimizer.state_dict()
    GraphedStep(lambda batch: batch, optimizer, CPU, pytest.fail)
    assert optimizer.param_groups[0]["capturable"]
    after = optimizer.state_dict()
    assert after["param_groups"] == before["param_groups"]
    assert not after["param_groups"][0]["capturable"]
    assert str(after["state"]) == str(before["state"])
    assert optimizer.param_groups[0]["capturable"]  # as ever, it was a copy that was changed


def test_steps_count_on_a_cpu_when_they_are_saved(gpu, monkeypatch):
    optimizer = adam_with_a_past()
    GraphedStep(lambda batch: batch, optimizer, CPU, pytest.fail)
    moved = []
    monkeypatch.setattr(torch.Tensor, "cpu", lambda tensor: moved.append(tensor) or tensor)
    optimizer.state_dict()
    assert [float(step) for step in moved] == [1]


def test_an_optimizer_without_a_past_starts_as_ever(gpu):
    optimizer = torch.optim.Adam([torch.nn.Parameter(torch.ones(3))])
    GraphedStep(lambda batch: batch, optimizer, CPU, pytest.fail)
    assert optimizer.state_dict()["state"] == {}
    assert len(optimizer.state) == 0
