"""A whole track through DeepConvSep.

N sources, C channels, T frames of context, F bins, K contexts in a span.

    samples -> magnitudes -> encoder, once for all frames of a span -> windows over its codes,
    one for each context -> bottleneck -> overlap_decode: shares (N, C, frames, F) -> stems

On a GPU what counts are bytes: the mixture's spectrum is never stored, `masked_istft` takes it
again from the samples, and shares are float16 where the precision of products allows it. On a CPU
it is the transforms that count: the spectrum is taken once, and spans are so short that all stays
in the cache.
"""

from __future__ import annotations

import copy

import torch
from torch import Tensor

from sepfast import ops
from sepfast.fusion import fuse
from sepfast.reference import DeepConvSep, Levels, magnitude, masked_spectrum, overlap_add
from sepfast.reference.overlap_add import overlapping, squared_window_sum
from sepfast.separation.contexts import ContextTrack, Part
from sepfast.separation.track import Span

#: Frames of a span: few enough for the buffers to stay in a CPU's cache; six minutes on a GPU, of
#: which shares in float32 take a gigabyte.
_CPU_FRAMES, _GPU_FRAMES = 240, 65536


class DeepConvSepTrack(ContextTrack):
    """DeepConvSep over a track of any length.

    One channel of masks serves any number of channels.

    Args:
        model: the network, of which a copy with fused layers is made.
        overlap: frames that neighbouring contexts share, 0 to T - 1.
        fused: whether the spectrum is taken again instead of stored, as on a GPU; None for where
            the model is.
    """

    last_takes_over = True

    def __init__(self, model: DeepConvSep, overlap: int, fused: bool | None = None) -> None:
        self._fused = model.minimum.is_cuda if fused is None else fused
        frames = _GPU_FRAMES if self._fused else _CPU_FRAMES
        super().__init__(model.framing, model.context, overlap, frames, len(model.sources))
        self.model = copy.deepcopy(model)
        fuse(self.model)
        self._levels, self._scaling = model.levels(), model.scaling()
        self._decoder = None
        if model.filtered == 1:
            with torch.no_grad():
                horizontal, bias, vertical, vertical_bias = model.stacked_weights()
            self._decoder = horizontal[..., 0], bias, vertical[:, :, :, 0], vertical_bias

    def _stems(self, part: Part, span: Span) -> Tensor:
        stems = self._stems_by_samples if self._fused else self._stems_by_spectrum
        return stems(part.samples, part.weights, part.frames)

    def _stems_by_samples(self, samples: Tensor, weights: Tensor, frames: slice) -> Tensor:
        """Samples of the sources, from the first of some frames on.

        Args:
            samples: (channels, samples) of all frames of the contexts.
            weights: (K, T), their fades.
            frames: those whose shares are whole; the others reach no sample that is wanted.
        """
        model = self.model
        heard = samples.mean(0, keepdim=True) if model.channels == 1 else samples
        scale, offset = self._scaling
        levels = ops.stft_magnitude(heard, self._inner, scale=scale, offset=offset)
        shares = self._shares(levels, weights).expand(-1, len(samples), -1, -1)
        stems = ops.masked_istft(shares, samples, self._inner, self._levels_of(len(samples)))
        hop = self.framing.hop
        return stems[..., frames.start * hop : self.framing.covered(frames.stop)]

    def _levels_of(self, channels: int) -> Levels | None:
        """The levels of so many channels, of which a mono model has one for all."""
        if self._levels is None:
            return None
        parts = (p if p is None else p.expand(*p.shape[:-3], channels, 1, -1) for p in self._levels)
        return Levels(*parts)  # type: ignore[arg-type]

    def _stems_by_spectrum(self, samples: Tensor, weights: Tensor, frames: slice) -> Tensor:
        """As `_stems_by_samples`, through a spectrum that is stored."""
        spectrum = self._spectrum(samples)
        heard = spectrum.mean(0, keepdim=True) if self.model.channels == 1 else spectrum
        shares = self._shares(self.model.scale(magnitude(heard)), weights)
        wanted = masked_spectrum(shares[:, :, frames], spectrum[:, frames], self._levels)
        return self._synthesis(wanted)

    def _spectrum(self, samples: Tensor) -> Tensor:
        """Spectra of samples (channels, samples): (channels, frames, F, 2), in their type."""
        framing, dtype = self.framing, samples.dtype
        if self._levels and self._levels.base is not None:
            # A source's floor sounds with the phase of bins that are next to silent, and of
            # these a float32 transform knows the phase no more.
            samples = samples.double()
        windowed = overlapping(samples, framing.span, framing.hop) * (
            framing.window_on(samples) * framing.scale
        )
        return torch.view_as_real(torch.fft.rfft(windowed, n=framing.n_fft)).to(dtype)

    def _shares(self, levels: Tensor, weights: Tensor) -> Tensor:
        """Masks of all contexts, cross-faded by `weights` (K, T): (N, C, frames, F)."""
        if self._decoder is None:
            return self._shares_with_pool(levels, weights)
        codes, _ = self.model.encode(levels[None])
        windows = context_windows(codes, self.model.code_shape[1], self.step)  # (K, N2, T', 1)
        expanded = self.model.expanded(windows)[..., 0]
        # TF32 has as many digits as float16: where it does, shares of half the bytes do.
        compact = self._fused and torch.get_float32_matmul_precision() != "highest"
        return ops.overlap_decode(expanded, *self._decoder, weights, self.step, compact)

    def _shares_with_pool(self, levels: Tensor, weights: Tensor) -> Tensor:
        """The same through the model, context by context."""
        model, step = self.model, self.step
        codes, peaks = model.encode(levels[None])
        assert peaks is not None
        shape = (len(model.sources), model.channels, levels.shape[1], model.framing.bins)
        line = levels.new_zeros(shape)
        windows = context_windows(codes, model.code_shape[1], step).split(1)
        places = context_windows(peaks, model.context, step).split(1)
        for k, (window, place) in enumerate(zip(windows, places, strict=True)):
            masks = model.shares(model.decode(window, place))[0]  # (N, C, T, F)
            line[:, :, k * step : k * step + model.context] += masks * weights[k, :, None]
        return line

    def _synthesis(self, spectrum: Tensor) -> Tensor:
        """Samples of (N, channels, frames, F, 2)."""
        framing = self.framing
        window = framing.window_on(spectrum)
        frames = torch.fft.irfft(torch.view_as_complex(spectrum), n=framing.n_fft)
        frames = frames[..., : framing.span].mul_(window / framing.scale)
        line = overlap_add(frames, framing.hop)
        return line.div_(squared_window_sum(window, frames.shape[-2], framing.hop))


def context_windows(line: Tensor, length: int, step: int) -> Tensor:
    """Windows over the frames of (1, D, frames, W), `step` apart: (K, D, length, W)."""
    return line[0].unfold(1, length, step).permute(1, 0, 3, 2)
