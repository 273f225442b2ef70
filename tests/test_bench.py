"""The benchmarks: their model of work, their clock, their refusals, and the command."""

import json
import os
import subprocess
import sys
from dataclasses import fields, replace

import pytest
import torch
from conftest import require_kernels

from sepfast import ops, reference, use_backend
from sepfast.bench import plain, work
from sepfast.bench.__main__ import main
from sepfast.bench.cases import suite
from sepfast.bench.clocks import Ceilings, HostClock, interleaved, percentiles
from sepfast.bench.measure import measure
from sepfast.bench.results import SCHEMA, Report, Row, line, losses
from sepfast.bench.systems import systems
from sepfast.bench.verify import (
    WrongResult,
    agree,
    check,
    side_function,
    sides,
)
from sepfast.bench.work import Tiling
from sepfast.bench.workloads import WORKLOADS
from sepfast.ops.accuracy import ACCURACY

CPU = torch.device("cpu")


SONG, TRAINING = WORKLOADS["song"], WORKLOADS["training"]


QUICK = {case.name: case for case in suite("quick")}


class TestWork:
    """Against the floors that the design names."""

    def test_song_frames(self):
        assert SONG.framing.frames(SONG.samples) == 41346

    def test_song_magnitudes(self):
        done = work.stft_magnitude(SONG.rows, SONG.samples, SONG.framing)
        assert done.least == pytest.approx(254e6, rel=0.01)
        assert done.excess == 1

    def test_song_masked_istft(self):
        done = work.masked_istft(SONG.rows, 4, SONG.samples, SONG.framing)
        assert done.least == pytest.approx(1.10e9, rel=0.01)
        # The mixture and four sources, 0.26 million operations each.
        assert done.needed == 5 * 2 * 41346 * 262144

    def test_training_loss(self):
        frames = TRAINING.framing.frames(TRAINING.samples)
        assert (TRAINING.rows, frames, TRAINING.framing.bins) == (64, 30, 513)
        done = work.soft_mask_loss_gradient(4, 64 * 30 * 513)
        assert done.least == pytest.approx(52e6, rel=0.03)
        assert done.moved == pytest.approx(87e6, rel=0.01)

    def test_longer_walks_repeat_less(self):
        walks = [work.masked_istft(2, 4, SONG.samples, SONG.framing, Tiling(n)) for n in (4, 8, 16)]
        assert walks[0].moved > walks[1].moved > walks[2].moved
        assert len({walk.least for walk in walks}) == 1
        blocks = -(-(512 + SONG.samples) // 1024)
        again = (-(-blocks // 8) - 1) * 4  # frames of the block before each program's first
        assert walks[1].performed * 41346 == pytest.approx(walks[1].needed * (41346 + again))

    def test_sources_apart_read_the_mixture_again(self):
        apart = work.masked_istft(2, 4, SONG.samples, SONG.framing, Tiling(8, 1))
        together = work.masked_istft(2, 4, SONG.samples, SONG.framing, Tiling(8, 4))
        assert apart.moved > together.moved + 3 * 4 * 2 * SONG.samples
        assert apart.needed == together.needed < together.performed < apart.performed

    def test_no_program_moves_less_than_the_least(self):
        for case in suite("full"):
            done = case.work(case.shape)
            assert done.least <= done.moved <= done.requested, case
            assert done.needed <= done.performed, case

    def test_factors_are_those_of_the_kernels(self):
        pytest.importorskip("triton")
        from sepfast.kernels import dft

        assert work.FACTORS == dft.FACTORS
        assert work.dft_operations(1000) == 0

    def test_floor_is_the_slower_of_two(self):
        done = work.Work(100, 100, 100, 1000, 1000)
        assert done.floor(10, 1000) == (10, "memory")
        assert done.floor(100, 10) == (100, "arithmetic")
        assert Ceilings(1, 300, 600).matrix("highest") == 100
        assert Ceilings(1, 300, None).matrix("highest") == 300


class FakeTime:
    """Stands still but for what is called."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now

    def sleeper(self, *seconds: float):
        waits = iter(seconds * 1000)
        return lambda: setattr(self, "now", self.now + next(waits))


class TestClock:
    def test_percentiles(self):
        assert percentiles([5.0, 1.0, 2.0, 4.0, 3.0, 6.0]) == (2.0, 3.5, 5.0)

    def test_functions_take_turns(self):
        order = []
        calls = {name: lambda name=name: order.append(name) for name in "ab"}
        interleaved(calls, HostClock(), seconds=0, rounds=(3, 3), warm=0)
        assert order == list("ababab")

    def test_times_are_those_of_the_clock(self):
        time = FakeTime()
        functions = {"slow": time.sleeper(3.0), "uneven": time.sleeper(1.0, 2.0)}
        timings = interleaved(functions, HostClock(time), seconds=60, rounds=(4, 4), warm=2)
        assert [t.seconds for t in timings["slow"]] == [3, 3, 3, 3]
        assert [t.seconds for t in timings["uneven"]] == [1, 2, 1, 2]

    def test_time_limit_leaves_the_least_rounds(self):
        timings = interleaved({"a": lambda: None}, HostClock(), seconds=0, rounds=(4, 1000))
        assert len(timings["a"]) == 4


def wrong(case, package, factor=1.001):
    """A case whose result is off in one package."""

    def call(f, x, shape):
        out = case.call(f, x, shape)
        return factor * out if f is package else out

    return replace(case, call=call)


class TestVerification:
    @pytest.mark.parametrize("name", QUICK)
    def test_sides_are_right(self, name):
        case = QUICK[name]
        for side in sides(case, compiled=False):
            done = check(case, side, CPU)
            assert done.path == "pytorch"
            assert done.error <= done.bound

    @pytest.mark.parametrize("gradient", ["", "+gradient"])
    def test_attention_of_pytorch_is_a_side(self, gradient, monkeypatch):
        case = QUICK[f"fragments/bilinear_attention{gradient}"]
        assert sides(case, compiled=False) == ["ours", "eager", "sdpa"]
        calls, real = [], torch.nn.functional.scaled_dot_product_attention

        def counted(*args, **options):
            calls.append(options)
            return real(*args, **options)

        monkeypatch.setattr(torch.nn.functional, "scaled_dot_product_attention", counted)
        done = check(case, "sdpa", CPU)
        assert calls == [{"scale": 1.0}]
        assert done.gradient_error > 0

    def test_kernels_are_told(self):
        require_kernels("cpu")
        pytest.importorskip("triton")
        case = QUICK["training/soft_mask+gradient"]
        with use_backend("triton"):
            done = check(case, "ours", CPU)
        assert done.path == "triton"
        assert done.kernels == ("sepfast_soft_mask_backward", "sepfast_soft_mask_forward")
        assert check(case, "eager", CPU).path == "pytorch"

    @pytest.mark.parametrize(("package", "side"), [(ops, "ours"), (plain, "cufft")])
    def test_wrong_result_is_refused(self, package, side):
        case = wrong(QUICK["song/stft_magnitude"], package)
        with pytest.raises(WrongResult, match=f"{side} is off by 0.001") as raised:
            check(case, side, CPU)
        assert raised.value.side == side

    def test_wrong_gradient_is_refused(self):
        case = QUICK["training/soft_mask+gradient"]

        def call(f, x, shape):
            y = x["estimates"]
            return f.soft_mask(y, 1) + (0.01 * (y - y.detach()) if f is ops else 0)

        with pytest.raises(WrongResult, match="gradient of ours"):
            check(replace(case, call=call), "ours", CPU)

    def test_nan_is_refused(self):
        case = wrong(QUICK["song/stft"], ops, float("nan"))
        with pytest.raises(WrongResult, match="off by nan"):
            check(case, "ours", CPU)

    def test_nan_behind_a_right_result_is_refused(self):
        case = QUICK["fragments/bilinear_attention"]

        def call(f, x, shape):
            context, weights = case.call(f, x, shape)
            return context, weights * (float("nan") if f is ops else 1)

        spoilt = replace(case, call=call, differentiable=())
        with pytest.raises(WrongResult, match="result of ours is off by nan"):
            check(spoilt, "ours", CPU)
        functions = {side: side_function(spoilt, side) for side in ("eager", "ours")}
        with pytest.raises(WrongResult, match="full-size result of ours is off by nan"):
            agree(spoilt, functions, case.inputs(case.shape, CPU))

    def test_nothing_wrong_is_timed(self):
        class Never(HostClock):
            def run(self, function):
                raise AssertionError("timed")

        case = wrong(QUICK["song/istft"], ops)
        with pytest.raises(WrongResult):
            measure(case, CPU, Never(), Ceilings(1e9, 1e9, None), ["ours", "eager"])

    def test_full_size_is_held_to_eager(self):
        case = QUICK["song/stft"]
        tensors = case.inputs(case.shape, CPU)
        functions = {side: side_function(case, side) for side in ("eager", "ours")}
        agree(case, functions, tensors)
        functions["ours"] = lambda x: reference.stft(x["waveform"].roll(1), case.shape.framing)
        with pytest.raises(WrongResult, match="full-size result of ours"):
            agree(case, functions, tensors)


def rows_of(name):
    case, most = QUICK[name], Ceilings(1e10, 1e11, None)
    chosen = sides(case, compiled=False)
    return measure(case, CPU, HostClock(), most, chosen, seconds=0, rounds=(3, 3))


class TestRows:
    def test_rows_are_full(self):
        rows = rows_of("training/masked_istft+gradient")
        assert [row.side for row in rows] == ["ours", "eager", "cufft"]
        for row in rows:
            assert row.gradient
            assert row.shapes["shares"] == [4, 2, 30, 513]
            assert 0 < row.p20_ms <= row.p50_ms <= row.p80_ms
            assert row.rounds == 3
            assert 0 < row.error < 1e-6 > row.gradient_error > 0
            assert row.least_bytes < row.moved_bytes
            seconds = max(row.least_bytes / 1e10, row.operations / 1e11)
            assert row.ceiling_percent == pytest.approx(1e5 * seconds / row.p50_ms)
            assert row.ratio_to_eager == pytest.approx(rows[1].p50_ms / row.p50_ms)
            assert row.peak_bytes > sum(
                4 * torch.Size(each).numel() for each in row.shapes.values()
            )
            assert row.path == "pytorch"
            assert line(row).startswith(row.case)

    def test_losing_is_said(self):
        ours, eager = rows_of("song/soft_mask")
        ours = replace(ours, p20_ms=4, p50_ms=4, p80_ms=4)
        eager = replace(eager, p20_ms=1, p50_ms=2, p80_ms=3)
        assert losses([ours, eager]) == [
            "ours (pytorch) loses: song/soft_mask, highest: 4.000 ms against 2.000 of eager, "
            "2.00 times"
        ]
        assert losses([replace(ours, p50_ms=1.9), eager]) == []
        assert losses([replace(ours, p20_ms=2.5), eager])[0].endswith(", within its spread")

    def test_losing_to_the_attention_of_pytorch_is_said(self):
        ours, _, sdpa = rows_of("fragments/bilinear_attention")
        ours, sdpa = replace(ours, p20_ms=4, p50_ms=4), replace(sdpa, p50_ms=2, p80_ms=3)
        assert losses([ours, sdpa])[0].endswith("4.000 ms against 2.000 of sdpa, 2.00 times")

    def test_report_is_whole_or_not_there(self, tmp_path):
        path = tmp_path / "new" / "report.json"
        report = Report({}, {})
        report.write(path)
        report.settings = {"not": object()}
        with pytest.raises(TypeError):
            report.write(path)
        assert json.loads(path.read_text())["settings"] == {}


#: Arguments of a run in which everything is small.
QUICKLY = ("--quick", "--device", "cpu")


class TestCommand:
    def test_quick_run(self, tmp_path):
        out = tmp_path / "results" / "cpu.json"
        command = [sys.executable, "-m", "sepfast.bench", "--quick", "--device", "cpu"]
        # Threads that wait for busy cores would take it beyond its time.
        alone = os.environ | {"OMP_NUM_THREADS": "1"}
        done = subprocess.run(
            [*command, "--out", str(out)], capture_output=True, text=True, timeout=60, env=alone
        )
        assert done.returncode == 0, done.stdout + done.stderr
        assert "tuning: left out, needs a GPU" in done.stdout
        report = json.loads(out.read_text())
        assert report["schema"] == SCHEMA
        assert report["complete"]
        assert set(report["environment"]["versions"]) >= {"torch", "triton", "python", "sepfast"}
        assert report["ceilings"]["copy"] > 0
        assert [each["case"] for each in report["verification"]] == list(QUICK)
        timed = [*QUICK, *(system.name for system in systems("quick"))]
        assert {row["case"] for row in report["rows"]} == set(timed)
        for row in report["rows"]:
            assert set(row) == {each.name for each in fields(Row)}
        for name in timed:
            assert name in done.stdout

    def test_time_limit_is_kept(self, tmp_path, capsys):
        out = tmp_path / "cpu.json"
        assert main(["--quick", "--device", "cpu", "--minutes", "1e-9", "--out", str(out)]) == 0
        report = json.loads(out.read_text())
        assert report["rows"] == []
        assert not report["complete"]
        assert "no time left" in capsys.readouterr().out

    def test_wrong_operator_is_not_timed(self, tmp_path, monkeypatch, capsys):
        bad = wrong(QUICK["song/stft"], ops)
        monkeypatch.setattr("sepfast.bench.run.suite", lambda size: [bad, QUICK["song/istft"]])
        out = tmp_path / "cpu.json"
        assert main([*QUICKLY, "--only", "song/", "--out", str(out)]) == 1
        report = json.loads(out.read_text())
        assert {row["case"] for row in report["rows"]} == {"song/istft"}
        assert "WRONG, not timed: song/stft" in capsys.readouterr().out

    def test_wrong_yardstick_is_left_out(self, tmp_path, monkeypatch):
        bad = wrong(QUICK["song/stft"], plain)
        monkeypatch.setattr("sepfast.bench.run.suite", lambda size: [bad])
        out = tmp_path / "cpu.json"
        assert main([*QUICKLY, "--only", "song/", "--out", str(out)]) == 0
        report = json.loads(out.read_text())
        assert [row["side"] for row in report["rows"]] == ["ours", "eager"]
        assert "cufft is off" in report["skipped"]["song/stft, highest, cufft"]

    @pytest.mark.parametrize(
        ("arguments", "message"),
        [
            (["--only", "nothing"], "--only: got 'nothing'"),
            (["--minutes", "0"], "--minutes: got 0.0"),
            (["--minutes", "nan"], "--minutes: got nan"),
            (["--device", "tpu"], "--device: got 'tpu'"),
        ],
    )
    def test_what_it_does_not_take(self, arguments, message, capsys):
        assert main(arguments) == 2
        assert message in capsys.readouterr().err


def test_every_operator_has_a_case():
    operators = {case.operator for case in suite("full")} - {"chain"}
    assert operators == set(ACCURACY)
