"""`sepfast bench`: a run with sweeps, what it refuses, graphs, peaks of memory, pytest's cases."""

import importlib
import json
import subprocess
import sys
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from made_results import ROW, report
from typer.testing import CliRunner

from sepfast import bench, ops
from sepfast.bench import graphs, run
from sepfast.bench.cases import suite
from sepfast.bench.clocks import Ceilings, HostClock
from sepfast.bench.measure import measure
from sepfast.bench.peaks import alive, held, peak_of
from sepfast.bench.results import read_report
from sepfast.bench.sweeps import SWEPT, points, scale_of
from sepfast.bench.systems import measure_system, systems
from sepfast.bench.verify import WrongResult, demanded, sides
from sepfast.bench.workloads import WORKLOADS
from sepfast.cli.app import _app

pytestmark = pytest.mark.usefixtures("one_thread")

CPU = torch.device("cpu")
MOST = Ceilings(1e10, 1e11, None)
QUICK = {case.name: case for case in suite("quick")}
QUICKLY = ("--quick", "--device", "cpu")


def called(*arguments):
    return CliRunner().invoke(_app(), ["bench", *map(str, arguments)])


@pytest.fixture
def no_ceilings(monkeypatch):
    monkeypatch.setattr(run, "ceilings", lambda device, clock: MOST)


@pytest.mark.usefixtures("no_ceilings")
class TestCommand:
    def test_run_with_a_sweep(self, tmp_path, capfd):
        out = tmp_path / "cpu.json"
        done = called(*QUICKLY, "--only", "linear_soft_mask_loss", "--sweep", "-o", out)
        assert done.exit_code == 0, done.output
        assert capfd.readouterr().err == ""  # the profiler's words, too
        found = read_report(out)
        assert found.settings["sweep"]
        assert found.complete
        assert [row.scale for row in found.rows] == [1 / 32, 1 / 32]
        assert [(row.side, row.scale) for row in found.sweeps] == [
            ("ours", 1 / 16), ("eager", 1 / 16), ("ours", 1 / 8), ("eager", 1 / 8),
        ]  # fmt: skip
        small, large = found.sweeps[::2]
        assert (small.shapes["mixture"][0], large.shapes["mixture"][0]) == (2, 4)
        assert small.least_bytes < large.least_bytes
        assert small.peak_bytes < large.peak_bytes < 2 * small.peak_bytes
        assert "scale 0.125" in done.output

    def test_wrong_numbers_fail(self, tmp_path, monkeypatch):
        case = QUICK["training/soft_mask_loss"]

        def call(f, x, shape):
            return (1.001 if f is ops else 1) * case.call(f, x, shape)

        monkeypatch.setattr(run, "suite", lambda size: [replace(case, call=call)])
        out = tmp_path / "cpu.json"
        done = called(*QUICKLY, "--only", case.name, "-o", out)
        assert done.exit_code == 1
        assert "failed" in read_report(out).verification[0]
        assert read_report(out).sweeps == []

    @pytest.mark.parametrize(
        ("arguments", "message"),
        [
            (("--only", "nothing"), "--only: got 'nothing'"),
            (("--minutes", "0"), "--minutes: got 0.0"),
            (("--device", "tpu"), "--device: got 'tpu'"),
            (("-o", "."), "--out: got ., which is a folder"),
            (("a.json",), "RESULTS: got a.json"),
            (("--report",), "got no results"),
            (("--report", "a.json"), "--report: got no --out"),
            (("--across",), "--across: got no --compare"),
            (("--pictures", "a", "a.json", "-o", "x"), "--out: got x beside --pictures"),
            (("--compare", "a.json", "b.json", "-o", "x"), "--out: got x beside --compare"),
            (("--compare", "a.json", "b.json", "--only", "x"), "--only: takes a run that measures"),
            (("--pictures", "a", "a.json", "--quick"), "--quick: takes a run that measures"),
        ],
    )
    def test_what_it_does_not_take(self, arguments, message):
        done = called(*arguments)
        assert done.exit_code == 2
        assert message in done.stderr

    def test_page_and_pictures(self, tmp_path, monkeypatch):
        made = []
        page = SimpleNamespace(write_page=lambda *given: made.append(given))
        drawn = SimpleNamespace(write_pictures=lambda paths, folder: [folder / "a.png"])
        monkeypatch.setitem(sys.modules, "sepfast.bench.report.page", page)
        monkeypatch.setitem(sys.modules, "sepfast.bench.report.figures", drawn)
        paths = [tmp_path / "a.json", tmp_path / "b.json"]
        for path in paths:
            report(ROW).write(path)
        done = called("--report", *paths, "-o", "page.html", "--pictures", tmp_path)
        assert done.exit_code == 0, done.output
        assert made == [(paths, Path("page.html"))]
        assert f"picture: {tmp_path / 'a.png'}" in done.output.replace("\n", "")


