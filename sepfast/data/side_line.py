"""Side information along a whole recording, and what of it each fragment is told.

N frames of a fragment, M steps of its side information, D features a step.

A line is looked at in the centres of a fragment's frames, which makes a sequence (N, D). What
follows is what training does with the model's kind (see `side_information`):

    M1            the sequence as it is
    M2, A1        padded with 100 to M steps
    A2, A3, A3.2  runs shortened by the same rule, padded; A3.2 rolled

A line of a file is padded evenly on both sides, and its values are used as given: only to shorten
runs is a step active where one of its values is 0.5 or more. A line of the true target is what
training has, random split included.
Source: C (Schulze-Forster et al. 2019), section 4.3.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import NamedTuple, Protocol

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray

from sepfast.data.resampling import resample
from sepfast.data.side_information import (
    Floats,
    Indices,
    SideInformation,
    frame_values,
    step_frames,
    step_values,
)
from sepfast.errors import InputError
from sepfast.reference import Framing, stft_magnitude

_ACTIVE = 0.5
#: Seconds by which a line may go on behind the recording.
_TOLERANCE = 1.0


@dataclass(frozen=True)
class Fragments:
    """What a network hears and is told at once.

    Attributes:
        framing: of the track, its zeros in front included.
        sample_rate: Hz.
        context: N.
        kind: one of `SIDE_KINDS`.
        side_steps: M of the padded kinds.
        length: seconds of the recording, None where they are not known.
    """

    framing: Framing
    sample_rate: int
    context: int
    kind: str
    side_steps: int
    length: float | None = None

    def seconds(self, frames: ArrayLike) -> NDArray[np.float64]:
        """Where the centres of some of the track's frames lie; the first sample is at 0."""
        centre = self.framing.span / 2 - self.framing.front
        return (np.asarray(frames) * self.framing.hop + centre) / self.sample_rate


class Steps(NamedTuple):
    """What one fragment is told.

    Attributes:
        values: (M, D), what the network gets.
        frames: (M,), which of the fragment's frames each step is, -1 where it is padding.
        line: (N, D), what the line says about each of the fragment's frames.
    """

    values: Floats
    frames: Indices
    line: Floats


class Line(Protocol):
    """Side information along a recording."""

    def check(self, features: int, seconds: float | None) -> None:
        """Raise `InputError` where it does not fit a model's D, or a recording of so many seconds.

        Args:
            features: D.
            seconds: None where they are not known.
        """

    def steps(self, fragments: Fragments, first: int) -> Steps:
        """What the fragment that starts with the track's frame `first` is told."""


class SideLine:
    """A line of a file or an array.

    With times, a value holds from its time to the next one's, the first also before its time, the
    last to the end. Without, the values are spread evenly over the recording.

    Args:
        side: what `read_side_information` gives; or an array (steps,) or (steps, D), without times.
        name: what errors call it.
        seed: of the runs that A2 and A3 shorten; each fragment has its own random numbers.

    Attributes:
        values: (steps, D).
        times: (steps,) seconds, None where there are none.

    Raises:
        InputError: for values of another shape, none, or not finite; and for times that are not
            as many, not finite, or go back.
    """

    def __init__(
        self, side: SideInformation | ArrayLike, *, name: str = "side", seed: int = 0
    ) -> None:
        self.name, self._seed = name, seed
        given = side if isinstance(side, SideInformation) else SideInformation(None, _array(side))
        values = _array(given.values)
        if values.ndim not in (1, 2) or not values.size:
            raise InputError(
                f"{name}: got shape {values.shape}, takes (steps,) or (steps, features)"
            )
        self.values: Floats = values.reshape(len(values), -1)
        if not np.isfinite(self.values).all():
            raise InputError(f"{name}: holds NaN or infinite values, takes finite ones")
        self.times = None if given.times is None else np.asarray(given.times, np.float64)
        if self.times is not None:
            if self.times.shape != (len(values),) or not np.isfinite(self.times).all():
                raise InputError(f"{name}: takes {len(values)} finite times, one for each step")
            if (np.diff(self.times) < 0).any():
                raise InputError(f"{name}: its times go back, takes them in order")

    def check(self, features: int, seconds: float | None) -> None:
        """As `Line`; without times it takes a recording of known length."""
        if self.values.shape[1] != features:
            raise InputError(
                f"{self.name}: holds {self.values.shape[1]} values a step, takes {features} as the "
                "model"
            )
        if self.times is None and seconds is None:
            raise InputError(
                f"{self.name}: has no times, takes `samples`, how long the recording is that it is "
                "spread over"
            )
        if self.times is not None and seconds is not None and self.times[-1] > seconds + _TOLERANCE:
            raise InputError(
                f"{self.name}: goes to {self.times[-1]:.1f} s, the recording lasts {seconds:.1f} s"
            )

    def at(self, seconds: ArrayLike, length: float | None = None) -> Floats:
        """The values that hold at some points of time.

        Args:
            seconds: the points.
            length: seconds of the recording, which a line without times takes.

        Returns:
            (points, D).
        """
        count = len(self.values)
        times = np.arange(count) * ((length or 0.0) / count) if self.times is None else self.times
        return self.values[np.maximum(np.searchsorted(times, seconds, side="right") - 1, 0)]

    def steps(self, fragments: Fragments, first: int) -> Steps:
        """As `Line`."""
        centres = fragments.seconds(first + np.arange(fragments.context))
        line = self.at(centres, fragments.length)
        frames = step_frames(
            fragments.kind,
            line.max(1) >= _ACTIVE,
            (self._seed, first),
            length=fragments.side_steps,
            split=0.5,
        )
        return Steps(step_values(line, frames), frames, line)


