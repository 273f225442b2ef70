"""A whole track through system C's network, fragment by fragment, each with what it is told.

C channels, K fragments in a span, N frames of a fragment, F bins, M steps of side information, D
features a step.

    samples -> spectrum -> magnitudes (C, K, N, F), each fragment's divided by its own maximum
    -> network, with side information (K, M, D) -> times the maximum, cross-faded: |V|
    -> with the mixture's phase, the target's samples

The network has only ever heard fragments of N frames, so it hears such. They overlap, by half where
not told otherwise: at their borders a recurrent network knows one side alone. Every channel is
separated on its own; all are told the same. What is left of the mixture without the target, its
accompaniment, is taken off in the time domain, where the mixture is (`Separator`).

A fragment in the paper begins with its first frame, and nothing is padded. A track has zeros in
front and behind, so that its first and last samples lie under as many frames as all others.
Source: C (Schulze-Forster et al. 2019), sections 2 and 4.1.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import replace
from typing import Self

import torch
from torch import Tensor, nn

from sepfast import ops
from sepfast.data.side_line import Fragments, Line, Ones, Steps
from sepfast.errors import InputError
from sepfast.fusion import fuse
from sepfast.reference import Framing, Informed, magnitude, overlap_add
from sepfast.separation.alignment import Alignment
from sepfast.separation.contexts import ContextTrack, Part
from sepfast.separation.track import Span

#: Frames of a span: 65 s at 16 kHz, in which two fragments of 18 are separated once more by the
#: next span; nine minutes on a GPU.
_CPU_FRAMES, _GPU_FRAMES = 2048, 16384
#: Fragments through the network at once.
_CPU_BATCH, _GPU_BATCH = 16, 128


class InformedTrack(ContextTrack):
    """`Informed` over a track of any length.

    It separates the target alone: what comes out is (1, channels, samples).

    Args:
        model: the network, of which a copy with fused layers is made.
        overlap: frames that neighbouring fragments share, 0 to N - 1; None for half of them.

    Raises:
        InputError: for an overlap out of range, or a framing that cannot be inverted.
    """

    def __init__(self, model: Informed, overlap: int | None = None) -> None:
        on_gpu = model.output.weight.is_cuda
        framing = track_framing(model.framing)
        framing.check_invertible()
        overlap = model.context // 2 if overlap is None else overlap
        frames = _GPU_FRAMES if on_gpu else _CPU_FRAMES
        super().__init__(framing, model.context, overlap, frames, sources=1)
        self.model = copy.deepcopy(model)
        fuse(self.model)
        for layer in self.model.modules():
            if isinstance(layer, nn.RNNBase):
                layer.flatten_parameters()  # a copy's are scattered, which cuDNN is slow on
        self._batch = _GPU_BATCH if on_gpu else _CPU_BATCH
        self._fragments = Fragments(
            framing, model.sample_rate, model.context, model.side, model.side_steps
        )
        self._line: Line | None = None
        self._alignment: Alignment | None = None

    @property
    def takes_side(self) -> bool:
        """Whether it has to be told something."""
        return self.model.attention is not None and self.model.side != "BL2"

    def check_side(self, given: bool) -> None:
        """Raise `InputError` where side information is missing, or given to no avail."""
        if given == self.takes_side:
            return
        if not given:
            raise InputError(
                "side: got None, takes side information of the vocals, which this model was "
                f"trained with (kind {self.model.side})"
            )
        reason = "has no attention (BL1)"
        if self.model.attention is not None:
            reason = "was trained with ones alone (BL2)"
        raise InputError(f"side: got side information, takes None: this model {reason}")

    def told(self, line: Line | None, seconds: float | None, alignment: Alignment | None) -> Self:
        """The same for one recording.

        Args:
            line: the recording's side information; None for none.
            seconds: how long the recording is, None where that is not known.
            alignment: collects what the network looks at.

        Raises:
            InputError: for side information that is missing or does not fit, and for an alignment
                of a model without attention.
        """
        self.check_side(line is not None)
        track = copy.copy(self)
        if self.model.attention is None:
            if alignment is not None:
                raise InputError("alignment: got one, takes None: this model has no attention")
            return track
        track._line = Ones(self.model.side_features) if line is None else line
        track._line.check(self.model.side_features, seconds)
        track._fragments = replace(self._fragments, length=seconds)
        track._alignment = alignment
        if alignment is not None:
            alignment.begin(track._fragments)
        return track

    def ended(self, seconds: float) -> None:
        """As `Track`: side information may not go on for longer."""
        if self._line is not None:
            self._line.check(self.model.side_features, seconds)

    def _stems(self, part: Part, span: Span) -> Tensor:
        spectrum = ops.stft(part.samples, self._inner)  # (C, frames, F, 2)
        estimate = self._estimate(magnitude(spectrum), part, span)
        target = _with_phase(estimate[:, part.frames], spectrum[:, part.frames])
        return ops.istft(target, self._inner, self._inner.covered(target.shape[1]))[None]

    def _estimate(self, levels: Tensor, part: Part, span: Span) -> Tensor:
        """The target's magnitudes of all frames, cross-faded, from those of a mixture.

        Args:
            levels: (C, frames, F).
            part: what the span reads.
            span: the span.
        """
        channels = len(levels)
        fragments = levels.unfold(1, self.context, self.step).transpose(-1, -2)  # (C, K, N, F)
        starts = range(part.start, part.start + fragments.shape[1] * self.step, self.step)
        steps = [self._line.steps(self._fragments, first) for first in starts] if self._line else []
        estimates, looks = self._network(fragments.flatten(0, 1), steps)
        faded = estimates.unflatten(0, (channels, -1)) * part.weights[..., None]
        # Cross-faded along the frames, which `overlap_add` takes last.
        estimate = overlap_add(faded.permute(0, 3, 1, 2), self.step).transpose(1, 2)
        if self._alignment is not None and looks is not None:
            looks = looks.unflatten(0, (channels, -1)).mean(0)
            own = estimate[:, span.first - part.start : span.stop - part.start].mean(0)
            self._alignment.add(span, starts, looks, part.weights, steps, own)
        return estimate

    def _network(self, fragments: Tensor, steps: Sequence[Steps]) -> tuple[Tensor, Tensor | None]:
        """Estimates of fragments (C K, N, F) on their own scales, and the attention's weights."""
        scaled, factor = self.model.scale(fragments)
        batches = scaled.split(self._batch)
        if not steps:
            estimates = [self.model(batch)[0] for batch in batches]
            return torch.cat(estimates) * factor, None
        told = torch.stack([torch.from_numpy(each.values) for each in steps]).to(fragments)
        told = told.repeat(len(fragments) // len(steps), 1, 1).split(self._batch)
        pairs = [self.model(*both) for both in zip(batches, told, strict=True)]
        estimates, weights = ([pair[i] for pair in pairs] for i in (0, 1))
        return torch.cat(estimates) * factor, torch.cat(weights)


def track_framing(framing: Framing) -> Framing:
    """The framing of fragments with zeros in front of a track and behind it."""
    return replace(framing, front=max(0, framing.span - framing.hop), rule="pad-end")


def _with_phase(levels: Tensor, spectrum: Tensor) -> Tensor:
    """Magnitudes (...) with the phase of a spectrum (..., 2), which is that of 1 where it is 0."""
    own = magnitude(spectrum)[..., None]
    one = torch.view_as_real(torch.ones((), dtype=torch.complex64, device=levels.device))
    return torch.where(own > 0, spectrum / own, one) * levels[..., None]
