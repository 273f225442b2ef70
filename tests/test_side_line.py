"""Side information along a recording: what is said at a time, and what each fragment is told."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from sepfast.data import SIDE_KINDS, SideInformation, SideLine, TrueLine, side_information
from sepfast.data.side_information import PADDING
from sepfast.data.side_line import Fragments
from sepfast.reference import FRAMINGS, Framing, stft_magnitude

RATE, HOP = 16000, 512
CONTEXT, STEPS = 8, 12
FRAMING = Framing(1024, HOP, "hamming", symmetric=False, front=512)
FALLING = [0.9, 0.4, 0.7, 0.1]


def fragments(kind="A1", **options) -> Fragments:
    return Fragments(FRAMING, RATE, CONTEXT, kind, STEPS, **options)


def test_a_value_holds_until_the_next_time():
    line = SideLine(SideInformation(np.array([1.0, 2.0, 2.0, 5.0]), np.array([1, 2, 3, 4])))
    at = [-1, 0, 0.99, 1, 1.99, 2, 4.99, 5, 99]
    assert line.at(at).ravel().tolist() == [1, 1, 1, 1, 1, 3, 3, 4, 4]


def test_without_times_values_are_spread_evenly():
    at = [0, 2.49, 2.5, 4.99, 5, 7.5, 9.99, 10.1]
    assert SideLine(FALLING).at(at, 10).ravel() == pytest.approx(
        [0.9, 0.9, 0.4, 0.4, 0.7, 0.1, 0.1, 0.1]
    )


def test_it_is_looked_at_in_the_centres_of_frames():
    """Frame 0 is centred on sample 0, each next one hop on."""
    change = (9.5 * HOP) / RATE
    line = SideLine(SideInformation(np.array([0, change]), np.array([[0], [1]])))
    told = line.steps(fragments("M1"), first=4)
    assert told.values.ravel().tolist() == [0] * 6 + [1] * 2
    assert told.frames.tolist() == list(range(CONTEXT))


@settings(deadline=None, max_examples=25)
@given(st.sampled_from(SIDE_KINDS[1:]), st.lists(st.booleans(), min_size=16, max_size=16))
def test_a_line_is_prepared_as_in_training(kind, active):
    total = np.array(active[4:12], np.float32) * 0.75  # M1 of the fragment, or its activity
    given = total if kind[0] == "M" else (total > 0).astype(np.float32)
    times = np.arange(16) * HOP / RATE
    values = np.zeros(16, np.float32)
    values[4:12] = given
    told = SideLine(SideInformation(times, values)).steps(fragments(kind), first=4)
    expected = side_information(kind, total[:, None], (0, 4), length=STEPS, split=0.5)
    np.testing.assert_array_equal(told.values, expected)
    np.testing.assert_array_equal(told.line[:, 0], given)
    kept = told.frames >= 0
    np.testing.assert_array_equal(told.values[kept], told.line[told.frames[kept]])
    assert (told.values[~kept] == PADDING).all()


def test_only_runs_are_measured_by_a_half():
    line = SideLine([[0.3, 0.2], [0.1, 0.6]])
    told = line.steps(fragments("A2", length=CONTEXT * HOP / RATE), first=0)
    values = told.values[told.frames >= 0]
    assert np.unique(values, axis=0) == pytest.approx(np.array([[0.1, 0.6], [0.3, 0.2]]))
    assert (values[:, 1] > 0.5).sum() == 4  # ones stay
    assert 2 <= (values[:, 1] < 0.5).sum() < 4  # zeros are shortened


@pytest.mark.parametrize("kind", SIDE_KINDS)
@pytest.mark.parametrize("first", [0, 4, 8, 16])
def test_the_true_line_is_that_of_training(kind, first):
    vocals = np.random.default_rng(0).uniform(-0.05, 0.05, (2, 10 * HOP + 100))
    vocals[:, 4 * HOP : 7 * HOP] = 0
    told = TrueLine(vocals, RATE, seed=3).steps(fragments(kind), first)
    padded = np.pad(vocals.mean(0), (512, 30 * HOP))  # silence behind its end
    heard = padded[first * HOP : (first + CONTEXT - 1) * HOP + 1024].astype(np.float32)
    magnitudes = stft_magnitude(torch.from_numpy(heard), FRAMINGS["informed"]).numpy()
    magnitudes = magnitudes / (magnitudes.max() or 1)
    expected = side_information(kind, magnitudes, (3, first), length=STEPS)
    np.testing.assert_allclose(told.values, expected, rtol=1e-5)


def test_the_true_line_is_taken_to_the_models_rate():
    tone = np.sin(np.arange(48_000) * 0.1)[None] * (np.arange(48_000) > 24_000)
    told = TrueLine(tone, 48_000).steps(fragments("A1"), first=12)
    active = told.values[told.frames >= 0].ravel()
    # The frames that reach into its second half second.
    assert active.tolist() == [float((n + 1) * HOP / RATE > 0.5) for n in range(12, 20)]