class TrueLine:
    """Side information made from the true target, as training makes it; for evaluation.

    Every fragment's magnitudes are divided by the fragment's own maximum. Behind the target's end
    there is silence.

    Args:
        vocals: the target, (channels, samples), of which the mean over the channels counts.
        sample_rate: Hz.
        seed: of splits and runs; each fragment has its own random numbers.

    Raises:
        InputError: for another shape, or samples that are not finite.

    Example:
        >>> import sepfast
        >>> model = sepfast.create_model("informed", hidden=2)
        >>> mixture, vocals = np.random.rand(2, 1, 8000)
        >>> stems = sepfast.Separator(model)(mixture, 8000, side=TrueLine(vocals, 8000))
        >>> stems["vocals"].shape
        torch.Size([1, 8000])
    """

    def __init__(self, vocals: ArrayLike | torch.Tensor, sample_rate: int, seed: int = 0) -> None:
        on_host = vocals.numpy(force=True) if isinstance(vocals, torch.Tensor) else vocals
        waveform = np.asarray(on_host)
        if waveform.ndim != 2 or not len(waveform):
            raise InputError(f"vocals: got shape {waveform.shape}, takes (channels, samples)")
        if not np.isfinite(waveform).all():
            raise InputError("vocals: holds NaN or infinite samples")
        self._mono = waveform.mean(0, keepdims=True, dtype=np.float64).astype(np.float32)
        self._rate, self._seed = sample_rate, seed
        self._at_rate: tuple[int, NDArray[np.float32]] | None = None

    def check(self, features: int, seconds: float | None) -> None:
        """As `Line`; its end is silence, so that it fits recordings of any length."""
        if features != 1:
            raise InputError(
                f"side: of the true target holds 1 value a step, takes {features} as the model"
            )

    def steps(self, fragments: Fragments, first: int) -> Steps:
        """As `Line`."""
        magnitudes = self._magnitudes(fragments, first)
        line = frame_values(fragments.kind, magnitudes / (magnitudes.max() or 1))
        frames = step_frames(
            fragments.kind, line > 0, (self._seed, first), length=fragments.side_steps
        )
        column = line.astype(np.float32)[:, None]
        return Steps(step_values(column, frames), frames, column)

    def _magnitudes(self, fragments: Fragments, first: int) -> Floats:
        """Magnitudes of a fragment, (N, F)."""
        framing, samples = fragments.framing, self._resampled(fragments.sample_rate)
        begin = first * framing.hop - framing.front
        end = begin + framing.covered(fragments.context)
        heard = samples[max(0, begin) : max(0, end)]
        padding = min(max(0, -begin), end - begin)
        inside = np.pad(heard, (padding, end - begin - padding - len(heard)))
        inner = replace(framing, front=0, rule="valid")
        magnitudes: Floats = stft_magnitude(torch.from_numpy(inside), inner).numpy()
        return magnitudes

    def _resampled(self, sample_rate: int) -> NDArray[np.float32]:
        if self._at_rate is None or self._at_rate[0] != sample_rate:
            self._at_rate = sample_rate, resample(self._mono, self._rate, sample_rate)[0]
        return self._at_rate[1]


class Ones:
    """BL2's line, which says nothing.

    Args:
        features: D.
    """

    def __init__(self, features: int) -> None:
        self._features = features

    def check(self, features: int, seconds: float | None) -> None:
        """As `Line`; ones fit every recording."""

    def steps(self, fragments: Fragments, first: int) -> Steps:
        """As `Line`."""
        ones = np.ones((fragments.context, self._features), np.float32)
        return Steps(ones, np.arange(fragments.context), ones)


def side_line(side: SideInformation | SideLine | TrueLine | ArrayLike) -> Line:
    """The line of whatever a separator takes as side information.

    Raises:
        InputError: as `SideLine`.
    """
    return side if isinstance(side, SideLine | TrueLine) else SideLine(side)


def _array(side: ArrayLike | torch.Tensor) -> Floats:
    on_host = side.numpy(force=True) if isinstance(side, torch.Tensor) else side
    try:
        with np.errstate(over="ignore"):  # to infinity, which is refused
            return np.asarray(on_host, np.float32)
    except (TypeError, ValueError) as error:
        raise InputError(f"side: got a {type(side).__name__}, takes an array of numbers") from error
