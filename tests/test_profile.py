"""Where the time of a training step goes: ranges, shares, the trace, and Nsight's command lines."""

import builtins
import json
import shlex
import sys
import timeit
from contextlib import contextmanager
from dataclasses import replace
from importlib.machinery import ModuleSpec
from types import SimpleNamespace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from test_training import QUICK, SONGS, fresh
from torch.autograd import DeviceType
from typer.testing import CliRunner

from sepfast import InputError, ops
from sepfast.cli.app import _app
from sepfast.experiments import experiment
from sepfast.ops.ranges import enable_ranges, operator_range, phase_range, unprefixed
from sepfast.profiling import Subject, profile, shares
from sepfast.profiling.commands import ncu_command, nsys_command
from sepfast.profiling.made_up import write_songs
from sepfast.profiling.shares import REST, Span, Stopwatch, rows
from sepfast.profiling.subject import built
from sepfast.profiling.trace import Trace, device_spans
from sepfast.training import train
from sepfast.training.history import Silent

CPU = torch.device("cpu")
SMALL = {
    "a-1": {"context": 8, "n1": 4, "n2": 4, "units": 16, "t2": 3},
    "b-stereo": {"context": 8, "n1": 4, "n2": 4, "units": 16},
    "b-denoiser-vocals": {"features": 4},
    "c-m1": {"hidden": 4, "context": 8, "side_steps": 8},
    "c-bl1": {"hidden": 4, "context": 8},
    "d-grid-vl2m": {"hidden": 4, "layers": 1},
    "d-grid-av-concat-ref": {"hidden": 4, "layers": 1, "mask_hidden": 4, "mask_layers": 1},
    "e-udt": {"blocks": 2, "hidden": 8},
    "e-denoising-vae": {"blocks": 2, "hidden": 8},
}
#: One that its own breakdown is to have.
OPERATORS = {
    "a": "linear_soft_mask_loss",
    "b": "conv_pair",
    "c": "stft_magnitude",
    "d": "lstm",
    "e": "softplus_norm",
}

#: Their operators are ahead of all that is learnt.
LEARN_NO_OPERATOR = ("b-denoiser-vocals", "c-bl1")

pytestmark = pytest.mark.usefixtures("one_thread", "own_cache")


@pytest.fixture(autouse=True)
def _off():
    yield
    enable_ranges(False)


class Recorder:
    """Opens ranges, and keeps the path of each."""

    def __init__(self) -> None:
        self.open, self.paths = [], []

    @contextmanager
    def __call__(self, name):
        self.open.append(name)
        self.paths.append(tuple(self.open))
        yield
        assert self.open.pop() == name


def small(name: str, batch_size: int = 2) -> Subject:
    found = experiment(name)
    options = replace(found.options, batch_size=batch_size)
    if name.startswith("e-"):
        options = replace(options, snippet=0.1)
    made = {**found.model_options, **SMALL[name]}
    return Subject(name, found.model, made, options, found.run)


def one_step(subject: Subject, folder, recorder: Recorder, *, fused: bool = True) -> None:
    made = built(subject.sized(2, CPU)[0], None, folder, CPU, Silent(), fused=fused)
    enable_ranges(also=recorder)
    assert next(made.steps).isfinite().all()
    enable_ranges(False)
    made.steps.close()


# Ranges


@pytest.mark.parametrize("name", SMALL)
def test_a_step_of_each_system_has_its_ranges_inside_one_another(name, tmp_path):
    recorder = Recorder()
    one_step(small(name), tmp_path, recorder)
    paths, found = recorder.paths, set(recorder.paths)
    assert [path for path in paths if len(path) < 3] == [
        ("step",), ("step", "data"), ("step", "forward"), ("step", "backward"),
        ("step", "optimiser"),
    ]  # fmt: skip
    assert ("step", "forward", OPERATORS[name[0]]) in found
    inside = [path for path in paths if len(path) > 2]
    assert {path[1] for path in inside} <= {"data", "forward", "backward"}
    for path in inside:
        assert hasattr(torch.ops.sepfast, path[2])
        assert path[2].endswith("_backward") == (path[1] == "backward")
    assert any(path[1] == "backward" for path in inside) or name in LEARN_NO_OPERATOR


