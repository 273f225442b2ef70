"""Landmarks of a face from a video: PyAV gives the frames, dlib finds the face and its 68 points.

dlib and the 68-point model are optional, `pip install 'sepfast[landmarks]'`, and are looked for
when they are first used. That model was trained on the 300-W pictures, whose terms allow research
only.
Source: D (Morrone et al. 2019), section 3.4.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from numpy.typing import NDArray

from sepfast.data.landmarks import COLUMNS, Floats, write_landmarks
from sepfast.errors import InputError
from sepfast.files import PathLike

if TYPE_CHECKING:
    from fractions import Fraction

    from av.video.stream import VideoStream

#: What finds the points of a picture: (height, width) uint8, grey, to (68, 2), or None for no face.
Detector = Callable[[NDArray[np.uint8]], NDArray[np.floating] | None]

_MODEL_PACKAGE = "face_recognition_models"
_MODEL_FILE = "models/shape_predictor_68_face_landmarks.dat"
_INSTALL = "pip install 'sepfast[landmarks]'"


class VideoLandmarks(NamedTuple):
    """What was found in a video.

    Attributes:
        landmarks: (frames, 136), x and y of each point in turn, in pixels.
        video_rate: frames a second.
        missing: frames without a face, which are interpolated.
    """

    landmarks: Floats
    video_rate: float
    missing: int


class DlibDetector:
    """dlib's frontal face detector and 68-point model; of several faces, the largest.

    Args:
        model: the file of the 68-point model; None for that of an installed package.

    Raises:
        InputError: where dlib is not installed, or there is no such model.
    """

    def __init__(self, model: PathLike | None = None) -> None:
        try:
            import dlib
        except ImportError as error:
            raise InputError(f"landmarks: dlib is not installed, takes `{_INSTALL}`") from error
        path = installed_model() if model is None else Path(model)
        if not path.is_file():
            raise InputError(f"{path}: there is no such file; takes dlib's 68-point model, a .dat")
        self._faces = dlib.get_frontal_face_detector()
        try:
            self._points = dlib.shape_predictor(str(path))
        except RuntimeError as error:
            raise InputError(f"{path}: is no 68-point model of dlib") from error

    def __call__(self, picture: NDArray[np.uint8]) -> NDArray[np.floating] | None:
        """The points of the largest face, (68, 2); None where there is no face.

        Raises:
            InputError: where the model gives other points.
        """
        # Faces of 80 pixels are found as they are; smaller ones in the picture at twice its size.
        faces = self._faces(picture, 0) or self._faces(picture, 1)
        if not faces:
            return None
        found = self._points(picture, max(faces, key=lambda face: face.area())).parts()
        if 2 * len(found) != COLUMNS:
            raise InputError(f"model: gives {len(found)} points, takes one of {COLUMNS // 2}")
        return np.array([(point.x, point.y) for point in found], np.float64)


def installed_model() -> Path:
    """The 68-point model that the package of the extra carries.

    Raises:
        InputError: where it is not installed.
    """
    spec = importlib.util.find_spec(_MODEL_PACKAGE)
    for folder in (spec and spec.submodule_search_locations) or ():
        path = Path(folder) / _MODEL_FILE
        if path.is_file():
            return path
    raise InputError(
        f"landmarks: the 68-point model is not installed, takes --model FILE or `{_INSTALL}`"
    )


def extract_landmarks(
    video: PathLike,
    detector: Detector,
    *,
    longest_gap: float = 0.2,
    least_share: float = 0.9,
    progress: Callable[[int, int | None], None] = lambda done, total: None,
) -> VideoLandmarks:
    """The landmarks of a video's every frame.

    Frames without a face are interpolated between their neighbours; at the start and at the end
    the nearest face is held.

    Args:
        video: any file that FFmpeg decodes, with a constant frame rate.
        detector: a `DlibDetector`, or what does its work.
        longest_gap: seconds without a face that are interpolated.
        least_share: of the frames that must show a face, 0 to 1.
        progress: is told how many frames are done, and of how many where the file says.

    Raises:
        InputError: for a file that is missing, broken or has no video, or where the face is not
            seen often enough.
    """
    video = Path(video)
    found: list[NDArray[np.floating] | None] = []
    with _Video(video) as frames:
        for picture in frames:
            points = detector(picture)
            found.append(None if points is None else np.asarray(points, np.float64).ravel())
            progress(len(found), frames.total)
        rate = frames.rate
    if not found:
        raise InputError(f"{video}: holds no video frames")
    seen = np.flatnonzero([points is not None for points in found])
    if not len(seen) or len(seen) < least_share * len(found):
        raise InputError(
            f"{video}: shows a face in {len(seen)} of {len(found)} frames, takes "
            f"{least_share:.0%} or more"
        )
    _check_gaps(video, seen, len(found), rate, longest_gap)
    known = np.array([found[i] for i in seen])
    every = np.arange(len(found))
    columns = [np.interp(every, seen, column) for column in known.T]
    landmarks = np.stack(columns, axis=1).astype(np.float32)
    return VideoLandmarks(landmarks, rate, len(found) - len(seen))


def landmarks_path(video: PathLike, folder: PathLike) -> Path:
    """The file of a video's landmarks in a folder: NAME.txt."""
    return Path(folder) / f"{Path(video).stem}.txt"