class TestSweeps:
    def test_a_case_of_each_family(self):
        assert {name.split("/")[1].split("-")[0] for name in SWEPT} == {
            "stft_magnitude", "masked_istft", "conv_pair", "linear_soft_mask_loss+gradient",
            "overlap_decode", "bilinear_attention", "lstm", "softplus_norm",
        }  # fmt: skip

    @pytest.mark.parametrize("size", ["full", "small", "quick"])
    def test_scales(self, size):
        scales = {}
        for point in points(size):
            scales.setdefault(point.case.name, []).append(point.scale)
            assert scale_of(point.case) == pytest.approx(point.scale, rel=1e-4)
        assert set(scales) == set(SWEPT)
        for each in scales.values():
            assert all(after == 2 * before for before, after in pairwise(each))
            assert len(each) == {"full": 7, "small": 5, "quick": 2}[size]
            assert each[-1] == {"full": 4}.get(size, each[-1]) <= 4

    def test_a_song_grows_in_length_and_keeps_its_channels(self):
        for point in points("small", "song/"):
            assert point.case.shape.rows == WORKLOADS["song"].rows

    def test_quick_ends_at_an_eighth_of_small(self):
        small, quick = ({p.case.name: p.scale for p in points(size)} for size in ("small", "quick"))
        assert quick == {name: largest / 8 for name, largest in small.items()}

    def test_only_some(self):
        assert {point.case.name for point in points("quick", "song/conv")} == {"song/conv_pair"}


def allocating():
    """12 MB at most: 4 and 8, then 8 and 2."""
    first = torch.empty(1000, 1000)
    second = torch.empty(2000, 1000)
    del first
    return torch.empty(500, 1000), second.shape


class TestPeaks:
    def test_known_peak(self):
        assert peak_of(allocating, CPU) == 12_000_000

    def test_what_was_made_before_and_stays_is_not_counted(self):
        kept = []
        before = peak_of(allocating, CPU, lambda: kept.append(torch.empty(1_000_000)))
        assert before == 12_000_000

    def test_within_an_operator(self):
        """A copy that is made in a product and freed in it: 4 MB beside the result's 4 KB."""
        x, y = torch.ones(1000, 1000), torch.ones(1000, 1)
        assert peak_of(lambda: (x + x) @ y, CPU) == 4_000_000 + 4_000

    def test_what_was_there_before_and_is_replaced(self):
        weight = torch.nn.Parameter(torch.zeros(1_000_000))

        def step():
            weight.grad = None
            (2 * weight).sum().backward()

        first = peak_of(step, CPU)
        assert peak_of(step, CPU, before=step) == first - 4_000_000

    def test_what_is_alive(self):
        before = alive(CPU)
        layer = torch.nn.Linear(100, 100)
        layer(torch.ones(1, 100)).sum().backward()
        assert alive(CPU) - before == 2 * 4 * 10_100
        assert held([layer.weight, layer.weight.T, layer.bias]) == 4 * 10_100

    def test_of_a_case(self):
        """Estimates, shares, and no more than a few intermediates that live beside them."""
        case = QUICK["song/soft_mask"]
        rows = measured(case, ["ours", "eager"])
        given = 4 * torch.Size(rows[0].shapes["estimates"]).numel()
        for row in rows:
            assert 2 * given <= row.peak_bytes <= 5 * given

    def test_of_a_system(self):
        """Parameters, gradients and two states of each are held besides what a step takes."""
        system = next(each for each in systems("quick") if each.name == "training/step-mono-5")
        (row, _) = measure_system(
            system, CPU, HostClock(), MOST, ["ours", "eager"], lambda side, why: None,
            seconds=0, rounds=(1, 1),
        )  # fmt: skip
        model = 4 * sum(p.numel() for p in _model().parameters())
        given = 4 * sum(torch.Size(shape).numel() for shape in row.shapes.values())
        assert 4 * model + given < row.peak_bytes < 4 * model + 20 * given


