"""Scores: known values, museval's own, silence, and when SIR and SAR cannot be trusted."""

import math
import os
import subprocess
import sys
import time

import numpy as np
import pytest
import scipy.linalg
import scipy.signal

from sepfast import metrics, packages
from sepfast.errors import InputError
from sepfast.metrics import (
    bss_eval,
    conditioning,
    si_sdr,
    song_median,
    statistics,
)
from sepfast.packages import museval_metrics

RATE = 8000


museval = museval_metrics()


SCORES = ("sdr", "isr", "sir", "sar")


def noise(*shape: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal(shape)


@pytest.fixture(scope="module")
def excerpt(stems) -> np.ndarray:
    """Three seconds of real vocals, drums and bass in mono, (3, 1, samples)."""
    return stems[:3, :, 44100 : 4 * 44100].mean(1, keepdims=True, dtype=np.float64)


@pytest.fixture(scope="module")
def masked(excerpt) -> np.ndarray:
    """The excerpt separated by its own Wiener masks."""
    _, _, spectra = scipy.signal.stft(excerpt, nperseg=2048)
    powers = np.abs(spectra) ** 2
    _, waves = scipy.signal.istft(powers / powers.sum(0) * spectra.sum(0), nperseg=2048)
    return waves[..., : excerpt.shape[-1]]


@pytest.fixture(scope="module")
def settled(excerpt, masked) -> metrics.BSSEval:
    """The scores with enough noise in the references that more makes no difference."""
    return bss_eval(with_noise(excerpt, -65), masked, 44100)


def with_noise(waveforms: np.ndarray, dbfs: float) -> np.ndarray:
    return waveforms + 10 ** (dbfs / 20) * noise(*waveforms.shape, seed=1)


class TestBSSEval:
    @pytest.mark.parametrize(("mode", "channels"), [("v4", 2), ("v3", 1)])
    def test_agrees_with_museval_called_directly(self, mode, channels):
        references, estimates = (noise(2, channels, RATE, seed=s) for s in (0, 1))
        estimates += 2 * references
        ours = bss_eval(references, estimates, RATE, window=0.6, hop=0.4, mode=mode)
        theirs = museval.bss_eval(
            np.moveaxis(references, 1, 2),
            np.moveaxis(estimates, 1, 2),
            window=4800,
            hop=3200,
            framewise_filters=mode == "v3",
        )
        for name, expected in zip(SCORES, theirs, strict=False):
            assert expected.shape == (2, 2)
            np.testing.assert_allclose(getattr(ours, name), expected, rtol=1e-9)

    def test_perfect_estimates_score_very_high(self):
        references = noise(2, 1, 2 * RATE)
        scores = bss_eval(references, references, RATE)
        assert scores.sdr.shape == (2, 2)
        assert (scores.sdr > 200).all()
        assert (scores.sir > 200).all()

    def test_sdr_of_added_noise_is_its_level(self):
        references = noise(2, 1, 4 * RATE)
        estimates = references + 0.1 * noise(2, 1, 4 * RATE, seed=1)
        sdr = bss_eval(references, estimates, RATE).sdr
        np.testing.assert_allclose(sdr, 20, atol=0.2)

    def test_silent_frames_are_counted_where_they_are(self):
        references, estimates = noise(3, 1, 5 * RATE), noise(3, 1, 5 * RATE, seed=1)
        references[1, :, : 2 * RATE] = 0
        estimates[2, :, RATE : 3 * RATE] = 0
        scores = bss_eval(references, estimates, RATE)
        assert scores.silent.tolist() == [0, 2, 2]
        for name in SCORES:
            missing = np.isnan(getattr(scores, name))
            np.testing.assert_array_equal(missing, [[True, True, True, False, False]] * 3)

    def test_source_silent_throughout_leaves_the_others_as_they_are(self):
        references, estimates = noise(3, 1, 2 * RATE), noise(3, 1, 2 * RATE, seed=1)
        references[1] = 0
        scores = bss_eval(references, estimates, RATE)
        without = bss_eval(references[[0, 2]], estimates[[0, 2]], RATE)
        assert scores.silent.tolist() == [0, 2, 0]
        assert np.isnan(scores.sdr[1]).all()
        for name in SCORES:
            np.testing.assert_array_equal(getattr(scores, name)[[0, 2]], getattr(without, name))

    def test_estimate_silent_throughout_keeps_its_reference_as_interference(self):
        references = noise(2, 1, 2 * RATE)
        estimates = np.stack([references.sum(0), 0 * references[1]])
        scores = bss_eval(references, estimates, RATE)
        assert np.isnan(scores.sir[1]).all()
        np.testing.assert_allclose(scores.sir[0], 0, atol=1)  # as much of source 1 as of 0

    def test_all_silent(self):
        scores = bss_eval(np.zeros((2, 1, RATE)), noise(2, 1, RATE), RATE, window=0.5)
        assert np.isnan(scores.sdr).all()
        assert math.isnan(scores.conditioning)
        assert scores.trusted

    def test_signal_shorter_than_a_frame_is_one_frame(self):
        references = noise(2, 1, 1000)
        assert bss_eval(references, references, RATE).sdr.shape == (2, 1)

    def test_rest_behind_the_last_frame_is_not_scored(self):
        references = noise(2, 1, 2 * RATE + 4000)
        estimates = references.copy()
        estimates[..., 2 * RATE :] = 1e3
        scores = bss_eval(references, estimates, RATE)
        assert scores.sdr.shape == (2, 2)
        assert (scores.sdr > 200).all()

    def test_inputs_are_not_changed(self):
        references, estimates = noise(2, 1, RATE), noise(2, 1, RATE, seed=1)
        before = references.copy(), estimates.copy()
        bss_eval(references, estimates, RATE)
        np.testing.assert_array_equal(references, before[0])
        np.testing.assert_array_equal(estimates, before[1])

    @pytest.mark.parametrize(
        ("arguments", "message"),
        [
            ((np.ones((2, 1, 9)), np.ones((2, 1, 8)), RATE), "estimates: got shape"),
            ((np.ones((2, 9)), np.ones((2, 9)), RATE), "references: got shape"),
            ((np.ones((0, 1, 9)), np.ones((0, 1, 9)), RATE), "references: got shape"),
            ((np.ones((1, 1, 9)), np.ones((1, 1, 9), np.int16), RATE), "estimates: got int16"),
            ((np.ones((1, 1, 9)), np.full((1, 1, 9), np.nan), RATE), "estimates: holds NaN"),
            ((np.ones((1, 1, 9)), np.ones((1, 1, 9)), 0.5), "window: got"),
        ],
    )
    def test_refuses(self, arguments, message):
        with pytest.raises(InputError, match=message):
            bss_eval(*arguments)

    def test_refuses_options(self):
        for options in ({"mode": "v5"}, {"hop": 0}, {"window": -1}, {"hop": math.nan}):
            with pytest.raises(InputError, match=next(iter(options))):
                bss_eval(np.ones((1, 1, 9)), np.ones((1, 1, 9)), RATE, **options)


class TestConditioning:
    def test_white_noise_is_near_one(self):
        assert 1 < conditioning(noise(2, 2, 30 * RATE)) < 1.5

    def test_is_the_gap_to_the_emptiest_band(self):
        """A tone over a noise floor 50 dB below it, whatever the scale."""
        tone = np.sin(2 * np.pi * 440 / RATE * np.arange(10 * RATE)) * math.sqrt(2)
        mixture = (tone + 10 ** (-50 / 20) * noise(10 * RATE))[None, None]
        assert 10 * math.log10(conditioning(mixture)) == pytest.approx(50, abs=2)
        assert conditioning(1e-3 * mixture) == pytest.approx(conditioning(mixture))

    def test_is_the_smallest_eigenvalue_of_the_gram_matrix(self, excerpt):
        """That of museval's own matrix, the channels whitened, is 1 / conditioning."""
        references = with_noise(excerpt[:2], -90)[:, 0]
        powers, directions = np.linalg.eigh(references @ references.T)
        white = (directions / np.sqrt(powers)).T @ references
        gram, _ = museval._compute_reference_correlations(white[..., None], 512)
        smallest = scipy.linalg.eigvalsh(museval._reshape_G(gram), subset_by_index=[0, 0])[0]
        assert 0.8 < conditioning(references[:, None]) * smallest < 2

    def test_equal_channels_do_no_harm(self):
        mono = noise(2, 1, 4 * RATE)
        stereo = np.repeat(mono, 2, axis=1)
        assert conditioning(stereo) == pytest.approx(conditioning(mono))
        assert conditioning(np.concatenate([mono, 0 * mono])) == pytest.approx(conditioning(mono))

    def test_real_stems_are_flagged_and_with_noise_are_not(self, stems):
        assert conditioning(stems) > 1e10
        samples = stems.shape[-1]
        for dbfs, trusted in ((-100, False), (-90, False), (-80, True), (-60, True)):
            condition = conditioning(with_noise(stems, dbfs))
            assert metrics.trustworthy(condition, 44100) == trusted
        assert not metrics.trustworthy(conditioning(stems), samples)

    def test_trusted_scores_have_settled(self, excerpt, masked, settled):
        scores = bss_eval(with_noise(excerpt, -80), masked, 44100)
        assert scores.trusted
        for name in SCORES:
            moved = np.median(getattr(scores, name), 1) - np.median(getattr(settled, name), 1)
            assert abs(moved).max() < 0.3

    def test_flagged_scores_are_decibels_off(self, excerpt, masked, settled):
        scores = bss_eval(excerpt, masked, 44100)
        assert not scores.trusted
        assert abs(scores.sdr - settled.sdr).max() < 0.05
        assert (np.median(settled.sir, 1) - np.median(scores.sir, 1)).max() > 2

    def test_one_frame_over_the_whole_signal_is_trusted_and_right(self, excerpt, masked):
        raw = bss_eval(excerpt, masked, 44100, window=math.inf, hop=math.inf)
        noisy = bss_eval(with_noise(excerpt, -80), masked, 44100, window=math.inf)
        assert raw.sdr.shape == (3, 1)
        assert raw.conditioning > 1e9
        assert raw.trusted
        np.testing.assert_allclose(raw.sir, noisy.sir, atol=0.2)
        np.testing.assert_allclose(raw.sar, noisy.sar, atol=0.2)

    def test_filters_fitted_to_each_frame_are_trusted(self):
        tones = np.sin(np.outer([0.1, 0.2], np.arange(RATE)))[:, None]
        estimates = tones + 0.1 * noise(*tones.shape)
        for mode, trusted in (("v4", False), ("v3", True)):
            assert bss_eval(tones, estimates, RATE, window=0.5, mode=mode).trusted == trusted

    def test_is_cheap_beside_museval(self, excerpt, masked):
        start = time.process_time()
        conditioning(excerpt[:2])
        middle = time.process_time()
        bss_eval(excerpt[:2], masked[:2], 44100)
        assert middle - start < 0.2 * (time.process_time() - middle)


class TestSISDR:
    def test_known_value(self):
        """Noise orthogonal to the reference, at a tenth of its amplitude: 20 dB."""
        reference, orthogonal = np.array([1.0, 1, 1, 1]), np.array([1.0, -1, 1, -1])
        assert si_sdr(reference, reference + 0.1 * orthogonal) == pytest.approx(20)

    def test_scale_of_either_makes_no_difference(self):
        reference, estimate = noise(3, 2, 500), noise(3, 2, 500, seed=1)
        value = si_sdr(reference, estimate)
        assert value.shape == (3, 2)
        np.testing.assert_allclose(si_sdr(1e-3 * reference, estimate), value)
        np.testing.assert_allclose(si_sdr(reference, -20 * estimate), value)

    def test_edges(self):
        wave, silence = np.array([1.0, 2, 4, 8]), np.zeros(4)
        assert math.isnan(si_sdr(silence, wave))
        assert math.isnan(si_sdr(silence, silence))
        assert si_sdr(wave, silence) == -math.inf
        assert si_sdr(wave, 0.5 * wave) == math.inf

    def test_refuses_shapes_that_differ(self):
        with pytest.raises(InputError, match="estimate"):
            si_sdr(np.ones(4), np.ones(5))


class TestSummaries:
    def test_nan_is_left_out(self):
        found = statistics([1.0, math.nan, 3.0, 8.0])
        assert (found.mean, found.median, found.count) == (4.0, 3.0, 3)
        assert found.std == pytest.approx(math.sqrt(26 / 3))

    def test_nothing_is_nan_without_a_warning(self):
        found = statistics([math.nan, math.nan])
        assert math.isnan(found.mean)
        assert math.isnan(found.median)
        assert found.count == 0

    def test_infinite_scores_are_no_error(self):
        found = statistics([1.0, 2.0, math.inf])
        assert (found.mean, found.median) == (math.inf, 2.0)

    def test_song_median_is_over_frames(self):
        medians = song_median([[[1.0, 2, 9], [math.nan, 4, 6]], [[math.nan] * 3, [0, 0, 1]]])
        np.testing.assert_array_equal(medians, [[2, 5], [math.nan, 0]])


def test_a_module_that_fails_halfway_is_not_taken_for_whole(tmp_path, monkeypatch):
    (tmp_path / "metrics.py").write_text("half = 1\nraise ImportError('no scipy')\n")
    monkeypatch.setattr(packages, "_folder", lambda package: tmp_path)
    monkeypatch.delitem(sys.modules, "museval.metrics")
    for _ in range(2):
        with pytest.raises(ImportError, match="no scipy"):
            museval_metrics()


def test_scores_and_the_example_song_need_no_program_ffmpeg():
    """museval's package refuses to be imported without one."""
    code = (
        "import numpy as np; from sepfast.metrics import bss_eval;"
        "from sepfast.packages import example_song;"
        "assert example_song().is_file();"
        "x = np.random.default_rng(0).standard_normal((2, 1, 900));"
        "bss_eval(x, x + 0.1, 300)"
    )
    subprocess.run([sys.executable, "-c", code], check=True, env={**os.environ, "PATH": ""})
