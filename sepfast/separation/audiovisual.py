"""A recording through system D's networks: what is heard and the face's motion to a voice.

C channels, K contexts in a span, T frames of a context, F bins, p the power of compression.

    samples (C) -> their mean's compressed magnitudes |X|^p, normalised -+
    landmarks -> motion, normalised ----------------------------------------+-> network
    -> masks (K, T, F), cross-faded: m -> shares m^(1/p) -> masked_istft: samples (C)

The mask times the compressed mixture is the compressed estimate; brought back, (m |X|^p)^(1/p) is
m^(1/p) |X|. So neither has to be made, and what is silent stays silent.

Networks were trained on utterances of seconds. A recording of up to `LONGEST` frames is one
context, as an utterance in training is. A longer one is cut into as many as it takes, all as long
as one another, which share `OVERLAP` frames: at a border a recurrent network knows one side alone,
so the masks are cross-faded over what they share. What grows with the recording are its samples and
its motion.
Source: D (Morrone et al. 2019), sections 2 and 3.4.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from sepfast import ops
from sepfast.reference import AudioVisual, overlap_add
from sepfast.separation.contexts import ContextTrack, Part
from sepfast.separation.track import Span

#: Frames of a context at most, 30 s, and those that two share, 2 s.
LONGEST, OVERLAP = 3000, 200

#: Frames of a span: four minutes, in which one context of eight is heard once more by the next
#: span; eleven on a GPU.
_CPU_FRAMES, _GPU_FRAMES = 24_000, 65_536
#: Contexts through the network at once; on a CPU the published sizes take 0.1 GB for each.
_CPU_BATCH, _GPU_BATCH = 4, 32


class AudioVisualTrack(ContextTrack):
    """A model of system D over one recording, whose motion and statistics it knows.

    Args:
        model: the network, in evaluation mode; not copied.
        mean: (F,), of compressed magnitudes.
        deviation: (F,), likewise.
        motion: (frames, 136), normalised, of all the recording's frames, at least one.

    Raises:
        InputError: for a framing that cannot be inverted.
    """

    def __init__(self, model: AudioVisual, mean: Tensor, deviation: Tensor, motion: Tensor) -> None:
        model.framing.check_invertible()
        context, overlap = contexts_of(len(motion))
        frames = _GPU_FRAMES if motion.is_cuda else _CPU_FRAMES
        super().__init__(model.framing, context, overlap, frames, sources=1)
        self._model, self._motion = model, motion
        self._mean, self._deviation = mean, deviation
        self._batch = _GPU_BATCH if motion.is_cuda else _CPU_BATCH

    def _stems(self, part: Part, span: Span) -> Tensor:
        shares = self._mask(part)[part.frames].pow(1 / self._model.power)
        begin = part.frames.start * self.framing.hop
        samples = part.samples[:, begin : begin + self.framing.covered(len(shares))]
        return ops.masked_istft(shares.expand(1, len(samples), -1, -1), samples, self._inner)

    def _mask(self, part: Part) -> Tensor:
        """The mask of all frames, cross-faded: (frames, F)."""
        power = self._model.power
        levels = ops.stft_magnitude(part.samples.mean(0), self._inner, power=power)
        heard = (levels - self._mean) / self._deviation
        seen = self._motion[part.start : part.start + len(heard)]
        seen = F.pad(seen, (0, 0, 0, len(heard) - len(seen)))
        inputs = self._contexts_in(seen), self._contexts_in(heard), self._lengths(part)
        batches = zip(*(each.split(self._batch) for each in inputs), strict=True)
        masks = torch.cat([self._masks(*batch) for batch in batches])
        faded = masks * part.weights[..., None]
        return overlap_add(faded.permute(2, 0, 1), self.step).transpose(0, 1)

    def _masks(self, motion: Tensor, spectrogram: Tensor, lengths: Tensor) -> Tensor:
        """The network's masks of some contexts, (K, T, F)."""
        return self._model.mask(self._model(motion, spectrogram, lengths), lengths)

    def _contexts_in(self, frames: Tensor) -> Tensor:
        """Frames (frames, features) as contexts (K, T, features)."""
        return frames.unfold(0, self.context, self.step).transpose(1, 2)

    def _lengths(self, part: Part) -> Tensor:
        """Frames of each context that the recording has, (K,)."""
        starts = torch.arange(len(part.weights), device=self._motion.device) * self.step
        return (len(self._motion) - part.start - starts).clamp(max=self.context)


def contexts_of(frames: int) -> tuple[int, int]:
    """Frames of a context, and those that neighbours share, for a recording of some frames."""
    if frames <= LONGEST:
        return frames, 0
    count = -(-(frames - OVERLAP) // (LONGEST - OVERLAP))
    return -(-(frames - OVERLAP) // count) + OVERLAP, OVERLAP
