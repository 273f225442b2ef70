"""From a mixture's samples and a speaker's face to the speaker's voice, by a model of system D."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace
from itertools import chain
from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import ArrayLike
from torch import Tensor, nn

from sepfast import ops
from sepfast.data.landmarks import COLUMNS, FRAME_RATE, Floats, landmark_motion
from sepfast.data.resampling import StreamResampler, resampled_length
from sepfast.data.speaker_statistics import Moments, RunningMoments, normalised
from sepfast.errors import InputError
from sepfast.fusion import fuse
from sepfast.reference import AudioVisual, Refining
from sepfast.separation.audiovisual import AudioVisualTrack
from sepfast.separation.line import Line, fit
from sepfast.separation.recording_statistics import (
    RecordingStatistics,
    Statistics,
    check_statistics,
)

#: Samples that are resampled or looked at at once, and frames that are measured so.
_BLOCK, _FRAMES = 1 << 18, 4096


class Recording(NamedTuple):
    """A mixture with the landmarks of the face that is to be heard.

    Attributes:
        waveform: (channels, samples), at least one of each.
        sample_rate: Hz.
        landmarks: (frames, 136), of the speaker, from the waveform's start on.
        video_rate: frames of the landmarks a second.
    """

    waveform: Tensor | np.ndarray
    sample_rate: int
    landmarks: ArrayLike
    video_rate: float


class Enhancer:
    """A model as a function from a mixture and a face to that face's voice.

    Args:
        model: "vl2m", "vl2m-ref", "av-concat" or "av-concat-ref", made by `create_model` or `load`;
            a copy of it is made here, with fused layers.
        device: where to compute; None for where the model is.

    Attributes:
        sample_rate: the model's, in Hz; other rates are resampled to it and back.

    Raises:
        InputError: for another model, or one that refines a mask and holds no VL2M to make it.

    Example:
        >>> import numpy as np, sepfast
        >>> from sepfast.separation import Enhancer
        >>> enhancer = Enhancer(sepfast.create_model("av-concat", hidden=4))
        >>> moving = np.random.default_rng(0).normal(200, 20, (25, 136))
        >>> enhancer(np.ones((1, 16000), np.float32), 16000, moving, 25).shape
        torch.Size([1, 16000])
    """

    def __init__(self, model: nn.Module, *, device: torch.device | str | None = None) -> None:
        self._model = _usable(model).to(device, torch.float32)
        fuse(self._model)
        self.device = self._model.output.weight.device
        self.sample_rate = self._model.sample_rate

    def __call__(
        self,
        waveform: Tensor | np.ndarray,
        sample_rate: int,
        landmarks: ArrayLike,
        video_rate: float,
        *,
        statistics: Statistics | None = None,
        progress: Callable[[int, int], None] = lambda done, total: None,
    ) -> Tensor:
        """The voice in a mixture.

        The network hears the mean of all channels, as it did in training, and its mask serves every
        channel: where the voice is between them stays as it was.

        Args:
            waveform: (channels, samples), at least one of each; never changed.
            sample_rate: Hz.
            landmarks: (frames, 136), of the speaker's face, from the waveform's start on; what lies
                behind the waveform's end is not looked at, and up to 0.1 s may be missing.
            video_rate: their frames a second.
            statistics: what is usual for the speaker, by which networks were given everything in
                training. None: what this recording's own frames have, as good as it gets where
                there is no other recording of the speaker.
            progress: is told how many samples are done, and of how many.

        Returns:
            (channels, samples) in float32 on the waveform's device; not limited to full scale.

        Raises:
            InputError: for shapes, rates, values that are not finite, statistics that do not fit,
                and landmarks that end more than 0.1 s before the waveform.
        """
        if statistics is not None:
            check_statistics(statistics, self._model.bins)
        mixture = _checked(waveform, sample_rate)
        line, motion = self._prepared(mixture, sample_rate, landmarks, video_rate)
        if statistics is None:
            statistics = self._measured([(line, motion)])
        out = mixture.new_empty(mixture.shape)
        back = StreamResampler(self.sample_rate, sample_rate, len(mixture))
        position, samples = 0, mixture.shape[1]
        for piece in self._pieces(line, motion, statistics):
            ready = torch.from_numpy(back.push(piece.numpy(force=True)))[:, : samples - position]
            out[:, position : position + ready.shape[1]] = ready
            position += ready.shape[1]
            progress(position, samples)
        # The rates' rounding may have a sample too many at the very end.
        out[:, position:] = fit(torch.from_numpy(back.finish()), samples - position)
        progress(samples, samples)
        return out

    def statistics(self, recordings: Iterable[Recording]) -> RecordingStatistics:
        """What is usual for a speaker, over recordings of what is to be enhanced, not clean speech.

        Args:
            recordings: at least one, all of the same speaker.

        Raises:
            InputError: as `__call__`, and for no recordings.
        """
        prepared = [
            self._prepared(_checked(waveform, sample_rate), sample_rate, landmarks, video_rate)
            for waveform, sample_rate, landmarks, video_rate in recordings
        ]
        if not prepared:
            raise InputError("recordings: got none, takes at least one")
        return self._measured(prepared)

    def _prepared(
        self, mixture: Tensor, sample_rate: int, landmarks: ArrayLike, video_rate: float
    ) -> tuple[Tensor, Floats]:
        """Samples at the model's rate, on its device, and the motion at their frames."""
        rates = int(sample_rate), self.sample_rate
        samples = resampled_length(mixture.shape[1], *rates)
        # The motion first, since it refuses more.
        motion = landmark_motion(landmarks, video_rate, self._model.framing.frames(samples))
        resampler = StreamResampler(*rates, len(mixture))
        blocks = [resampler.push(x.numpy(force=True)) for x in mixture.split(_BLOCK, dim=1)]
        line = torch.from_numpy(np.concatenate([*blocks, resampler.finish()], axis=1))
        return line.to(self.device), motion

    def _measured(self, prepared: Iterable[tuple[Tensor, Floats]]) -> RecordingStatistics:
        """The moments of what `_prepared` gave."""
        heard, seen = RunningMoments(self._model.bins), RunningMoments(COLUMNS)
        for line, motion in prepared:
            for levels in self._levels(line.mean(0)):
                heard.add(levels.numpy(force=True))
            seen.add(motion)
        return RecordingStatistics(heard.moments(), seen.moments())

    @torch.inference_mode()
    def _levels(self, line: Tensor) -> Iterator[Tensor]:
        """Compressed magnitudes of samples (samples,), in blocks (some frames, F)."""
        framing = self._model.framing
        frames = framing.frames(len(line))
        line = F.pad(line, (framing.front, framing.covered(frames) - framing.front - len(line)))
        inner = replace(framing, front=0, rule="valid")
        for first in range(0, frames, _FRAMES):
            length = framing.covered(min(_FRAMES, frames - first))
            part = line[first * framing.hop :][:length]
            yield ops.stft_magnitude(part, inner, power=self._model.power)

    def _pieces(self, line: Tensor, motion: Floats, statistics: Statistics) -> Iterator[Tensor]:
        """The voice at the model's rate, (channels, some samples) each, one behind the other."""
        seen = torch.from_numpy(normalised(motion, _single(statistics.motion))).to(self.device)
        mean, deviation = (
            torch.from_numpy(part).to(self.device) for part in _single(statistics.mixtures)
        )
        track = AudioVisualTrack(self._model, mean, deviation, seen)
        held = Line(track)
        held.append(line)
        for span in chain(held.ready(), held.rest()):
            piece = track.separate(held.samples_around(span), held.origin, span)
            yield held.crop(piece, span)[0]


