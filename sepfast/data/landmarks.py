"""Landmarks of a face along a video: reading their files, and their motion at the audio's frames.

n video frames, m frames of the video at the audio's rate, T frames of the audio, 136 values: x and
y of each of 68 points in turn.

The motion is made in this order: the points are interpolated to 100 frames a second, at
`linspace(0, n (1 - 1 / m), m)` of the video's frames with m = round(100 n / rate), behind the last
of which it stands still; then each frame has the one before it subtracted, and the first frame is
zero. Normalising per speaker comes last (see `speaker_statistics`).
Source: D (Morrone et al. 2019), section 3.4.
"""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from sepfast.data.arrays import read_array
from sepfast.errors import InputError
from sepfast.files import PathLike, atomic

#: Values of a video frame: x and y of 68 points.
COLUMNS = 136
#: Frames of audio in a second.
FRAME_RATE = 100
#: Files that landmarks are read from.
LANDMARK_SUFFIXES = (".txt", ".npy")
#: Audio frames by which a video may be shorter than the audio: 0.1 s. An STFT that pads both ends
#: has two frames more than the video, and recorders lose a video frame or two.
TOLERANCE = 10

Floats = NDArray[np.float32]


def read_landmarks(path: PathLike) -> Floats:
    """The landmarks of a video, (frames, 136).

    Args:
        path: a text file with one video frame a line, its 136 numbers separated by blanks or
            commas (lines that begin with # are comments); or `*.npy` with an array (frames, 136)
            or (frames, 68, 2).

    Raises:
        InputError: for a file that is missing, empty, no text, of other columns, or holds anything
            but finite numbers, with the line.
    """
    path = Path(path)
    if not path.is_file():
        raise InputError(f"{path}: there is no such file; takes landmarks, .txt or .npy")
    return _read_array(path) if path.suffix.lower() == ".npy" else _read_text(path)


def write_landmarks(path: PathLike, landmarks: ArrayLike, video_rate: float) -> None:
    """Write landmarks as text, and the video's frame rate beside them as `NAME.json`.

    The numbers are whole pixels with nothing else in the file, since that is what other programs
    take, some of which read integers alone; so the rate has a file of its own.

    Args:
        path: the text file.
        landmarks: (frames, 136), at least one frame.
        video_rate: frames a second.

    Raises:
        InputError: for other landmarks, or where a file cannot be written.
    """
    path = Path(path)
    points = _checked(landmarks)
    about = {"video_rate": _checked_rate(video_rate), "frames": len(points)}
    # The rate comes first: an interrupted run leaves no landmarks whose rate is unknown.
    with atomic(_rate_path(path)) as temporary:
        temporary.write_text(json.dumps(about) + "\n", "utf-8")
    with atomic(path) as temporary:
        np.savetxt(temporary, np.rint(points), fmt="%d")


def read_video_rate(path: PathLike) -> float | None:
    """The frame rate of a video by the path of its landmarks; None where no file says.

    Raises:
        InputError: for a `NAME.json` that holds no positive `video_rate`.
    """
    path = _rate_path(Path(path))
    try:
        about: Any = json.loads(path.read_text("utf-8"))
        return _checked_rate(float(about["video_rate"]))
    except FileNotFoundError:
        return None
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise InputError(f'{path}: takes {{"video_rate": frames a second}}') from error


def motion_frames(video_frames: int, video_rate: float) -> int:
    """m: what some video frames are at 100 frames a second, at least 1."""
    return max(1, round(video_frames * FRAME_RATE / _checked_rate(video_rate)))


def check_video_frames(video_frames: int, video_rate: float, frames: int) -> None:
    """Raise `InputError` where a video ends more than 0.1 s before the audio's frames do."""
    held = motion_frames(video_frames, video_rate)
    if frames - held > TOLERANCE:
        raise InputError(
            f"landmarks: got {video_frames} video frames at {video_rate:g} a second, "
            f"{held / FRAME_RATE:.2f} s; takes {(frames - TOLERANCE) / FRAME_RATE:.2f} s or more "
            "for this audio"
        )