def test_layers_that_are_not_fused_have_no_ranges(tmp_path):
    recorder = Recorder()
    one_step(small("a-1"), tmp_path, recorder, fused=False)
    assert {path[2] for path in recorder.paths if len(path) > 2} == {"stft_magnitude"}


def test_training_opens_them_too(tmp_path):
    recorder = Recorder()
    enable_ranges(also=recorder)
    train(fresh(), SONGS, [], replace(QUICK, epochs=2), tmp_path)
    steps = [path for path in recorder.paths if path == ("step", "optimiser")]
    assert len(steps) == 2 * QUICK.batches_per_epoch


def test_pytorchs_profiler_has_them_where_no_other_place_is_named(tmp_path):
    made = built(small("a-1"), None, tmp_path, CPU, Silent(), fused=True)
    enable_ranges()
    with torch.profiler.profile(acc_events=True) as profiler:
        next(made.steps)
    events = {unprefixed(each.name): each for each in profiler.events()}

    def outer(name):
        event = events[name].cpu_parent
        while event is not None and unprefixed(event.name) is None:
            event = event.cpu_parent
        return event and unprefixed(event.name)

    assert outer("step") is None
    assert {outer(name) for name in ("data", "forward", "backward", "optimiser")} == {"step"}
    assert outer("conv_pair") == "forward"
    assert outer("conv_pair_backward") == "backward"


def test_there_are_none_under_a_compiler_or_while_a_graph_is_captured(monkeypatch):
    recorder = Recorder()

    def work(x):
        with phase_range("forward"):
            return x + 1

    enable_ranges(also=recorder)
    torch._dynamo.reset()
    torch.compile(work, fullgraph=True, backend="eager")(torch.ones(2))
    monkeypatch.setattr("torch.cuda.is_initialized", lambda: True)
    monkeypatch.setattr("torch.cuda.is_current_stream_capturing", lambda: True)
    work(torch.ones(2))
    assert recorder.paths == []
    monkeypatch.undo()
    work(torch.ones(2))
    assert recorder.paths == [("forward",)]


def test_a_range_that_is_off_makes_nothing_and_imports_nothing(monkeypatch):
    def refuse(*args, **kwargs):
        raise AssertionError("imported")

    def use(times):
        for _ in range(times):
            with operator_range("stft"):
                pass

    use(10)
    assert operator_range("stft") is operator_range("istft")
    monkeypatch.setattr("importlib.util.find_spec", refuse)
    monkeypatch.setattr(builtins, "__import__", refuse)
    before = sys.getallocatedblocks()
    use(1000)
    made = sys.getallocatedblocks() - before
    monkeypatch.undo()
    assert made < 100  # as many, were one kept for each


def test_a_range_that_is_off_is_nothing_beside_a_small_operator():
    x = torch.rand(1, 4, 4, 8)
    ops.soft_mask(x)

    def least(work):
        return min(timeit.repeat(work, number=200, repeat=9)) / 200

    def opened():
        with operator_range("soft_mask"):
            pass

    # Measured: about 1 in 300. Looking for a package each time would be more than 1 in 5.
    assert least(opened) < 0.05 * least(lambda: ops.soft_mask(x))


# Shares


TREES = st.recursive(
    st.tuples(st.sampled_from(["stft", "lstm"]), st.integers(0, 50), st.just([])),
    lambda inner: st.tuples(
        st.sampled_from(["stft", "lstm"]), st.integers(0, 50), st.lists(inner, max_size=3)
    ),
    max_leaves=8,
)


