"""Stereo through system B: ours, a plain vectorised chain, and the published program.

    pytest bench/bench_separation.py

All are held to each other before one is timed. The times share one machine and one run, so that
their ratios mean something even where the machine is shared. `TestMinute` takes a minute, the
systems what `separating.py` has for this machine; the last case runs the command line on ten
minutes and reports its peak memory as `extra_info`.
"""

import numpy as np
import pytest
import soundfile
import torch

from sepfast import Separator, save
from sepfast.bench.memory import peak_memory
from sepfast.bench.published import covered_samples
from sepfast.bench.published import separate as published
from sepfast.bench.pytest_sides import benchmark_system, system_pairs
from sepfast.bench.separating import RATE, excerpts, plain, stacked, stereo_model


@pytest.fixture(scope="module")
def model():
    return stereo_model()


@pytest.fixture(scope="module")
def minute() -> np.ndarray:
    return 0.1 * np.random.default_rng(0).standard_normal((2, 60 * RATE))


@pytest.mark.benchmark(group="a minute of stereo, system B, overlap 15 of 30")
class TestMinute:
    def test_separator(self, benchmark, model, minute):
        mixture = torch.from_numpy(minute).float()
        separator = Separator(model)
        expected = plain(model, mixture[:, : 5 * RATE])
        out = stacked(separator(mixture[:, : 5 * RATE], RATE))
        torch.testing.assert_close(out, expected, atol=1e-6, rtol=0)
        benchmark.pedantic(separator, (mixture, RATE), rounds=9, warmup_rounds=1)

    def test_plain(self, benchmark, model, minute):
        mixture = torch.from_numpy(minute).float()
        with torch.inference_mode():
            benchmark.pedantic(plain, (model, mixture), rounds=5, warmup_rounds=1)

    def test_published(self, benchmark, model, minute):
        out = published(model, minute[:, : 5 * RATE])[..., : covered_samples(5 * RATE)]
        ours = stacked(Separator(model)(minute[:, : 5 * RATE], RATE))
        np.testing.assert_allclose(ours[..., : out.shape[-1]], out, atol=1e-6)
        benchmark.pedantic(published, (model, minute), rounds=1)


@pytest.mark.benchmark(group="ten minutes of stereo from file to files")
def test_ten_minutes(benchmark, model, minute, tmp_path):
    save(model, tmp_path / "model.safetensors")
    soundfile.write(tmp_path / "song.wav", np.tile(minute, 10).T, RATE, subtype="PCM_16")
    arguments = ["separate", "song.wav", "-m", "model.safetensors", "-o", "stems"]
    peak = benchmark.pedantic(
        peak_memory, (*arguments, "--device", "cpu"), {"cwd": tmp_path}, rounds=1
    )
    benchmark.extra_info["peak memory, MB"] = round(peak)
    print(f"peak memory: {peak:.0f} MB")
    assert peak < 1024
    assert soundfile.info(tmp_path / "stems/song/vocals.wav").frames == 600 * RATE


@pytest.mark.parametrize(("system", "side"), system_pairs(excerpts), ids=str)
def test_separation(benchmark, system, side):
    benchmark_system(benchmark, system, side)
