"""Landmarks: their files, their motion at the audio's frames, and their extraction from films."""

import sys
from types import SimpleNamespace

import av
import numpy as np
import pytest
import soundfile
from hypothesis import given, settings
from hypothesis import strategies as st
from talking import face
from typer.testing import CliRunner

from sepfast import InputError
from sepfast.cli.app import _app
from sepfast.data import landmark_motion, read_landmarks
from sepfast.data.face import DlibDetector, extract_landmarks, installed_model
from sepfast.data.landmarks import read_video_rate, write_landmarks

POINTS = np.random.default_rng(0).integers(0, 500, (3, 136))
LINE = " ".join(["1"] * 136)


@pytest.mark.parametrize("mark", [" ", "\t", ",", ", ", "  "])
def test_text_is_separated_by_blanks_or_commas(mark, tmp_path):
    path = tmp_path / "a.txt"
    lines = [mark.join(map(str, row)) for row in POINTS]
    path.write_text("\ufeff# made by hand\n\n" + "\r\n".join(lines) + "\n", "utf-8")
    assert read_landmarks(str(path)).dtype == np.float32
    np.testing.assert_array_equal(read_landmarks(path), POINTS)


@pytest.mark.parametrize("shape", [(3, 136), (3, 68, 2)])
def test_arrays(shape, tmp_path):
    np.save(tmp_path / "a.npy", POINTS.reshape(shape) + 0.5)
    np.testing.assert_array_equal(read_landmarks(tmp_path / "a.npy"), POINTS + 0.5)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "there is no such file"),
        (b"", "holds no landmarks"),
        (b"# nothing\n\n", "holds no landmarks"),
        (f"{LINE}\n{LINE} 1\n".encode(), "line 2 holds 137 columns, takes 136"),
        (f"{LINE}\n\n{LINE[:-1]}x\n".encode(), "line 3 holds 'x', takes a number"),
        (f"{LINE}\n\n{LINE[:-1]}nan\n".encode(), "line 3 holds NaN or infinity"),
        (f"{LINE[:-1]}1e39\n".encode(), "line 1 holds NaN or infinity"),
        (b"\xff\xfe\x00\x80", "is no text"),
    ],
)
def test_bad_text_gets_a_sentence_with_the_line(content, message, tmp_path):
    path = tmp_path / "a.txt"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(InputError, match=r"a\.txt: ") as caught:
        read_landmarks(path)
    assert message in str(caught.value)


@pytest.mark.parametrize(
    ("array", "message"),
    [
        (np.zeros((2, 135)), r"shape \(2, 135\)"),
        (np.zeros((0, 136)), r"shape \(0, 136\)"),
        (np.array([["a"] * 136]), "takes real numbers"),
        (np.array([[0.0] * 136, [np.nan] * 136]), "row 2 holds NaN"),
        (None, "is broken"),
    ],
)
def test_bad_arrays(array, message, tmp_path):
    path = tmp_path / "a.npy"
    path.write_bytes(b"\x93NUMPY nonsense") if array is None else np.save(path, array)
    with pytest.raises(InputError, match=message):
        read_landmarks(path)


def test_what_is_written_is_read_back_here_and_by_a_reader_of_integers(tmp_path):
    path = tmp_path / "new" / "a.txt"
    write_landmarks(path, POINTS + 0.3, 30000 / 1001)
    np.testing.assert_array_equal(read_landmarks(path), POINTS)
    np.testing.assert_array_equal(np.loadtxt(path, dtype=np.int32), POINTS)
    assert read_video_rate(path) == 30000 / 1001
    assert read_video_rate(tmp_path / "b.txt") is None
    assert sorted(each.name for each in path.parent.iterdir()) == ["a.json", "a.txt"]


@pytest.mark.parametrize("about", ["", "{}", '{"video_rate": 0}', '{"video_rate": "fast"}', "[25]"])
def test_a_broken_rate_is_not_passed_over(about, tmp_path):
    (tmp_path / "a.json").write_text(about)
    with pytest.raises(InputError, match=r"a\.json: takes"):
        read_video_rate(tmp_path / "a.txt")


@pytest.mark.parametrize(("video_rate", "m"), [(25, 40), (29.97, 33), (30000 / 1001, 33)])
def test_motion_is_interpolated_first_and_subtracted_then(video_rate, m):
    landmarks = np.random.default_rng(1).normal(0, 50, (10, 136))
    at = np.linspace(0, 10 * (1 - 1 / m), m)
    raised = np.stack([np.interp(at, np.arange(10), column) for column in landmarks.T], axis=1)
    motion = landmark_motion(landmarks, video_rate, m)
    assert motion.dtype == np.float32
    np.testing.assert_array_equal(motion[0], 0)
    np.testing.assert_allclose(motion[1:], raised[1:] - raised[:-1], rtol=0, atol=1e-5)