@settings(deadline=None, max_examples=40)
@given(parts=st.dictionaries(st.sampled_from([*shares.PHASES, "other"]), TREES, min_size=1))
def test_shares_are_the_times_by_themselves_and_add_up(parts):
    now, watch = [0], Stopwatch()

    def spend(name, lasts, inner):
        with watch(name):
            now[0] += lasts
            for each in inner:
                spend(*each)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("sepfast.profiling.shares.perf_counter_ns", lambda: now[0])
        for _ in range(2):
            with watch("step"):
                now[0] += 7
                for phase, tree in parts.items():
                    with watch(phase):
                        spend(*tree)
    table = rows(watch.spans)
    assert sum(row.share for row in table) == pytest.approx(1)
    assert sum(span.time for span in watch.spans.values()) == now[0]
    (rest,) = (row for row in table if (row.phase, row.operator) == (REST, ""))
    assert rest.share == pytest.approx(14 / now[0])
    assert rest.calls == 1


def test_a_kernels_time_is_the_innermost_ranges_around_its_launch():
    def event(name, parent=None, *kernels, device=DeviceType.CPU):
        durations = [SimpleNamespace(duration=each) for each in kernels]
        return SimpleNamespace(name=name, cpu_parent=parent, kernels=durations, device_type=device)

    step = event("sepfast:step")
    forward = event("sepfast:forward", step)
    lstm = event("sepfast:lstm", forward)
    own = event("sepfast::lstm", lstm)  # PyTorch's name for the operator
    product = event("aten::mm", own)
    launches = [event("launch", product, 5.0, 1.0), event("launch", forward, 3.0)]
    outside = event("launch", None, 100.0)
    copied = event("sepfast:step", None, 9.0, device=DeviceType.CUDA)
    spans = device_spans([step, forward, lstm, own, product, *launches, outside, copied])
    assert {path: (span.time, span.calls) for path, span in spans.items()} == {
        ("step",): (0, 1),
        ("step", "forward"): (3, 1),
        ("step", "forward", "lstm"): (6, 1),
    }
    assert [row.share for row in rows(spans)] == pytest.approx([6 / 9, 3 / 9, 0])


def test_a_gpu_is_busy_for_its_kernels_time_of_the_traced_steps(tmp_path, monkeypatch):
    trace = Trace({("step",): Span(3.0, 2)}, [], "")  # microseconds
    monkeypatch.setattr("sepfast.profiling.run._TRACED_ON_CPU", 2)
    monkeypatch.setattr("sepfast.profiling.run.traced", lambda *given: trace)
    found = profile(small("a-1"), tmp_path / "p", steps=3, device="cpu")
    assert found is not None
    assert found.busy == pytest.approx(1.5e-6 / found.seconds)


def test_no_time_is_no_table():
    assert rows({}) == []
    assert rows({("step",): Span(0, 2)}) == []


# Nsight


@pytest.mark.parametrize("domain", [True, False])
def test_command_lines_name_the_ranges_as_each_tool_does(domain, tmp_path, monkeypatch):
    nvtx = SimpleNamespace(__spec__=ModuleSpec("nvtx", None)) if domain else None
    monkeypatch.setitem(sys.modules, "nvtx", nvtx)
    given = ["profile", "a-1", "--set", "batch_size=2"]
    nsys = shlex.split(nsys_command(given, tmp_path / "a b"))
    ncu = shlex.split(ncu_command(given, tmp_path / "a b", "lstm"))
    assert nsys[:2] == ["nsys", "profile"]
    assert {
        "--capture-range=nvtx",
        f"--nvtx-capture={'step@sepfast' if domain else 'sepfast:step'}",
        "--env-var=NSYS_NVTX_PROFILER_REGISTER_ONLY=0",
        f"--output={tmp_path / 'a b' / 'nsys'}",
    } <= set(nsys)
    assert ncu[:2] == ["ncu", "--nvtx"]
    wanted = "sepfast@lstm/" if domain else "sepfast:lstm/"
    assert ncu[ncu.index("--nvtx-include") + 1] == wanted
    for command in (nsys, ncu):
        assert command[-5:] == [*given, "--ranges-only"]


# The program


def run(*arguments, columns=120):
    environment = {"COLUMNS": str(columns), "TERM": "dumb", "NO_COLOR": "1"}
    return CliRunner().invoke(_app(), ["profile", *map(str, arguments)], env=environment)


