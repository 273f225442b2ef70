"""A recording through system E's networks: its magnitudes to those of what is wanted of it.

C channels, each separated on its own, T frames, K bins, p the power of compression.

    samples (C) -> |X|^p (C, T, K) -> network -> m, cut at 0
    -> shares (m / |X|^p)^(1/p) -> masked_istft: samples (C)

That is the magnitude m^(1/p) with the mixture's phase, without a spectrum in memory; what is
silent stays silent. In evaluation a frame of the estimate depends on a few frames on either side,
so that spans that read these too are the whole recording at once, to rounding.
Source: E (Venkataramani et al. 2019), section 4.1.
"""

from __future__ import annotations

import copy

import torch.nn.functional as F
from torch import Tensor

from sepfast import ops
from sepfast.fusion import fuse
from sepfast.reference import StyleTransfer
from sepfast.separation.track import Span, Track

#: Frames of a span: four seconds at hop 16, of which a layer's are 17 MB; half a minute on a GPU.
_CPU_FRAMES, _GPU_FRAMES = 4096, 32768
#: Compressed magnitudes below it are silence, by which nothing is to be divided.
_SILENT = 1e-8


class StyleTransferTrack(Track):
    """A model of system E over a track of any length.

    Args:
        model: the network, in evaluation mode, of which a copy with fused layers is made.

    Raises:
        InputError: for a framing that cannot be inverted.
    """

    def __init__(self, model: StyleTransfer) -> None:
        model.framing.check_invertible()
        on_gpu = next(model.parameters()).is_cuda
        super().__init__(
            model.framing,
            span=_GPU_FRAMES if on_gpu else _CPU_FRAMES,
            ahead=model.reach,
            behind=model.reach,
            tail=model.framing.span,
            sources=1,
        )
        f = model.framing
        self._amid = f.rule == "pad-end" and f.front % f.hop == 0
        self.model = copy.deepcopy(model)
        fuse(self.model)

    def _synthesised(self, line: Tensor, origin: int, span: Span, before: int) -> Tensor:
        wanted, reach = span.first - before, self.model.reach
        low, high = max(0, wanted - reach), span.stop + reach
        # At a track's own ends the network sees the zeros that it pads with, as in training.
        high = high if span.frames is None else min(high, span.frames)
        samples = self._of_frames(line, origin, low, high)
        levels = ops.stft_magnitude(samples, self._inner, power=self.model.power)
        shares = self._shares(levels)[None, :, wanted - low : span.stop - low]
        if self._amid:
            return self._amid_frames(shares, line, origin, span, wanted)
        samples = self._of_frames(line, origin, wanted, span.stop)
        return ops.masked_istft(shares, samples, self._inner)

    def _amid_frames(
        self, shares: Tensor, line: Tensor, origin: int, span: Span, wanted: int
    ) -> Tensor:
        """Samples of shares (1, C, frames, K) from frame `wanted` on, by the track's own framing.

        Sliding sums are exact where a sample lies amid frames. A track begins and ends so; within
        it, frames of silence stand before and behind, which reach no sample that is wanted.
        """
        front, hop = self.framing.front, self.framing.hop
        lead, tail = front // hop if wanted else 0, 0 if span.last else self._reach + 1
        begin = wanted * hop if wanted else front
        samples = (lead + shares.shape[2] + tail) * hop - front
        heard = line[:, begin - origin :][:, :samples]
        shares = F.pad(shares, (0, 0, lead, tail))
        stems = ops.masked_istft(shares, heard, self.framing)
        return stems if wanted else F.pad(stems, (front, 0))

    def _of_frames(self, line: Tensor, origin: int, first: int, stop: int) -> Tensor:
        """All samples of some frames, (channels, samples)."""
        begin = first * self.framing.hop - origin
        return line[:, begin : begin + self.framing.covered(stop - first)]

    def _shares(self, levels: Tensor) -> Tensor:
        """Shares of the mixture's spectrum for its compressed magnitudes, both (C, T, K)."""
        ratios = self.model.estimate(levels).div_(levels.clamp(min=_SILENT))
        return ratios.pow_(1 / self.model.power)
