"""Scores of a separation: BSS Eval, SI-SDR, energy at silence, speech quality, and their sums.

J sources, C channels, S samples, N frames. A frame is `window` seconds long and starts `hop` after
the one before; what is left behind the last whole frame is not scored, and a signal shorter than
a frame is one frame. A silent frame has samples that add up to zero over the channels throughout,
which is museval's test.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np
from numpy.typing import ArrayLike, NDArray

from sepfast.errors import InputError
from sepfast.packages import museval_metrics
from sepfast.silence import (
    SilenceEnergy,
    SilentFrames,
    eps,
    frame_count,
    frame_sizes,
    frames_of,
    pes,
    silence_energy,
)
from sepfast.speech import pesq, visqol

__all__ = [
    "BSSEval",
    "SilenceEnergy",
    "SilentFrames",
    "Statistics",
    "bss_eval",
    "conditioning",
    "eps",
    "pes",
    "pesq",
    "si_sdr",
    "silence_energy",
    "song_median",
    "statistics",
    "trustworthy",
    "visqol",
]

Floats = NDArray[np.float64]
Mode = Literal["v4", "v3"]
Kind = Literal["images", "sources"]

# The power spectra behind `conditioning`: segments as long as two of BSS Eval's filters, under a
# window whose side lobes lie below what float32 samples can hold.
_SEGMENT = 1024
_KAISER_BETA = 14.0
_SEGMENTS_AT_ONCE = 64
# Directions of the channels this far below the loudest hold nothing but rounding.
_RANK_TOLERANCE = 1e-13
_TRUSTED_PER_SAMPLE = 50.0


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
    kind: Kind = "images",
) -> BSSEval:
    """BSS Eval's scores, frame by frame, as museval computes them.

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
        kind: "images" counts a filter of the source itself as distortion; "sources" takes it for
            right, as publications on speech do, and has no ISR.

    Returns:
        Scores (J, N), with the check of SIR and SAR.

    Raises:
        InputError: for shapes that differ or are not (J, C, S), samples that are not finite
            floats, or a window or hop below one sample.

    Source: Stöter, Liutkus and Ito, "The 2018 Signal Separation Evaluation Campaign", 2018.
    """
    if mode not in get_args(Mode):
        raise InputError(f"mode: got {mode!r}, takes {' or '.join(get_args(Mode))}")
    if kind not in get_args(Kind):
        raise InputError(f"kind: got {kind!r}, takes {' or '.join(get_args(Kind))}")
    true, guess = _sources("references", references), _sources("estimates", estimates)
    if true.shape != guess.shape:
        raise InputError(f"estimates: got shape {guess.shape}, takes {true.shape} as references")
    samples = true.shape[-1]
    length, step = frame_sizes(samples, sample_rate, window, hop)
    frames = list(frames_of(samples, length, step))
    silent = np.stack([_silent(true[..., f]) | _silent(guess[..., f]) for f in frames], axis=1)
    sdr, isr, sir, sar = _museval(true, guess, length, step, mode, kind)
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


def _museval(true: Floats, guess: Floats, length: int, step: int, mode: Mode, kind: Kind) -> Floats:
    """museval's four scores of frames of `length` samples, (4, J, N)."""
    absent, mute = _silent(true), _silent(guess)
    scores = np.full((4, len(true), frame_count(true.shape[-1], length, step)), np.nan)
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
            bsseval_sources_version=kind == "sources",
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


def _silent(sources: Floats) -> NDArray[np.bool_]:
    """museval's test of silence, (..., C, S) to (...)."""
    return (sources.sum(-2) == 0).all(-1)


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