@pytest.mark.parametrize("video_rate", [25, 29.97, 50, 100, 120])
def test_a_linear_movement_has_constant_motion_of_its_speed(video_rate):
    n = 12
    speed = np.linspace(-3, 3, 136)  # pixels a video frame
    m = round(100 * n / video_rate)
    motion = landmark_motion(500 + np.arange(n)[:, None] * speed, video_rate, m)
    moving = int((n - 1) * m / n)  # frames before the last of the video
    np.testing.assert_allclose(
        motion[1 : moving + 1], np.tile(speed * n / m, (moving, 1)), rtol=1e-4, atol=1e-5
    )
    np.testing.assert_array_equal(motion[moving + 2 :], 0)


def test_longer_video_is_cut_and_shorter_is_held():
    landmarks = face(20, 25, seed=1)  # 80 frames of audio
    whole = landmark_motion(landmarks, 25, 80)
    np.testing.assert_array_equal(landmark_motion(landmarks, 25, 33), whole[:33])
    held = landmark_motion(landmarks, 25, 90)
    np.testing.assert_array_equal(held[:80], whole)
    np.testing.assert_array_equal(held[80:], 0)
    with pytest.raises(
        InputError, match=r"got 20 video frames at 25 a second, 0\.80 s; takes 0\.8"
    ):
        landmark_motion(landmarks, 25, 91)


def test_one_frame_does_not_move():
    np.testing.assert_array_equal(landmark_motion(np.ones((1, 136)), 25, 7), np.zeros((7, 136)))


@settings(max_examples=40, deadline=None)
@given(st.integers(1, 30), st.floats(5, 240), st.integers(0, 300))
def test_motion_adds_up_to_where_the_face_has_gone(n, video_rate, seed):
    landmarks = np.random.default_rng(seed).integers(0, 500, (n, 136))
    m = max(1, round(100 * n / video_rate))
    motion = landmark_motion(landmarks, video_rate, m + 10)
    gone = motion.astype(np.float64).sum(axis=0)
    # The last position is n - n / m: behind the last frame where the video is slower than audio.
    last = landmarks[0] + gone
    if m >= n:
        np.testing.assert_allclose(last, landmarks[-1], atol=1e-3)
    assert (np.abs(last - 250) <= 250 + 1e-3).all()


@pytest.mark.parametrize(
    ("landmarks", "video_rate", "frames", "message"),
    [
        (np.zeros((5, 135)), 25, 20, r"got shape \(5, 135\)"),
        (np.zeros((0, 136)), 25, 20, r"got shape \(0, 136\)"),
        (np.full((5, 136), np.nan), 25, 20, "NaN"),
        (np.zeros((5, 136)), 0, 20, "video_rate: got 0"),
        (np.zeros((5, 136)), float("nan"), 20, "video_rate: got nan"),
        (np.zeros((5, 136)), 25, 0, "frames: got 0"),
    ],
)
def test_bad_motion(landmarks, video_rate, frames, message):
    with pytest.raises(InputError, match=message):
        landmark_motion(landmarks, video_rate, frames)


# Films: a bright square on black is the face, and a detector that finds it stands in for dlib's.

RING = np.stack([np.cos(np.arange(68)), np.sin(np.arange(68))], axis=-1)


def film(path, shown: list[bool], rate: int = 25):
    """A square that goes one pixel to the right each frame, where it is shown."""
    with av.open(str(path), "w") as container:
        stream = container.add_stream("mpeg4", rate=rate)
        stream.width, stream.height, stream.bit_rate = 96, 64, 4_000_000
        for i, there in enumerate(shown):
            picture = np.zeros((64, 96, 3), np.uint8)
            if there:
                picture[20:40, 10 + i : 30 + i] = 255
            frame = av.VideoFrame.from_ndarray(picture, format="rgb24")
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
    return path


def square(picture: np.ndarray) -> np.ndarray | None:
    assert picture.shape == (64, 96)
    assert picture.dtype == np.uint8
    y, x = np.nonzero(picture > 128)
    return (x.mean(), y.mean()) + 5 * RING if len(x) else None


def test_a_face_is_followed_and_short_gaps_are_interpolated(tmp_path):
    shown = [False, *[True] * 20, False, False, *[True] * 17]
    found = extract_landmarks(film(tmp_path / "a.mp4", shown), square)
    assert found.video_rate == 25
    assert found.missing == 3
    assert found.landmarks.shape == (40, 136)
    centre = 19.5 + np.arange(40)
    centre[0] = centre[1]  # held
    np.testing.assert_allclose(found.landmarks[:, 0] - 5 * RING[0, 0], centre, atol=0.6)
    np.testing.assert_allclose(found.landmarks[:, 1], 29.5 + 5 * RING[0, 1], atol=0.6)


