"""What is usual for a speaker: mean and deviation of spectrograms and of the face's motion.

F features, T frames. Spectrograms are compressed magnitudes, |x|^0.3, of 257 bins; motion has 136
values. A speaker has three sets:

    speech    of all the speaker's own utterances: the binary mask's threshold
    mixtures  of all mixtures whose target the speaker is: what a network hears is normalised by it
    motion    of all the speaker's utterances, at the audio's frames

Where the text is silent: it normalises "per speaker" what the network is given, which is the
mixture. So it is the target speaker's mixtures that are counted, and no clean speech is needed to
enhance somebody new. A deviation of zero is taken for 1; a bin that is always silent then lies
below its threshold.
Source: D (Morrone et al. 2019), sections 2.1, 3.3 and 3.4.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray

from sepfast import ops
from sepfast.data.arrays import read_arrays
from sepfast.data.landmarks import COLUMNS, Floats
from sepfast.data.song_audio import cache_folder
from sepfast.data.talker_mixtures import Mixture
from sepfast.data.talkers import FRAMING, SAMPLE_RATE, Utterance, by_speaker
from sepfast.errors import InputError
from sepfast.files import PathLike, atomic

#: The exponent that magnitudes are compressed by.
POWER = 0.3
#: Deviations above the mean from which on a bin belongs to the speaker.
FACTOR = 0.6

# Deviations below this share of the mean are what float32 rounds a constant to.
_ROUNDING = 1e-6


class Moments(NamedTuple):
    """Mean and standard deviation of each feature, (F,) float32; no deviation is zero."""

    mean: Floats
    deviation: Floats


@dataclass(frozen=True)
class SpeakerStatistics:
    """A speaker's three sets, as above."""

    speech: Moments
    mixtures: Moments
    motion: Moments

    def threshold(self, factor: float = FACTOR) -> Floats:
        """Above it, a bin of the compressed speech belongs to the speaker, (257,)."""
        return self.speech.mean + np.float32(factor) * self.speech.deviation


class RunningMoments:
    """Moments of frames that are seen once, block by block, in float64.

    Each block's own mean and sum of squared deviations are merged into those so far (Chan, Golub,
    LeVeque 1983), so that nothing is lost where the mean is large beside the deviation.

    Args:
        features: F.
    """

    def __init__(self, features: int) -> None:
        self.frames = 0
        self._mean = np.zeros(features)
        self._squares = np.zeros(features)

    def add(self, values: NDArray[np.floating]) -> None:
        """Count some more frames, (T, F), finite; T may be 0."""
        if not len(values):
            return
        block = np.asarray(values, np.float64)
        mean = block.mean(axis=0)
        total = self.frames + len(block)
        apart = mean - self._mean
        self._squares += ((block - mean) ** 2).sum(axis=0)
        self._squares += apart**2 * (self.frames * len(block) / total)
        self._mean += apart * (len(block) / total)
        self.frames = total

    def moments(self) -> Moments:
        """Of all frames so far; a deviation of zero is 1.

        Raises:
            InputError: where there was none.
        """
        if not self.frames:
            raise InputError("values: got no frames, takes at least one")
        deviation = np.sqrt(self._squares / self.frames)
        constant = deviation <= _ROUNDING * np.abs(self._mean)
        deviation = np.where(constant, 1.0, deviation)
        return Moments(self._mean.astype(np.float32), deviation.astype(np.float32))


def normalised(values: Floats, moments: Moments) -> Floats:
    """Values (..., F) with the mean taken off, over the deviation: (..., F)."""
    return (values - moments.mean) / moments.deviation


def compressed(waveform: Floats) -> Floats:
    """The compressed magnitudes of samples at 16 kHz: (..., samples) to (..., T, 257)."""
    return ops.stft_magnitude(torch.from_numpy(waveform), FRAMING, power=POWER).numpy()


def speaker_statistics(
    utterances: Sequence[Utterance],
    mixtures: Sequence[Mixture],
    *,
    cache_dir: PathLike | None = None,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> dict[str, SpeakerStatistics]:
    """The statistics of every speaker who is the target of a mixture.

    Each set is kept in a file of `cache_dir`, and found again as long as its recordings, landmarks
    and mixtures are the same: by their names, sizes and times of change.

    Args:
        utterances: all of those speakers, mixed or not.
        mixtures: at least one.
        cache_dir: where the files are, and resampled audio; None for the user's cache.
        progress: is told how many sets are done, and of how many.

    Raises:
        InputError: where there are no mixtures, a target has no utterance, or a file cannot be
            read.
    """
    if not mixtures:
        raise InputError("mixtures: got none, takes at least one")
    folder = cache_folder(cache_dir)
    spoken = by_speaker(utterances)
    mixed: dict[str, list[Mixture]] = {}
    for mixture in sorted(mixtures, key=lambda one: one.key):
        mixed.setdefault(mixture.target.speaker, []).append(mixture)
    missing = sorted(mixed.keys() - spoken.keys())
    if missing:
        raise InputError(f"utterances: got none of {', '.join(missing)}, takes all of theirs")
    found = {}
    for done, (speaker, theirs) in enumerate(mixed.items()):
        progress(done, len(mixed))
        found[speaker] = _statistics(spoken[speaker], theirs, folder)
    progress(len(mixed), len(mixed))
    return found


def _statistics(
    utterances: Sequence[Utterance], mixtures: Sequence[Mixture], folder: Path
) -> SpeakerStatistics:
    heard = {each.key: each for mixture in mixtures for each in mixture.utterances}
    return SpeakerStatistics(
        speech=_kept(
            folder,
            FRAMING.bins,
            _key("speech", [each.audio for each in utterances], []),
            lambda: (compressed(each.waveform(folder)) for each in utterances),
        ),
        mixtures=_kept(
            folder,
            FRAMING.bins,
            _key("mixtures", [each.audio for each in heard.values()], [m.key for m in mixtures]),
            lambda: (compressed(each.waveforms(folder)[0]) for each in mixtures),
        ),
        motion=_kept(
            folder,
            COLUMNS,
            _key(
                "motion",
                [each.landmarks for each in utterances],
                [f"{each.frames} at {each.video_rate}" for each in utterances],
            ),
            lambda: (each.motion() for each in utterances),
        ),
    )


def _kept(folder: Path, features: int, key: str, blocks: Callable[[], Iterable[Floats]]) -> Moments:
    """The moments of some blocks, (T, F) each: from the file of their key, or made and kept."""
    path = folder / f"{key}.npz"
    held = _held(path, features)
    if held is not None:
        return held
    running = RunningMoments(features)
    for block in blocks():
        running.add(block)
    moments = running.moments()
    with atomic(path) as temporary:
        np.savez(temporary, **moments._asdict())
    return moments


def _held(path: Path, features: int) -> Moments | None:
    """The moments in a file, or None where there is none or it is broken."""
    try:
        moments = Moments(*read_arrays(path, Moments._fields))
    except InputError:
        return None
    right = all(part.shape == (features,) and part.dtype == np.float32 for part in moments)
    return moments if right else None


def _key(kind: str, files: Iterable[Path], about: Iterable[str]) -> str:
    """A name that changes with the files, and with what is made of them."""
    parts = [kind, FRAMING.to_text(), POWER, SAMPLE_RATE, *about]
    for path in files:
        try:
            status = path.stat()
        except OSError as error:
            raise InputError(f"{path}: cannot be read ({error.strerror})") from error
        parts += [path.resolve(), status.st_size, status.st_mtime_ns]
    return hashlib.sha256(os.fsencode("|".join(map(str, parts)))).hexdigest()[:32]
