"""System D's models that refine the mask of a VL2M by what is to be heard; see `audiovisual.py`."""

from __future__ import annotations

import copy
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from sepfast.errors import InputError
from sepfast.reference.amplitude_mask_loss import AmplitudeMaskLoss
from sepfast.reference.audiovisual import SPEECH_SOURCES, VL2M, AudioVisual, on_device


class Refining(AudioVisual):
    """What the two models have in common: a binary mask that is given, or a VL2M's that they hold.

    A VL2M that is held is frozen, but in the `state_dict`, so that a saved model enhances alone.

    Args:
        hidden, layers, peephole, landmarks, framing, sample_rate, power, sources: as `AudioVisual`
            takes them.
        mask_model: whether there is a place for a VL2M from the start; its weights are to be
            loaded. `hold` makes one.
        mask_hidden: H of that VL2M.
        mask_layers: its layers; 0 for as many as the paper has.

    Attributes:
        mask_model: the VL2M, or None.
    """

    error: AmplitudeMaskLoss
    mask_model: VL2M | None

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
        mask_model: bool = False,
        mask_hidden: int = 250,
        mask_layers: int = 0,
    ) -> None:
        super().__init__(
            hidden=hidden, layers=layers, peephole=peephole, landmarks=landmarks, framing=framing,
            sample_rate=sample_rate, power=power, sources=sources,
        )  # fmt: skip
        self.error, self.mask_model = AmplitudeMaskLoss(), None
        if mask_model:
            made = VL2M(
                hidden=mask_hidden, layers=mask_layers, peephole=peephole, landmarks=landmarks,
                framing=framing,
            )  # fmt: skip
            self.mask_model = made.requires_grad_(False)

    def hold(self, mask_model: VL2M) -> None:
        """Put a copy of a trained VL2M inside, frozen, for the second step and for use.

        Args:
            mask_model: of the same landmarks, framing and kind of cell.

        Raises:
            InputError: for one that does not fit.
        """
        if not isinstance(mask_model, VL2M):
            raise InputError(f"mask_model: got a {type(mask_model).__name__}, takes a VL2M")
        for name in ("landmarks", "framing", "peephole"):
            own, other = getattr(self, name), getattr(mask_model, name)
            if own != other:
                raise InputError(f"mask_model: got one of {name} {other}, takes {own}")
        held = copy.deepcopy(mask_model).requires_grad_(False).to(self.output.weight)
        self.mask_model = held
        if self.model_name:  # what `save` writes down
            sizes = {"mask_hidden": held.hidden, "mask_layers": held.layers}
            self.model_options = self.model_options | {"mask_model": True, **sizes}

    def forward(
        self,
        motion: Tensor | None,
        spectrogram: Tensor,
        lengths: Tensor | None = None,
        binary_mask: Tensor | None = None,
    ) -> Tensor:
        """Scores of the mask.

        Args:
            motion: (B, T, landmarks), normalised; not looked at where a mask is given.
            spectrogram: (B, T, F), of the mixture, normalised.
            lengths: (B,) integers, frames that count; below 0 is 0, above T is T, None all.
            binary_mask: (B, T, F), from 0 to 1, such as the oracle's by `target_binary_mask`; None
                for the one that the VL2M makes of the motion.

        Returns:
            (B, T, F), before the sigmoid; behind the lengths they mean nothing.

        Raises:
            InputError: for shapes or lengths that do not fit, or no mask and no VL2M to make one.
        """
        heard = {"spectrogram": (spectrogram, self.bins)}
        if binary_mask is not None:
            self._check(**heard, binary_mask=(binary_mask, self.bins))
        elif self.mask_model is None:
            raise InputError(
                "binary_mask: got None, takes a mask in a model that holds no VL2M; `hold` gives "
                "it one"
            )
        else:
            self._check(**heard, motion=(motion, self.landmarks))
            binary_mask = self.mask_model.mask(self.mask_model(motion, None, lengths))
        return self.output(self._encoded(binary_mask, spectrogram, lengths))

    def loss(
        self,
        motion: Tensor | None,
        spectrogram: Tensor,
        mixture: Tensor,
        target: Tensor,
        lengths: Tensor | None = None,
        binary_mask: Tensor | None = None,
    ) -> Tensor:
        """The loss of a batch to train on: the squared error of the masked mixture.

        Args:
            motion: (B, T, landmarks), normalised; None where a mask is given.
            spectrogram: (B, T, F), of the mixture, normalised.
            mixture: (B, T, F), compressed magnitudes.
            target: (B, T, F), likewise.
            lengths: (B,) integers, frames that count, or None.
            binary_mask: (B, T, F), the oracle's in the first step; None in the second.

        Returns:
            A scalar, summed over all bins of the frames that count; float32 for half types.
        """
        levels = {"mixture": (mixture, self.bins), "target": (target, self.bins)}
        self._check(spectrogram=(spectrogram, self.bins), **levels)
        scores = self(motion, spectrogram, lengths, binary_mask)
        return self.error(scores, mixture, target, on_device(lengths, scores))

    def _encoded(self, mask: Tensor, spectrogram: Tensor, lengths: Tensor | None) -> Tensor:
        """What the last layer reads, (B, T, 2 H)."""
        raise NotImplementedError


class VL2MRef(Refining):
    """An amplitude mask from a binary one and the spectrogram, each encoded by itself first.

    Options are as `Refining` takes them.
    """

    _published_layers = 1

    def _build(self) -> None:
        self.mask_encoder, self.spectrogram_encoder = (self._stack(self.bins) for _ in range(2))
        self.from_mask = nn.Linear(2 * self.hidden, self.hidden, bias=False)
        self.from_spectrogram = nn.Linear(2 * self.hidden, self.hidden)
        self.encoder = self._stack(self.hidden)
        self.output = nn.Linear(2 * self.hidden, self.bins)

    def _encoded(self, mask: Tensor, spectrogram: Tensor, lengths: Tensor | None) -> Tensor:
        of_mask = self.mask_encoder(mask, lengths=lengths)[0]
        of_spectrogram = self.spectrogram_encoder(spectrogram, lengths=lengths)[0]
        joint = self.from_mask(of_mask) + self.from_spectrogram(of_spectrogram)
        return self.encoder(joint, lengths=lengths)[0]


class AVConcatRef(Refining):
    """An amplitude mask from the masked spectrogram and the spectrogram side by side.

    Options are as `Refining` takes them.
    """

    def _build(self) -> None:
        self.encoder = self._stack(2 * self.bins)
        self.output = nn.Linear(2 * self.hidden, self.bins)

    def _encoded(self, mask: Tensor, spectrogram: Tensor, lengths: Tensor | None) -> Tensor:
        both = torch.cat((mask * spectrogram, spectrogram), -1)
        return self.encoder(both, lengths=lengths)[0]