@pytest.mark.parametrize(
    ("shown", "message"),
    [
        ([True] * 30 + [False] * 6 + [True] * 30, "shows no face from 1.20 to 1.44 s"),
        ([True, False] * 10, "shows a face in 10 of 20 frames, takes 90%"),
        ([False] * 5, "shows a face in 0 of 5 frames"),
    ],
)
def test_a_face_that_is_not_there_is_said(shown, message, tmp_path):
    with pytest.raises(InputError, match=message):
        extract_landmarks(film(tmp_path / "a.mp4", shown), square)


def test_what_is_no_film_is_said(tmp_path, song_path):
    (tmp_path / "a.mp4").write_bytes(b"no film at all" * 100)
    with pytest.raises(InputError, match="is corrupt, or not a video"):
        extract_landmarks(tmp_path / "a.mp4", square)
    with pytest.raises(InputError, match="there is no such file"):
        extract_landmarks(tmp_path / "b.mp4", square)
    soundfile.write(tmp_path / "c.wav", np.zeros(1000), 8000)
    with pytest.raises(InputError, match="holds no video"):
        extract_landmarks(tmp_path / "c.wav", square)


class FakeDlib:
    """Two faces, the second larger, found at twice the size alone."""

    def __init__(self, points: int = 68) -> None:
        self.points, self.models = points, []

    def get_frontal_face_detector(self):
        small, large = (SimpleNamespace(area=lambda a=a: a, at=a) for a in (1, 9))
        return lambda picture, upsampled: [small, large] if upsampled else []

    def shape_predictor(self, path):
        self.models.append(path)

        def predict(picture, face):
            parts = [SimpleNamespace(x=i, y=face.at) for i in range(self.points)]
            return SimpleNamespace(parts=lambda: parts)

        return predict


@pytest.fixture
def model_package(tmp_path, monkeypatch):
    """An installed package with the model's file."""
    path = tmp_path / "site/face_recognition_models/models/shape_predictor_68_face_landmarks.dat"
    path.parent.mkdir(parents=True)
    path.touch()
    (path.parents[1] / "__init__.py").write_text("raise ImportError('is not imported')")
    monkeypatch.syspath_prepend(str(tmp_path / "site"))
    return path


def test_dlib_gives_the_largest_face(model_package, monkeypatch):
    dlib = FakeDlib()
    monkeypatch.setitem(sys.modules, "dlib", dlib)
    points = DlibDetector()(np.zeros((64, 96), np.uint8))
    np.testing.assert_array_equal(points, [(i, 9) for i in range(68)])
    assert dlib.models == [str(model_package)]
    monkeypatch.setitem(sys.modules, "dlib", FakeDlib(points=5))
    with pytest.raises(InputError, match="gives 5 points, takes one of 68"):
        DlibDetector(model_package)(np.zeros((64, 96), np.uint8))


def test_what_is_not_installed_is_said(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "dlib", None)
    with pytest.raises(InputError, match=r"dlib is not installed, takes `pip install 'sepfast\["):
        DlibDetector()
    monkeypatch.setitem(sys.modules, "dlib", FakeDlib())
    monkeypatch.setattr("sepfast.data.face._MODEL_PACKAGE", "no_such_package")
    with pytest.raises(InputError, match="the 68-point model is not installed, takes --model"):
        installed_model()
    with pytest.raises(InputError, match=r"none\.dat: there is no such file"):
        DlibDetector(tmp_path / "none.dat")


def test_the_command_writes_a_file_a_video_and_goes_on_behind_a_bad_one(tmp_path, monkeypatch):
    monkeypatch.setattr("sepfast.data.face.DlibDetector", lambda model: square)
    films = [str(film(tmp_path / f"{name}.mp4", [True] * 5, rate=30)) for name in "ab"]
    (tmp_path / "bad.mp4").write_bytes(b"nothing")
    out = tmp_path / "s1/landmarks"
    arguments = ["landmarks", films[0], str(tmp_path / "bad.mp4"), films[1], "-o", str(out)]
    done = CliRunner().invoke(_app(), arguments)
    assert done.exit_code == 2
    assert "a.txt: 5 frames at 30 a second" in done.output.replace("\n", "")
    assert "1 of 3 videos have no usable face" in done.output
    assert sorted(each.name for each in out.iterdir()) == ["a.json", "a.txt", "b.json", "b.txt"]
    assert read_video_rate(out / "a.txt") == 30
    motion = landmark_motion(read_landmarks(out / "a.txt"), 30, 17)
    assert motion[:, 0].sum() == 4  # pixels to the right
    twice = CliRunner().invoke(_app(), ["landmarks", films[0], films[0], "-o", str(out)])
    assert twice.exit_code == 2
    assert "takes each name once" in twice.output
