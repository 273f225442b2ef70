"""Scores of speech as listeners would give them: PESQ and ViSQOL, by packages of their own.

Both compare an utterance with the clean one it should be, and give a mean opinion score, about 1
for bad to 5 for excellent. `pip install 'sepfast[speech]'` brings the packages, which are imported
when first used.
"""

from __future__ import annotations

import importlib
import math
from types import ModuleType
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from sepfast.errors import InputError

#: Score -> the module that computes it, and what pip calls that.
PACKAGES = {"pesq": ("pesq", "pesq"), "visqol": ("visqol", "visqol-python")}

_NARROW, _WIDE = 8000, 16000  # Hz
# PESQ's program keeps 50 stretches of speech and writes behind them where there are more. A stretch
# has 0.2 s at least and more than 0.2 s of silence behind it.
_LONGEST = 20.0


def pesq(reference: ArrayLike, estimate: ArrayLike, sample_rate: int) -> float:
    """Perceptual evaluation of speech quality, narrow band, at 8 kHz.

    Levels and delays do not count. Both signals are resampled to 8 kHz.

    Args:
        reference: clean speech, (S,) floats.
        estimate: what is to be judged, (S,) floats.
        sample_rate: samples a second.

    Returns:
        The listening quality that P.862.1 maps the raw score to, from 1.02 to 4.55. NaN where
        there is none: either signal is silent, no speech is found in the reference, or they last
        less than 0.25 s, or more than 20 s, which may be more than the program has room for.

    Raises:
        InputError: for shapes that differ or are not (S,), samples that are not finite floats, a
            rate below 1, or where the package is not installed.

    Source: ITU-T P.862 and P.862.1; Rix et al., "Perceptual evaluation of speech quality", 2001.
    """
    package = _package("pesq")
    pair = _pair(reference, estimate, sample_rate)
    if pair is None or pair[0].size > _LONGEST * sample_rate:
        return math.nan
    true, guess = (_at_rate(each, sample_rate, _NARROW) for each in pair)
    # Without a score the value is a negative code, or NaN.
    found = package.pesq(_NARROW, true, guess, "nb", on_error=package.PesqError.RETURN_VALUES)
    return float(found) if found > 0 else math.nan


def visqol(reference: ArrayLike, estimate: ArrayLike, sample_rate: int) -> float:
    """Virtual speech quality objective listener, wide band, at 16 kHz.

    Version 3 in its speech mode, with the exponential map from similarity to opinion that was
    fitted for it. Publications before 2020 used other maps: their scores have another scale. Levels
    and delays do not count. Both signals are resampled to 16 kHz.

    Args:
        reference: clean speech, (S,) floats.
        estimate: what is to be judged, (S,) floats.
        sample_rate: samples a second.

    Returns:
        The opinion score, from 1 to 5. NaN where there is none: either signal is silent, or they
        last less than 0.64 s, which is one patch.

    Raises:
        InputError: as `pesq`.

    Source: Hines et al., "ViSQOL: The virtual speech quality objective listener", 2012; Chinen et
    al., "ViSQOL v3", 2020.
    """
    package = _package("visqol")
    pair = _pair(reference, estimate, sample_rate)
    if pair is None:
        return math.nan
    true, guess = (_at_rate(each, sample_rate, _WIDE).astype(np.float64) for each in pair)
    listener = package.VisqolApi()
    # Named, since the default depends on what else is installed.
    listener.create(mode="speech", use_lattice_model=False)
    try:
        with np.errstate(divide="ignore", invalid="ignore"):
            return float(listener.measure_from_arrays(true, guess, _WIDE).moslqo)
    except (ValueError, IndexError):  # what it raises for too few samples, and for no patch
        return math.nan


def missing(score: str) -> str | None:
    """Why a score, one of `PACKAGES`, cannot be had; None where it can."""
    try:
        _package(score)
    except InputError as error:
        return str(error)
    return None


def _package(score: str) -> ModuleType:
    module, name = PACKAGES[score]
    try:
        return importlib.import_module(module)
    except ImportError as error:
        raise InputError(
            f"{score}: the package {name} is not installed, takes `pip install 'sepfast[speech]'`"
        ) from error


def _pair(
    reference: ArrayLike, estimate: ArrayLike, sample_rate: float
) -> tuple[NDArray[Any], NDArray[Any]] | None:
    """Both signals, or None where one is silent."""
    true, guess = np.asarray(reference), np.asarray(estimate)
    if true.shape != guess.shape:
        raise InputError(f"estimate: got shape {guess.shape}, takes {true.shape} as the reference")
    if true.ndim != 1 or not true.size:
        raise InputError(f"reference: got shape {true.shape}, takes (samples,), at least one")
    if not sample_rate >= 1:
        raise InputError(f"sample_rate: got {sample_rate}, takes a positive number of Hz")
    for name, wave in (("reference", true), ("estimate", guess)):
        if not np.issubdtype(wave.dtype, np.floating):
            raise InputError(f"{name}: got {wave.dtype} samples, takes floats")
        if not np.isfinite(wave).all():
            raise InputError(f"{name}: holds NaN or infinite samples")
    return (true, guess) if true.any() and guess.any() else None


def _at_rate(wave: NDArray[Any], from_rate: int, to_rate: int) -> NDArray[np.float32]:
    from sepfast.data.resampling import resample

    resampled: NDArray[np.float32] = resample(wave[None], from_rate, to_rate)[0]
    return resampled
