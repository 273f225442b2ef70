"""Scores of silence: what is heard where a source is silent, and what is lost as silence."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from sepfast.errors import InputError

Floats = NDArray[np.float64]

_ENERGY_FLOOR = 1e-12


class SilenceEnergy(NamedTuple):
    """The mean energy of some frames in dB, NaN where there are none, and how many there are."""

    decibels: float
    frames: int


class SilentFrames(NamedTuple):
    """The energies of silent frames in dB, frame by frame, and the frames' indices from 0 on.

    Attributes:
        pes: predicted energy at silence, (P,).
        eps: energy at predicted silence, (Q,).
        silent_true_source_frames: P frames, those of `pes`.
        silent_prediction_frames: Q frames, those of `eps`.
    """

    pes: Floats
    eps: Floats
    silent_true_source_frames: list[int]
    silent_prediction_frames: list[int]


def pes(
    reference: ArrayLike,
    estimate: ArrayLike,
    sample_rate: float,
    *,
    window: float = 1.0,
    hop: float = 1.0,
) -> SilenceEnergy:
    """Predicted energy at silence: what is heard of a source while it is silent; less is better.

    The mean of 10 log10(Σ ŝ² + 1e-12) over the frames in which all samples of the reference are 0.

    Args:
        reference: s, (S,) or (C, S) floats; the sum runs over channels too.
        estimate: ŝ, of the same shape.
        sample_rate: samples a second.
        window: length of a frame in seconds.
        hop: seconds from one frame to the next.

    Raises:
        InputError: for shapes that differ or hold nothing, or a window or hop below one sample.

    Source: system C; Schulze-Forster et al., "Weakly informed audio source separation", 2019.
    """
    return _mean(_in_seconds(reference, estimate, sample_rate, window, hop).pes)


def eps(
    reference: ArrayLike,
    estimate: ArrayLike,
    sample_rate: float,
    *,
    window: float = 1.0,
    hop: float = 1.0,
) -> SilenceEnergy:
    """Energy at predicted silence: what is lost of a source as silence; less is better.

    The mean of 10 log10(Σ s² + 1e-12) over the frames in which all samples of the estimate are 0
    and those of the reference are not.

    Args, errors and source are those of `pes`.
    """
    return _mean(_in_seconds(reference, estimate, sample_rate, window, hop).eps)


def silence_energy(
    true: ArrayLike,
    predicted: ArrayLike,
    window: int,
    hop: int,
    eval_incomplete_last_frame: bool = False,
    eps_for_silent_target: bool = False,
) -> SilentFrames:
    """What `pes` and `eps` are the means of: energies of silent frames, with the frames' indices.

    PES is 10 log10(Σ ŝ² + 1e-12) of every frame in which all samples of the target are 0; EPS is
    10 log10(Σ s² + 1e-12) of every frame in which all of the prediction are.

    Args:
        true: s, (S,) or (C, S) floats; the sum runs over channels too.
        predicted: ŝ, of the same shape.
        window: length of a frame in samples.
        hop: samples from one frame to the next.
        eval_incomplete_last_frame: whether the samples that the next frame would have, where
            whole frames leave some over at the end, count as a frame too; in a signal shorter
            than a frame, that is the only one.
        eps_for_silent_target: whether EPS has frames in which the target is silent too, at
            -120 dB. The paper leaves them out; its published program counts them unless told
            not to.

    Returns:
        Energies and indices; none where there is no such frame.

    Raises:
        InputError: for shapes that differ or hold nothing, or a window or hop that is not a whole
            number of samples, at least one.

    Source: system C; Schulze-Forster et al., "Weakly informed audio source separation", 2019.

    Example:
        >>> found = silence_energy(np.array([0, 0, 1, 1.0]), np.array([1, 3, 0, 0.0]), 2, 2)
        >>> found.pes.round(6), found.silent_true_source_frames
        (array([10.]), [0])
        >>> found.eps.round(6), found.silent_prediction_frames
        (array([3.0103]), [1])
    """
    source, prediction = np.atleast_2d(true), np.atleast_2d(predicted)
    if source.shape != prediction.shape:
        raise InputError(f"predicted: got shape {prediction.shape}, takes {source.shape} as true")
    if not source.size:
        raise InputError("true: holds no samples")
    for name, samples in (("window", window), ("hop", hop)):
        if not isinstance(samples, int | np.integer) or samples < 1:
            raise InputError(f"{name}: got {samples!r}, takes a whole number of samples, 1 or more")
    frames = list(frames_of(source.shape[-1], window, hop))
    if eval_incomplete_last_frame:
        frames += _incomplete_frame(source.shape[-1], window, hop)
    there, heard = _frame_energies(source, frames), _frame_energies(prediction, frames)
    silent, lost = there == 0, heard == 0
    if not eps_for_silent_target:
        lost &= there > 0
    return SilentFrames(
        _decibels(heard[silent]),
        _decibels(there[lost]),
        np.flatnonzero(silent).tolist(),
        np.flatnonzero(lost).tolist(),
    )


def _in_seconds(
    reference: ArrayLike, estimate: ArrayLike, sample_rate: float, window: float, hop: float
) -> SilentFrames:
    """`silence_energy` with frames in seconds, the signal itself being one if it is shorter."""
    true, guess = np.atleast_2d(reference), np.atleast_2d(estimate)
    if true.shape != guess.shape:
        raise InputError(f"estimate: got shape {guess.shape}, takes {true.shape} as the reference")
    return silence_energy(true, guess, *frame_sizes(true.shape[-1], sample_rate, window, hop))


def _frame_energies(waveform: NDArray[Any], frames: list[slice]) -> Floats:
    """The sum of squares of every frame, (N,)."""
    energies = [(waveform[..., f].astype(np.float64) ** 2).sum() for f in frames]
    return np.array(energies, np.float64)


def _decibels(energies: Floats) -> Floats:
    return 10 * np.log10(energies + _ENERGY_FLOOR)


def _mean(levels: Floats) -> SilenceEnergy:
    return SilenceEnergy(float(levels.mean()) if levels.size else math.nan, levels.size)


def frame_sizes(samples: int, sample_rate: float, window: float, hop: float) -> tuple[int, int]:
    """Length and step of frames in samples, the length at most that of the signal."""
    if samples < 1:
        raise InputError("reference: holds no samples")
    for name, seconds in (("window", window), ("hop", hop)):
        if not seconds * sample_rate >= 1:
            raise InputError(f"{name}: got {seconds} s at {sample_rate} Hz, takes a sample or more")
    length, step = (round(min(samples, seconds * sample_rate)) for seconds in (window, hop))
    return length, step


def frame_count(samples: int, length: int, step: int) -> int:
    """Whole frames of `length` samples, `step` apart, in so many samples."""
    return max(0, (samples - length) // step + 1)


def frames_of(samples: int, length: int, step: int) -> Iterator[slice]:
    """The whole frames of so many samples, one behind the other."""
    for frame in range(frame_count(samples, length, step)):
        yield slice(frame * step, frame * step + length)


def _incomplete_frame(samples: int, length: int, step: int) -> list[slice]:
    """The frame that the samples behind the last whole frame make, if there are any."""
    start = frame_count(samples, length, step) * step
    covered = start - step + length if start else 0
    return [slice(start, samples)] if max(start, covered) < samples else []