def extract_file(
    video: PathLike,
    folder: PathLike,
    detector: Detector,
    *,
    progress: Callable[[int, int | None], None] = lambda done, total: None,
) -> tuple[Path, VideoLandmarks]:
    """Write a video's landmarks as `write_landmarks` does; where, and what was found.

    Raises:
        InputError: as `extract_landmarks` and `write_landmarks` do.
    """
    path = landmarks_path(video, folder)
    found = extract_landmarks(video, detector, progress=progress)
    write_landmarks(path, found.landmarks, found.video_rate)
    return path, found


def _check_gaps(
    video: Path, seen: NDArray[np.intp], frames: int, rate: float, longest: float
) -> None:
    """Raise where a run of frames without a face is too long."""
    edges = np.concatenate(([-1], seen, [frames]))
    gaps = np.diff(edges) - 1
    worst = int(np.argmax(gaps))
    if gaps[worst] > longest * rate:
        start, stop = (edges[worst] + 1) / rate, edges[worst + 1] / rate
        raise InputError(
            f"{video}: shows no face from {start:.2f} to {stop:.2f} s, takes gaps up to "
            f"{longest:g} s"
        )


class _Video:
    """A video's frames in grey; FFmpeg's errors become `InputError`."""

    def __init__(self, path: Path) -> None:
        import av

        if not path.is_file():
            raise InputError(f"{path}: there is no such file")
        self._path, self._errors = path, (av.FFmpegError,)
        try:
            # An absolute path cannot be taken for a URL, whatever colons are in it.
            self._container = av.open(str(path.absolute()))
        except self._errors as error:
            raise InputError(f"{path}: is corrupt, or not a video") from error
        stream = next(iter(self._container.streams.video), None)
        if stream is None or not (rate := _rate(stream)):
            self._container.close()
            raise InputError(f"{path}: holds no video")
        self.rate = float(rate)
        self.total = stream.frames or None

    def __enter__(self) -> _Video:
        return self

    def __exit__(self, *exc: object) -> None:
        self._container.close()

    def __iter__(self) -> Iterator[NDArray[np.uint8]]:
        done = 0
        try:
            for frame in self._container.decode(video=0):
                yield np.asarray(frame.to_ndarray(format="gray"), np.uint8)
                done += 1
        except self._errors as error:
            raise InputError(f"{self._path}: is corrupt at {done / self.rate:.2f} s") from error


def _rate(stream: VideoStream) -> Fraction | None:
    return stream.average_rate or stream.guessed_rate
