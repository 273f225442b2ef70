"""Scores of enhanced speech: what the packages are told, and what has no score."""

import math

import numpy as np
import pytest
import scipy.linalg
from talking import RATE, opening

from sepfast import InputError, metrics
from sepfast.evaluation.speech_scores import score_speech


def noise(samples: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).normal(0, 0.1, samples)


def test_sdr_of_sources_is_a_projection_on_delays():
    target, other = noise(3000), noise(3000, 1)
    heard = np.convolve(target, noise(40, 2))[:3000] + 0.02 * other
    delayed = scipy.linalg.toeplitz(np.append(target, np.zeros(511)), np.zeros(512))
    padded = np.append(heard, np.zeros(511))
    explained = delayed @ np.linalg.lstsq(delayed, padded, rcond=None)[0]
    expected = 10 * np.log10((explained**2).sum() / ((padded - explained) ** 2).sum())
    assert score_speech(target, heard, RATE, ["sdr"])["sdr"] == pytest.approx(expected, abs=1e-3)
    # With the interferer as a source it is the same; as an image, the filter counts as distortion.
    sources, both = np.stack([target, other])[:, None], np.stack([heard, heard])[:, None]
    whole = {"window": math.inf, "hop": math.inf}
    scores = metrics.bss_eval(sources, both, RATE, **whole, kind="sources")
    assert scores.sdr[0, 0] == pytest.approx(expected, abs=1e-3)
    assert np.isnan(scores.isr).all()
    assert metrics.bss_eval(sources, both, RATE, **whole).sdr[0, 0] < expected - 5
    with pytest.raises(InputError, match="kind: got 'v3', takes images or sources"):
        metrics.bss_eval(sources, both, RATE, kind="v3")


def test_packages_are_told_what_the_paper_says(packages):
    wave = noise(RATE)
    assert metrics.pesq(wave, wave, RATE) == 4
    assert metrics.visqol(wave, 0.5 * wave, RATE) == 3
    assert packages.calls == [
        ("pesq", 8000, "nb", (8000,), np.float32),
        ("create", {"mode": "speech", "use_lattice_model": False}),
        ("visqol", 16000, (16000,), np.float64),
    ]


@pytest.mark.parametrize("score", [metrics.pesq, metrics.visqol])
def test_what_has_no_score_is_nan(packages, score):
    wave, silence = noise(RATE), np.zeros(RATE)
    assert math.isnan(score(silence, wave, RATE))
    assert math.isnan(score(wave, silence, RATE))
    assert packages.calls == []
    packages.answer = -7 if score is metrics.pesq else IndexError("list index out of range")
    assert math.isnan(score(wave, wave, RATE))
    packages.answer = math.nan
    assert math.isnan(score(wave, wave, RATE))
    for broken, message in (
        (wave[1:], r"estimate: got shape \(15999,\), takes \(16000,\)"),
        (np.append(wave[1:], np.nan), "estimate: holds NaN or infinite"),
        (np.ones(RATE, int), "estimate: got int64 samples, takes floats"),
    ):
        with pytest.raises(InputError, match=message):
            score(wave, broken, RATE)
    with pytest.raises(InputError, match=r"reference: got shape \(1, 16000\), takes"):
        score(wave[None], wave[None], RATE)
    with pytest.raises(InputError, match="sample_rate: got 0, takes"):
        score(wave, wave, 0)


def test_pesq_is_not_given_what_it_has_no_room_for(packages):
    wave = noise(20 * 8000 + 1)
    assert math.isnan(metrics.pesq(wave, wave, 8000))
    assert packages.calls == []
    assert metrics.pesq(wave[1:], wave[1:], 8000) == 4


def test_real_pesq():
    pytest.importorskip("pesq")
    wave = noise(RATE) * opening(np.arange(RATE) / RATE, 0)
    # The raw score of no difference, 4.5, by P.862.1's map.
    assert metrics.pesq(wave, wave, RATE) == pytest.approx(
        0.999 + 4 / (1 + math.exp(4.6607 - 1.4945 * 4.5)), abs=1e-3
    )
    scores = [metrics.pesq(wave, wave + level * noise(RATE, 1), RATE) for level in (0.01, 0.1, 1)]
    assert 4.5 > scores[0] > scores[1] > scores[2] > 1
    assert math.isnan(metrics.pesq(wave[:3000], wave[:3000], RATE))
    assert math.isnan(metrics.pesq(wave, 1e-30 * wave, RATE))


def test_real_visqol():
    pytest.importorskip("visqol")
    wave = noise(RATE) * opening(np.arange(RATE) / RATE, 0)
    scores = [metrics.visqol(wave, wave + level * noise(RATE, 1), RATE) for level in (0, 0.1, 1)]
    assert scores[0] == 5
    assert scores[0] > scores[1] > scores[2] >= 1
    assert math.isnan(metrics.visqol(wave[:10_239], wave[:10_239], RATE))
