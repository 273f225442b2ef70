"""The benchmarks of DeepConvSep's operators and of whole systems: work, refusals, the command."""

import json
from dataclasses import fields, replace

import pytest
import torch
from conftest import require_kernels

from sepfast import Separator, create_model, use_backend
from sepfast.bench import network_work, separating, system_work, training_step, work
from sepfast.bench import plain as plain_operators
from sepfast.bench.__main__ import main
from sepfast.bench.cases import suite
from sepfast.bench.clocks import Ceilings, HostClock
from sepfast.bench.network_work import Layers
from sepfast.bench.results import Row, line, losses
from sepfast.bench.separating import Separation, plain, stacked, stereo_model
from sepfast.bench.systems import errors_of, measure_system, systems
from sepfast.bench.training_step import TrainingStep
from sepfast.bench.tuning import configured
from sepfast.bench.tuning_jobs import jobs, prepare
from sepfast.bench.verify import (
    WrongResult,
    check,
    demanded,
    launched,
    side_function,
    sides,
)
from sepfast.bench.workloads import WORKLOADS, Network
from sepfast.kernels import tuning
from sepfast.ops.accuracy import relative_error
from sepfast.reference import Framing

CPU = torch.device("cpu")
SONG = WORKLOADS["song"]
OPERATORS = {
    "bilinear_attention", "conv_pair", "deconv_pair", "horizontal_deconv",
    "linear_soft_mask_loss", "overlap_decode",
}  # fmt: skip
QUICK = {case.name: case for case in suite("quick") if case.operator in OPERATORS}
EXCERPT = Separation("excerpt", 1, yardstick=True)
STEP = TrainingStep(channels=1, batch=2)


def layers(batch=1, sources=1, frames=30, **changed):
    return Layers(batch, sources, frames, 513, replace(Network(), **changed), "tf32")


