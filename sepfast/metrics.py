"""Scores of a separation: BSS Eval, SI-SDR, energy at silence, and what they are summed up to.

J sources, C channels, S samples, N frames. A frame is `window` seconds long and starts `hop` after
the one before; what is left behind the last whole frame is not scored, and a signal shorter than
a frame is one frame. A silent frame has samples that add up to zero over the channels throughout,
which is museval's test.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple, get_args

import numpy as np
from numpy.typing import ArrayLike, NDArray

from sepfast.errors import InputError
from sepfast.packages import museval_metrics

Floats = NDArray[np.float64]
Mode = Literal["v4", "v3"]

# The power spectra behind `conditioning`: segments as long as two of BSS Eval's filters, under a
# window whose side lobes lie below what float32 samples can hold.
_SEGMENT = 1024
_KAISER_BETA = 14.0
_SEGMENTS_AT_ONCE = 64
# Directions of the channels this far below the loudest hold nothing but rounding.
_RANK_TOLERANCE = 1e-13
_TRUSTED_PER_SAMPLE = 50.0
_ENERGY_FLOOR = 1e-12


@dataclass(frozen=True)
class BSSEval:
    """BSS Eval's scores, each (J, N) in dB, NaN where there is none.

    Attributes:
        sdr: source to distortion ratio, of everything that is wrong.
        isr: image to spatial distortion ratio, of what a filter of the source itself explains.
        sir: source to interference ratio, of what filters of the other sources explain.
        sar: sources to artifacts ratio, of what no filter of any source explains.
        silent: (J,) frames in which a source's own reference or estimate is silent. One such
            source is enough for museval to give no score to any source in that frame.
        conditioning: of the references, as `conditioning` gives it.
        trusted: whether SIR and SAR can be trusted; SDR and ISR always can. See `trustworthy`.
    """

    sdr: Floats
    isr: Floats
    sir: Floats
    sar: Floats
    silent: NDArray[np.int64]
    conditioning: float
    trusted: bool


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


@dataclass(frozen=True)
class Statistics:
    """Mean, standard deviation (over n, not n - 1) and median, and the number of values."""

    mean: float
    std: float
    median: float
    count: int


def bss_eval(
    references: ArrayLike,
    estimates: ArrayLike,
    sample_rate: float,
    *,
    window: float = 1.0,
    hop: float = 1.0,
    mode: Mode = "v4",
) -> BSSEval:
    """BSS Eval's images scores, frame by frame, as museval computes them.

    A source whose reference or estimate is silent from start to end, which museval refuses, has
    no scores, and those of the others are unaffected: nothing is ever projected on silence.

    Args:
        references: (J, C, S) floats.
        estimates: (J, C, S) floats, in the same order.
        sample_rate: samples a second.
        window: length of a frame in seconds; `math.inf` scores the whole signal as one frame.
        hop: seconds from one frame to the next.
        mode: "v4" fits the distortion filters, 512 taps, once to the whole signal, "v3" to each
            frame anew, which takes many times as long.

    Returns:
        Scores (J, N), with the check of SIR and SAR.

    Raises:
        InputError: for shapes that differ or are not (J, C, S), samples that are not finite
            floats, or a window or hop below one sample.

    Source: Stöter, Liutkus and Ito, "The 2018 Signal Separation Evaluation Campaign", 2018.
    """
    if mode not in get_args(Mode):
        raise InputError(f"mode: got {mode!r}, takes {' or '.join(get_args(Mode))}")
    true, guess = _sources("references", references), _sources("estimates", estimates)
    if true.shape != guess.shape:
        raise InputError(f"estimates: got shape {guess.shape}, takes {true.shape} as references")
    samples = true.shape[-1]
    length, step = _frame_sizes(samples, sample_rate, window, hop)
    frames = list(_frames(samples, length, step))
    silent = np.stack([_silent(true[..., f]) | _silent(guess[..., f]) for f in frames], axis=1)
    sdr, isr, sir, sar = _museval(true, guess, length, step, mode)
    condition = conditioning(true)
    fitted = mode == "v3" or length == samples
    trusted = fitted or trustworthy(condition, length)
    return BSSEval(sdr, isr, sir, sar, silent.sum(1), condition, trusted)


def conditioning(references: ArrayLike) -> float:
    """How far the references' spectrum falls below its mean, where it is emptiest; 1 or more.

    With S(f) the cross-power spectral density of all J C reference channels, (J C, J C), and R its
    mean over frequency, it is the largest eigenvalue of R S(f)^-1 over all f: 1 for white noise,
    without bound for references that leave a band empty.

    BSS Eval projects on the references delayed by 0 to 511 samples. Their Gram matrix is block
    Toeplitz with the symbol S(f), so that by Szegő's theorem its smallest eigenvalue, after the
    channels are whitened by R, is no smaller than 1 / conditioning, its mean one being 1. The
    whitening is what tells harmless references from harmful ones: a stereo stem whose channels
    are equal has a singular Gram matrix and still has scores that hold.

    Args:
        references: (J, C, S) floats.

    Returns:
        The ratio of powers; infinite where a band holds nothing, NaN where all is silent.
    """
    density = _power_density(_sources("references", references))
    weights = np.full((len(density), 1, 1), 2.0)  # one-sided: all bins but the outer two twice
    weights[[0, -1]] = 1
    mean = (density * weights).sum(0).real / weights.sum()
    powers, directions = np.linalg.eigh(mean)
    kept = powers > powers[-1] * _RANK_TOLERANCE
    if not kept.any():
        return math.nan
    whitening = directions[:, kept] / np.sqrt(powers[kept])
    emptiest = np.linalg.eigvalsh(whitening.T @ density @ whitening).min()
    return float(1 / emptiest) if emptiest > 0 else math.inf


def trustworthy(condition: float, window: int) -> bool:
    """Whether "v4" scores of SIR and SAR hold, for frames of `window` samples.

    Where the references are empty, nothing holds the distortion filters back; on the whole
    signal they are still right, but "v4" applies them to frames cut out of it. A cut is a click
    with energy at all frequencies, the filters amplify it by up to the conditioning, and
    interference and artifacts drown in it, with opposite signs, so that SDR and ISR do not move.
    The click stays the same however long the frame is, so the bound grows with its length.

    The bound, 50 a sample, is measured on four stems of music, coded with AAC and empty above
    16 kHz (conditioning 4e11), with white noise added to the references; below it the medians of
    SIR and SAR are within 0.25 dB of where they settle, at windows of 0.25, 1 and 3 s, for a
    Wiener filter, a blurred one and the mixture as the estimates. For a window of 1 s at 44.1 kHz:

    | noise, dBFS  | conditioning | a sample | Wiener, drums: SIR | mixture: SAR |
    | ------------ | ------------ | -------- | ------------------ | ------------ |
    | none         | 4.0e11       | 9.1e6    | -6.4 dB            | 0.3 dB       |
    | -100         | 1.7e8        | 3,900    | 15.9 dB            | 16.4 dB      |
    | -90          | 1.9e7        | 430      | 18.6 dB            | 19.9 dB      |
    | -80          | 1.9e6        | 43       | 19.8 dB            | 20.6 dB      |
    | -60          | 1.9e4        | 0.43     | 20.0 dB            | 20.6 dB      |

    It is a bound for the worst estimates, and masked mixtures come near it; the scores of others
    may hold beyond. Without noise, the filters of "v3" and one frame over the whole signal give
    SIR and SAR within 0.2 dB of those with noise at -80 dBFS.

    Args:
        condition: of the references, as `conditioning` gives it; where it is NaN, all is silent
            and there is nothing to distrust.
        window: length of a frame in samples.
    """
    return not condition > _TRUSTED_PER_SAMPLE * window


def si_sdr(reference: ArrayLike, estimate: ArrayLike) -> Floats:
    """The scale-invariant source to distortion ratio in dB.

    10 log10(|a s|² / |ŝ - a s|²) with a = <ŝ, s> / |s|².

    Args:
        reference: s, (..., S) floats.
        estimate: ŝ, (..., S) floats; its mean is not taken off.

    Returns:
        (...): NaN where the reference is silent, -inf where the estimate alone is or has nothing
        of the reference, inf where it is the reference at any scale.

    Raises:
        InputError: for shapes that differ.

    Source: Le Roux et al., "SDR - half-baked or well done?", 2019.

    Example:
        >>> reference = np.array([1.0, 1.0, 0.0, 0.0])
        >>> float(si_sdr(reference, np.array([1.0, 1.0, 1.0, 1.0])))
        0.0
    """
    true, guess = np.asarray(reference, np.float64), np.asarray(estimate, np.float64)
    if true.shape != guess.shape:
        raise InputError(f"estimate: got shape {guess.shape}, takes {true.shape} as the reference")
    with np.errstate(divide="ignore", invalid="ignore"):
        scale = (guess * true).sum(-1) / (true**2).sum(-1)
        target = scale[..., None] * true
        ratio = 10 * np.log10((target**2).sum(-1) / ((guess - target) ** 2).sum(-1))
    return np.where(true.any(-1) & ~guess.any(-1), -np.inf, ratio)


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
    frames = list(_frames(source.shape[-1], window, hop))
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


def song_median(scores: ArrayLike) -> Floats:
    """A song's score: the median over its frames, (..., N) to (...), NaN where all are NaN."""
    return np.apply_along_axis(lambda frames: statistics(frames).median, -1, np.asarray(scores))


