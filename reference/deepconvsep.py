"""DeepConvSep, systems A (mono) and B (stereo): a convolutional auto-encoder over magnitudes.

B batch, C channels, N sources, T frames of context, F bins, N1 and N2 filters, T' = T - t2 + 1.

    encode       (B, C, T, F) -> ConvPair -> (B, N2, T', 1)
    bottleneck   flatten -> Linear -> ReLU -> dropout: (B, units)
    decode       per source Linear -> ReLU -> (B, N2, T', 1) -> DeconvPair; ReLU: (B, N C, T, F)

Magnitudes go in scaled per bin to what the training set spans, (x - min) / (max - min), and the
masked mixture comes out by the source's own extrema. A's constant factor is the case min = 0,
max = 1 / factor. The encoder is equivariant to shifts in time, so that a whole track is encoded
once and each context is a window over its codes.
Source: A (Chandna et al. 2017), B (section 5.2); their published programs where these differ.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from sepfast.errors import InputError
from sepfast.reference.convpair import ConvPair, DeconvPair
from sepfast.reference.framing import published_framing
from sepfast.reference.masked_istft import Levels
from sepfast.reference.model import Model
from sepfast.reference.soft_mask import SoftMask
from sepfast.reference.soft_mask_loss import LossWeights, soft_mask_loss

SOURCES = ("vocals", "drums", "bass", "other")
_PUBLISHED = LossWeights()


class DecoderWeights(NamedTuple):
    """The deconvolutions of one source, shaped as `ConvTranspose2d` has them.

    Attributes:
        horizontal: (N2, N1, t2, 1).
        horizontal_bias: (N1,), None in a tied decoder.
        vertical: (N1, C, 1, f1).
        vertical_bias: (C,).
    """

    horizontal: Tensor
    horizontal_bias: Tensor | None
    vertical: Tensor
    vertical_bias: Tensor


class DeepConvSep(Model):
    """The auto-encoder of systems A and B.

    Args:
        channels: audio channels, 1 for A and 2 for B.
        context: T, frames that the network sees at once; 25 or 30 in the papers.
        n1: vertical filters.
        n2: horizontal filters.
        f1: bins a vertical filter spans; 0 for all of them.
        t2: frames a horizontal filter spans; 0 for half the context.
        units: width of the bottleneck.
        pool: bins that are max-pooled behind the vertical convolution and unpooled in the
            decoder (A's experiments 5 and 6: f1 = 171, pool = 342); 0 for none.
        tied: decode every source through the transposes of the encoder's convolutions, as A's
            published code does, instead of through deconvolutions of its own.
        dropout: probability at the bottleneck.
        scale_factor: what magnitudes are multiplied by as long as no statistics are set.
        framing: a name in `FRAMINGS`.
        sample_rate: Hz.
        sources: names, the last one being the rest of the mixture.

    Attributes:
        minimum, maximum: (N * C + C, F), the extrema of the sources' magnitudes (source by
            source, channel by channel) and of the mixture's, the layout of B's statistics.

    Raises:
        InputError: for values that it cannot take.
    """

    minimum: Tensor
    maximum: Tensor

    def __init__(
        self,
        *,
        channels: int = 1,
        context: int = 25,
        n1: int = 50,
        n2: int = 30,
        f1: int = 0,
        t2: int = 0,
        units: int = 128,
        pool: int = 0,
        tied: bool = False,
        dropout: float = 0.0,
        scale_factor: float = 1.0,
        framing: str = "deepconvsep",
        sample_rate: int = 44100,
        sources: Sequence[str] = SOURCES,
    ) -> None:
        super().__init__()
        self.framing = published_framing(framing)
        self.channels, self.context, self.pool = channels, context, pool
        self.sample_rate, self.sources = sample_rate, tuple(sources)
        bins = self.framing.bins
        f1, t2 = f1 or bins, t2 or context // 2
        _check_spans(context, t2, bins, f1, pool)
        self.filtered = bins - f1 + 1
        self.code_shape = (n2, context - t2 + 1, self.filtered // (pool or 1))
        width = math.prod(self.code_shape)

        self.encoder = ConvPair(channels, n1, n2, f1, t2, pool)
        self.bottleneck = nn.Sequential(nn.Linear(width, units), nn.ReLU(), nn.Dropout(dropout))
        self.expand = nn.ModuleDict(
            {name: nn.Sequential(nn.Linear(units, width), nn.ReLU()) for name in self.sources}
        )
        self.decoder = nn.ModuleDict(
            {} if tied else {s: DeconvPair(channels, n1, n2, f1, t2, pool) for s in self.sources}
        )
        biases = torch.zeros(len(self.sources), channels)
        self.tied_bias = nn.Parameter(biases) if tied else None
        self.mask = SoftMask()

        rows = (len(self.sources) + 1) * channels
        self.register_buffer("minimum", torch.zeros(rows, bins))
        self.register_buffer("maximum", torch.full((rows, bins), 1 / scale_factor))

    @property
    def overlap(self) -> int:
        """Frames that contexts share in separation: all but 5 in A, half of them in B."""
        return max(0, self.context - 5) if self.channels == 1 else self.context // 2

    def forward(self, mixture: Tensor) -> Tensor:
        """Estimate every source.

        Args:
            mixture: (B, C, T, F), scaled magnitudes.

        Returns:
            (B, N * C, T, F), not negative; shares come from `shares`.
        """
        codes, peaks = self.encode(mixture)
        return self.decode(codes, peaks)

    def encode(self, mixture: Tensor) -> tuple[Tensor, Tensor | None]:
        """Encode any number of frames, a context or a whole track.

        Args:
            mixture: (B, C, frames, F), scaled magnitudes.

        Returns:
            Codes (B, N2, frames - t2 + 1, 1), and the bins where the pool found its maxima,
            (B, N1, frames, 1), None without a pool.
        """
        return self.encoder.with_peaks(mixture) if self.pool else (self.encoder(mixture), None)

    def decode(self, codes: Tensor, peaks: Tensor | None = None) -> Tensor:
        """Decode contexts.

        Args:
            codes: (B, N2, T', 1).
            peaks: (B, N1, T, 1) of the same contexts, with a pool.

        Returns:
            Estimates (B, N * C, T, F), not negative.
        """
        codes_of = zip(self.sources, self.expanded(codes).unbind(1), strict=True)
        decoded = [self._deconvolve(name, own, peaks) for name, own in codes_of]
        return torch.cat(decoded, dim=1).relu()

    def expanded(self, codes: Tensor) -> Tensor:
        """The codes of every source, (B, N, N2, T', 1), that the bottleneck makes of the mixture's.

        Args:
            codes: (B, N2, T', 1).
        """
        hidden = self.bottleneck(codes.flatten(1))
        expanded = torch.stack([self.expand[name](hidden) for name in self.sources], dim=1)
        return expanded.unflatten(2, self.code_shape)

    def loss(self, mixture: Tensor, targets: Tensor, weights: LossWeights = _PUBLISHED) -> Tensor:
        """The loss of a batch to train on.

        Args:
            mixture: (B, C, T, F), scaled magnitudes.
            targets: (B, N, C, T, F), likewise, by `scale_targets`.
            weights: the weights and the reading; those of the published programs by default.

        Returns:
            A scalar, summed over all elements; float32 for half types.
        """
        estimates = self(mixture).unflatten(1, (len(self.sources), self.channels))
        return soft_mask_loss(estimates, mixture, targets, weights)

    def shares(self, estimates: Tensor) -> Tensor:
        """Soft masks of estimates (B, N * C, T, F): (B, N, C, T, F), each channel its own."""
        return self.mask(estimates.unflatten(1, (len(self.sources), self.channels)))

    def scale(self, magnitudes: Tensor) -> Tensor:
        """Scale the mixture's magnitudes (..., C, T, F) per bin to what the network expects."""
        floor, span = self._extrema()
        return (magnitudes - floor[-1]) / span[-1]

    def scaling(self) -> tuple[Tensor, Tensor | None]:
        """`scale` as a factor and a summand, each (C, 1, F); None for a summand of 0."""
        floor, span = self._extrema()
        offset = -floor[-1] / span[-1] if self.minimum.any() else None
        return 1 / span[-1], offset

    def scale_targets(self, magnitudes: Tensor) -> Tensor:
        """Scale the sources' magnitudes (..., N, C, T, F) per bin, each by its own extrema."""
        floor, span = self._extrema()
        return (magnitudes - floor[:-1]) / span[:-1]

    def unscale_source(self, scaled: Tensor, source: str) -> Tensor:
        """What `scale_targets` does to a source's magnitudes (..., C, T, F), undone."""
        floor, span = (part[self.sources.index(source)] for part in self._extrema())
        return scaled * span + floor

    def levels(self) -> Levels | None:
        """What `masked_istft` needs to undo the scaling; None where it cancels out."""
        floor, span = self._extrema()
        gain = span[:-1] / span[-1]
        if self.minimum.any():
            return Levels(gain, floor[-1], floor[:-1])
        return None if bool((gain == 1).all()) else Levels(gain)

    def set_statistics(self, minimum: Tensor, maximum: Tensor) -> None:
        """Take over the extrema of a training set.

        Args:
            minimum: (N * C + C, F), in the order of the attributes.
            maximum: likewise, nowhere below `minimum`.

        Raises:
            InputError: for other shapes, values that are not finite, or a range below 0.
        """
        shape = tuple(self.minimum.shape)
        for name, values in (("minimum", minimum), ("maximum", maximum)):
            if tuple(values.shape) != shape or not bool(values.isfinite().all()):
                raise InputError(
                    f"{name}: got {tuple(values.shape)}, takes finite values of shape {shape}"
                )
        if bool((maximum < minimum).any()):
            raise InputError("maximum: got values below minimum, takes none in any bin")
        self.minimum.copy_(minimum)
        self.maximum.copy_(maximum)

    def _extrema(self) -> tuple[Tensor, Tensor]:
        """Floors and ranges, each (N + 1, C, 1, F), the mixture last; a range of 0 becomes 1."""
        shape = (len(self.sources) + 1, self.channels)
        span = self.maximum - self.minimum
        span = torch.where(span > 0, span, 1)
        return self.minimum.unflatten(0, shape)[:, :, None], span.unflatten(0, shape)[:, :, None]

    def decoder_weights(self, source: str) -> DecoderWeights:
        """The weights of a source's deconvolutions, its own or the encoder's."""
        if self.tied_bias is not None:
            bias = self.tied_bias[self.sources.index(source)]
            weights = self.encoder.horizontal.weight, self.encoder.vertical.weight
            return DecoderWeights(weights[0], None, weights[1], bias)
        pair = cast(DeconvPair, self.decoder[source])
        assert pair.vertical.bias is not None
        return DecoderWeights(
            pair.horizontal.weight, pair.horizontal.bias, pair.vertical.weight, pair.vertical.bias
        )

    def stacked_weights(self) -> DecoderWeights:
        """The weights of all sources' deconvolutions, each with the sources in front."""
        parts = zip(*map(self.decoder_weights, self.sources), strict=True)
        stacked = (None if part[0] is None else torch.stack(part) for part in parts)
        return DecoderWeights(*stacked)  # type: ignore[arg-type]

    def _deconvolve(self, name: str, codes: Tensor, peaks: Tensor | None) -> Tensor:
        """One source's deconvolutions, before the ReLU: (B, C, T, F)."""
        if peaks is None and name in self.decoder:
            return self.decoder[name](codes)
        w = self.decoder_weights(name)
        wide = F.conv_transpose2d(codes, w.horizontal, w.horizontal_bias)
        return F.conv_transpose2d(self._unpool(wide, peaks), w.vertical, w.vertical_bias)

    def _unpool(self, pooled: Tensor, peaks: Tensor | None) -> Tensor:
        """Put each value (B, N1, T, 1) at the bin its maximum came from."""
        if peaks is None:
            return pooled
        return pooled.new_zeros(*pooled.shape[:-1], self.filtered).scatter(-1, peaks, pooled)


def _check_spans(context: int, t2: int, bins: int, f1: int, pool: int) -> None:
    if not 1 <= t2 <= context:
        raise InputError(f"t2: got {t2}, takes 1 to the context of {context} frames")
    if not 1 <= f1 <= bins:
        raise InputError(f"f1: got {f1}, takes 1 to {bins} bins")
    if not 0 <= pool <= bins - f1 + 1:
        raise InputError(f"pool: got {pool}, takes 0 to the {bins - f1 + 1} bins behind f1 = {f1}")
