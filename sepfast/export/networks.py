"""What is exported of each model: the network, from magnitudes to magnitudes or masks.

B batch, C channels, N sources, T frames, F bins, M steps of side information, P landmarks' values.

    deepconvsep(-stereo)   mixture (B, C, T, F) -> sources (B, N, C, T, F)
    denoiser               estimate (B, C, T, F) -> source (B, C, T, F), scaled as in training
    informed               mixture (B, T, F), side (B, M, D) -> target (B, T, F), alpha (B, T, M)
    vl2m                   motion (B, T, P) -> mask (B, T, F)
    the others of D        motion (B, T, P), spectrogram (B, T, F) -> mask (B, T, F)
    udt, denoising-vae     mixture (B, T, F) -> target (B, T, F)

Magnitudes are those that the model's framing gives, scaled, compressed and brought back inside;
what comes out keeps the mixture's phase. Transforms and the cutting of a track into contexts stay
outside: `Separator` does both, and so does whoever has no PyTorch there.
"""

from __future__ import annotations

import copy
from typing import NamedTuple

import torch
from torch import Tensor, nn

from sepfast.errors import InputError
from sepfast.reference import (
    VL2M,
    AudioVisual,
    DeepConvSep,
    Denoiser,
    Informed,
    Model,
    StyleTransfer,
)
from sepfast.separation.enhancer import check_mask_model

#: Frames of an example where a model takes any number: enough for its layers to matter.
_FRAMES = 32


class Port(NamedTuple):
    """An input or an output.

    Attributes:
        name: what it is called in the file.
        axes: the names of its axes.
        meaning: what it holds.
    """

    name: str
    axes: tuple[str, ...]
    meaning: str


class Network(nn.Module):
    """A model with the scaling that goes with it, a function of tensors alone.

    Args:
        model: kept, not copied.

    Attributes:
        model: the model.
        inputs: in the order of `forward`'s arguments.
        outputs: in the order in which they come.
    """

    inputs: tuple[Port, ...]
    outputs: tuple[Port, ...]

    def __init__(self, model: Model) -> None:
        super().__init__()
        self.model = model

    @property
    def sizes(self) -> dict[str, int]:
        """The size of every axis in an example."""
        raise NotImplementedError

    @property
    def free(self) -> tuple[str, ...]:
        """The axes that may be of any size."""
        return "batch", "frames"

    def example(self, **sizes: int) -> tuple[Tensor, ...]:
        """Random inputs, the same every time.

        Args:
            **sizes: of axes that are to differ from `sizes`.
        """
        made, generator = self.sizes | sizes, torch.Generator().manual_seed(0)
        parameter = next(self.model.parameters())
        return tuple(
            torch.rand([made[axis] for axis in port.axes], generator=generator).to(parameter)
            for port in self.inputs
        )


#: What systems C and E take.
_MIXTURE = Port("mixture", ("batch", "frames", "bins"), "magnitudes of the mixture")


class _Separating(Network):
    """System A or B."""

    model: DeepConvSep
    inputs: tuple[Port, ...] = (
        Port("mixture", ("batch", "channels", "frames", "bins"), "magnitudes of the mixture"),
    )
    outputs: tuple[Port, ...] = (
        Port(
            "sources",
            ("batch", "sources", "channels", "frames", "bins"),
            "magnitudes of the sources, in the order of `sources`",
        ),
    )

    @property
    def sizes(self) -> dict[str, int]:
        m = self.model
        sizes = {"batch": 2, "sources": len(m.sources), "channels": m.channels}
        return sizes | {"frames": m.context, "bins": m.framing.bins}

    @property
    def free(self) -> tuple[str, ...]:
        return ("batch",)  # the bottleneck sees one context, frame by frame

    def forward(self, mixture: Tensor) -> Tensor:
        """Estimate every source."""
        model = self.model
        scaled = model.scale(mixture)
        masked = model.shares(model(scaled)) * scaled[:, None]
        named = zip(model.sources, masked.unbind(1), strict=True)
        return torch.stack([model.unscale_source(own, name) for name, own in named], 1)


class _Denoising(Network):
    """System B's denoiser."""

    model: Denoiser
    inputs: tuple[Port, ...] = (
        Port(
            "estimate",
            ("batch", "channels", "frames", "bins"),
            "the separator's mask times its scaled mixture",
        ),
    )
    outputs: tuple[Port, ...] = (
        Port(
            "source",
            ("batch", "channels", "frames", "bins"),
            "the source, scaled as the separator's targets are",
        ),
    )

    @property
    def sizes(self) -> dict[str, int]:
        m = self.model
        return {"batch": 2, "channels": m.channels, "frames": _FRAMES, "bins": m.bins}

    def forward(self, estimate: Tensor) -> Tensor:
        """Denoise."""
        return self.model(estimate)