def statistics(values: ArrayLike) -> Statistics:
    """Mean, standard deviation and median of all values but NaN; each NaN where there are none."""
    present = np.asarray(values, np.float64).ravel()
    present = present[~np.isnan(present)]
    if not present.size:
        return Statistics(math.nan, math.nan, math.nan, 0)
    with np.errstate(invalid="ignore"):  # the deviation from an infinite mean is NaN
        mean, std, median = present.mean(), present.std(), np.median(present)
    return Statistics(float(mean), float(std), float(median), present.size)


def _museval(true: Floats, guess: Floats, length: int, step: int, mode: Mode) -> Floats:
    """museval's four scores of frames of `length` samples, (4, J, N)."""
    absent, mute = _silent(true), _silent(guess)
    scores = np.full((4, len(true), _frame_count(true.shape[-1], length, step)), np.nan)
    if absent.all():
        return scores
    # museval takes no estimate that is silent throughout, yet the others need its reference.
    guess = np.where(mute[:, None, None], true, guess)
    with np.errstate(divide="ignore", invalid="ignore"):
        *found, _ = museval_metrics().bss_eval(
            np.moveaxis(true[~absent], 1, 2),
            np.moveaxis(guess[~absent], 1, 2),
            window=length,
            hop=step,
            framewise_filters=mode == "v3",
        )
    scores[:, ~absent] = found
    scores[:, mute] = np.nan
    return scores


