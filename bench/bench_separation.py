"""A minute of stereo through system B: ours, a plain vectorised chain, and the published program.

    pytest bench/bench_separation.py

All three are held to each other before one is timed. The times share one machine and one run, so
that their ratios mean something even where the machine is shared. The last case runs the command
line on ten minutes and reports its peak memory as `extra_info`.
"""

import numpy as np
import pytest
import soundfile
import torch

from sepfast import Separator, create_model, save
from sepfast.bench.memory import peak_memory
from sepfast.bench.published import covered_samples
from sepfast.bench.published import separate as published
from sepfast.reference import DeepConvSep, istft, magnitude, masked_spectrum, overlap_add, stft
from sepfast.separation.fades import context_count, fades

RATE = 44100


@pytest.fixture(scope="module")
def model() -> DeepConvSep:
    torch.manual_seed(0)
    model = create_model("deepconvsep-stereo").eval()
    assert isinstance(model, DeepConvSep)
    model.set_statistics(torch.zeros(10, 513), torch.rand(10, 513) + 0.5)
    for source in model.sources:
        # No bin without an estimate, where the published program has 0 / 0.
        torch.nn.init.constant_(model.decoder[source][1].bias, 0.5)
    return model.requires_grad_(False)


@pytest.fixture(scope="module")
def minute() -> np.ndarray:
    return 0.1 * np.random.default_rng(0).standard_normal((2, 60 * RATE))


def plain(model: DeepConvSep, mixture: torch.Tensor, overlap: int = 15) -> torch.Tensor:
    """Every context through the whole network, in one batch after another, and back at once."""
    step, context = model.context - overlap, model.context
    spectrum = stft(mixture, model.framing)
    scaled = model.scale(magnitude(spectrum))  # (2, frames, 513)
    frames = scaled.shape[1]
    count = context_count(frames, context, overlap)
    scaled = torch.nn.functional.pad(scaled, (0, 0, 0, (count - 1) * step + context - frames))
    contexts = scaled.unfold(1, context, step).permute(1, 0, 3, 2)
    shares = torch.cat([model.shares(model(batch)) for batch in contexts.split(32)])
    shares *= fades(0, count, count, context, overlap)[:, None, None, :, None]
    line = overlap_add(shares.permute(1, 2, 4, 0, 3), step)[..., :frames].mT  # (4, 2, frames, 513)
    return istft(masked_spectrum(line, spectrum, model.levels()), model.framing, mixture.shape[-1])


def _stacked(stems: dict[str, torch.Tensor]) -> torch.Tensor:
    return torch.stack(list(stems.values()))


@pytest.mark.benchmark(group="a minute of stereo, system B, overlap 15 of 30")
class TestMinute:
    def test_separator(self, benchmark, model, minute):
        mixture = torch.from_numpy(minute).float()
        separator = Separator(model)
        expected = plain(model, mixture[:, : 5 * RATE])
        out = _stacked(separator(mixture[:, : 5 * RATE], RATE))
        torch.testing.assert_close(out, expected, atol=1e-6, rtol=0)
        benchmark.pedantic(separator, (mixture, RATE), rounds=9, warmup_rounds=1)

    def test_plain(self, benchmark, model, minute):
        mixture = torch.from_numpy(minute).float()
        with torch.inference_mode():
            benchmark.pedantic(plain, (model, mixture), rounds=5, warmup_rounds=1)

    def test_published(self, benchmark, model, minute):
        out = published(model, minute[:, : 5 * RATE])[..., : covered_samples(5 * RATE)]
        ours = _stacked(Separator(model)(minute[:, : 5 * RATE], RATE))
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
