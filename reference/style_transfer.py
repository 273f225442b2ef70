"""System E: separation as style transfer, from mixtures to clean sounds, learnt without pairs.

B batch, T frames, K bins, F = K - 1 of them without Nyquist, H hidden size. M compressed magnitudes
|X|^p of mixtures, C of clean sounds, (B, T, K). A block is `ConvSoftplusNorm`; Nyquist is dropped
in front of the first, and comes back as 0.

    udt            E_s, E_t   2 blocks each and 1 that both have, (B, F, T) -> (B, H, T)
                   D_s, D_t   1 block that both have and 2 each, (B, H, T) -> (B, F, T)
                   z = E(.) + N(0, I) in training, E(.) otherwise
      E_s -> D_s   the mixture again
      E_s -> D_t   what is wanted of a mixture
      E_t -> D_t   the clean sound again
      E_t -> D_s   a mixture that the clean sound may be in
    denoising-vae  E, D of 3 blocks each, from pairs of M and its C

    L of udt = r (|D_s(z_s) - M|^2 + |D_t(z_t) - C|^2)                            reconstruction
             + c (|E_s(D_s(z_s)) - E_s(M)|^2 + |E_t(D_t(z_s)) - E_s(M)|^2
                + |E_t(D_t(z_t)) - E_t(C)|^2 + |E_s(D_s(z_t)) - E_t(C)|^2)        consistency
             + l (|E_s(M)|^2 + |E_t(C)|^2)                                        latent
    L of denoising-vae = r |D(z) - C|^2 + l |E(M)|^2

with z_s = E_s(M) + noise, z_t = E_t(C) + noise, |.|^2 the mean over all elements, and 1 for r, c, l
where the paper gives none. The last layer is a normalisation, so that what a decoder gives may be
below 0, which `estimate` cuts.

Source: E (Venkataramani et al. 2019), section 3. The text leaves open whether the consistency terms
decode latents with noise: here they do, so that there is one decoding for all terms; and whether
gradients flow into both sides of them: they do. It says nothing of the weights to begin with: here
both auto-encoders begin with the same, so that equal sounds have equal latents from the start on;
what a latent means in the one and in the other has then not to be found by chance.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from sepfast.errors import InputError
from sepfast.reference.framing import published_framing
from sepfast.reference.half_types import widened
from sepfast.reference.model import Model
from sepfast.reference.softplus_norm import ConvSoftplusNorm, check_dropout

#: What is wanted of a mixture, and what is left of it without that.
TRANSFER_SOURCES = ("target", "rest")


class StyleTransfer(Model):
    """What both models have in common; each makes its layers in `_build`.

    Args:
        hidden: H, channels of the latent and of all layers between; 0 for F.
        blocks: layers of an encoder, and of a decoder, 2 or more.
        kernel: frames that a filter spans, odd.
        dropout: behind every layer, 0 to below 1.
        reconstruction: weight of that part of the loss, 0 or more.
        consistency: likewise; the supervised baseline has no such part.
        latent: likewise.
        framing: a name in `FRAMINGS`; it gives the bins K.
        sample_rate: Hz.
        power: p, to which magnitudes are compressed.
        sources: the names of what is wanted and of what is left of the mixture without it.

    Raises:
        InputError: for values that it cannot take.
    """

    def __init__(
        self,
        *,
        hidden: int = 0,
        blocks: int = 3,
        kernel: int = 5,
        dropout: float = 0.3,
        reconstruction: float = 1.0,
        consistency: float = 1.0,
        latent: float = 1.0,
        framing: str = "style-transfer",
        sample_rate: int = 16000,
        power: float = 0.7,
        sources: Sequence[str] = TRANSFER_SOURCES,
    ) -> None:
        super().__init__()
        self.framing = published_framing(framing)
        _check_sizes(hidden, blocks, kernel)
        check_dropout(dropout)
        if not 0 < power <= 1:
            raise InputError(f"power: got {power}, takes more than 0 and 1 at most")
        weights = {"reconstruction": reconstruction, "consistency": consistency, "latent": latent}
        for name, weight in weights.items():
            if not 0 <= weight < math.inf:
                raise InputError(f"{name}: got {weight}, takes a weight of 0 or more")
        if len(sources) != 2:
            raise InputError(
                f"sources: got {len(sources)} names, takes 2, of what is wanted and of the rest"
            )
        self.bins = self.framing.bins
        self.hidden, self.blocks, self.kernel = hidden or self.bins - 1, blocks, kernel
        self.dropout, self.power = dropout, power
        self.reconstruction, self.consistency, self.latent = weights.values()
        self.sample_rate, self.sources = sample_rate, tuple(sources)
        self._build()

    @property
    def reach(self) -> int:
        """Frames on either side that a frame of the estimate depends on."""
        return 2 * self.blocks * (self.kernel // 2)

    def estimate(self, mixture: Tensor) -> Tensor:
        """What is wanted of a mixture, as magnitudes.

        Args:
            mixture: (B, T, K), compressed magnitudes.

        Returns:
            (B, T, K), compressed magnitudes, not negative; 0 at Nyquist.
        """
        return self(mixture).clamp(min=0)

    def loss(self, mixture: Tensor, clean: Tensor) -> Tensor:
        """The loss of a batch to train on, a scalar.

        Args:
            mixture: (B, T, K), compressed magnitudes.
            clean: (B, T, K), likewise.
        """
        raise NotImplementedError

    def _build(self) -> None:
        """Make the layers, by the sizes."""
        raise NotImplementedError

    def _encoder(self, blocks: int) -> nn.Sequential:
        """The first layers of an encoder."""
        sizes = [self.bins - 1] + [self.hidden] * blocks
        return nn.Sequential(*(self._block(*pair) for pair in pairwise(sizes)))

    def _decoder(self, blocks: int) -> nn.Sequential:
        """The last layers of a decoder."""
        sizes = [self.hidden] * blocks + [self.bins - 1]
        return nn.Sequential(*(self._block(*pair, transposed=True) for pair in pairwise(sizes)))

    def _block(self, inputs: int, outputs: int, transposed: bool = False) -> ConvSoftplusNorm:
        return ConvSoftplusNorm(
            inputs, outputs, self.kernel, transposed=transposed, dropout=self.dropout
        )

    def _sampled(self, latent: Tensor) -> Tensor:
        """A latent as a decoder gets it: in training a draw around it."""
        return latent + torch.randn_like(latent) if self.training else latent

    def _inner(self, name: str, magnitudes: Tensor) -> Tensor:
        """Magnitudes (B, T, K) as layers take them, (B, F, T)."""
        if magnitudes.ndim != 3 or magnitudes.shape[-1] != self.bins:
            raise InputError(
                f"{name}: got shape {tuple(magnitudes.shape)}, takes (batch, frames, {self.bins})"
            )
        return magnitudes[..., :-1].transpose(1, 2)

    @staticmethod
    def _outer(decoded: Tensor) -> Tensor:
        """What a decoder gives, (B, F, T), as magnitudes (B, T, K)."""
        return F.pad(decoded.transpose(1, 2), (0, 1))


class UDT(StyleTransfer):
    """Two auto-encoders that share their latents; options as `StyleTransfer` takes them."""

    def _build(self) -> None:
        self.mixture_encoder = self._encoder(self.blocks - 1)
        self.clean_encoder = self._encoder(self.blocks - 1)
        self.shared_encoder = self._block(self.hidden, self.hidden)
        self.shared_decoder = self._block(self.hidden, self.hidden, transposed=True)
        self.mixture_decoder = self._decoder(self.blocks - 1)
        self.clean_decoder = self._decoder(self.blocks - 1)
        self.clean_encoder.load_state_dict(self.mixture_encoder.state_dict())
        self.clean_decoder.load_state_dict(self.mixture_decoder.state_dict())

    def forward(self, mixture: Tensor) -> Tensor:
        """What is wanted of a mixture, E_s -> D_t.

        Args:
            mixture: (B, T, K), compressed magnitudes.

        Returns:
            (B, T, K), 0 at Nyquist; `estimate` has no values below 0.
        """
        latent = self._sampled(self._encode_mixture(self._inner("mixture", mixture)))
        return self._outer(self._decode_clean(latent))

    def reconstruct_mixture(self, mixture: Tensor) -> Tensor:
        """A mixture (B, T, K) again, E_s -> D_s."""
        latent = self._sampled(self._encode_mixture(self._inner("mixture", mixture)))
        return self._outer(self._decode_mixture(latent))

    def reconstruct_clean(self, clean: Tensor) -> Tensor:
        """A clean sound (B, T, K) again, E_t -> D_t."""
        latent = self._sampled(self._encode_clean(self._inner("clean", clean)))
        return self._outer(self._decode_clean(latent))

    def mix(self, clean: Tensor) -> Tensor:
        """A mixture that a clean sound (B, T, K) may be in, E_t -> D_s."""
        latent = self._sampled(self._encode_clean(self._inner("clean", clean)))
        return self._outer(self._decode_mixture(latent))

    def encode_mixture(self, mixture: Tensor) -> Tensor:
        """The latent (B, H, T) of a mixture (B, T, K)."""
        return self._encode_mixture(self._inner("mixture", mixture))

    def encode_clean(self, clean: Tensor) -> Tensor:
        """The latent (B, H, T) of a clean sound (B, T, K)."""
        return self._encode_clean(self._inner("clean", clean))

    def loss(self, mixture: Tensor, clean: Tensor) -> Tensor:
        """The loss of a batch to train on, whatever clean sound stands beside a mixture.

        Args:
            mixture: (B, T, K), compressed magnitudes.
            clean: (B, T, K), likewise, of other recordings; B and T may differ from the mixtures'.

        Returns:
            A scalar; float32 for half types.
        """
        m, c = self._inner("mixture", mixture), self._inner("clean", clean)
        of_mixture, of_clean = self._encode_mixture(m), self._encode_clean(c)
        sampled_mixture, sampled_clean = self._sampled(of_mixture), self._sampled(of_clean)
        mixture_again = self._decode_mixture(sampled_mixture)
        mixture_cleaned = self._decode_clean(sampled_mixture)
        clean_again = self._decode_clean(sampled_clean)
        clean_mixed = self._decode_mixture(sampled_clean)
        loss = self.reconstruction * (_error(mixture_again, m) + _error(clean_again, c))
        if self.consistency:
            loss = loss + self.consistency * (
                _error(self._encode_mixture(mixture_again), of_mixture)
                + _error(self._encode_clean(mixture_cleaned), of_mixture)
                + _error(self._encode_clean(clean_again), of_clean)
                + _error(self._encode_mixture(clean_mixed), of_clean)
            )
        return loss + self.latent * (_power(of_mixture) + _power(of_clean))

    def _encode_mixture(self, inner: Tensor) -> Tensor:
        return self.shared_encoder(self.mixture_encoder(inner))

    def _encode_clean(self, inner: Tensor) -> Tensor:
        return self.shared_encoder(self.clean_encoder(inner))

    def _decode_mixture(self, latent: Tensor) -> Tensor:
        return self.mixture_decoder(self.shared_decoder(latent))

    def _decode_clean(self, latent: Tensor) -> Tensor:
        return self.clean_decoder(self.shared_decoder(latent))


class DenoisingVAE(StyleTransfer):
    """The supervised baseline: one auto-encoder, from a mixture to its clean source.

    Options are as `StyleTransfer` takes them.
    """

    def _build(self) -> None:
        self.encoder = self._encoder(self.blocks)
        self.decoder = self._decoder(self.blocks)

    def forward(self, mixture: Tensor) -> Tensor:
        """What is wanted of a mixture.

        Args:
            mixture: (B, T, K), compressed magnitudes.

        Returns:
            (B, T, K), 0 at Nyquist; `estimate` has no values below 0.
        """
        latent = self.encoder(self._inner("mixture", mixture))
        return self._outer(self.decoder(self._sampled(latent)))

    def loss(self, mixture: Tensor, clean: Tensor) -> Tensor:
        """The loss of a batch to train on.

        Args:
            mixture: (B, T, K), compressed magnitudes.
            clean: (B, T, K), likewise, of each mixture's own clean source.

        Returns:
            A scalar; float32 for half types.

        Raises:
            InputError: for shapes that differ.
        """
        m, c = self._inner("mixture", mixture), self._inner("clean", clean)
        if m.shape != c.shape:
            raise InputError(f"clean: got shape {tuple(clean.shape)}, takes {tuple(mixture.shape)}")
        latent = self.encoder(m)
        error = _error(self.decoder(self._sampled(latent)), c)
        return self.reconstruction * error + self.latent * _power(latent)


def _check_sizes(hidden: int, blocks: int, kernel: int) -> None:
    if hidden < 0 or blocks < 2 or kernel < 1 or kernel % 2 == 0:
        raise InputError(
            f"hidden, blocks, kernel: got {hidden}, {blocks}, {kernel}, take at least 1 or 0 for "
            "all bins, at least 2, and an odd number"
        )


def _error(estimate: Tensor, truth: Tensor) -> Tensor:
    """The mean squared difference, in float32 at least."""
    return F.mse_loss(widened(estimate), widened(truth))


def _power(latent: Tensor) -> Tensor:
    """The mean square, in float32 at least."""
    return widened(latent).square().mean()
