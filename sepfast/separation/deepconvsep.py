"""A whole track through DeepConvSep, in spans that know nothing of each other.

N sources, C channels, T frames of context, F bins, K contexts in a span. Frames stand before
channels in here, as the matrix products leave them: a spectrum is (frames, C, F), shares are
(N, frames, C, F).

The encoder runs once over all frames of a span, each context is a window over its codes, and the
decoder's deconvolutions are matrix products over all contexts and sources, in batches that stay
in the cache. A span reads the samples that its contexts reach and gives back those between its
first frame and the next span's, so that a track in spans is the track at once.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from sepfast.errors import InputError
from sepfast.reference import DeepConvSep, Levels, magnitude, masked_spectrum, overlap_add
from sepfast.reference.overlap_add import overlapping, squared_window_sum
from sepfast.separation.fades import context_count, fades

#: Contexts decoded at once: their estimates, 8 * 30 * 513 floats each, stay in the cache.
_BATCH = 8

#: Stands for 0 in the estimates, so that where all are silent the shares are equal, not 0 / 0.
_SILENCE = 1e-30


class Span(NamedTuple):
    """A stretch of a track: its frames `first` to `stop` - 1.

    `frames` is how many the whole track has, None while its end is not in sight.
    """

    first: int
    stop: int
    frames: int | None

    @property
    def last(self) -> bool:
        """Whether the track ends with it."""
        return self.stop == self.frames


class DeepConvSepTrack:
    """DeepConvSep over a track of any length.

    Args:
        model: the network; its decoder's weights are read once, here.
        overlap: frames that neighbouring contexts share, 0 to T - 1.

    Attributes:
        framing: the model's framing.
        step: frames from one context to the next; every span but the last ends on a multiple.
        ahead: frames behind a span that its contexts reach.
        behind: frames before a span that it reads.
    """

    def __init__(self, model: DeepConvSep, overlap: int) -> None:
        if not 0 <= overlap < model.context:
            raise InputError(
                f"overlap: got {overlap}, takes 0 to {model.context - 1} of the model's "
                f"{model.context} frames"
            )
        self.model, self.framing, self.overlap = model, model.framing, overlap
        self.step = model.context - overlap
        self._reach = (model.framing.span - 1) // model.framing.hop
        self.ahead, self.behind = overlap, self._reach + model.context
        self._levels = _frames_first(model.levels())
        self._decoder = _Decoder(model) if model.filtered == 1 else None

    @torch.inference_mode()
    def separate(self, line: Tensor, origin: int, span: Span) -> Tensor:
        """Separate a span.

        Args:
            line: (channels, samples), the track with its zeros in front, from position `origin`
                on. One channel of masks serves any number of channels.
            origin: position of the line's first sample.
            span: the frames wanted.

        Returns:
            (N, channels, samples), from where frame `span.first` starts to where frame
            `span.stop` would, and to the end of the last frame where the track ends.
        """
        # Frames before the span that still reach into its samples.
        before = min(span.first, self._reach)
        first, stop, count = self._contexts(span.first - before, span)
        start = first * self.step
        end = (stop - 1) * self.step + self.model.context
        spectrum = self._spectrum(line, origin, start, end)
        weights = fades(first, stop, count, self.model.context, self.overlap).to(line)
        shares = self._shares(spectrum, weights)
        keep = slice(span.first - before - start, span.stop - start)
        wanted = masked_spectrum(shares[:, keep], spectrum[keep], self._levels)
        return self._synthesis(wanted, before, span.last)

    def _contexts(self, first: int, span: Span) -> tuple[int, int, int | None]:
        """Contexts that weigh in frames `first` to the span's end, and how many a track has."""
        low = max(0, -(-(first - self.model.context + 1) // self.step))
        high = (span.stop - 1) // self.step + 1
        if span.frames is None:
            return low, high, None
        count = context_count(span.frames, self.model.context, self.overlap)
        return min(low, count - 1), min(high, count), count

    def _spectrum(self, line: Tensor, origin: int, first: int, stop: int) -> Tensor:
        """Frames `first` to `stop` - 1, silence behind the line's end: (frames, C, F, 2)."""
        framing = self.framing
        begin = first * framing.hop - origin
        end = begin + framing.covered(stop - first)
        samples = F.pad(line[:, begin:end], (0, max(0, end - line.shape[-1])))
        if self._levels and self._levels.base is not None:
            # A source's floor sounds with the phase of bins that are next to silent, and of
            # these a float32 transform knows the phase no more.
            samples = samples.double()
        frames = overlapping(samples, framing.span, framing.hop)
        windowed = frames * (framing.window_on(samples) * framing.scale)
        spectrum = torch.fft.rfft(windowed, n=framing.n_fft).transpose(0, 1)
        return torch.view_as_real(spectrum.contiguous()).to(line.dtype)

    def _shares(self, spectrum: Tensor, weights: Tensor) -> Tensor:
        """Masks of all contexts, cross-faded by `weights` (K, T): (N, frames, C, F)."""
        model, step = self.model, self.step
        if model.channels == 1 and spectrum.shape[1] > 1:
            spectrum = spectrum.mean(1, keepdim=True)
        codes, peaks = model.encode(model.scale(magnitude(spectrum).transpose(0, 1))[None])
        contexts = zip(
            _windows(codes, model.code_shape[1], step).split(_BATCH),  # (K, N2, T', 1)
            weights[:, :, None, None].split(_BATCH),
            [None] * len(weights)
            if peaks is None
            else _windows(peaks, model.context, step).split(_BATCH),
            strict=False,
        )
        pieces = -(-model.context // step)
        shape = (
            len(model.sources),
            len(weights) + pieces - 1,
            step,
            model.channels,
            model.framing.bins,
        )
        line = spectrum.new_zeros(shape)
        for k, (code, weight, peak) in enumerate(contexts):
            masks = self._estimates(code, peak).clamp_min_(_SILENCE)  # (N, k, T, C, F)
            masks *= weight / masks.sum(0)
            for j in range(pieces):
                piece = masks[:, :, j * step : (j + 1) * step]
                first = k * _BATCH + j
                line[:, first : first + len(code), : piece.shape[2]] += piece
        return line.flatten(1, 2)

    def _estimates(self, codes: Tensor, peaks: Tensor | None) -> Tensor:
        """Decode contexts (k, N2, T', 1), up to the ReLU's clamp: (N, k, T, C, F)."""
        if self._decoder is not None:
            return self._decoder(codes)
        estimates = self.model.decode(codes, peaks)  # (k, N C, T, F)
        shape = (len(self.model.sources), self.model.channels)
        return estimates.unflatten(1, shape).permute(1, 0, 3, 2, 4).contiguous()

    def _synthesis(self, spectrum: Tensor, before: int, last: bool) -> Tensor:
        """Samples of (N, frames, C, F, 2) from behind its first `before` frames on."""
        framing = self.framing
        window = framing.window_on(spectrum)
        frames = torch.fft.irfft(torch.view_as_complex(spectrum), n=framing.n_fft)
        frames = frames[..., : framing.span].mul_(window / framing.scale)
        count = frames.shape[1]
        line = overlap_add(frames.transpose(1, 2), framing.hop)
        line /= squared_window_sum(window, count, framing.hop)
        return line[..., before * framing.hop : None if last else count * framing.hop]


class _Decoder:
    """All sources' decoders as one batch of matrix products, without the last ReLU."""

    def __init__(self, model: DeepConvSep) -> None:
        self.model = model
        weights = [model.decoder_weights(name) for name in model.sources]
        vertical = torch.stack([w.vertical.flatten(1) for w in weights])  # (N, N1, C F)
        bias = torch.stack([w.vertical_bias for w in weights])  # (N, C)
        bias = bias.repeat_interleave(model.framing.bins, dim=1)[:, None]
        # A feature that is always one carries the bias through the product.
        self.vertical = torch.cat([vertical, bias], dim=1).detach()  # (N, N1 + 1, C F)
        self.horizontal = [(w.horizontal, w.horizontal_bias) for w in weights]

    def __call__(self, codes: Tensor) -> Tensor:
        """Decode contexts (k, N2, T', 1): (N, k, T, C, F)."""
        model = self.model
        hidden = model.bottleneck(codes.flatten(1))
        expanded = (e(hidden).unflatten(1, model.code_shape) for e in model.expand.values())
        features = torch.stack(
            [
                F.pad(F.conv_transpose2d(x, *layer).squeeze(-1).mT, (0, 1), value=1)
                for x, layer in zip(expanded, self.horizontal, strict=True)
            ]
        )  # (N, k, T, N1 + 1)
        estimates = torch.bmm(features.flatten(1, 2), self.vertical)
        return estimates.unflatten(1, features.shape[1:3]).unflatten(-1, (model.channels, -1))


def _frames_first(levels: Levels | None) -> Levels | None:
    """Levels against (N, frames, C, F), the frames being of length 1."""
    if levels is None or levels.floor is None or levels.base is None:
        return levels and Levels(levels.gain.transpose(-3, -2))
    return Levels(*(level.transpose(-3, -2) for level in (levels.gain, levels.floor, levels.base)))


def _windows(line: Tensor, length: int, step: int) -> Tensor:
    """Windows over the frames of (1, D, frames, W), `step` apart: (K, D, length, W)."""
    return line[0].unfold(1, length, step).permute(1, 0, 3, 2)