def _model():
    from sepfast import create_model

    return create_model("deepconvsep")


def measured(case, chosen):
    return measure(case, CPU, HostClock(), MOST, chosen, seconds=0, rounds=(2, 2))


def running(folder, only):
    """A run in which everything is small, before its first piece."""
    made = run.Run(run.Settings(folder / "a.json", 1e18, True, only, CPU))
    made.clock, made.most = HostClock(), MOST
    made.report.ceilings = MOST._asdict()
    return made


class TestGPUTests:
    def test_what_cannot_begin_says_why(self, monkeypatch, tmp_path):
        """pytest tells on stderr of options that it does not take."""
        done = SimpleNamespace(returncode=4, stdout="", stderr="usage\nno such option\n")
        monkeypatch.setattr(run.subprocess, "run", lambda *args, **options: done)
        made = running(tmp_path, "soft_mask")
        made._pytest(tmp_path, 5.0)
        assert made.report.gpu_tests == {"exit": 4, "tail": ["usage", "no such option"]}

    def test_a_run_whose_tests_took_too_long_is_not_complete(self, monkeypatch, tmp_path):
        def never(command, timeout, **options):
            raise subprocess.TimeoutExpired(command, timeout)

        monkeypatch.setattr(run.subprocess, "run", never)
        made = running(tmp_path, "soft_mask")
        made._pytest(tmp_path, 5.0)
        made._conclude()
        assert "after 5 s" in made.report.skipped["GPU tests"]
        assert not read_report(tmp_path / "a.json").complete


class FakeGraph:
    """A graph without a GPU: what was recorded is computed again, into the same memory."""

    spoilt = 1.0

    def __init__(self, call, device):
        self.call, self.peak = call, 5
        result = call()
        self.single = isinstance(result, torch.Tensor)
        self.out = [x.clone() for x in ([result] if self.single else result)]

    def __call__(self):
        result = self.call()
        for out, x in zip(self.out, [result] if self.single else result, strict=True):
            out.copy_(self.spoilt * x)
        return self.out[0] if self.single else tuple(self.out)