TINY = [f"--set={key}={value}" for key, value in SMALL["a-1"].items()]


def test_the_program_writes_a_trace_a_table_and_a_summary(tmp_path):
    done = run("a-1", *TINY, "--steps", 2, "--warm", 1, "--batch-size", 2, "-o", tmp_path / "p")
    assert done.exit_code == 0, done.output
    for words in (
        "fused kernels do not run on a CPU", "operators ran PyTorch", "linear_soft_mask_loss",
        "outside of operators", "--nvtx-capture=", "--nvtx-include", "--ranges-only",
    ):  # fmt: skip
        assert words in done.output
    trace = json.loads((tmp_path / "p" / "trace.json").read_text("utf-8"))
    names = {event.get("name") for event in trace["traceEvents"]}
    assert {f"sepfast:{name}" for name in ("step", "data", "forward", "conv_pair")} <= names
    summary = json.loads((tmp_path / "p" / "summary.json").read_text("utf-8"))
    assert sum(row["share"] for row in summary["rows"]) == pytest.approx(1)
    assert sum(function["share"] for function in summary["functions"]) == pytest.approx(1)
    assert not any(unprefixed(function["name"]) for function in summary["functions"])
    assert (summary["batch_size"], summary["steps"]) == (2, 2)
    assert all("--batch-size 2" in command for command in summary["commands"])
    assert "aten::" in (tmp_path / "p" / "functions.txt").read_text("utf-8")


def test_for_another_profiler_it_opens_the_ranges_of_the_steps_alone(tmp_path, monkeypatch, ranges):
    monkeypatch.chdir(tmp_path)
    done = run("a-1", *TINY, "--steps", 2, "--warm", 3, "--batch-size", 2, "--ranges-only")
    assert done.exit_code == 0, done.output
    assert ranges.count("step") == 2
    assert ranges.count("conv_pair_backward") == 2
    assert list(tmp_path.iterdir()) == []


def test_behind_it_ranges_are_off_and_random_numbers_as_they_were(tmp_path):
    before = torch.get_rng_state()
    profile(small("a-1"), tmp_path / "p", steps=1, device="cpu")
    assert operator_range("stft") is operator_range("istft")
    assert torch.equal(torch.get_rng_state(), before)


def test_real_songs_are_taken_where_they_are_given(tmp_path):
    write_songs(tmp_path / "songs", [1.0], 44100, 1)
    found = profile(small("a-1"), tmp_path / "p", data=tmp_path / "songs", steps=1, device="cpu")
    assert found is not None
    assert not any("made up" in note for note in found.notes)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["a-9"], "the nearest is 'a-8'"),
        (["a-1", "--steps", 0], "steps: got 0, takes 1 or more"),
        (["a-1", "--warm", -1], "warm: got -1, takes 0 or more"),
        (["a-1", "-o", "."], ".: is there already, takes a new folder"),
        (["a-1", "-o", "x", "--ranges-only"], "-o: got x beside --ranges-only"),
        (["a-1", "--data", "nowhere"], "nowhere: there is no such file or folder"),
    ],
)
def test_what_cannot_be_done_is_said_in_a_sentence(arguments, words, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    done = run(*arguments)
    assert done.exit_code == 2
    assert words in done.output
    assert list(tmp_path.iterdir()) == []


def test_on_a_cpu_a_batch_is_one_that_it_gets_through_and_says_so():
    found, notes = small("c-m1", 128).sized(None, CPU)
    assert found.options.batch_size == 1
    assert "1 of the 128 examples" in notes[0]
    assert small("c-m1", 128).sized(64, CPU)[0].options.batch_size == 64
    assert small("c-m1", 128).sized(None, torch.device("cuda"))[0].options.batch_size == 128


def test_an_operators_errors_leave_no_range_open():
    recorder = Recorder()
    enable_ranges(also=recorder)
    with pytest.raises(InputError):
        ops.soft_mask(torch.ones(2, 2, dtype=torch.int64))
    ops.soft_mask(torch.rand(1, 4, 4, 8))
    assert recorder.paths == [("soft_mask",)]
