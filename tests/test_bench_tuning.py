"""The tuning sweep: what it tries, what it holds to the reference, and what it writes."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from conftest import require_kernels

from sepfast import use_backend
from sepfast.bench.clocks import HostClock
from sepfast.bench.tuning import _ASKING, configured, sweep, write_tuned
from sepfast.bench.tuning_jobs import jobs, prepare
from sepfast.kernels import tuning
from sepfast.ops.accuracy import relative_error


def _is_small(job) -> bool:
    return job.key.get("n_fft") == 256 or job.key.get("sources") == 2


class TestTuning:
    def test_first_keys_are_the_songs(self):
        first = jobs()[:4]
        assert [job.stage for job in first[:2]] == ["masked_istft_forward"] * 2
        assert {job.key["n_fft"] for job in first if "n_fft" in job.key} == {1024}

    def test_every_shipped_key_of_a_gpu_is_tuned(self):
        known = [(job.kernel, job.key) for job in jobs()]
        assert len(known) == len({str(job) for job in jobs()})
        for kernel in {kernel for kernel, _ in known}:
            for _, key, config in tuning.shipped(kernel):
                if key.get("precision") != "ieee":
                    assert (kernel, key) in known
                    assert "num_warps" in config

    @pytest.mark.parametrize("job", [j for j in jobs(("tf32x3",)) if _is_small(j)], ids=str)
    def test_job_runs(self, job):
        run, tensors = prepare(job, 3, torch.device("cpu"))
        with use_backend("reference"), torch.no_grad():
            out = run(tensors)
            true = run({name: x.double() for name, x in tensors.items()})
        assert out.isfinite().all()
        assert relative_error(out, true) < 1e-6

    def test_transform_in_the_interpreter(self):
        require_kernels("cpu")
        job = next(j for j in jobs() if str(j).startswith("masked_istft_forward n_fft 256"))
        found = sweep(job, torch.device("cpu"), HostClock(), lambda: True, frames=3)
        assert not found.failed
        assert found.config == job.start

    def test_sweep_in_the_interpreter(self, tmp_path, monkeypatch):
        require_kernels("cpu")
        job = next(j for j in jobs() if str(j) == "soft_mask_forward sources 2")
        found = sweep(job, torch.device("cpu"), HostClock(), lambda: False, frames=1)
        assert found.tried == 4  # the shipped one, BLOCK twice and half, and num_warps
        assert not found.failed
        assert 0 < found.p50_ms <= found.shipped_ms
        write_tuned(tmp_path, "cuda:90", [found])
        monkeypatch.setattr(tuning, "_FOLDER", tmp_path)
        tuning._entries.cache_clear()
        try:
            assert list(tuning.shipped(job.kernel)) == [("cuda:90", job.key, found.config)]
        finally:
            tuning._entries.cache_clear()

    def test_what_fails_is_kept_and_not_chosen(self):
        require_kernels("cpu")
        job = next(j for j in jobs() if str(j) == "soft_mask_forward sources 2")
        found = sweep(
            replace(job, start={"BLOCK": 3}),
            torch.device("cpu"),
            HostClock(),
            lambda: True,
            frames=1,
        )
        assert found.config is None
        assert len(found.failed) == found.tried == 1

    def test_shipped_configuration_comes_back(self):
        require_kernels("cpu")
        from sepfast.kernels import launch

        before = launch.lookup
        with configured("sepfast_soft_mask_forward", {"BLOCK": 8, "num_warps": 4}):
            assert (
                launch.lookup("sepfast_soft_mask_forward", torch.device("cpu"), sources=2)["BLOCK"]
                == 8
            )
        assert launch.lookup is before

    def test_every_module_that_asks_for_a_configuration_is_answered(self):
        root = Path(__file__).parents[1]
        rooms = {"kernels": root / "kernels", "ops": root / "sepfast" / "ops"}
        asking = {
            f"{room}.{path.stem}"
            for room, folder in rooms.items()
            for path in folder.glob("*.py")
            if "import has_config" in path.read_text(encoding="utf-8")
        }
        assert asking == set(_ASKING)
