"""Scores of silence: PES and EPS frame by frame, and their means."""

import math

import numpy as np
import pytest
from test_metrics import RATE, noise

from sepfast.errors import InputError
from sepfast.metrics import (
    eps,
    pes,
    silence_energy,
)


class TestSilenceEnergy:
    REFERENCE = np.array([[0, 0, 1, 0, 0, 0, 3, 0, 0], [0, 0, 0, 2, 0, 0, 0, 4, 9]], np.float32)
    ESTIMATE = np.array([[1, 2, 5, 5, 0, 0, 0, 0, 0], [2, 1, 5, 5, 0, 0, 0, 0, 9]], np.float32)

    def test_by_hand(self):
        """Frames of two samples at 1 Hz: predicted energies 10, 100, 0, 0; true 0, 5, 0, 25."""
        energy = pes(self.REFERENCE, self.ESTIMATE, 1, window=2, hop=2)
        assert energy.frames == 2
        assert energy.decibels == pytest.approx((10 + -120) / 2)
        energy = eps(self.REFERENCE, self.ESTIMATE, 1, window=2, hop=2)
        assert energy.frames == 1
        assert energy.decibels == pytest.approx(10 * math.log10(25))

    def test_frames_overlap(self):
        silence, ones = np.zeros(10), np.ones(10)
        assert pes(silence, ones, 1, window=4, hop=2) == (pytest.approx(10 * math.log10(4)), 4)

    def test_no_such_frame(self):
        for energy in (pes(np.ones(9), np.ones(9), 1), eps(np.ones(9), np.ones(9), 1)):
            assert math.isnan(energy.decibels)
            assert energy.frames == 0

    def test_refuses_shapes_that_differ_or_hold_nothing(self):
        with pytest.raises(InputError, match="estimate"):
            pes(np.ones((1, 4)), np.ones((2, 4)), 1)
        with pytest.raises(InputError, match="no samples"):
            pes(np.ones((1, 0)), np.ones((1, 0)), 1)


class TestSilentFrames:
    """Frames of 4 samples every 2, 11 samples: whole frames 0 to 3, and samples 8 to 10 over."""

    TRUE = np.array([3, 1, 0, 0, 0, 0, 5, 0, 0, 0, 0], np.float32)
    PREDICTED = np.array([0, 0, 0, 0, 2, 1, 1, 0, 0, 0, 0], np.float32)

    def test_by_hand(self):
        found = silence_energy(self.TRUE, self.PREDICTED, 4, 2)
        assert found.silent_true_source_frames == [1]
        assert found.silent_prediction_frames == [0]
        assert found.pes == pytest.approx([10 * math.log10(5)])
        assert found.eps == pytest.approx([10])

    def test_incomplete_last_frame_is_left_out_or_taken_in(self):
        found = silence_energy(self.TRUE, self.PREDICTED, 4, 2, eval_incomplete_last_frame=True)
        assert found.silent_true_source_frames == [1, 4]
        assert found.silent_prediction_frames == [0]
        assert found.pes == pytest.approx([10 * math.log10(5), -120])

    def test_eps_with_silent_targets_or_without(self):
        found = silence_energy(self.TRUE, self.PREDICTED, 4, 2, True, eps_for_silent_target=True)
        assert found.silent_prediction_frames == [0, 4]
        assert found.eps == pytest.approx([10, -120])

    @pytest.mark.parametrize("samples", range(1, 30))
    @pytest.mark.parametrize(("window", "hop"), [(4, 4), (4, 2), (5, 2), (3, 7), (1, 1)])
    def test_frames_are_the_whole_ones_and_at_most_one_more(self, samples, window, hop):
        """In silence every frame is named, and its energy is how many samples it has."""
        silence, ones = np.zeros(samples), np.ones(samples)
        starts = [start for start in range(0, samples, hop) if start + window <= samples]
        sizes = [window] * len(starts)
        assert (
            np.rint(10 ** (silence_energy(silence, ones, window, hop).pes / 10)).tolist() == sizes
        )
        start = len(starts) * hop
        if start < samples and (not starts or starts[-1] + window < samples):
            sizes.append(samples - start)
        found = silence_energy(silence, ones, window, hop, eval_incomplete_last_frame=True)
        assert np.rint(10 ** (found.pes / 10)).tolist() == sizes
        assert found.silent_true_source_frames == list(range(len(sizes)))

    def test_pes_and_eps_are_its_means(self):
        true, guess = noise(2, 5 * RATE), noise(2, 5 * RATE, seed=1)
        true[:, : 2 * RATE], guess[:, 3 * RATE :] = 0, 0
        found = silence_energy(true, guess, RATE, RATE // 2)
        assert pes(true, guess, RATE, hop=0.5) == (found.pes.mean(), 3)
        assert eps(true, guess, RATE, hop=0.5) == (found.eps.mean(), 3)
        assert (found.silent_true_source_frames, found.silent_prediction_frames) == (
            [0, 1, 2],
            [6, 7, 8],
        )

    def test_sums_over_channels(self):
        true = np.array([[0, 0], [0, 1.0]])
        found = silence_energy(true, np.array([[1, 0], [3, 0.0]]), 1, 1)
        assert found.pes == pytest.approx([10])
        assert found.eps == pytest.approx([0], abs=1e-9)

    def test_whole_numbers_do(self):
        found = silence_energy([0, 0], np.array([200, 200], np.uint8), np.int64(2), 2)
        assert found.pes == pytest.approx([10 * math.log10(80000)])

    @pytest.mark.parametrize(
        ("arguments", "message"),
        [
            (
                (np.ones(4), np.ones(5), 1, 1),
                r"predicted: got shape \(1, 5\), takes \(1, 4\) as true",
            ),
            ((np.ones(0), np.ones(0), 1, 1), "true: holds no samples"),
            ((np.ones(4), np.ones(4), 0, 1), "window: got 0, takes a whole number of samples"),
            ((np.ones(4), np.ones(4), 1, 0.5), "hop: got 0.5"),
        ],
    )
    def test_refuses(self, arguments, message):
        with pytest.raises(InputError, match=message):
            silence_energy(*arguments)