def landmark_motion(landmarks: ArrayLike, video_rate: float, frames: int) -> Floats:
    """What landmarks move by from one frame of the audio to the next, not yet normalised.

    A video that is longer than the audio is cut at its end. One that is shorter by up to 0.1 s
    stands still behind its last frame.

    Args:
        landmarks: (n, 136), at least one frame.
        video_rate: video frames a second, such as 25 (GRID) or 29.97 (TCD-TIMIT).
        frames: T, at least 1, at 100 a second.

    Returns:
        (T, 136); the first frame is zero.

    Raises:
        InputError: for other landmarks, a rate or frames out of range, or a shorter video.

    Example:
        >>> moving = np.arange(5.0)[:, None] * np.ones(136)
        >>> landmark_motion(moving, 25, 6)[:, 0]
        array([0.  , 0.25, 0.25, 0.25, 0.25, 0.25], dtype=float32)
    """
    points = _checked(landmarks)
    if frames < 1:
        raise InputError(f"frames: got {frames}, takes at least 1")
    check_video_frames(len(points), video_rate, frames)
    n, m = len(points), motion_frames(len(points), video_rate)
    at = np.linspace(0, n * (1 - 1 / m), m)[:frames]
    at = np.minimum(np.pad(at, (0, frames - len(at)), mode="edge"), n - 1)
    before = at.astype(np.intp)
    after = np.minimum(before + 1, n - 1)
    share = (at - before)[:, None]
    # As a sum of differences: where nothing moves, the motion is exactly zero.
    raised = points[before] + share * (points[after] - points[before])
    return np.diff(raised, axis=0, prepend=raised[:1]).astype(np.float32)


def _checked(landmarks: ArrayLike) -> NDArray[np.float64]:
    points = np.asarray(landmarks, np.float64)
    if points.ndim != 2 or points.shape[1] != COLUMNS or not len(points):
        raise InputError(f"landmarks: got shape {points.shape}, takes (frames, {COLUMNS})")
    if not np.isfinite(points).all():
        raise InputError("landmarks: holds NaN or infinite values, takes finite ones")
    return points


def _checked_rate(video_rate: float) -> float:
    if not 0 < video_rate < math.inf:
        raise InputError(f"video_rate: got {video_rate}, takes frames a second above 0")
    return float(video_rate)


def _rate_path(path: Path) -> Path:
    return path.with_suffix(".json")


def _read_array(path: Path) -> Floats:
    array = read_array(path)
    if array.shape[1:] not in ((COLUMNS,), (COLUMNS // 2, 2)) or not len(array):
        raise InputError(
            f"{path}: holds shape {array.shape}, takes (frames, {COLUMNS}) or "
            f"(frames, {COLUMNS // 2}, 2)"
        )
    return _finite(path, array.reshape(len(array), COLUMNS), range(1, len(array) + 1), "row")


def _read_text(path: Path) -> Floats:
    rows: list[list[float]] = []
    lines: list[int] = []
    for line, text in enumerate(_text(path).splitlines(), 1):
        fields = text.replace(",", " ").split()
        if not fields or fields[0].startswith("#"):
            continue
        if len(fields) != COLUMNS:
            raise InputError(
                f"{path}: line {line} holds {len(fields)} columns, takes {COLUMNS}, x and y of "
                f"{COLUMNS // 2} points"
            )
        rows.append(_numbers(path, line, fields))
        lines.append(line)
    if not rows:
        raise InputError(f"{path}: holds no landmarks, takes {COLUMNS} numbers in each line")
    return _finite(path, np.array(rows), lines, "line")


def _text(path: Path) -> str:
    try:
        return path.read_text("utf-8-sig")
    except UnicodeDecodeError as error:
        raise InputError(f"{path}: is no text, takes landmarks as .txt or .npy") from error
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror})") from error


def _numbers(path: Path, line: int, fields: list[str]) -> list[float]:
    numbers = []
    for field in fields:
        try:
            numbers.append(float(field))
        except ValueError as error:
            raise InputError(f"{path}: line {line} holds {field!r}, takes a number") from error
    return numbers


def _finite(path: Path, values: NDArray[Any], lines: range | list[int], unit: str) -> Floats:
    """Values as float32; raises where one is not finite, beyond float32's range included."""
    with np.errstate(over="ignore"):
        values = values.astype(np.float32)
    wrong = np.flatnonzero(~np.isfinite(values).all(1))
    if wrong.size:
        raise InputError(
            f"{path}: {unit} {lines[wrong[0]]} holds NaN or infinity, takes finite numbers"
        )
    return values
