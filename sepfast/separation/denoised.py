"""A track through DeepConvSep and the denoisers of some of its sources.

N sources, C channels, T frames of context, F bins, K contexts in a span, D denoised sources.

    spectrum -> masks of each context times its mixture, (K, D, C, T, F) -> denoisers -> the
    source's own scale, cut at 0, cross-faded: magnitudes (D, C, frames, F)
    -> with the mixture's phase: stems

A denoiser has only ever heard what the separator makes of T frames at once. So it hears each
context by itself, as in training and as in the published program, and what is cross-faded is its
output, by the separator's own fades. No frame depends on more than a few contexts, and a track in
spans is the track at once, to rounding.

Sources without a denoiser are separated as ever. The stems do not add up to the mixture any more:
a denoiser takes away what no other stem is given.
Source: B (the stereo thesis), section 5.4.
"""

from __future__ import annotations

import copy
from collections.abc import Iterable, Mapping

import torch
from torch import Tensor

from sepfast.checkpoint import load
from sepfast.errors import InputError
from sepfast.files import PathLike
from sepfast.reference import DeepConvSep, Denoiser, magnitude, overlap_add
from sepfast.separation.contexts import Part
from sepfast.separation.deepconvsep import DeepConvSepTrack, context_windows
from sepfast.separation.track import Span

#: Frames of a span on a GPU, where the spectrum and all contexts are stored: 95 s.
_GPU_FRAMES = 16384
#: Contexts through the networks at once.
_BATCH = 64
#: Magnitudes of next to nothing, 120 dB below full scale: there a float32 transform knows no phase,
#: and what a denoiser adds fades out, so that silence stays silent.
_FAINT = 1e-6


class DenoisedTrack(DeepConvSepTrack):
    """DeepConvSep with denoisers over a track of any length.

    A denoiser of one channel, that of a mono model, hears each channel by itself.

    Args:
        model: the separator, as `DeepConvSepTrack` takes it.
        overlap: likewise.
        denoisers: one or more by their sources, of which copies are made.
        fused: as there.

    Raises:
        InputError: for a denoiser that is none, or is not for this separator and source.
    """

    def __init__(
        self,
        model: DeepConvSep,
        overlap: int,
        denoisers: Mapping[str, Denoiser],
        fused: bool | None = None,
    ) -> None:
        for source, denoiser in denoisers.items():
            if not isinstance(denoiser, Denoiser):
                raise InputError(
                    f"denoisers: got a {type(denoiser).__name__} for {source}, takes a Denoiser"
                )
            denoiser.check(model, source)
        super().__init__(model, overlap, fused)
        if self._fused:
            self.span = -(-_GPU_FRAMES // self.step) * self.step
        self._denoisers = {
            source: _ready(denoisers[source], model.minimum.device)
            for source in model.sources
            if source in denoisers
        }

    def _stems(self, part: Part, span: Span) -> Tensor:
        denoised = self._denoised_stems(part)
        if len(self._denoisers) == self.sources:
            return denoised
        stems = super()._stems(part, span)
        for source, stem in zip(self._denoisers, denoised, strict=True):
            stems[self.model.sources.index(source)] = stem
        return stems

    def _denoised_stems(self, part: Part) -> Tensor:
        """Samples of the denoised sources, (D, channels, samples)."""
        spectrum = self._spectrum(part.samples)
        levels = self._denoised(spectrum, part.weights)[..., part.frames, :]
        heard = spectrum[:, part.frames]
        ratios = levels / magnitude(heard).clamp(min=_FAINT)
        return self._synthesis(ratios[..., None] * heard)

    def _denoised(self, spectrum: Tensor, weights: Tensor) -> Tensor:
        """Magnitudes of the denoised sources.

        Args:
            spectrum: (channels, frames, F, 2), of the mixture.
            weights: (K, T), the contexts' fades.

        Returns:
            (D, channels, frames, F), not negative.
        """
        model = self.model
        heard = spectrum.mean(0, keepdim=True) if model.channels == 1 else spectrum
        codes, peaks = model.encode(model.scale(magnitude(heard))[None])
        parts = [context_windows(codes, model.code_shape[1], self.step)]
        parts += [context_windows(model.scale(magnitude(spectrum))[None], model.context, self.step)]
        parts += [] if peaks is None else [context_windows(peaks, model.context, self.step)]
        batches = zip(*(part.split(_BATCH) for part in parts), strict=True)
        contexts = torch.cat([self._of_contexts(*batch) for batch in batches], 1)
        faded = contexts * weights[:, None, :, None]  # (D, K, channels, T, F)
        # Cross-faded along the frames, which `overlap_add` takes last.
        return overlap_add(faded.permute(0, 2, 4, 1, 3), self.step).transpose(-1, -2)

    def _of_contexts(self, codes: Tensor, mixtures: Tensor, peaks: Tensor | None = None) -> Tensor:
        """Magnitudes of the denoised sources, (D, K, channels, T, F), from contexts.

        Args:
            codes: (K, N2, T', 1).
            mixtures: (K, channels, T, F), scaled.
            peaks: (K, N1, T, 1), with a pool.
        """
        shares = self.model.shares(self.model.decode(codes, peaks))  # (K, N, C, T, F)
        cleaned = []
        for source, denoiser in self._denoisers.items():
            noisy = shares[:, self.model.sources.index(source)] * mixtures
            clean = denoiser(noisy.unflatten(1, (-1, denoiser.channels)).flatten(0, 1))
            levels = self.model.unscale_source(clean, source).clamp_(min=0)
            cleaned.append(levels.reshape(noisy.shape))
        return torch.stack(cleaned)


def load_denoisers(paths: Iterable[PathLike]) -> dict[str, Denoiser]:
    """Saved denoisers by their sources, as `Separator` takes them.

    Args:
        paths: files that `sepfast train -m denoiser` made.

    Raises:
        InputError: for a file with another model, a denoiser that was trained on nothing, and two
            of one source.
    """
    denoisers: dict[str, Denoiser] = {}
    for path in paths:
        model = load(path)
        if not isinstance(model, Denoiser):
            raise InputError(f"{path}: holds {model.model_name}, takes a denoiser")
        if not model.source:
            raise InputError(f"{path}: holds a denoiser of no source, takes a trained one")
        if model.source in denoisers:
            raise InputError(f"{path}: is the second denoiser of {model.source}, takes one of each")
        denoisers[model.source] = model
    return denoisers


def _ready(denoiser: Denoiser, device: torch.device) -> Denoiser:
    """A copy to separate with."""
    ready = copy.deepcopy(denoiser).eval().to(device)
    ready.recurrent.flatten_parameters()  # a copy's are scattered, which cuDNN is slow on
    return ready
