"""Sums that slide in the place of transforms: the STFT and back at a high overlap."""

import pytest
import torch
from conftest import assert_near, noise, relative_error
from contract import blocks_of
from framings import spans

from sepfast import ops
from sepfast.ops import _sliding
from sepfast.reference import (
    FRAMINGS,
    Framing,
    Levels,
    istft,
    masked_istft,
    stft,
    stft_magnitude,
)

FRAMING = Framing(512, 16, symmetric=False, front=256)
OPERATORS = ("stft", "istft", "stft_magnitude", "masked_istft")


@pytest.fixture(autouse=True)
def walked(monkeypatch):
    """Makes every kernel walk along some segments, with some bands in a program: here all."""

    def choose(segments, bands=4):
        stand_in = blocks_of(SEGMENTS=segments, BANDS=bands)
        monkeypatch.setattr("sepfast.kernels.launch.lookup", stand_in)

    choose(64, 16)
    return choose


@pytest.fixture(autouse=True)
def sliding_alone(monkeypatch):
    """The other kernels of these operators are not there."""
    for name in ("stft.forward", "stft.inverse", "stft_magnitude.forward", "masked_istft.forward"):
        monkeypatch.setattr(f"sepfast.kernels.{name}", None)


@pytest.mark.parametrize(
    ("framing", "slides"),
    [
        (FRAMINGS["style-transfer"], True),
        (FRAMING, True),
        (Framing(512, 16, "hamming", symmetric=False), True),
        (Framing(512, 16, "rectangular"), True),
        (Framing(512, 16, "hann"), False),  # of period 511
        (Framing(512, 16, "blackman-harris", symmetric=False), False),
        (Framing(512, 16, "hann", window_length=400, symmetric=False), False),
        (Framing(512, 32, symmetric=False), False),
        (Framing(512, 8, symmetric=False), False),
        (Framing(512, 24, symmetric=False), False),
        (Framing(520, 16, symmetric=False), False),
        (FRAMINGS["deepconvsep"], False),
    ],
    ids=str,
)
def test_what_slides(framing, slides):
    for operator in OPERATORS:
        found = _sliding.slides(framing, torch.device("cpu"), f"sepfast_{operator}_sliding")
        assert (found is not None) == slides


@pytest.mark.parametrize(
    ("front", "rule", "slides"),
    [(0, "pad-end", False), (128, "pad-end", True), (400, "ceil+2", False), (256, "valid", False)],
)
def test_what_slides_back(front, rule, slides):
    """Not where samples lie under nothing but the ends of windows."""
    framing = Framing(512, 16, symmetric=False, front=front, rule=rule)
    kernel, cpu = "sepfast_istft_sliding", torch.device("cpu")
    assert (_sliding.slides(framing, cpu, kernel, back=True) is not None) == slides


@pytest.mark.parametrize(
    ("window", "rule", "front"),
    [("hann", "ceil+2", 130), ("hamming", "pad-end", 380), ("rectangular", "ceil+2", 256)],
)
def test_spectra_and_samples_are_the_references(kernels, window, rule, front):
    framing = Framing(512, 16, window, symmetric=False, front=front, rule=rule, scale=0.3)
    x = noise(2, 130)
    true = stft(x, framing)
    assert_near(ops.stft(kernels.put(x), framing), true, kernels.bound("stft"))
    spectrum = noise(*true.shape)
    samples = ops.istft(kernels.put(spectrum), framing, 120)
    assert_near(samples, istft(spectrum, framing, 120), kernels.bound("istft"))


def test_segments_meet_without_a_seam(kernels, walked):
    x = noise(1, 400)
    shares = noise(1, 1, FRAMING.frames(400), 257).abs()[None]

    def evaluate(*config):
        walked(*config)
        levels = ops.stft_magnitude(kernels.put(x), FRAMING)
        stems = ops.masked_istft(kernels.put(shares), kernels.put(x[None]), FRAMING)
        return levels, stems

    levels, stems = evaluate(64, 16)
    assert_near(levels, stft_magnitude(x, FRAMING), kernels.bound("stft_magnitude"))
    assert_near(stems, masked_istft(shares, x[None], FRAMING), kernels.bound("masked_istft"))
    for config in ((2, 16), (1, 8)):
        for out, whole in zip(evaluate(*config), (levels, stems), strict=True):
            assert_near(out, whole, kernels.bound("masked_istft"))


def test_what_lies_in_front_of_samples_is_walked_along_too(kernels):
    """400 samples are a block, and with the 256 in front of them two."""
    spectrum = noise(1, FRAMING.frames(400), 257, 2)
    samples = ops.istft(kernels.put(spectrum), FRAMING, 400)
    assert_near(samples, istft(spectrum, FRAMING, 400), kernels.bound("istft"))


