"""Talkers: finding the utterances of people who were recorded and filmed, and splitting them.

Layouts, beneath the data set's folder or its `volunteers/`: SPEAKER/audio/NAME.wav or .flac, with
the landmarks of SPEAKER/video/NAME.* in SPEAKER/landmarks/NAME.txt or .npy. Where there is no
`audio`, TCD-TIMIT's own SPEAKER/Clips/straightcam/NAME.wav is taken. `volunteers/` leaves out the
professional lipspeakers beside it, as the paper does. GRID's film has 25 frames a second,
TCD-TIMIT's 30000/1001.
Source: D (Morrone et al. 2019), section 3.1.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np

from sepfast.data.audio import AudioReader
from sepfast.data.decoders import SEEKABLE
from sepfast.data.landmarks import (
    LANDMARK_SUFFIXES,
    Floats,
    check_video_frames,
    landmark_motion,
    read_landmarks,
    read_video_rate,
)
from sepfast.data.resampling import resampled_length
from sepfast.data.song_audio import SongAudio
from sepfast.data.songs import Song, Track
from sepfast.data.usable import usable, visible
from sepfast.errors import InputError
from sepfast.files import PathLike, file_called
from sepfast.reference import FRAMINGS

#: Hz at which system D hears.
SAMPLE_RATE = 16000
#: The framing of system D.
FRAMING = FRAMINGS["landmarks"]

#: Speakers of GRID and of TCD-TIMIT for training, validation and test.
_PUBLISHED = {33: (25, 4, 4), 59: (51, 4, 4)}
#: Fractions for training, validation and test where nothing else is said.
PARTS = (0.8, 0.1, 0.1)
_AUDIO_FOLDERS = ("audio", "Clips/straightcam")


@dataclass(frozen=True)
class Utterance:
    """What one person says in one recording.

    Attributes:
        speaker: who, by the name of the folder.
        name: what, by the name of the file.
        audio: the recording.
        landmarks: the landmarks of the face meanwhile.
        samples: length at 16 kHz.
        video_rate: video frames a second.
    """

    speaker: str
    name: str
    audio: Path
    landmarks: Path
    samples: int
    video_rate: float

    @property
    def key(self) -> str:
        """SPEAKER/NAME, which no other utterance of the data set has."""
        return f"{self.speaker}/{self.name}"

    @property
    def seconds(self) -> float:
        """How long it lasts."""
        return self.samples / SAMPLE_RATE

    @property
    def frames(self) -> int:
        """Frames that its samples make."""
        return FRAMING.frames(self.samples)

    def waveform(self, cache_dir: PathLike | None = None) -> Floats:
        """Its samples at 16 kHz, (samples,), the mean of all channels.

        Args:
            cache_dir: where resampled audio is kept; None for the user's cache.

        Raises:
            InputError: where the file cannot be decoded.
        """
        song = Song(self.key, None, Track(self.audio), {})
        audio = SongAudio(
            song, sample_rate=SAMPLE_RATE, channels=1, sources=(), cache_dir=cache_dir
        )
        return audio.read(0, self.samples)[0, 0]

    def motion(self) -> Floats:
        """What the landmarks move by, (frames, 136), not yet normalised.

        Raises:
            InputError: where the landmarks cannot be read, or end more than 0.1 s too early.
        """
        try:
            return landmark_motion(read_landmarks(self.landmarks), self.video_rate, self.frames)
        except InputError as error:
            raise _naming(self.landmarks, error) from error


class Split(NamedTuple):
    """Utterances to learn from, to stop by and to judge by."""

    train: list[Utterance]
    validation: list[Utterance]
    test: list[Utterance]


def find_utterances(
    root: PathLike,
    *,
    video_rate: float | None = None,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> tuple[list[Utterance], list[str]]:
    """The utterances beneath a folder, sorted by speaker and name, and the reason of each skipped.

    Every landmark file is read: an utterance is skipped where there is none, where it is broken,
    or where it ends more than 0.1 s before the audio does.

    Args:
        root: a data set in one of the layouts above, or one speaker's folder.
        video_rate: video frames a second for landmarks with no `NAME.json` beside them.
        progress: is told how many recordings are looked at, and of how many.

    Raises:
        InputError: `root` does not exist, or there is no usable utterance; it says what was
            looked for.
    """
    root = Path(root)
    if not root.is_dir():
        raise InputError(f"{root}: there is no such folder")
    recordings = list(_recordings(root))
    utterances, reasons = usable(recordings, lambda place: _utterance(*place, video_rate), progress)
    if not utterances:
        first = f"; skipped {len(reasons)}, the first because {reasons[0]}" if reasons else ""
        raise InputError(
            f"{root}: holds no utterances; looked for SPEAKER/audio/NAME.wav or .flac with "
            f"SPEAKER/landmarks/NAME.txt or .npy, also in volunteers/{first}"
        )
    return utterances, reasons


def split_speakers(
    utterances: Sequence[Utterance],
    seed: int,
    *,
    fractions: tuple[float, float, float] | None = None,
) -> Split:
    """Utterances split so that no speaker is in two parts.

    Args:
        utterances: of at least three speakers.
        seed: of the draw, 0 or more; nothing else but the speakers' names counts.
        fractions: speakers for training, validation and test. None: 25, 4 and 4 of GRID's 33; 51,
            4 and 4 of TCD-TIMIT's 59; 0.8, 0.1 and 0.1 of any other number, at least one each.

    Raises:
        InputError: for fewer speakers, or fractions that are not positive with sum 1.
    """
    speakers = sorted({utterance.speaker for utterance in utterances})
    counts = _PUBLISHED.get(len(speakers)) if fractions is None else None
    counts = counts or _counts("speakers", len(speakers), fractions)
    drawn = [speakers[i] for i in np.random.default_rng(seed).permutation(len(speakers))]
    part = dict(zip(drawn, np.repeat(range(3), counts), strict=True))
    return Split(*([u for u in utterances if part[u.speaker] == i] for i in range(3)))


def split_utterances(
    utterances: Sequence[Utterance],
    seed: int,
    *,
    fractions: tuple[float, float, float] | None = None,
) -> Split:
    """Utterances split so that every speaker is in all parts: the speaker-dependent setting.

    Args:
        utterances: at least three of each speaker.
        seed: of the draw, 0 or more; a speaker's draw depends on nothing else but the own names.
        fractions: of each speaker's utterances; None: 0.8, 0.1 and 0.1, at least one each.

    Raises:
        InputError: for fewer utterances, or fractions that are not positive with sum 1.
    """
    parts: Split = Split([], [], [])
    for speaker, own in by_speaker(utterances).items():
        counts = _counts(f"utterances of {speaker}", len(own), fractions)
        order = iter(speaker_random(seed, speaker).permutation(len(own)))
        for part, count in zip(parts, counts, strict=True):
            part.extend(own[i] for i in sorted(next(order) for _ in range(count)))
    return parts


def by_speaker(utterances: Sequence[Utterance]) -> dict[str, list[Utterance]]:
    """Each speaker's utterances, both sorted by name."""
    spoken: dict[str, list[Utterance]] = {}
    for utterance in sorted(utterances, key=lambda one: (one.speaker, one.name)):
        spoken.setdefault(utterance.speaker, []).append(utterance)
    return spoken