class _SystemC(Network):
    """With side information or without."""

    model: Informed

    @property
    def sizes(self) -> dict[str, int]:
        m = self.model
        sizes = {"batch": 2, "frames": _FRAMES, "bins": m.framing.bins}
        return sizes | {"steps": m.side_steps, "features": m.side_features}


class _Told(_SystemC):
    """System C with side information."""

    inputs: tuple[Port, ...] = (
        _MIXTURE,
        Port("side", ("batch", "steps", "features"), "side information"),
    )
    outputs: tuple[Port, ...] = (
        Port("target", ("batch", "frames", "bins"), "magnitudes of the target"),
        Port("alpha", ("batch", "frames", "steps"), "where in `side` each frame looked"),
    )

    @property
    def free(self) -> tuple[str, ...]:
        return "batch", "frames", "steps"

    def forward(self, mixture: Tensor, side: Tensor) -> tuple[Tensor, Tensor]:
        """Estimate the target, each spectrogram divided by its own maximum and brought back."""
        scaled, factor = self.model.scale(mixture)
        estimate, weights = self.model(scaled, side)
        return estimate * factor, weights


class _Untold(_SystemC):
    """System C without side information, BL1."""

    inputs = _Told.inputs[:1]
    outputs = _Told.outputs[:1]

    def forward(self, mixture: Tensor) -> Tensor:
        """Estimate the target."""
        scaled, factor = self.model.scale(mixture)
        return self.model(scaled)[0] * factor


class _SystemD(Network):
    """With the mixture's magnitudes or without."""

    model: AudioVisual

    @property
    def sizes(self) -> dict[str, int]:
        m = self.model
        return {"batch": 2, "frames": _FRAMES, "landmarks": m.landmarks, "bins": m.bins}


class _Seeing(_SystemD):
    """VL2M."""

    inputs: tuple[Port, ...] = (
        Port("motion", ("batch", "frames", "landmarks"), "motion, normalised"),
    )
    outputs: tuple[Port, ...] = (
        Port("mask", ("batch", "frames", "bins"), "where the speaker is loud, 0 to 1"),
    )

    def forward(self, motion: Tensor) -> Tensor:
        """The mask."""
        return self.model.mask(self.model(motion))


class _SeeingAndHearing(_SystemD):
    """The other models of system D."""

    inputs: tuple[Port, ...] = (
        *_Seeing.inputs,
        Port(
            "spectrogram",
            ("batch", "frames", "bins"),
            "compressed magnitudes of the mixture, normalised",
        ),
    )
    outputs: tuple[Port, ...] = (
        Port("mask", ("batch", "frames", "bins"), "of the compressed magnitudes, 0 to 10"),
    )

    def forward(self, motion: Tensor, spectrogram: Tensor) -> Tensor:
        """The mask."""
        return self.model.mask(self.model(motion, spectrogram))


class _Transferring(Network):
    """System E."""

    model: StyleTransfer
    inputs: tuple[Port, ...] = (_MIXTURE,)
    outputs: tuple[Port, ...] = (
        Port("target", ("batch", "frames", "bins"), "magnitudes of what is wanted"),
    )

    @property
    def sizes(self) -> dict[str, int]:
        return {"batch": 2, "frames": _FRAMES, "bins": self.model.bins}

    def forward(self, mixture: Tensor) -> Tensor:
        """Estimate the target."""
        power = self.model.power
        return self.model.estimate(mixture.pow(power)).pow(1 / power)


def network_of(model: nn.Module) -> Network:
    """What is exported of a model: a frozen copy in evaluation mode and float32, with its scaling.

    Args:
        model: made by `create_model` or `load`; it stays as it is.

    Raises:
        InputError: for any other module, and for a model that has still to be given a part.

    Example:
        >>> import sepfast
        >>> from sepfast.export import network_of
        >>> [port.name for port in network_of(sepfast.create_model("informed", hidden=4)).inputs]
        ['mixture', 'side']
    """
    network = next((made for kind, made in _NETWORKS if isinstance(model, kind)), None)
    if network is None:
        raise InputError(
            f"model: got a {type(model).__name__}, takes one of create_model's; torch.export takes "
            "others"
        )
    check_mask_model(model)
    if isinstance(model, Informed) and model.attention is None:
        network = _Untold
    assert isinstance(model, Model)
    return network(copy.deepcopy(model)).float().eval().requires_grad_(False)


_NETWORKS: tuple[tuple[type[Model], type[Network]], ...] = (
    (DeepConvSep, _Separating),
    (Denoiser, _Denoising),
    (Informed, _Told),
    (VL2M, _Seeing),
    (AudioVisual, _SeeingAndHearing),
    (StyleTransfer, _Transferring),
)