@pytest.mark.parametrize("power", [1.0, 2.0, 0.7])
def test_magnitudes_scaled_in_channels(kernels, power):
    x = noise(2, 40)
    scale, offset = noise(2, 1, 257, seed=1), noise(257, seed=2)
    scaling = {"scale": kernels.put(scale), "offset": kernels.put(offset)}
    out = ops.stft_magnitude(kernels.put(x), FRAMING, power=power, **scaling)
    true = stft_magnitude(x, FRAMING, power=power, scale=scale, offset=offset)
    assert_near(out, true, kernels.bound("stft_magnitude"))


@pytest.mark.parametrize("gained", [False, True])
def test_shares_of_sources_and_channels(kernels, gained):
    x = noise(1, 2, 40)
    shares = noise(1, 3, 2, FRAMING.frames(40), 257).abs()
    gain = noise(3, 2, 1, 257, seed=1) if gained else None
    levels, ours = (None, None) if gain is None else (Levels(gain), Levels(kernels.put(gain)))
    out = ops.masked_istft(kernels.put(shares), kernels.put(x), FRAMING, ours)
    assert_near(out, masked_istft(shares, x, FRAMING, levels), kernels.bound("masked_istft"))


def test_silence_stays_silent_behind_a_loud_sound(kernels):
    """Nothing is subtracted, so that nothing is left of what has gone."""
    x = torch.zeros(1, 700)
    x[:, :100] = 1e4 * noise(100)
    out = ops.stft_magnitude(kernels.put(x), FRAMING)
    first = -(-(100 + 256) // 16)  # the first frame that begins behind it
    assert out[:, : first - 1].all()
    assert not out[:, first:].any()
    shares = torch.ones(1, 1, FRAMING.frames(700), 257)
    assert not ops.masked_istft(kernels.put(shares), kernels.put(x), FRAMING)[..., 650:].any()


def test_nan_reaches_the_frames_that_see_it_and_no_other(kernels):
    x = noise(1, 500)
    broken = x.clone()
    broken[:, 240] = torch.nan
    sees = spans(FRAMING, 500)[:, 240]
    out = ops.stft(kernels.put(broken), FRAMING)
    assert out[0, sees].isnan().any(-1).all()
    assert_near(out[0, ~sees], stft(x, FRAMING)[0, ~sees], kernels.bound("stft"))


@pytest.mark.parametrize(("lead", "samples"), [(1, 0), (1, 1), (0, 17)])
def test_hardly_any_samples(kernels, lead, samples):
    x = noise(lead, samples)
    spectrum = ops.stft(kernels.put(x), FRAMING)
    assert_near(spectrum, stft(x, FRAMING), kernels.bound("stft"))
    assert_near(ops.istft(spectrum, FRAMING, samples), x, kernels.bound("istft"))


def test_the_papers_framing_is_as_exact_as_pytorchs_own(kernels):
    """In float32, whose bound no kernel for these frames could keep so far."""
    framing = FRAMINGS["style-transfer"]
    x = noise(1, 1, 24)
    shares = noise(1, 1, 1, framing.frames(24), 1025).abs()
    for evaluate, operator, reference, tensors in (
        (lambda f, x: f(x, framing, power=0.7), ops.stft_magnitude, stft_magnitude, (x,)),
        (lambda f, s, x: f(s, x, framing), ops.masked_istft, masked_istft, (shares, x)),
    ):
        true = evaluate(reference, *tensors)
        single = evaluate(reference, *(t.float() for t in tensors))
        out = evaluate(operator, *map(kernels.put, tensors))
        assert_near(out, true, 2 * relative_error(single, true))
        assert_near(out, true, kernels.bound("stft_magnitude"))


@pytest.mark.parametrize("operator", OPERATORS)
def test_what_is_tuned_is_the_kernel_that_slides(operator, monkeypatch):
    from sepfast.bench.tuning import configured
    from sepfast.bench.tuning_jobs import jobs, prepare
    from sepfast.kernels import launch

    job = next(job for job in jobs() if job.stage == f"{operator}_sliding")
    run, tensors = prepare(job, 3, torch.device("cpu"))
    launched = []
    monkeypatch.setattr(
        launch.Kernel, "launch", lambda self, *args, **kwargs: launched.append(self.name)
    )
    with configured(job.kernel, job.start), ops.use_backend("triton"):
        run(tensors)
    assert launched == [job.kernel]
