"""System D: a speaker's voice out of a mixture, with the motion of the face's landmarks.

B batch, T frames at 100 a second, F bins, H hidden size. v motion, y the mixture's spectrogram, m a
binary mask; BLSTM is `LSTM` in both directions, side by side, (B, T, ...) to (B, T, 2 H).

    vl2m           m = sigmoid(W BLSTM(v) + b)                              5 layers
    vl2m-ref       h = W_m BLSTM(m) + W_y BLSTM(y) + b, (B, T, H)           1 layer each
                   p = 10 sigmoid(W BLSTM(h) + b)
    av-concat      p = 10 sigmoid(W BLSTM([v, y]) + b)                      3 layers
    av-concat-ref  p = 10 sigmoid(W BLSTM([m y, y]) + b)                    3 layers

What networks take is normalised, motion and spectrogram by their speaker's mean and deviation, the
latter behind its compression |x|^0.3. What masks multiply, and what losses compare, is compressed
and not normalised. Sequences of a batch that differ in length are padded, with anything: nothing
depends on it.

The two that refine hear of the face through m alone. They are trained in two steps: on a given m,
the oracle's, then on that of a VL2M, which they hold, frozen (`audiovisual_ref.py`).

Source: D (Morrone et al. 2019), sections 2 and 3.2. It gives no number of layers for VL2M_ref, and
its BLSTMs are the only ones that it does not call stacked: 1 here; the published program takes one
number for all three. As there, [m y, y] masks the normalised y, and gates see the cell.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from sepfast.errors import InputError
from sepfast.reference.amplitude_mask_loss import AmplitudeMaskLoss, amplitude_mask
from sepfast.reference.framing import published_framing
from sepfast.reference.half_types import widened
from sepfast.reference.lengths import cut
from sepfast.reference.lstm_layer import LSTM
from sepfast.reference.model import Model

#: The speaker's voice, and what is left of the mixture without it.
SPEECH_SOURCES = ("speech", "noise")


class AudioVisual(Model):
    """What the four models have in common; each makes its layers in `_build`.

    Args:
        hidden: H, the size of every recurrent layer in each direction.
        layers: recurrent layers of a stack; 0 for as many as the paper has.
        peephole: whether gates see the cell.
        landmarks: values of a frame of motion, two for each point.
        framing: a name in `FRAMINGS`; it gives the bins F.
        sample_rate: Hz.
        power: to which magnitudes are compressed.
        sources: the names of the speaker's voice and of what is left of the mixture without it.

    Raises:
        InputError: for values that it cannot take.
    """

    output: nn.Linear
    _published_layers = 3

    def __init__(
        self,
        *,
        hidden: int = 250,
        layers: int = 0,
        peephole: bool = True,
        landmarks: int = 136,
        framing: str = "landmarks",
        sample_rate: int = 16000,
        power: float = 0.3,
        sources: Sequence[str] = SPEECH_SOURCES,
    ) -> None:
        super().__init__()
        for name, size in (("hidden", hidden), ("landmarks", landmarks)):
            if size < 1:
                raise InputError(f"{name}: got {size}, takes 1 or more")
        if layers < 0:
            raise InputError(f"layers: got {layers}, takes 1 or more, or 0 for the paper's")
        if not 0 < power <= 1:
            raise InputError(f"power: got {power}, takes more than 0 and 1 at most")
        if len(sources) != 2:
            raise InputError(
                f"sources: got {len(sources)} names, takes 2, of the voice and of the rest"
            )
        self.hidden, self.layers = hidden, layers or self._published_layers
        self.peephole = peephole
        self.framing = published_framing(framing)
        self.landmarks, self.sample_rate, self.power = landmarks, sample_rate, power
        self.sources, self.bins = tuple(sources), self.framing.bins
        self._build()

    def _build(self) -> None:
        """Make the layers, by the sizes."""
        raise NotImplementedError

    def mask(self, scores: Tensor, lengths: Tensor | None = None) -> Tensor:
        """The mask of scores.

        Args:
            scores: (B, T, F), what the model gives.
            lengths: (B,) integers, frames that count, or None.

        Returns:
            (B, T, F), from 0 to 10, or to 1 of `VL2M`; 0 behind the lengths.
        """
        return cut(amplitude_mask(scores), lengths)

    def estimate(self, scores: Tensor, mixture: Tensor, lengths: Tensor | None = None) -> Tensor:
        """The speaker's spectrogram.

        Args:
            scores: (B, T, F), what the model gives.
            mixture: (B, T, F), compressed magnitudes.
            lengths: (B,) integers, frames that count, or None.

        Returns:
            Compressed magnitudes (B, T, F), 0 behind the lengths.
        """
        return cut(self.mask(scores) * mixture, lengths)

    def _stack(self, features: int) -> LSTM:
        return LSTM(
            features, self.hidden, self.layers, batch_first=True, bidirectional=True,
            peephole=self.peephole,
        )  # fmt: skip

    def _check(self, **inputs: tuple[Tensor | None, int]) -> None:
        """Raise `InputError` for inputs, each with its features, not all (B, T, features)."""
        frames: tuple[int, ...] = ()
        for name, (x, features) in inputs.items():
            expected = ", ".join(map(str, (*(frames or ("batch", "frames")), features)))
            if x is None:
                raise InputError(f"{name}: got None, takes ({expected})")
            if x.ndim != 3 or tuple(x.shape) != (*(frames or x.shape[:2]), features):
                raise InputError(f"{name}: got shape {tuple(x.shape)}, takes ({expected})")
            frames = tuple(x.shape[:2])


class VL2M(AudioVisual):
    """A binary mask from the motion of landmarks alone; options as `AudioVisual` takes them.

    It says where the speaker's voice is loud, whatever else there is to hear.
    """

    _published_layers = 5

    def _build(self) -> None:
        self.encoder = self._stack(self.landmarks)
        self.output = nn.Linear(2 * self.hidden, self.bins)

    def forward(
        self, motion: Tensor, spectrogram: Tensor | None = None, lengths: Tensor | None = None
    ) -> Tensor:
        """Scores of the mask.

        Args:
            motion: (B, T, landmarks), normalised.
            spectrogram: not looked at; it has its place as in the other models.
            lengths: (B,) integers, frames that count; below 0 is 0, above T is T, None all.

        Returns:
            (B, T, F), before the sigmoid; behind the lengths they mean nothing.

        Raises:
            InputError: for shapes or lengths that do not fit.
        """
        self._check(motion=(motion, self.landmarks))
        return self.output(self.encoder(motion, lengths=lengths)[0])

    def mask(self, scores: Tensor, lengths: Tensor | None = None) -> Tensor:
        """The mask (B, T, F) of scores, from 0 to 1, 0 behind the lengths."""
        return cut(scores.sigmoid(), lengths)

    def loss(self, motion: Tensor, binary_mask: Tensor, lengths: Tensor | None = None) -> Tensor:
        """The loss of a batch to train on: the binary cross-entropy.

        Args:
            motion: (B, T, landmarks), normalised.
            binary_mask: (B, T, F), 0 or 1, by `target_binary_mask`.
            lengths: (B,) integers, frames that count, or None.

        Returns:
            A scalar, summed over all bins of the frames that count; float32 for half types.
        """
        self._check(motion=(motion, self.landmarks), binary_mask=(binary_mask, self.bins))
        scores = self(motion, None, lengths)
        wide = widened(scores)
        truth = cut(binary_mask, lengths).to(wide)
        terms = F.binary_cross_entropy_with_logits(wide, truth, reduction="none")
        return cut(terms, lengths).sum()


class AVConcat(AudioVisual):
    """An amplitude mask from motion and spectrogram side by side.

    Options are as `AudioVisual` takes them.
    """

    def _build(self) -> None:
        self.encoder = self._stack(self.landmarks + self.bins)
        self.output = nn.Linear(2 * self.hidden, self.bins)
        self.error = AmplitudeMaskLoss()

    def forward(self, motion: Tensor, spectrogram: Tensor, lengths: Tensor | None = None) -> Tensor:
        """Scores of the mask.

        Args:
            motion: (B, T, landmarks), normalised.
            spectrogram: (B, T, F), of the mixture, normalised.
            lengths: (B,) integers, frames that count; below 0 is 0, above T is T, None all.

        Returns:
            (B, T, F), before the sigmoid; behind the lengths they mean nothing.

        Raises:
            InputError: for shapes or lengths that do not fit.
        """
        self._check(motion=(motion, self.landmarks), spectrogram=(spectrogram, self.bins))
        both = torch.cat((motion, spectrogram), -1)
        return self.output(self.encoder(both, lengths=lengths)[0])

    def loss(
        self,
        motion: Tensor,
        spectrogram: Tensor,
        mixture: Tensor,
        target: Tensor,
        lengths: Tensor | None = None,
    ) -> Tensor:
        """The loss of a batch to train on: the squared error of the masked mixture.

        Args:
            motion: (B, T, landmarks), normalised.
            spectrogram: (B, T, F), of the mixture, normalised.
            mixture: (B, T, F), compressed magnitudes.
            target: (B, T, F), likewise.
            lengths: (B,) integers, frames that count, or None.

        Returns:
            A scalar, summed over all bins of the frames that count; float32 for half types.
        """
        levels = {"mixture": (mixture, self.bins), "target": (target, self.bins)}
        self._check(spectrogram=(spectrogram, self.bins), **levels)
        scores = self(motion, spectrogram, lengths)
        return self.error(scores, mixture, target, on_device(lengths, scores))


def on_device(lengths: Tensor | None, like: Tensor) -> Tensor | None:
    """Lengths where a tensor is."""
    return None if lengths is None else lengths.to(like.device)