def _power_density(sources: Floats) -> NDArray[np.complex128]:
    """Welch's cross-power spectral density of all channels, (bins, J C, J C)."""
    channels = sources.reshape(-1, sources.shape[-1])
    # Silence around the signal, so that an abrupt start or end counts as the click that it is.
    channels = np.pad(channels, ((0, 0), (_SEGMENT, _SEGMENT)))
    segments = np.lib.stride_tricks.sliding_window_view(channels, _SEGMENT, axis=-1)
    segments = segments[:, :: _SEGMENT // 2]  # (J C, segments, samples)
    taper = np.kaiser(_SEGMENT, _KAISER_BETA)
    density = np.zeros((_SEGMENT // 2 + 1, len(channels), len(channels)), np.complex128)
    for first in range(0, segments.shape[1], _SEGMENTS_AT_ONCE):
        spectra = np.fft.rfft(segments[:, first : first + _SEGMENTS_AT_ONCE] * taper)
        spectra = np.moveaxis(spectra, -1, 0)  # (bins, J C, segments)
        density += spectra @ spectra.conj().swapaxes(-1, -2)
    return density


def _in_seconds(
    reference: ArrayLike, estimate: ArrayLike, sample_rate: float, window: float, hop: float
) -> SilentFrames:
    """`silence_energy` with frames in seconds, the signal itself being one if it is shorter."""
    true, guess = np.atleast_2d(reference), np.atleast_2d(estimate)
    if true.shape != guess.shape:
        raise InputError(f"estimate: got shape {guess.shape}, takes {true.shape} as the reference")
    return silence_energy(true, guess, *_frame_sizes(true.shape[-1], sample_rate, window, hop))


def _frame_energies(waveform: NDArray[Any], frames: list[slice]) -> Floats:
    """The sum of squares of every frame, (N,)."""
    energies = [(waveform[..., f].astype(np.float64) ** 2).sum() for f in frames]
    return np.array(energies, np.float64)


def _decibels(energies: Floats) -> Floats:
    return 10 * np.log10(energies + _ENERGY_FLOOR)


def _mean(levels: Floats) -> SilenceEnergy:
    return SilenceEnergy(float(levels.mean()) if levels.size else math.nan, levels.size)


def _silent(sources: Floats) -> NDArray[np.bool_]:
    """museval's test of silence, (..., C, S) to (...)."""
    return (sources.sum(-2) == 0).all(-1)


def _frame_sizes(samples: int, sample_rate: float, window: float, hop: float) -> tuple[int, int]:
    """Length and step of frames in samples, the length at most that of the signal."""
    if samples < 1:
        raise InputError("reference: holds no samples")
    for name, seconds in (("window", window), ("hop", hop)):
        if not seconds * sample_rate >= 1:
            raise InputError(f"{name}: got {seconds} s at {sample_rate} Hz, takes a sample or more")
    length, step = (round(min(samples, seconds * sample_rate)) for seconds in (window, hop))
    return length, step


def _frame_count(samples: int, length: int, step: int) -> int:
    return max(0, (samples - length) // step + 1)


def _frames(samples: int, length: int, step: int) -> Iterator[slice]:
    for frame in range(_frame_count(samples, length, step)):
        yield slice(frame * step, frame * step + length)


def _incomplete_frame(samples: int, length: int, step: int) -> list[slice]:
    """The frame that the samples behind the last whole frame make, if there are any."""
    start = _frame_count(samples, length, step) * step
    covered = start - step + length if start else 0
    return [slice(start, samples)] if max(start, covered) < samples else []


def _sources(name: str, sources: ArrayLike) -> Floats:
    """Sources as float64, (J, C, S), each at least 1."""
    array = np.asarray(sources)
    if array.ndim != 3 or not array.size:
        raise InputError(f"{name}: got shape {array.shape}, takes (sources, channels, samples)")
    if not np.issubdtype(array.dtype, np.floating):
        raise InputError(f"{name}: got {array.dtype} samples, takes floats")
    if not np.isfinite(array).all():
        raise InputError(f"{name}: holds NaN or infinite samples")
    return array.astype(np.float64)
