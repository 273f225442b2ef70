"""The figure of an alignment: where it is light, what it says of padding, and what it refuses."""

import os

import numpy as np
import pytest
from matplotlib.image import imread

from sepfast import InputError
from sepfast.evaluation import alignment_figure
from sepfast.evaluation.alignment import _runs

RATE = 16000
#: The panel of the weights, in pixels, inside whatever its margins are.
PANEL = (slice(30, 560), slice(200, 1220))


def diagonal(steps=60, *, front=0):
    """Weights of as many frames as steps, side information with some padding in front."""
    weights = np.eye(steps - front, steps, front)
    side = np.linspace(0.1, 1, steps)[:, None]
    side[:front] = 100
    return weights, side, np.random.default_rng(0).random((steps - front, 33))


def drawn(path, weights, side, magnitudes, **options):
    """The picture, (height, width), from black to white."""
    alignment_figure(path, weights, side, magnitudes, **{"seconds": 2.0, "rate": RATE} | options)
    return imread(path)[..., :3].mean(-1)


def test_time_goes_right_and_steps_go_up(tmp_path):
    picture = drawn(tmp_path / "a.png", *diagonal())
    assert picture.shape == (1000, 1400)
    rows, columns = np.nonzero(picture[PANEL] > 0.8)
    assert np.corrcoef(rows, columns)[0, 1] < -0.99
    assert (picture[PANEL] > 0.8).mean() < 0.05  # and dark elsewhere


def test_lighter_is_more(tmp_path):
    weights, side, magnitudes = diagonal()
    weights[:30] *= 0.25
    panel = drawn(tmp_path / "a.png", weights, side, magnitudes)[PANEL]
    dim, bright = panel[:, :400].max(), panel[:, 600:].max()
    assert 0.2 < dim < bright - 0.2


def test_padding_has_a_look_of_its_own(tmp_path):
    weights, side, magnitudes = diagonal(front=20)
    padded = drawn(tmp_path / "a.png", weights, side, magnitudes)
    side[:20] = 1  # at the top of the range, and no padding
    whole = drawn(tmp_path / "b.png", weights, side, magnitudes)
    legend = (slice(930, 1000), slice(0, 1400))
    assert (padded[legend] < 0.5).sum() > (whole[legend] < 0.5).sum()
    strip = (slice(400, 570), slice(60, 150))
    assert not np.allclose(padded[strip], whole[strip])
    np.testing.assert_array_equal(padded[PANEL], whole[PANEL])


def test_padding_does_not_set_the_range_of_the_strip(tmp_path):
    """Values of 0 to 1 look the same with padding of 100 above them and without."""
    weights, side, magnitudes = diagonal()
    plain = drawn(tmp_path / "a.png", weights, side, magnitudes)
    side[-1] = 100
    padded = drawn(tmp_path / "b.png", weights, side, magnitudes)
    lower = (slice(300, 570), slice(90, 150))
    assert abs(plain[lower] - padded[lower]).max() < 0.05


@pytest.mark.parametrize(
    ("weights", "side", "magnitudes"),
    [
        ([[1.0]], [[0.5]], [[0.0]]),
        (np.zeros((4, 3)), np.full((3, 1), 100.0), np.zeros((7, 2))),
        (np.ones((1, 9)) / 9, np.ones((9, 1)), np.ones((1, 513))),
        (np.ones((5, 4)), -np.arange(12).reshape(4, 3), np.ones((5, 3))),
        (np.eye(1000, dtype=np.float32), np.zeros((1000, 40)), np.ones((1000, 513), np.float32)),
    ],
    ids=["one", "silence", "one frame", "three features", "a song"],
)
def test_every_size(tmp_path, weights, side, magnitudes):
    path = tmp_path / "new" / "a.png"
    assert drawn(path, weights, side, magnitudes, steps=70000, title="A song").shape[0] == 1000
    assert os.listdir(path.parent) == ["a.png"]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"side": np.ones((59, 1))}, "side: got 59 steps, takes 60 as the weights"),
        ({"side": np.ones(60)}, r"side: got shape \(60,\)"),
        ({"weights": np.zeros((0, 60))}, "weights: got shape"),
        ({"weights": -np.eye(60)}, "weights: got -1, takes no negative"),
        ({"magnitudes": np.full((3, 3), np.nan)}, "magnitudes: holds NaN"),
        ({"seconds": 0}, "seconds: got 0, takes a number above 0"),
        ({"rate": float("inf")}, "rate: got inf"),
    ],
)
def test_refuses(tmp_path, change, message):
    given = dict(zip(("weights", "side", "magnitudes"), diagonal(), strict=True))
    options = {"seconds": 1.0, "rate": RATE}
    with pytest.raises(InputError, match=message):
        alignment_figure(tmp_path / "a.png", **given | options | change)
    assert not list(tmp_path.iterdir())


def test_runs():
    of = np.array([True, True, False, True, False])
    assert _runs(of) == [(0, 2), (3, 4)]
    assert _runs(~of[2:3]) == [(0, 1)]
    assert _runs(of[2:3]) == []