class TestGraphs:
    """The side of operators that a GPU has; what CUDA does of it is put on."""

    @pytest.mark.parametrize("name", ["song/soft_mask", "training/soft_mask+gradient"])
    def test_side(self, name, monkeypatch):
        monkeypatch.setattr(graphs, "Captured", FakeGraph)
        case = QUICK[name]
        assert sides(case, graph=True) == ["ours", "graph", "eager", "compiled"]
        ours, graph, _ = measured(case, ["ours", "graph", "eager"])
        assert graph.side == "graph"
        assert graph.error is None
        assert (graph.path, graph.kernels) == (ours.path, ours.kernels)
        assert graph.peak_bytes == 4 * torch.Size(graph.shapes["estimates"]).numel() + 5
        assert graph.ratio_to_eager > 0

    @pytest.mark.parametrize("name", ["song/soft_mask", "training/soft_mask+gradient"])
    @pytest.mark.parametrize("spoilt", [1.001, float("nan")])
    def test_wrong_graph_is_not_timed(self, name, spoilt, monkeypatch):
        wrong = type("Wrong", (FakeGraph,), {"spoilt": spoilt})
        monkeypatch.setattr(graphs, "Captured", wrong)
        with pytest.raises(WrongResult, match="of graph is off by"):
            measured(QUICK[name], ["ours", "graph", "eager"])

    def test_a_graph_that_writes_nothing_is_not_timed(self, monkeypatch):
        """Its memory has the right numbers of the capture."""
        idle = type("Idle", (FakeGraph,), {"__call__": lambda self: self.out[0]})
        monkeypatch.setattr(graphs, "Captured", idle)
        with pytest.raises(WrongResult, match="of graph is off by nan"):
            measured(QUICK["song/soft_mask"], ["ours", "graph", "eager"])

    @pytest.mark.parametrize(
        ("captured", "wrong"),
        [(type("Wrong", (FakeGraph,), {"spoilt": 2.0}), True), (lambda call, device: 1 / 0, False)],
    )
    def test_others_go_on(self, captured, wrong, monkeypatch, tmp_path):
        """One that cannot be recorded is left out; one that is wrong is told besides."""
        monkeypatch.setattr(graphs, "Captured", captured)
        case = QUICK["song/soft_mask"]
        made = running(tmp_path, case.name)
        with demanded("highest"):
            made._rows(case, ["ours", "graph", "eager"])
        assert [row.side for row in made.report.rows] == ["ours", "eager"]
        assert ("song/soft_mask, highest, graph" in made.report.skipped) != wrong
        assert made.wrong == ({(case.name, "highest")} if wrong else set())
        told = [each["failed"] for each in made.report.verification]
        assert [text.partition(" is off by")[0] for text in told] == (
            ["song/soft_mask: full-size result of graph"] if wrong else []
        )

    def test_wrong_graph_of_a_system_is_told(self, monkeypatch, tmp_path):
        """As an operator's is, and unlike a yardstick."""

        def measure_system(system, *given, **options):
            for side in ("graph", "compiled"):
                given[-1](side, WrongResult(system, side, "loss", 1.0, 0.1))
            return []

        monkeypatch.setattr(run, "measure_system", measure_system)
        made = running(tmp_path, "step-mono-5")
        ((system, _),) = made.systems
        with demanded("highest"):
            made._system(system, f"{system}, highest", 1e18)
        assert made.wrong == {("training/step-mono-5", "highest")}
        (told,) = made.report.verification
        assert (told["side"], told["case"]) == ("graph", "training/step-mono-5")
        assert list(made.report.skipped) == ["training/step-mono-5, highest, compiled"]


def _parametrized():
    """What the `bench_` files have pytest-benchmark time: case or system, and side."""
    for path in sorted(Path(bench.__path__[0]).glob("bench_*.py")):
        module = importlib.import_module(f"sepfast.bench.{path.stem}")
        for name, test in vars(module).items():
            for mark in getattr(test, "pytestmark", []) if name.startswith("test_") else []:
                if mark.name == "parametrize":
                    yield from mark.args[1]


def test_pytest_has_every_case_and_system():
    """And each once, by each of its sides."""
    found = sorted((str(case), side) for case, side in _parametrized())
    graph, size = torch.cuda.is_available(), "full" if torch.cuda.is_available() else "small"
    from sepfast.bench.verify import compiles

    device = torch.device("cuda" if graph else "cpu")
    wanted = [
        (case.name, side)
        for case in suite(size)
        for side in sides(case, compiles(case, device), graph)
    ]
    wanted += [(system.name, side) for system in systems(size) for side in system.sides(device)]
    assert found == sorted(wanted)


def test_losing_scales_are_listed():
    from sepfast.bench.results import losses

    slow = [replace(ROW, p50_ms=5, p80_ms=5, scale=0.5), ROW]
    rows = report(*slow).rows
    assert losses(rows, scaled=True) == [
        "ours (triton) loses: song/stft_magnitude, scale 0.5, highest: 5.000 ms against 4.000 of "
        "eager, 1.25 times, within its spread"
    ]
    assert json.dumps(losses(report(ROW).rows)) == "[]"
