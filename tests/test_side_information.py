"""System C's side information: each kind by hand, what holds for every seed, and files."""

import itertools

import numpy as np
import pytest
import torch

from sepfast import InputError, create_model
from sepfast.data import SIDE_KINDS, read_side_information, side_information
from sepfast.data.side_information import PADDING

SEEDS = range(30)


def vocals(*activity: float) -> np.ndarray:
    """Magnitudes (N, 3) whose sums over the bins are these."""
    return np.outer(activity, [0.5, 0.25, 0.25])


def made(kind, magnitudes, seed=0, **options) -> np.ndarray:
    """Side information as a flat sequence."""
    values = side_information(kind, magnitudes, seed, **options)
    assert values.dtype == np.float32
    assert values.shape == (len(values), 1)
    return values[:, 0]


def runs(sequence) -> list[tuple[float, int]]:
    return [(value, len(list(run))) for value, run in itertools.groupby(sequence)]


def unpadded(sequence) -> np.ndarray:
    return sequence[sequence != PADDING]


@pytest.fixture(scope="module")
def fragment() -> np.ndarray:
    """256 frames of 513 bins, with rests of 1 to 50 frames, as a fragment of the paper has them."""
    random = np.random.default_rng(7)
    lengths = [1, 50, 1, 1, 2, 2, 3, 3, 40, 17, 60, 30, 40, 6]
    active = np.repeat(np.arange(len(lengths)) % 2, lengths)
    return random.random((len(active), 513)) * active[:, None]


class TestByHand:
    def test_bl2_is_ones(self):
        assert made("BL2", vocals(0, 3, 0.05)).tolist() == [1, 1, 1]

    def test_m1_is_the_sum_over_bins(self):
        assert made("M1", [[1, 2, 3], [0, 0, 0], [0.5, 0, 0.25]]).tolist() == [6, 0, 0.75]

    @pytest.mark.parametrize(
        ("split", "expected"),
        [(0, [4, 0, 100, 100]), (0.4, [100, 4, 0, 100]), (0.99, [100, 100, 4, 0])],
    )
    def test_m2_is_padded_on_both_sides(self, split, expected):
        assert made("M2", vocals(4, 0), length=4, split=split).tolist() == expected

    def test_a1_is_whether_m1_reaches_the_threshold(self):
        magnitudes = np.array([[0.0999, 0], [0.1, 0], [0.05, 0.075], [0, 0], [30, 4]])
        assert made("A1", magnitudes, length=6, split=0).tolist() == [0, 1, 1, 0, 1, 100]

    def test_a2_shortens_runs_of_zeros(self):
        """Of 1, 2 and 3 zeros go 0, 1 and 1: the halves are 0.5, 1 and 1.5."""
        activity = vocals(0, 1, 0, 0, 1, 1, 0, 0, 0)
        for seed in SEEDS:
            assert made("A2", activity, seed, length=8, split=0).tolist() == [
                0,
                1,
                0,
                1,
                1,
                0,
                0,
                100,
            ]

    def test_a3_shortens_runs_of_ones_too(self):
        activity = vocals(0, 1, 0, 0, 1, 1, 0, 0, 0)
        for seed in SEEDS:
            assert made("A3", activity, seed, length=6, split=0).tolist() == [0, 1, 0, 1, 0, 0]

    def test_a32_is_rolled_with_its_padding(self):
        rolled = made("A3.2", vocals(0, 1), split=0)
        assert rolled[100:102].tolist() == [0, 1]
        assert (np.delete(rolled, [100, 101]) == 100).all()


