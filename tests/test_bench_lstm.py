"""The benchmark of `lstm`: its cases and sides, its model of work, and what there is to tune."""

import json
import re
from dataclasses import replace

import pytest
import torch
from conftest import require_kernels

from sepfast import modules, ops, use_backend
from sepfast.bench import recurrent, stepwise, verify
from sepfast.bench.__main__ import main
from sepfast.bench.case import BESIDE
from sepfast.bench.cases import suite
from sepfast.bench.clocks import Ceilings, HostClock
from sepfast.bench.measure import measure
from sepfast.bench.tuning import _CHOICES, _values, configured
from sepfast.bench.tuning_jobs import jobs, prepare
from sepfast.bench.verify import WrongResult, agree, check, side_function, sides
from sepfast.ops._products import unshipped
from sepfast.ops.accuracy import relative_error

pytestmark = pytest.mark.usefixtures("one_thread")

CPU = torch.device("cpu")
QUICK = {case.name: case for case in suite("quick", "lstm")}
FULL = {case.name: case for case in suite("full", "lstm")}
STACK, LAYER, PLAIN, LENGTHS = (
    f"landmarks/lstm-{kind}-b32+gradient" for kind in ("3layers", "peephole", "plain", "lengths")
)
JOBS = [job for job in jobs(("tf32x3",)) if job.stage.startswith("lstm")]


class TestCases:
    def test_shapes_are_the_papers(self):
        kinds = ("3layers-b{}+gradient", *(f"{k}-b{{}}{g}" for k in ("peephole", "plain")
                                           for g in ("+gradient", "")))  # fmt: skip
        names = [kind.format(batch) for kind in kinds for batch in (8, 32, 64)]
        assert sorted(FULL) == sorted(
            f"landmarks/lstm-{n}" for n in [*names, "lengths-b32+gradient"]
        )
        for name, case in FULL.items():
            shape = case.shape
            assert f"-b{shape.rows}" in name
            assert (shape.frames, shape.framing.bins) == (300, 257)
        x = FULL[STACK].inputs(FULL[STACK].tiny(), CPU)
        assert x["weight_hh_l2_reverse"].shape == (1000, 250)
        assert float(x["weight_hh_l0"].abs().max()) <= 250**-0.5

    @pytest.mark.parametrize("name", QUICK)
    def test_sides_are_right(self, name):
        case = QUICK[name]
        other = "cudnn" if "plain" in name else BESIDE
        assert sides(case, compiled=False) == ["ours", "eager", other]
        for side in sides(case, compiled=False):
            done = check(case, side, CPU)
            assert (done.case, done.side, done.path) == (name, side, "pytorch")
            assert 0 < done.error <= done.bound
            assert 0 < done.gradient_error <= done.gradient_bound

    @pytest.mark.parametrize("name", [LAYER, LENGTHS])
    def test_kernels_are_right(self, name):
        require_kernels("cpu")
        case = QUICK[name]
        few = replace(case.shape, rows=2, samples=160)  # three steps
        with use_backend("triton"):
            done = check(replace(case, shape=few), "ours", CPU)
        assert done.path == "triton"
        assert 0 < done.gradient_error <= done.gradient_bound

    def test_lengths_are_spread(self):
        shape = replace(FULL[LENGTHS].shape, rows=3)
        x = FULL[LENGTHS].inputs(shape, CPU)
        assert x["lengths"].tolist() == [150, 225, 300]
        shape = replace(QUICK[LENGTHS].shape, rows=2)
        x = QUICK[LENGTHS].inputs(shape, CPU)
        for package in (ops, verify.plain):
            case = QUICK[LENGTHS] if package is ops else QUICK[LENGTHS].beside
            out = case.call(package, x, shape)
            assert not out[0, 4:].any()
            assert out[0, :4].all()
            assert out[1].all()

    def test_stack_is_the_module(self):
        case = QUICK[STACK]
        x = case.inputs(case.shape, CPU)
        layer = modules.LSTM(257, 16, 3, bidirectional=True, peephole=True, batch_first=True)
        layer.load_state_dict({name: x[name] for name in case.differentiable[1:]})
        out = case.call(ops, x, case.shape)
        torch.testing.assert_close(out, layer(x["input"])[0], rtol=0, atol=0)


class TestSides:
    def test_step_is_compiled_once_for_all_steps(self, monkeypatch):
        calls = []

        def compiled(function, **options):
            calls.append(function)
            return function

        monkeypatch.setattr(torch, "compile", compiled)
        stepwise._step.cache_clear()
        try:
            for name in (PLAIN, LENGTHS, STACK):
                case = QUICK[name]
                tensors = case.inputs(case.shape, CPU)
                functions = {side: side_function(case, side) for side in ("eager", "compiled")}
                agree(case, functions, tensors)
        finally:
            stepwise._step.cache_clear()
        assert [function.__name__ for function in calls] == ["step"]

    def test_own_layer_beside_peepholes_is_held_to_one_without(self, monkeypatch):
        rows = rows_of(LAYER)
        assert [row.side for row in rows] == ["ours", "eager", BESIDE]
        assert 0 < rows[2].error < 1e-6 > rows[0].error > 0
        real = verify.plain.lstm_layers
        monkeypatch.setattr(verify.plain, "lstm_layers", lambda *args: 1.001 * real(*args))
        told = f"^{re.escape(LAYER)}: result of {BESIDE}"
        for wrong in (lambda: check(QUICK[LAYER], BESIDE, CPU), lambda: rows_of(LAYER)):
            with pytest.raises(WrongResult, match=told) as raised:
                wrong()
            assert raised.value.side == BESIDE

    def test_peepholes_count(self):
        case = QUICK[LAYER]
        x = case.inputs(case.shape, CPU)
        assert (
            relative_error(case.beside.call(ops, x, case.shape), case.call(ops, x, case.shape))
            > 0.001
        )