def speaker_random(seed: int, speaker: str) -> np.random.Generator:
    """A speaker's own random numbers, whoever else is there."""
    return np.random.default_rng((seed, zlib.crc32(speaker.encode())))


def _counts(
    what: str, total: int, fractions: tuple[float, float, float] | None
) -> tuple[int, int, int]:
    """How many of `total` each part gets, at least one."""
    shares = fractions or PARTS
    if len(shares) != 3 or not min(shares) > 0 or abs(sum(shares) - 1) > 1e-6:
        raise InputError(f"fractions: got {shares}, takes three above 0 with sum 1")
    validation, test = (max(1, round(share * total)) for share in shares[1:])
    if total - validation - test < 1:
        raise InputError(f"fractions: got {shares} for {total} {what}, which leaves a part empty")
    return total - validation - test, validation, test


def _recordings(root: Path) -> Iterator[tuple[Path, Path]]:
    """Every speaker's folder with each of the recordings in it."""
    if _audio_folder(root):
        speakers = [root.resolve()]
    else:
        volunteers = root / "volunteers"
        speakers = visible(volunteers if volunteers.is_dir() else root)
    for speaker in speakers:
        folder = _audio_folder(speaker)
        if folder is None:
            continue
        files = [path for path in visible(folder) if path.suffix.lower() in SEEKABLE]
        # One of two files with the same name, .wav before .flac.
        files.sort(key=lambda path: (path.stem, SEEKABLE.index(path.suffix.lower())))
        named = {path.stem: path for path in reversed(files)}
        yield from ((speaker, named[name]) for name in sorted(named))


def _audio_folder(speaker: Path) -> Path | None:
    folders = (speaker / name for name in _AUDIO_FOLDERS)
    return next((folder for folder in folders if folder.is_dir()), None)


def _utterance(speaker: Path, audio: Path, video_rate: float | None) -> Utterance:
    """One recording with its landmarks; `InputError` is the reason to skip it."""
    landmarks = file_called(speaker / "landmarks", audio.stem, LANDMARK_SUFFIXES)
    if landmarks is None:
        raise InputError(f"{audio} has no landmarks/{audio.stem}.txt or .npy")
    rate = read_video_rate(landmarks) or video_rate
    if rate is None:
        raise InputError(
            f"{landmarks} has no {landmarks.stem}.json that tells the video's frame rate, takes "
            "video_rate instead"
        )
    found = Utterance(speaker.name, audio.stem, audio, landmarks, _samples(audio), rate)
    video_frames = len(read_landmarks(landmarks))
    try:
        check_video_frames(video_frames, rate, found.frames)
    except InputError as error:
        raise _naming(landmarks, error) from error
    return found


def _samples(audio: Path) -> int:
    """Samples of a recording once it is resampled."""
    with AudioReader(audio) as reader:
        if reader.samples is None:
            raise InputError(f"{audio}: does not say how long it is")
        return resampled_length(reader.samples, reader.sample_rate, SAMPLE_RATE)


def _naming(path: Path, error: InputError) -> InputError:
    """An error about landmarks that names their file."""
    text = str(error)
    return error if text.startswith(str(path)) else InputError(f"{path}: {text}")