class TestForEverySeed:
    @pytest.mark.parametrize("kind", SIDE_KINDS)
    def test_the_same_seed_gives_the_same(self, kind, fragment):
        assert len(fragment) == 256
        for seed in (0, (3, 1, 4)):
            np.testing.assert_array_equal(made(kind, fragment, seed), made(kind, fragment, seed))
        drawn = made(kind, fragment, np.random.default_rng(5))
        np.testing.assert_array_equal(drawn, made(kind, fragment, 5))
        assert len(drawn) == (256 if kind in ("BL2", "M1") else 300)

    def test_a_generator_goes_on(self, fragment):
        random = np.random.default_rng(0)
        assert (made("A3", fragment, random) != made("A3", fragment, random)).any()

    def test_global_randomness_is_left_alone(self, fragment):
        before = np.random.get_state()[1].copy()
        made("A3", fragment)
        np.testing.assert_array_equal(np.random.get_state()[1], before)

    def test_m2_and_a1_are_what_they_pad(self, fragment):
        total = fragment.sum(1).astype(np.float32)
        for seed in SEEDS:
            m2, a1 = made("M2", fragment, seed), made("A1", fragment, seed)
            np.testing.assert_array_equal(unpadded(m2), total)
            np.testing.assert_array_equal(unpadded(a1), total >= 0.1)
            np.testing.assert_array_equal(m2 == PADDING, a1 == PADDING)
            assert [value for value, _ in runs(m2 == PADDING)] in (
                [True, False, True],
                [True, False],
                [False, True],
            )

    def test_every_split_is_as_likely(self):
        fronts = [int(made("M2", vocals(1), seed, length=5).argmin()) for seed in range(1000)]
        assert np.bincount(fronts, minlength=5) == pytest.approx(200, abs=45)

    @pytest.mark.parametrize(("kind", "shortened"), [("A2", (0,)), ("A3", (0, 1))])
    def test_runs_keep_their_order_and_lose_1_to_half(self, kind, shortened, fragment):
        before = runs(unpadded(made("A1", fragment)))
        assert [length for _, length in before] == [1, 50, 1, 1, 2, 2, 3, 3, 40, 17, 60, 30, 40, 6]
        seen = set()
        for seed in SEEDS:
            after = runs(unpadded(made(kind, fragment, seed)))
            assert [value for value, _ in after] == [value for value, _ in before]
            for (value, long), (_, short) in zip(before, after, strict=True):
                if value in shortened and long > 1:
                    assert 1 <= long - short <= long // 2
                else:
                    assert short == long
            seen.add(after[10][1])
        assert len(seen) > 10  # of 30 lengths that 60 zeros can have

    def test_bounds_of_what_is_deleted_are_reached(self):
        activity = vocals(1, *[0] * 8, 1)
        lengths = {runs(unpadded(made("A2", activity, seed)))[1][1] for seed in range(100)}
        assert lengths == {4, 5, 6, 7}

    def test_a3_deletes_the_zeros_that_a2_does(self, fragment):
        for seed in SEEDS:
            a2, a3 = (runs(unpadded(made(kind, fragment, seed))) for kind in ("A2", "A3"))
            assert [n for value, n in a2 if value == 0] == [n for value, n in a3 if value == 0]

    def test_a32_is_a3_rolled_by_100(self, fragment):
        for seed in SEEDS:
            a3, a32 = made("A3", fragment, seed), made("A3.2", fragment, seed)
            np.testing.assert_array_equal(a32, np.concatenate([a3[-100:], a3[:-100]]))

    def test_a_split_is_the_same_for_a_batch(self):
        fragments = np.random.default_rng(0).random((4, 256, 3))
        batch = np.stack([made("M2", v, seed, split=0.5) for seed, v in enumerate(fragments)])
        assert (batch[:, :22] == PADDING).all()
        assert (batch[:, 22:278] < 4).all()
        assert (batch[:, 278:] == PADDING).all()

    @pytest.mark.parametrize("kind", SIDE_KINDS)
    def test_silence_noise_and_a_single_frame(self, kind):
        for magnitudes in (np.zeros((20, 3)), np.ones((20, 3)), np.zeros((1, 1)), np.ones((1, 3))):
            values = made(kind, magnitudes)
            assert np.isfinite(values).all()
            assert len(unpadded(values)) >= len(magnitudes) / 2

    def test_takes_the_models_magnitudes(self):
        model = create_model("informed", hidden=2, framing="landmarks")
        scaled, _ = model.scale(torch.rand(4, 257))
        side = torch.from_numpy(side_information("A2", scaled, 0))[None]
        assert model(scaled[None], side)[1].shape == (1, 4, 300)


@pytest.mark.parametrize(
    ("arguments", "options", "message"),
    [
        (("BL1", np.ones((2, 3)), 0), {}, "kind: got 'BL1', takes one of BL2, M1, M2"),
        (("M1", np.ones(3), 0), {}, r"vocals_magnitude: got shape \(3,\), takes \(frames, bins\)"),
        (("M1", np.ones((0, 3)), 0), {}, "vocals_magnitude: got shape"),
        (("M1", np.full((2, 3), np.nan), 0), {}, "vocals_magnitude: holds NaN"),
        (("M2", np.ones((301, 3)), 0), {}, "length: got 300, takes 301 or more"),
        (("M2", np.ones((2, 3)), 0), {"split": 1.0}, "split: got 1.0, takes 0 to below 1"),
    ],
)
def test_refuses(arguments, options, message):
    with pytest.raises(InputError, match=message):
        side_information(*arguments, **options)