def rows_of(name):
    case, most = QUICK[name], Ceilings(1e10, 1e11, None)
    chosen = sides(case, compiled=False)
    return measure(case, CPU, HostClock(), most, chosen, seconds=0, rounds=(3, 3))


class TestWork:
    """By hand: batch 8, 300 steps, 250 units; in tiles of 64 they are 256, and 8 rows are 16."""

    STATES, SPECTRA = 8 * 300 * 2 * 250, 8 * 300 * 257
    INPUT, RECURRENT, VECTORS = 2 * 1000 * 257, 2 * 1000 * 250, 2 * 2000
    TILED = 2 * 4 * 256 * 256

    def test_forward(self):
        n, done = (
            self.STATES,
            FULL["landmarks/lstm-plain-b8"].work(FULL["landmarks/lstm-plain-b8"].shape),
        )
        numbers = self.INPUT + self.RECURRENT + self.VECTORS
        assert done.least == 4 * (self.SPECTRA + numbers + n)
        projections = self.SPECTRA + self.INPUT + 4 * n
        packed = 2 * self.RECURRENT + self.TILED
        walk = self.TILED + 10 * n
        assert done.moved == 4 * (2 * numbers + projections + packed + walk)
        later = n - 8 * 2 * 250
        again = 4 * later + later + 299 * self.TILED
        assert done.requested - done.moved == 4 * again
        assert done.needed == 8 * n * (257 + 250)
        assert done.performed == 8 * n * 257 + 300 * 2 * 16 * 2 * 4 * 256 * 256

    def test_gradient(self):
        n = self.STATES
        plain, peephole = (
            FULL[f"landmarks/lstm-{kind}-b8+gradient"] for kind in ("plain", "peephole")
        )
        forward = FULL["landmarks/lstm-plain-b8"]
        done, before = plain.work(plain.shape), forward.work(forward.shape)
        numbers = self.INPUT + self.RECURRENT + self.VECTORS
        assert done.least == before.least + 4 * (n + self.SPECTRA + numbers)
        walk = 2 * self.RECURRENT + 2 * self.TILED + 10 * n
        products = 4 * 4 * n + n + 2 * self.SPECTRA + 2 * self.INPUT + self.RECURRENT
        assert done.moved - before.moved == 4 * (walk + 10 * n + products)
        assert done.needed == 3 * before.needed
        seen = peephole.work(peephole.shape)
        assert seen.moved - done.moved == 4 * (20 * n + 2 * 2 * 3 * 250)
        assert seen.least - done.least == 4 * 2 * 2 * 3 * 250

    def test_layers_behind_the_first_hear_both_directions(self):
        shape, made = FULL[STACK].shape, recurrent.Stack(250, peephole=False)
        one, two = (recurrent.work(shape, replace(made, layers=n)) for n in (1, 2))
        states, numbers = 32 * 300 * 500, 2000 * (500 + 250) + 4000
        assert two.least - one.least == 4 * numbers
        assert two.needed - one.needed == 8 * states * (500 + 250)

    def test_step_is_bound_by_the_weights(self):
        assert recurrent.step_seconds(250) == 4 * 4 * 256 * 256 / 64 / 1.75e9
        assert recurrent.step_seconds(250) == pytest.approx(9e-6, rel=0.05)


class TestTuning:
    def test_both_kernels_are_tuned(self):
        assert [job.stage for job in JOBS] == ["lstm_forward", "lstm_backward"]
        assert all(job.known for job in JOBS)

    @pytest.mark.parametrize("job", JOBS, ids=str)
    def test_job_runs(self, job):
        run, tensors = prepare(job, 3, CPU)
        with use_backend("reference"), torch.no_grad():
            out = run(tensors)
            true = run({name: x.double() for name, x in tensors.items()})
        assert 0 < relative_error(out, true) < 1e-6

    def test_candidates_run_where_nothing_is_shipped(self, monkeypatch):
        require_kernels("cpu")
        monkeypatch.setattr("sepfast.ops._products.has_config", lambda *args, **key: False)
        x, kernel = torch.empty(1), "sepfast_lstm_forward"
        assert "is not shipped" in unshipped(x, kernel)
        with configured(kernel, {"ROWS": 16}):
            assert unshipped(x, kernel) is None

    def test_units_are_changed_too(self):
        assert _values("UNITS", _CHOICES["UNITS"], JOBS[0].start) == [128, 32]
        assert _values("UNITS", _CHOICES["UNITS"], {"UNITS": 16}) == [32]


def test_command_takes_the_cases(tmp_path, capsys):
    out = tmp_path / "lstm.json"
    command = ["--quick", "--device", "cpu", "--only", "landmarks/lstm-l", "--out", str(out)]
    assert main(command) == 0
    report = json.loads(out.read_text())
    assert {row["case"] for row in report["rows"]} == {LENGTHS}
    assert [row["side"] for row in report["rows"]] == ["ours", "eager", BESIDE]
    assert main(["--quick", "--device", "cpu", "--only", "nothing"]) == 2
    message = capsys.readouterr().err
    assert all(name in message for name in FULL)