def check_mask_model(model: nn.Module) -> None:
    """Raise `InputError` for a model that refines a mask and holds no VL2M to make it."""
    if isinstance(model, Refining) and model.mask_model is None:
        raise InputError(
            f"model: got a {type(model).__name__} without a VL2M to make its mask of the motion, "
            "takes one after both steps of its training"
        )


def _usable(model: nn.Module) -> AudioVisual:
    """A copy of a model that enhances, in evaluation mode; raises for any other."""
    if not isinstance(model, AudioVisual):
        raise InputError(
            f"model: got a {type(model).__name__}, takes one that enhances by a face: vl2m, "
            "vl2m-ref, av-concat or av-concat-ref"
        )
    check_mask_model(model)
    rate = model.sample_rate / model.framing.hop
    if model.landmarks != COLUMNS or rate != FRAME_RATE:
        raise InputError(
            f"model: got one of {model.landmarks} values of motion at {rate:g} frames a second, "
            f"takes {COLUMNS} at {FRAME_RATE}"
        )
    return copy.deepcopy(model).eval()


def _checked(waveform: Tensor | np.ndarray, sample_rate: int) -> Tensor:
    """A waveform in float32; raises for one that cannot be used."""
    mixture = torch.as_tensor(waveform).detach()
    if mixture.ndim != 2 or not mixture.numel():
        raise InputError(
            f"waveform: got shape {tuple(mixture.shape)}, takes (channels, samples), at least one "
            "of each"
        )
    if not mixture.is_floating_point():
        raise InputError(f"waveform: got {mixture.dtype} samples, takes floats from -1 to 1")
    if not (sample_rate >= 1 and sample_rate % 1 == 0):
        raise InputError(f"sample_rate: got {sample_rate}, takes a positive whole number of Hz")
    mixture = mixture.to(torch.float32)
    for i, block in enumerate(mixture.split(_BLOCK, dim=1)):
        if not bool(block.isfinite().all()):
            raise InputError(
                f"waveform: holds NaN or infinite samples between {i * _BLOCK} and "
                f"{i * _BLOCK + block.shape[1]}"
            )
    return mixture


def _single(moments: Moments) -> Moments:
    """Moments in float32."""
    return Moments(*(part.astype(np.float32, copy=False) for part in moments))