class TestFiles:
    @pytest.mark.parametrize(
        "text",
        [
            "time,activity\n0,0\n0.5,1\n2.25,0\n",
            "0,0\n0.5,1\n2.25,0",
            "\ufeff0, 0\r\n\r\n0.5, 1\r\n2.25, 0\r\n",
            '"time";"activity"\n0;0\n0.5;1\n2.25;0\n',
            "0\t0\n5e-1\t1\n2.25\t0\n",
        ],
    )
    def test_times_and_values(self, tmp_path, text):
        path = tmp_path / "activity.csv"
        path.write_bytes(text.encode())
        times, values = read_side_information(path)
        assert times.tolist() == [0, 0.5, 2.25]
        assert values.tolist() == [[0], [1], [0]]
        assert (times.dtype, values.dtype) == (np.float64, np.float32)

    def test_several_values_a_step(self, tmp_path):
        path = tmp_path / "score.csv"
        path.write_text("time,pitch,velocity\n1,60,0.5\n1,64,0.25\n")
        assert read_side_information(path).values.tolist() == [[60, 0.5], [64, 0.25]]

    def test_a_single_column_has_no_times(self, tmp_path):
        path = tmp_path / "activity.csv"
        path.write_text("activity\n1\n0\n")
        times, values = read_side_information(path)
        assert times is None
        assert values.tolist() == [[1], [0]]

    @pytest.mark.parametrize(
        "array",
        [
            np.array([0.0, 1, 0.5]),
            np.array([[0], [1]], np.int16),
            np.array([True, False]),
            np.ones((2, 3), np.float16),
        ],
    )
    def test_npy(self, tmp_path, array):
        np.save(tmp_path / "side.npy", array)
        times, values = read_side_information(str(tmp_path / "side.npy"))
        assert times is None
        assert values.dtype == np.float32
        np.testing.assert_array_equal(values, array.reshape(len(array), -1))

    @pytest.mark.parametrize(
        ("text", "message"),
        [
            ("", "holds no values"),
            ("\n\n", "holds no values"),
            ("time,activity\n", "holds no values"),
            ("0,1\n1,nan\n", "line 2 holds nan, takes a finite number"),
            ("0,1\n1,inf\n", "line 2 holds inf, takes a finite number"),
            ("0,1e39\n", "line 1 holds 1e39, takes a finite number"),
            ("t,a\n\n0,1\n1,yes\n", "line 4 holds 'yes', takes a number"),
            ("activity\n1\nyes\n", "line 3 holds 'yes', takes a number"),
            ("0,x\n", "line 1 holds 'x', takes a number"),
            ("0,1\n1,\n", "line 2 holds '', takes a number"),
            ("0,1\n1\n", "line 2 holds 1 columns, takes 2 as above"),
            ("0,1\n1,1,1\n", "line 2 holds 3 columns, takes 2 as above"),
            ("0,1\n2,1\n1.5,0\n", "line 3 goes back to 1.5 s, takes times in order"),
        ],
    )
    def test_text_that_cannot_be_used_is_named_by_its_line(self, tmp_path, text, message):
        (tmp_path / "side.csv").write_text(text)
        self.refused(tmp_path / "side.csv", message)

    @pytest.mark.parametrize(
        ("array", "message"),
        [
            (np.ones((0,)), r"holds shape \(0,\), takes \(steps,\) or \(steps, features\)"),
            (np.ones((3, 0)), r"holds shape \(3, 0\)"),
            (np.ones((2, 3, 4)), r"holds shape \(2, 3, 4\)"),
            (np.float64(3), r"holds shape \(\)"),
            (np.array([1, np.nan]), "row 2 holds NaN or infinity"),
            (np.array([[1, 1], [1e300, 1]]), "row 2 holds NaN or infinity"),
            (np.array([1j]), "holds complex128 values, takes real numbers"),
            (np.array(["a"]), "holds <U1 values"),
        ],
    )
    def test_arrays_that_cannot_be_used_are_named(self, tmp_path, array, message):
        np.save(tmp_path / "side.npy", array)
        self.refused(tmp_path / "side.npy", message)

    def test_files_that_cannot_be_read_are_named(self, tmp_path):
        self.refused(tmp_path / "none.csv", "there is no such file")
        self.refused(tmp_path, "there is no such file")
        np.save(tmp_path / "object.npy", np.array([{}]), allow_pickle=True)
        (tmp_path / "empty.npy").touch()
        (tmp_path / "text.npy").write_text("0,1")
        for name in ("object.npy", "empty.npy", "text.npy"):
            self.refused(tmp_path / name, "is broken or no .npy file of numbers")
        (tmp_path / "binary.csv").write_bytes(b"\xff\xfe\x00\x01")
        self.refused(tmp_path / "binary.csv", "is no text")

    @staticmethod
    def refused(path, message):
        with pytest.raises(InputError, match=message) as error:
            read_side_information(path)
        assert str(error.value).startswith(str(path))
        assert "\n" not in str(error.value)