class TestWork:
    """Against numbers by hand."""

    def test_vertical_deconvolution_of_a_song(self):
        contexts = SONG.network.contexts(SONG.frames)
        assert contexts == 2756  # 41,346 frames, 15 apart
        decoder = layers(contexts, 4)
        product = decoder.vertical_transposed()
        assert product.needed == 2 * 4 * 2756 * 30 * 50 * 2 * 513
        assert product.needed == pytest.approx(34e9, rel=0.01)
        whole = network_work.overlap_decode(decoder, 4 * 2756 * 30, 15)
        horizontal = 2 * 4 * 2756 * 16 * 30 * 50 * 15
        estimates = 4 * 2756 * 30 * 2 * 513
        assert whole.needed == product.needed + horizontal + 5 * estimates
        codes, shares = 2756 * 4 * 30 * 16, 4 * 2 * 41355 * 513
        weights = 4 * (30 * 50 * 15 + 50 + 50 * 2 * 513 + 2)
        assert whole.least == 4 * (codes + weights + 2756 * 30 + shares)
        assert whole.moved == whole.least + 4 * (2 * 2756 * 4 * 30 * 50 - 4 * 52)  # features

    def test_encoder_of_a_song(self):
        done = network_work.conv_pair(layers(frames=41346))
        image, codes = 2 * 41346 * 513, 30 * 41332
        weights = 50 * 2 * 513 + 50 + 30 * 50 * 15 + 30
        assert done.least == 4 * (image + codes + weights)
        assert done.needed == 2 * 41346 * 50 * 2 * 513 + 2 * 41332 * 30 * 50 * 15

    def test_samples_to_stems_of_a_song(self):
        done = system_work.separation(SONG, 1, "tf32", compact=True)
        samples = 2 * 240 * 44100
        assert done.least == 4 * 5 * samples + 4 * 678536
        assert done.least == pytest.approx(0.42e9, rel=0.02)  # as the design has it
        eight = system_work.separation(SONG, 8, "tf32", compact=True)
        assert (eight.needed, eight.moved) == (8 * done.needed, 8 * done.moved)
        wide = system_work.separation(SONG, 1, "tf32", compact=False)
        shares = 4 * 2 * 41346 * 513  # written and read in two bytes less
        assert wide.moved - done.moved == pytest.approx(4 * shares, rel=0.01)

    def test_loss_of_a_batch(self):
        done = network_work.linear_loss_gradient(layers(32, 4))
        estimates = 32 * 4 * 2 * 30 * 513
        assert done.needed == 3 * 2 * 50 * estimates + 40 * estimates
        features, weight = 32 * 4 * 30 * 50, 4 * (50 * 2 * 513 + 2)
        assert done.least == 4 * (2 * features + 2 * weight + estimates * 5 // 4)
        # Three kernels read mixture and targets; stored estimates would be read and written too.
        assert done.moved > 3 * 4 * (estimates * 5 // 4)

    def test_training_step(self):
        done = system_work.training_step(30, 4, 513, Network(), "tf32")
        assert done.least == 4 * (30 * 5 * 2 * 30 * 513 + 6 * 678536)
        more = system_work.training_step(60, 4, 513, Network(), "tf32")
        assert 1.9 < more.needed / done.needed < 2

    @pytest.mark.parametrize("channels", [1, 2])
    def test_parameters_are_the_models(self, channels):
        model = create_model(("deepconvsep", "deepconvsep-stereo")[channels - 1])
        network = TrainingStep(channels, 5).network
        assert (model.channels, model.context) == (channels, network.context)
        counted = sum(weight.numel() for weight in model.parameters())
        assert system_work.parameters(network, 4, 513) == counted

    def test_what_comes_out_is_never_less_than_possible(self):
        for precision in ("highest", "high"):
            with demanded(precision):
                for each in [*suite("full"), *suite("quick")]:
                    _check_order(each, each.work(each.shape))
                for each in systems("full"):
                    _check_order(each, each.work())

    def test_wider_tiles_request_less(self, monkeypatch):
        requested = []
        for columns in (16, 32, 64):
            tile = {"ROWS": 64, "COLUMNS": columns, "DEPTH": 32}
            monkeypatch.setattr(network_work, "shipped_config", lambda *a, t=tile, **k: t)
            done = layers(32).vertical()
            assert done.moved == 4 * (32 * 2 * 30 * 513 + 50 * 2 * 513 + 32 * 30 * 50)
            requested.append(done.requested - done.moved)
        image, weight = 4 * 32 * 2 * 30 * 513, 4 * 50 * 2 * 513
        assert requested == [n * image + 14 * weight for n in (3, 1, 0)]  # 15 blocks of rows

    def test_what_it_takes_from_the_kernels_is_theirs(self, monkeypatch):
        pytest.importorskip("triton")
        from sepfast.kernels import _product, launch, overlap_decode

        assert _product.FEW == network_work.FEW_ROWS
        assert overlap_decode._FEW == network_work.FEW_FEATURES
        monkeypatch.setattr(launch, "processors", lambda device: work.PROCESSORS)
        for numbers in [(960, 32, 4), (41346, 32, 60), (1, 16, 1), (100, 16, 500)]:
            assert network_work.shares(*numbers) == launch.shares(*numbers, CPU)


def _check_order(each, done):
    assert 0 < done.least <= done.moved <= done.requested, each
    assert 0 < done.needed <= done.performed, each


class TestCases:
    def test_kernels_are_in_the_catalog(self):
        pytest.importorskip("triton")
        from sepfast.kernels import catalog

        known = {entry.kernel for entry in catalog()}
        for each in [*suite("full"), *systems("full")]:
            assert each.kernels, each
            assert {f"sepfast_{name}" for name in each.kernels} <= known, each
        assert {job.kernel for job in jobs()} == known

    @pytest.mark.parametrize("name", QUICK)
    def test_kernels_are_those_that_run(self, name):
        require_kernels("cpu")
        case = QUICK[name]
        shape = replace(case.shape, framing=Framing(64, 16), samples=40 * 16)
        with use_backend("triton"):
            done = check(replace(case, shape=shape), "ours", CPU)
        assert done.path == "triton"
        ran = {f"sepfast_{name}" for name in case.kernels}
        # PyTorch takes this one where it is the faster.
        found = set(done.kernels) - {"sepfast_bilinear_attention_product"}
        assert ran == found if case.gradient else ran <= found

    @pytest.mark.parametrize("name", QUICK)
    def test_there_is_no_cufft(self, name):
        own = {"overlap_decode": "batched", "bilinear_attention": "sdpa"}
        more = [side for operator, side in own.items() if operator in name]
        assert sides(QUICK[name]) == ["ours", "eager", *more, "compiled"]
        assert QUICK[name].products

    @pytest.mark.parametrize("side", ["batched", "compiled"])
    def test_a_batch_is_what_is_compiled(self, side, monkeypatch):
        case = QUICK["song/overlap_decode"]
        called = []
        monkeypatch.setattr(plain_operators, "overlap_decode", lambda *a: called.append(len(a[0])))
        monkeypatch.setattr(torch, "compile", lambda function, dynamic: function)
        side_function(case, side)(case.inputs(case.shape, CPU))
        assert called == [case.shape.network.contexts(case.shape.frames)]

    def test_precision_holds_for_convolutions(self):
        before = torch.backends.cudnn.allow_tf32
        for precision, allowed in (("highest", False), ("high", True)):
            with demanded(precision):
                assert torch.backends.cudnn.allow_tf32 is allowed
        assert torch.backends.cudnn.allow_tf32 is before


class TestTuning:
    @pytest.mark.parametrize("name", ["conv_pair_horizontal", "overlap_decode_forward"])
    def test_a_configuration_changes_what_is_launched(self, name):
        require_kernels("cpu")
        job = next(j for j in jobs(("tf32x3",)) if j.stage == name)
        run, tensors = prepare(job, 15, CPU)
        true = run({name: x.double() for name, x in tensors.items()})
        with use_backend("triton"), torch.no_grad():
            with configured(job.kernel, {**job.start, "num_stages": 1}):
                assert relative_error(run(tensors), true) < 1e-6
            with (
                configured(job.kernel, {}),
                pytest.raises((KeyError, TypeError)),
            ):
                run(tensors)

    def test_a_job_begins_with_what_the_device_takes(self):
        kernel = "sepfast_overlap_decode_forward"
        found = {device: config for device, key, config in tuning.shipped(kernel)
                 if key == {"precision": "tf32", "sources": 4, "features": "few"}}  # fmt: skip
        for devices in (("cuda:90", "cuda", "any"), ("cuda:80", "cuda", "any")):
            job = next(j for j in jobs(("tf32",), devices) if j.kernel == kernel)
            assert job.known
            assert job.start == found[next(name for name in devices if name in found)]


def measured(system, sides=("ours", "eager"), clock=None, failed=None):
    failed = {} if failed is None else failed
    return measure_system(
        system, CPU, clock or HostClock(), Ceilings(1e10, 1e11, None), sides,
        lambda side, error: failed.update({side: str(error)}), seconds=0, rounds=(2, 2),
    )  # fmt: skip


class Never(HostClock):
    def run(self, function):
        raise AssertionError("timed")


class TestSeparation:
    def test_sides_agree(self):
        rows = measured(EXCERPT, ("ours", "eager", "published"))
        assert [row.side for row in rows] == ["ours", "eager", "published"]
        for row in rows:
            assert row.error < 3.5e-6
            assert row.path == "pytorch"
            assert row.shapes == {"mixtures": [1, 2, 44100]}
            assert row.least_bytes == 4 * 5 * 2 * 44100 + 4 * 678536
            assert row.ratio_to_eager == pytest.approx(rows[1].p50_ms / row.p50_ms)
            assert line(row).startswith("separation/excerpt")

    def test_songs_at_once_are_songs_alone(self):
        model = stereo_model()
        songs = torch.randn(3, 2, 20000)
        with torch.inference_mode():
            alone = torch.stack([plain(model, song) for song in songs])
            torch.testing.assert_close(plain(model, songs), alone)
        torch.testing.assert_close(stacked(Separator(model)(songs[1], 44100)), alone[1])
        assert {row.side for row in measured(Separation("batch", 1, songs=2))} == {"ours", "eager"}

    def test_filled_up_batches_change_nothing(self, monkeypatch):
        seen = []
        monkeypatch.setattr(torch, "compile", lambda model, dynamic: _noting(model, seen))
        rows = measured(EXCERPT, ("ours", "eager", "compiled"))
        assert rows[2].error < 3.5e-6
        assert set(seen) == {32}

    def test_wrong_stems_are_not_timed(self, monkeypatch):
        class Louder(Separator):
            def __call__(self, waveform, rate):
                return {name: 1.001 * x for name, x in super().__call__(waveform, rate).items()}

        monkeypatch.setattr(separating, "Separator", Louder)
        with pytest.raises(WrongResult, match=r"stems \(highest\) of ours is off by 0\.001"):
            measured(EXCERPT, clock=Never())

    def test_wrong_yardstick_is_left_out(self, monkeypatch):
        right = separating.published
        monkeypatch.setattr(separating, "published", lambda *args: 1.001 * right(*args))
        failed = {}
        rows = measured(EXCERPT, ("ours", "eager", "published"), failed=failed)
        assert [row.side for row in rows] == ["ours", "eager"]
        assert "published is off by 0.001" in failed["published"]


def _noting(model, seen):
    def network(contexts):
        seen.append(len(contexts))
        return model(contexts)

    return network


class TestTraining:
    def test_sides_agree(self):
        rows = measured(STEP)
        assert [row.side for row in rows] == ["ours", "eager"]
        assert rows[0].error < 1e-6
        assert 0 < rows[0].gradient_error < 1e-3
        assert rows[0].gradient
        assert rows[0].shapes == {"mixture": [2, 1, 25, 513], "targets": [2, 4, 1, 25, 513]}

    def test_kernels_are_those_that_run(self):
        require_kernels("cpu")
        step = TrainingStep(channels=1, batch=1)
        true = step.build("eager", CPU).result()
        with use_backend("triton"), launched() as kernels:
            errors = errors_of(step, "ours", step.build("ours", CPU).result(), true)
        assert set(kernels) == {f"sepfast_{name}" for name in step.kernels}
        assert errors["gradients"] < 1e-4

    def test_result_is_that_of_the_first_step(self):
        side = STEP.build("ours", CPU)
        first = side.result()
        side.call()
        again = side.result()
        for name, tensors in first.items():
            for old, new in zip(tensors, again[name], strict=True):
                torch.testing.assert_close(new, old)

    @pytest.mark.parametrize(
        ("spoil", "what"),
        [
            (lambda model, loss: loss * 1.001, "loss"),
            (lambda model, loss: loss + 1e-3 * _zero(loss, model.encoder[0].weight), "gradients"),
        ],
    )
    def test_wrong_step_is_not_timed(self, monkeypatch, spoil, what):
        right = training_step.fuse

        def fuse(model):
            right(model)
            loss = model.loss
            monkeypatch.setattr(model, "loss", lambda *given: spoil(model, loss(*given)))

        monkeypatch.setattr(training_step, "fuse", fuse)
        with pytest.raises(WrongResult, match=rf"{what} \(highest\) of ours"):
            measured(STEP, clock=Never())

    def test_wrong_update_is_not_timed(self, monkeypatch):
        right = training_step.TrainingOptions.optimizer_of
        rates = iter([1.0, 0.9, 1.0])  # of eager's truth, ours, and eager

        def optimizer_of(self, weights):
            optimizer = right(self, weights)
            optimizer.param_groups[0]["lr"] = next(rates)
            return optimizer

        monkeypatch.setattr(training_step.TrainingOptions, "optimizer_of", optimizer_of)
        with pytest.raises(WrongResult, match=r"update \(highest\) of ours is off by 0\.1"):
            measured(STEP, clock=Never())

    def test_step_that_is_not_captured_is_no_graph(self):
        failed = {}
        rows = measured(STEP, ("ours", "graph", "eager"), failed=failed)
        assert [row.side for row in rows] == ["ours", "eager"]
        assert "needs a GPU" in failed["graph"]

    def test_without_eager_there_is_no_ratio(self):
        rows = measured(STEP, ("ours",))
        assert rows[0].ratio_to_eager is None
        assert line(rows[0])

    def test_a_faster_graph_of_ours_is_no_loss(self):
        ours, eager = measured(STEP)
        ours, eager = replace(ours, p50_ms=3), replace(eager, p50_ms=2)
        assert len(losses([ours, eager])) == 1
        assert losses([ours, eager, replace(ours, side="graph", p50_ms=1)]) == []


def _zero(loss, weight):
    """0 whose gradient is not."""
    value = weight.sum() * loss.detach()
    return value - value.detach()


class TestCommand:
    @pytest.mark.parametrize("only", ["conv_pair", "step-mono", "excerpt"])
    def test_quick_run_of_one(self, only, tmp_path):
        out = tmp_path / "cpu.json"
        assert main(["--quick", "--device", "cpu", "--only", only, "--out", str(out)]) == 0
        report = json.loads(out.read_text())
        assert report["complete"]
        names = {row["case"] for row in report["rows"]}
        assert names == {name for name in _quick_names() if only in name}
        for row in report["rows"]:
            assert set(row) == {each.name for each in fields(Row)}
            assert row["error"] <= 1e-3

    def test_wrong_system_is_told(self, tmp_path, monkeypatch, capsys):
        monkeypatch.setattr(training_step, "TOLERANCES", {"highest": {"loss": -1.0}})
        out = tmp_path / "cpu.json"
        assert main(["--quick", "--device", "cpu", "--only", "mono-5", "--out", str(out)]) == 1
        report = json.loads(out.read_text())
        assert report["rows"] == []
        assert "loss (highest) of ours" in report["verification"][0]["failed"]
        assert "WRONG, not timed: training/step-mono-5" in capsys.readouterr().out

    def test_what_needs_a_gpu_is_said(self, tmp_path, capsys):
        out = tmp_path / "cpu.json"
        assert main(["--quick", "--device", "cpu", "--only", "hour", "--out", str(out)]) == 0
        assert "left out: separation/hour: only on a GPU" in capsys.readouterr().out


def _quick_names():
    return [*QUICK, *(system.name for system in systems("quick"))]
