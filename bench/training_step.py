"""The training step of A and B: forward, backward and Adadelta, from scaled magnitudes.

Mixture and targets are on the device; nothing is loaded. All sides begin with the same weights.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from math import prod
from typing import ClassVar, cast

import torch
from torch import Tensor

from sepfast import create_model, fuse, use_backend
from sepfast.bench import system_work
from sepfast.bench.case import Size, demand, product_precision
from sepfast.bench.separating import spread
from sepfast.bench.side import Side
from sepfast.bench.work import Work
from sepfast.bench.workloads import Network
from sepfast.reference import DeepConvSep
from sepfast.training.graph import graphed
from sepfast.training.options import TrainingOptions

_NAMES = {1: "deepconvsep", 2: "deepconvsep-stereo"}
_WORDS = {1: "mono", 2: "stereo"}
_SOURCES, _BINS = 4, 513

#: Steps until a graph is captured: three ordinary ones, and the one that is recorded.
_CAPTURED = 4

#: |out - eager's| / |eager's|, eager in float32: of the loss; of the gradients, the largest of a
#: weight's; of the weights' update, all in one. Adadelta's first step divides each gradient by its
#: own size, so that it has the signs of gradients and little else: those next to zero, about as
#: many as gradients are inexact, go one way or the other, and their root is what the norm sees.
#: With operands cut to TF32, eager itself is off by 7e-5, 0.04 and 0.09.
TOLERANCES = {
    "highest": {"loss": 1e-5, "gradients": 5e-4, "update": 5e-2},
    "high": {"loss": 2e-3, "gradients": 0.15, "update": 0.3},
}


@dataclass(frozen=True)
class TrainingStep:
    """A step of A, mono with contexts of 25 frames, or B, stereo with 30.

    Attributes:
        channels: 1 for A, 2 for B.
        batch: contexts.
    """

    channels: int
    batch: int
    operator: ClassVar[str] = "training step"
    gradient: ClassVar[bool] = True
    result: ClassVar[str] = "loss"
    kernels: ClassVar[tuple[str, ...]] = (
        "conv_pair_vertical", "conv_pair_horizontal", "deconv_pair_horizontal",
        "conv_pair_verticalslope", "conv_pair_horizontalslope", "linear_soft_mask_loss_forward",
        "linear_soft_mask_loss_features", "linear_soft_mask_loss_weights",
    )  # fmt: skip

    @property
    def name(self) -> str:
        """`training/step-channels-batch`."""
        return f"training/step-{_WORDS[self.channels]}-{self.batch}"

    def __str__(self) -> str:
        return self.name

    @property
    def network(self) -> Network:
        """Its sizes."""
        return Network() if self.channels == 2 else Network(1, context=25, step=5, span=12)

    def sides(self, device: torch.device) -> list[str]:
        """Ours, the same as a graph, others'."""
        return ["ours", *(["graph"] if device.type == "cuda" else []), "eager", "compiled"]

    def build(self, side: str, device: torch.device) -> Side:
        """A side, verified by its first step."""
        model = _model(self.channels, device)
        if side in ("ours", "graph"):
            fuse(model)
        weights = list(model.parameters())
        first = [weight.detach().clone() for weight in weights]
        optimizer = TrainingOptions().optimizer_of(weights)
        batch = self._batch(device)
        step = self._step(side, model, optimizer)

        def result() -> dict[str, list[Tensor]]:
            _restore(weights, first, optimizer)
            loss = step(batch)
            update = [(new - old).flatten() for new, old in zip(weights, first, strict=True)]
            return {
                "loss": [loss],
                "gradients": [cast(Tensor, weight.grad).clone() for weight in weights],
                "update": [torch.cat(update).detach()],
            }

        return Side(lambda: step(batch), result, _CAPTURED if side == "graph" else 1)

    def _step(
        self, side: str, model: DeepConvSep, optimizer: torch.optim.Optimizer
    ) -> Callable[[Tensor], Tensor]:
        loss = torch.compile(model.loss, dynamic=False) if side == "compiled" else model.loss

        def step(batch: Tensor) -> Tensor:
            optimizer.zero_grad()
            value = loss(*self._parts(batch))
            value.backward()
            optimizer.step()
            return value.detach()

        def plainly(batch: Tensor) -> Tensor:
            with use_backend("reference"):
                return step(batch)

        if side == "graph":
            replayed = graphed(lambda given: step(*given), optimizer, model.minimum.device, _refuse)
            return lambda batch: replayed((batch,))
        return step if side == "ours" else plainly

    def _batch(self, device: torch.device) -> Tensor:
        """Mixture and targets, one behind the other, as a graph is given one tensor."""
        torch.manual_seed(1)
        targets = torch.rand(self.shapes()["targets"], device=device)
        return torch.cat([targets.sum(1).flatten(), targets.flatten()])

    def _parts(self, batch: Tensor) -> tuple[Tensor, Tensor]:
        shapes = self.shapes()
        mixture, targets = batch.split([prod(shape) for shape in shapes.values()])
        return mixture.view(shapes["mixture"]), targets.view(shapes["targets"])

    def work(self) -> Work:
        """As `system_work` has it."""
        return system_work.training_step(
            self.batch, _SOURCES, _BINS, self.network, product_precision()
        )

    def shapes(self) -> dict[str, list[int]]:
        """Of mixture and targets."""
        image = [self.channels, self.network.context, _BINS]
        return {"mixture": [self.batch, *image], "targets": [self.batch, _SOURCES, *image]}

    def tolerances(self) -> Mapping[str, float]:
        """Of loss, gradients and update."""
        return TOLERANCES[demand()]


def _model(channels: int, device: torch.device) -> DeepConvSep:
    torch.manual_seed(0)
    model = create_model(_NAMES[channels])
    assert isinstance(model, DeepConvSep)
    spread(model)
    return model.train().to(device)


@torch.no_grad()
def _restore(
    weights: list[torch.nn.Parameter], first: list[Tensor], optimizer: torch.optim.Optimizer
) -> None:
    """The first weights, and an optimizer that has done nothing; in place, as a graph has it."""
    for weight, old in zip(weights, first, strict=True):
        weight.copy_(old)
    for state in optimizer.state.values():
        for value in state.values():
            value.zero_()


def _refuse(reason: str) -> None:
    """A step that is not captured is not this side."""
    raise RuntimeError(reason)


def steps(size: Size) -> Iterator[TrainingStep]:
    """All steps, the most important first; on a CPU those of the papers' smallest batch."""
    for batch in (30, 5, 128) if size == "full" else (5,):
        for channels in (2, 1):
            yield TrainingStep(channels, batch)
