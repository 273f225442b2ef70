"""System C: vocals out of a mixture, with side information that attention aligns.

B batch, N mixture frames, F bins, M steps of side information, D features a step, H hidden size,
E = J = 2 H features of an encoding, both directions of a recurrent layer side by side.

    g = BLSTM(|X|)                              2 layers, (B, N, F) -> (B, N, E)
    h = BLSTM(Y)                                2 layers, (B, M, D) -> (B, M, J)
    c, alpha = BilinearAttention(g, h)          (B, N, J), (B, N, M)
    q = BLSTM(tanh(W1 [c, g] + b1))             (B, N, H), then 2 layers, (B, N, 2 H)
    |V| = relu(W2 q + b2)                       (B, N, F)

The text calls E = J = 513; 32,160,996 parameters, and the published program, have 513 in each
direction. The baseline BL1 "only consists of the mixture encoder and target decoder": no side
path, and the decoder's first layer reads g alone, W1 (H, E).

W1 [c, g] reads a copy of c beside g. At B 128 and N 256 that copy is 1.1 GB of traffic forward and
backward, 0.3 ms on an H200, beside six recurrent layers of 256 to 300 dependent steps each: less
than a hundredth of a training step, so that nothing is fused there.

Source: C (Schulze-Forster et al. 2019), sections 2.1 and 4; their published program where it
differs.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, get_args

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence

from sepfast.errors import InputError
from sepfast.reference.bilinear_attention import BilinearAttention
from sepfast.reference.framing import published_framing
from sepfast.reference.lengths import check_lengths, cut
from sepfast.reference.model import Model

#: Side information of the paper's experiments; BL1, the network without any, is `attention=False`.
SIDE_KINDS = ("BL2", "M1", "M2", "A1", "A2", "A3", "A3.2")

TargetScale = Literal["mixture", "own"]


class BLSTM(nn.LSTM):
    """Two bidirectional layers over time, each sequence of a batch by its own length.

    Args:
        features: of a step that comes in.
        hidden: of a step that goes out, in each direction.
    """

    def __init__(self, features: int, hidden: int) -> None:
        super().__init__(features, hidden, num_layers=2, bidirectional=True, batch_first=True)

    def forward(  # type: ignore[override]
        self, sequences: Tensor, lengths: Tensor | None = None
    ) -> Tensor:
        """Encode sequences.

        Args:
            sequences: (B, T, features).
            lengths: (B,) integers from 0 to T on the CPU; what lies behind them is not looked at.

        Returns:
            (B, T, 2 hidden), 0 behind the lengths.
        """
        batch, steps, _ = sequences.shape
        if batch == 0 or steps == 0:  # what `nn.LSTM` refuses
            return sequences.new_zeros(batch, steps, 2 * self.hidden_size)
        if lengths is None:
            return super().forward(sequences)[0]
        # A sequence of no step cannot be packed; it goes as one step, which is taken out again.
        packed = pack_padded_sequence(
            sequences, lengths.clamp(min=1), batch_first=True, enforce_sorted=False
        )
        encoded, _ = pad_packed_sequence(
            super().forward(packed)[0], batch_first=True, total_length=steps
        )
        return cut(encoded, lengths) if bool((lengths == 0).any()) else encoded


class Informed(Model):
    """The network of system C.

    Args:
        hidden: H, the size of every recurrent layer in each direction, and of the decoder's first
            layer.
        side_features: D.
        attention: False for BL1, the network without side information.
        side: which of `SIDE_KINDS` it is trained with, and what is made of a file's.
        context: N, frames of the fragments that it is trained on and separates in.
        side_steps: M, steps that the padded kinds of side information are padded to.
        target_scale: what a target is divided by in training. "mixture", its mixture's maximum, so
            that estimates are on the mixture's scale and can be taken off it. "own", its own
            maximum, as the text has it: estimates then have no level of their own.
        framing: a name in `FRAMINGS`; it gives the bins F.
        sample_rate: Hz.
        sources: the names of the target and of what is left of the mixture without it.

    Raises:
        InputError: for values that it cannot take.
    """

    def __init__(
        self,
        *,
        hidden: int = 513,
        side_features: int = 1,
        attention: bool = True,
        side: str = "A1",
        context: int = 256,
        side_steps: int = 300,
        target_scale: TargetScale = "mixture",
        framing: str = "informed",
        sample_rate: int = 16000,
        sources: Sequence[str] = ("vocals", "accompaniment"),
    ) -> None:
        super().__init__()
        self.framing = published_framing(framing)
        self.sample_rate, self.sources = sample_rate, tuple(sources)
        _check_sizes(side_steps, hidden=hidden, side_features=side_features, context=context)
        _check_words(side=(side, SIDE_KINDS), target_scale=(target_scale, get_args(TargetScale)))
        if len(self.sources) != 2:
            raise InputError(
                f"sources: got {len(self.sources)} names, takes 2, of the target and of the rest"
            )
        self.side_features, self.side = side_features, side
        self.context, self.side_steps, self.target_scale = context, side_steps, target_scale
        bins, encoding = self.framing.bins, 2 * hidden

        self.mixture_encoder = BLSTM(bins, hidden)
        self.side_encoder = BLSTM(side_features, hidden) if attention else None
        self.attention = BilinearAttention(encoding, encoding) if attention else None
        self.connection = nn.Linear(2 * encoding if attention else encoding, hidden)
        self.decoder = BLSTM(hidden, hidden)
        self.output = nn.Linear(encoding, bins)

    def forward(
        self,
        mixture: Tensor,
        side: Tensor | None = None,
        mixture_lengths: Tensor | None = None,
        side_lengths: Tensor | None = None,
    ) -> tuple[Tensor, Tensor | None]:
        """Estimate the target.

        Sequences of one batch that differ in length are padded, with anything: neither an estimate
        nor a weight depends on it. Lengths are looked at on the CPU; without them nothing waits
        for the device.

        Args:
            mixture: |X|, (B, N, F), scaled by `scale`.
            side: Y, (B, M, D); None without attention.
            mixture_lengths: (B,) integers from 0 to N; None for N.
            side_lengths: (B,) integers from 0 to M; None for M. A mixture with none of it has
                context 0.

        Returns:
            |V|, (B, N, F), not negative, on the mixture's scale, and the attention's weights
            alpha, (B, N, M), which are 0 on padded steps; None without attention. Both are 0 in
            frames behind a mixture's length.

        Raises:
            InputError: for shapes or lengths that do not fit, or side information that is missing
                or cannot be used.
        """
        self._check(mixture, side)
        frames = _lengths("mixture_lengths", mixture_lengths, mixture)
        steps = _lengths("side_lengths", side_lengths, side)

        encoded, weights = self.mixture_encoder(mixture, frames), None
        if self.side_encoder is not None and self.attention is not None:
            memory = self.side_encoder(side, steps)
            valid = None if steps is None else steps.to(memory.device)
            context, weights = self.attention(encoded, memory, valid)
            encoded = torch.cat((context, encoded), dim=-1)
        decoded = self.decoder(self.connection(encoded).tanh(), frames)
        estimate = self.output(decoded).relu()
        return cut(estimate, frames), None if weights is None else cut(weights, frames)

    def scale(self, magnitudes: Tensor) -> tuple[Tensor, Tensor]:
        """Divide each spectrogram by its own maximum.

        Args:
            magnitudes: (..., N, F), not negative.

        Returns:
            The same from 0 to 1, and the factor (..., 1, 1) that brings them back: the maximum,
            or 1 for silence, which stays 0.
        """
        if not magnitudes.shape[-2]:
            return magnitudes, magnitudes.new_ones(*magnitudes.shape[:-2], 1, 1)
        peak = magnitudes.amax((-2, -1), keepdim=True)
        factor = torch.where(peak > 0, peak, 1)
        return magnitudes / factor, factor

    def loss(self, mixture: Tensor, target: Tensor, side: Tensor | None = None) -> Tensor:
        """The loss of a batch of fragments to train on: the mean absolute difference, L1.

        Args:
            mixture: magnitudes (B, N, F), as the STFT gives them.
            target: likewise.
            side: Y, (B, M, D); None without attention.

        Returns:
            A scalar.
        """
        scaled, factor = self.scale(mixture)
        wanted = target / factor if self.target_scale == "mixture" else self.scale(target)[0]
        return F.l1_loss(self(scaled, side)[0], wanted)

    def _check(self, mixture: Tensor, side: Tensor | None) -> None:
        """Raise `InputError` for a mixture or side information of another shape."""
        bins = self.framing.bins
        if mixture.ndim != 3 or mixture.shape[-1] != bins:
            raise InputError(
                f"mixture: got shape {tuple(mixture.shape)}, takes (batch, frames, {bins})"
            )
        if self.attention is None:
            if side is not None:
                raise InputError("side: got a tensor, takes None in a model without attention")
            return
        expected = f"({mixture.shape[0]}, steps, {self.side_features})"
        if side is None:
            raise InputError(f"side: got None, takes {expected}")
        expects = mixture.shape[0], self.side_features
        if side.ndim != 3 or (side.shape[0], side.shape[-1]) != expects:
            raise InputError(f"side: got shape {tuple(side.shape)}, takes {expected}")


def _check_sizes(side_steps: int, **sizes: int) -> None:
    for name, size in sizes.items():
        if size < 1:
            raise InputError(f"{name}: got {size}, takes 1 or more")
    if side_steps < sizes["context"]:
        raise InputError(
            f"side_steps: got {side_steps}, takes the context of {sizes['context']} frames or more"
        )


def _check_words(**options: tuple[str, tuple[str, ...]]) -> None:
    """Refuse options, each with the words that it takes."""
    for name, (word, known) in options.items():
        if word not in known:
            raise InputError(f"{name}: got {word!r}, takes one of {', '.join(known)}")


def _lengths(name: str, lengths: Tensor | None, of: Tensor | None) -> Tensor | None:
    """Lengths of the sequences (B, T, ...), on the CPU as `pack_padded_sequence` takes them."""
    if lengths is None:
        return None
    if of is None:
        raise InputError(f"{name}: got a tensor, takes None without side information")
    batch, steps = of.shape[:2]
    check_lengths(name, lengths, batch)
    lengths = lengths.cpu().long()
    outside = lengths[(lengths < 0) | (lengths > steps)]
    if len(outside):
        raise InputError(f"{name}: got {int(outside[0])}, takes 0 to {steps}")
    return lengths
