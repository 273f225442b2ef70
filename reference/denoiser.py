"""The recurrent denoiser of system B, one for each source.

B batch, C = 2 channels, T frames, F bins, H features: F less what the vertical filter spans.

    Conv2d (1, F - H + 1): (B, C, T, H) -> LSTM over T, each channel a sequence of its own ->
    merged to H features -> ConvTranspose2d (1, F - H + 1): (B, C, T, F)

The text has a bidirectional LSTM whose output has the input's size, so that the two directions
are summed or projected; the published weights are two layers in one direction.

What goes in is what a trained separator makes of the source: its mask times the mixture, scaled as
the separator's mixtures are. What is to come out is the source, scaled by its own extrema, as the
separator's targets are. The loss is the absolute difference, summed over all elements as the
published program does: the published learning rate is one for sums. That program takes the mask
times the separator's own estimate in training, and unscaled magnitudes in separation; here both
are the same.
Source: B, sections 5.4 and 6.3; the LSTM's arrangement over channels is assumed.
"""

from __future__ import annotations

import copy
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from sepfast.errors import InputError
from sepfast.reference.deepconvsep import DeepConvSep
from sepfast.reference.model import Model


class Denoiser(Model):
    """Denoise the masked magnitudes of one source.

    Args:
        channels: audio channels.
        bins: F.
        features: H, the width of the LSTM in each direction.
        merge: how two directions become one: "sum", or "project" by a linear layer.
        published: two layers in one direction, as the published weights have them; `merge` has
            then nothing to do.
        source: what it is trained to denoise; empty for nothing yet. `attach` says so.
        separator: the `digest` of the separator whose output it is trained on; likewise.

    Attributes:
        attached: that separator, frozen, for training alone; it is in no `state_dict`, and None
            in a model that was loaded.

    Raises:
        InputError: for values that it cannot take.
    """

    def __init__(
        self,
        *,
        channels: int = 2,
        bins: int = 513,
        features: int = 128,
        merge: Literal["sum", "project"] = "sum",
        published: bool = False,
        source: str = "",
        separator: str = "",
    ) -> None:
        super().__init__()
        if merge not in ("sum", "project"):
            raise InputError(f"merge: got {merge!r}, takes 'sum' or 'project'")
        if not 1 <= features <= bins:
            raise InputError(f"features: got {features}, takes 1 to {bins} bins")
        self.channels, self.bins = channels, bins
        self.source, self.separator = source, separator
        self._attached: tuple[DeepConvSep, ...] = ()  # in a tuple it is no part of the model
        span = (1, bins - features + 1)
        self.bidirectional = not published
        self.encoder = nn.Conv2d(channels, channels, span)
        self.recurrent = nn.LSTM(
            features,
            features,
            num_layers=2 if published else 1,
            bidirectional=self.bidirectional,
            batch_first=True,
        )
        project = self.bidirectional and merge == "project"
        self.project = nn.Linear(2 * features, features) if project else None
        self.decoder = nn.ConvTranspose2d(channels, channels, span)

    def forward(self, magnitudes: Tensor) -> Tensor:
        """Denoise (B, C, T, F) magnitudes of any number of frames: (B, C, T, F)."""
        codes = self._filtered("bctf,ochf->both", magnitudes, self.encoder)  # (B, C, T, H)
        sequence, _ = self.recurrent(codes.flatten(0, 1))
        merged = self._merge(sequence).unflatten(0, codes.shape[:2])
        return self._filtered("bcth,cohf->botf", merged, self.decoder)

    def _filtered(self, product: str, x: Tensor, layer: nn.Conv2d | nn.ConvTranspose2d) -> Tensor:
        """What a layer makes of x, as a product with its filters at every place, (., ., H, F).

        With filters this long it is several times faster than a convolution.
        """
        assert layer.bias is not None
        wide = F.pad(layer.weight.squeeze(-2), [self.recurrent.input_size - 1] * 2)
        placed = wide.unfold(-1, self.bins, 1).flip(-2)
        return torch.einsum(product, x, placed) + layer.bias[:, None, None]

    def loss(self, noisy: Tensor, target: Tensor) -> Tensor:
        """The loss of a batch to train on: the absolute difference.

        Args:
            noisy: (B, C, T, F), the separator's estimate, scaled.
            target: (B, C, T, F), the source, scaled.

        Returns:
            A scalar, summed over all elements.
        """
        return F.l1_loss(self(noisy), target, reduction="sum")

    @property
    def attached(self) -> DeepConvSep | None:
        """The separator whose estimates are denoised."""
        return self._attached[0] if self._attached else None

    def attach(self, separator: DeepConvSep, source: str) -> None:
        """Say what is to be denoised, to train on it: a separator's estimates of a source.

        Args:
            separator: trained; a frozen copy of it is kept.
            source: one of its sources.

        Raises:
            InputError: for a separator or a source that does not fit.
        """
        self._check_sizes(separator, source)
        self._attached = (copy.deepcopy(separator).eval().requires_grad_(False),)
        self.source, self.separator = source, separator.digest()
        if self.model_name:  # what `save` writes down
            made_for = {"source": self.source, "separator": self.separator}
            self.model_options = self.model_options | made_for

    def check(self, separator: DeepConvSep, source: str) -> None:
        """Raise where a separator's estimates of a source are not what it was trained on.

        A denoiser that was trained on nothing is taken for any source of any separator.

        Args:
            separator: the separator.
            source: one of its sources.

        Raises:
            InputError: for another separator or source, and for sizes that do not fit.
        """
        self._check_sizes(separator, source)
        if self.source not in ("", source):
            raise InputError(f"denoiser: got one of {self.source}, takes one of {source}")
        digest = separator.digest()
        if self.separator not in ("", digest):
            raise InputError(
                f"denoiser: got one of {source} that was trained with separator {self.separator}, "
                f"takes one that was trained with this one, {digest}"
            )

    def _check_sizes(self, separator: DeepConvSep, source: str) -> None:
        if not isinstance(separator, DeepConvSep):
            raise InputError(f"separator: got a {type(separator).__name__}, takes a DeepConvSep")
        if source not in separator.sources:
            raise InputError(
                f"denoiser: got one of {source!r}, takes one of {', '.join(separator.sources)}"
            )
        sizes = {"channels": separator.channels, "bins": separator.framing.bins}
        for name, size in sizes.items():
            if getattr(self, name) != size:
                raise InputError(
                    f"denoiser: got one of {source} with {getattr(self, name)} {name}, takes "
                    f"{size} as the separator has"
                )

    def _merge(self, sequence: Tensor) -> Tensor:
        """(B C, T, 2 H) of two directions, or (B C, T, H) of one: (B C, T, H)."""
        if self.project is not None:
            return self.project(sequence)
        if self.bidirectional:
            return sequence.unflatten(-1, (2, -1)).sum(-2)
        return sequence
