"""The recurrent denoiser of system B, one for each source.

B batch, C = 2 channels, T frames, F bins, H features: F less what the vertical filter spans.

    Conv2d (1, F - H + 1): (B, C, T, H) -> LSTM over T, each channel a sequence of its own ->
    merged to H features -> ConvTranspose2d (1, F - H + 1): (B, C, T, F)

The text has a bidirectional LSTM whose output has the input's size, so that the two directions
are summed or projected; the published weights are two layers in one direction.
Source: B, section 5.4; the LSTM's arrangement over channels is assumed.
"""

from __future__ import annotations

from typing import Literal

from torch import Tensor, nn

from sepfast.errors import InputError
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
    """

    def __init__(
        self,
        *,
        channels: int = 2,
        bins: int = 513,
        features: int = 128,
        merge: Literal["sum", "project"] = "sum",
        published: bool = False,
    ) -> None:
        super().__init__()
        if merge not in ("sum", "project"):
            raise InputError(f"merge: got {merge!r}, takes 'sum' or 'project'")
        if not 1 <= features <= bins:
            raise InputError(f"features: got {features}, takes 1 to {bins} bins")
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
        codes = self.encoder(magnitudes)  # (B, C, T, H)
        sequence, _ = self.recurrent(codes.flatten(0, 1))
        return self.decoder(self._merge(sequence).unflatten(0, codes.shape[:2]))

    def _merge(self, sequence: Tensor) -> Tensor:
        """(B C, T, 2 H) of two directions, or (B C, T, H) of one: (B C, T, H)."""
        if self.project is not None:
            return self.project(sequence)
        if self.bidirectional:
            return sequence.unflatten(-1, (2, -1)).sum(-2)
        return sequence
