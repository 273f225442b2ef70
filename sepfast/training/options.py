"""How a model is trained: the choices of a run, and those of the papers."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field
from itertools import pairwise
from types import MappingProxyType
from typing import Any, Literal, get_args

import torch
from torch import nn

from sepfast.errors import InputError
from sepfast.reference import LossWeights

Optimizer = Literal["adadelta", "adam", "sgd"]
Voice = Literal["f", "m"]
Precision = Literal["float32", "bfloat16", "float16"]

#: What may differ when a run is resumed: how long, how fast and what is kept, not what an epoch
#: computes.
_RESUMABLE = (
    "epochs",
    "patience",
    "time_limit",
    "workers",
    "cuda_graph",
    "checkpoint_every",
    "keep",
    "tensorboard",
    "listen",
)

#: Options that earlier versions did not have, and what those did. A run says nothing of them where
#: it does the same, so that theirs can be resumed.
UNSAID: Mapping[str, Any] = MappingProxyType(
    {
        "weight_decay": 0.0,
        "augmentation": 0,
        "talkers": 2,
        "snippet": 2.0,
        "voice": "f",
        "remix": 0.0,
        "source_drop": 0.0,
        "precision": "float32",
        "clip_norm": 0.0,
    }
)

#: Option -> (least, most) that it takes; those whose least is an int are whole numbers.
_RANGES = {
    "batch_size": (1, math.inf),
    "batches_per_epoch": (0, math.inf),
    "epochs": (1, math.inf),
    "learning_rate": (0.0, math.inf),
    "rho": (0.0, 1.0),
    "weight_decay": (0.0, math.inf),
    "patience": (0, math.inf),
    "seed": (0, math.inf),
    "silence": (0.0, math.inf),
    "target_slope": (0.0, 1.0),
    "remix": (0.0, 1.0),
    "source_drop": (0.0, 1.0),
    "augmentation": (0, math.inf),
    "talkers": (2, math.inf),
    "snippet": (0.0, math.inf),
    "validation_batches": (1, math.inf),
    "time_limit": (0.0, math.inf),
    "workers": (0, math.inf),
    "clip_norm": (0.0, math.inf),
    "checkpoint_every": (0, math.inf),
    "keep": (1, math.inf),
    "listen": (0, math.inf),
}


@dataclass(frozen=True)
class TrainingOptions:
    """The choices of a training run.

    `statistics` and `loss` are for DeepConvSep alone, `silence`, `target_slope`, `remix` and
    `source_drop` for it and its denoisers, `augmentation` for Informed, `talkers` for system D's
    models, `snippet` and `voice` for system E's, and `validation_batches` for DeepConvSep, its
    denoisers and system E's.

    Attributes:
        batch_size: examples a step, of all processes together.
        batches_per_epoch: steps an epoch; 0 for as many as the songs fill, end to end. Where an
            epoch goes through fragments, never more than there are.
        epochs: epochs at most.
        optimizer: "adadelta", "adam" or plain "sgd".
        learning_rate: of the first epoch.
        rho: memory of Adadelta's averages.
        weight_decay: how much of each weight the optimizer adds to its gradient.
        milestones: epochs, counted from 1, after which the learning rate falls to a tenth.
        patience: stop after so many epochs without a better loss; 0 for never.
        seed: of examples and dropout.
        silence: B's filter, the least mean of an example's scaled mixture; 0 takes every example.
        statistics: whether magnitudes are scaled by the extrema of the training set.
        target_slope: how far the targets are turned down at half the sample rate, in a line
            along the bins; 0 for not at all.
        remix: the probability that an example's sources each come from another place of the
            songs, and their mixture is scaled by the sums of their extrema.
        source_drop: the probability that some of an example's sources are taken out of its
            mixture, never so that the last is left alone.
        augmentation: versions of each fragment, varied in level and pitch; 0 for fragments as
            they are.
        talkers: in each mixture, the one who is to be heard included.
        snippet: seconds of an example.
        voice: whose voice is wanted of TIMIT, "f" for women's and "m" for men's.
        validation_batches: batches of fixed excerpts that the validation loss is the mean of.
        time_limit: seconds after which training ends, in mid-epoch; 0 for never.
        workers: processes that read examples beside the one that trains.
        cuda_graph: whether a GPU is given its steps as one captured graph each, which is faster
            for small batches; the losses are the same to rounding. Not with several processes.
        precision: of products in training, "float32", "bfloat16" or, on a GPU, "float16"; the
            weights, and all of validation, stay in float32.
        clip_norm: gradients of a larger norm, all of them together, are scaled down to it; 0 for
            as they are.
        checkpoint_every: epochs from one model in `epochs` of the run to the next; 0 for none.
        keep: how many of these are kept, the newest.
        tensorboard: whether TensorBoard's events are written.
        listen: epochs from one separated excerpt of a validation song to the next; 0 for none.
        loss: weights and reading of the loss.

    Raises:
        InputError: for a value that an option does not take.
    """

    batch_size: int = 5
    batches_per_epoch: int = 50
    epochs: int = 3250
    optimizer: Optimizer = "adadelta"
    learning_rate: float = 1.0
    rho: float = 0.95
    weight_decay: float = 0.0
    milestones: tuple[int, ...] = ()
    patience: int = 0
    seed: int = 0
    silence: float = 0.0
    statistics: bool = False
    target_slope: float = 0.0
    remix: float = 0.0
    source_drop: float = 0.0
    augmentation: int = 0
    talkers: int = 2
    snippet: float = 2.0
    voice: Voice = "f"
    validation_batches: int = 20
    time_limit: float = 0.0
    workers: int = 0
    cuda_graph: bool = False
    precision: Precision = "float32"
    clip_norm: float = 0.0
    checkpoint_every: int = 0
    keep: int = 5
    tensorboard: bool = False
    listen: int = 0
    loss: LossWeights = field(default_factory=LossWeights)

    def __post_init__(self) -> None:
        for name, (least, most) in _RANGES.items():
            _check(name, getattr(self, name), least, most)
        if self.optimizer not in get_args(Optimizer):
            known = ", ".join(get_args(Optimizer))
            raise InputError(f"optimizer: got {self.optimizer!r}, takes one of {known}")
        if self.precision not in get_args(Precision):
            known = ", ".join(get_args(Precision))
            raise InputError(f"precision: got {self.precision!r}, takes one of {known}")
        if self.voice not in get_args(Voice):
            raise InputError(f"voice: got {self.voice!r}, takes {' or '.join(get_args(Voice))}")
        if self.snippet == 0:
            raise InputError("snippet: got 0.0, takes more than 0")
        if any(later <= epoch for epoch, later in pairwise((0, *self.milestones))):
            raise InputError(f"milestones: got {self.milestones}, takes rising epochs from 1 on")

    def learning_rate_in(self, epoch: int) -> float:
        """The learning rate of an epoch, counted from 1."""
        return self.learning_rate * 0.1 ** sum(epoch > last for last in self.milestones)

    def optimizer_of(self, parameters: Iterable[nn.Parameter]) -> torch.optim.Optimizer:
        """A fresh optimizer."""
        rate, decay = self.learning_rate, self.weight_decay
        if self.optimizer == "adam":
            return torch.optim.Adam(parameters, rate, weight_decay=decay)
        if self.optimizer == "sgd":
            return torch.optim.SGD(parameters, rate, weight_decay=decay)
        return torch.optim.Adadelta(parameters, rate, self.rho, weight_decay=decay)

    def resumable(self) -> dict[str, Any]:
        """The options that must be the same when a run is resumed, in plain types.

        One of `UNSAID` is left out where it has the value there.
        """
        return {
            name: value
            for name, value in asdict(self).items()
            if name not in _RESUMABLE and not (name in UNSAID and value == UNSAID[name])
        }


def defaults_for(model_name: str) -> TrainingOptions:
    """The options that a model's paper trains with.

    Raises:
        InputError: for a model that is not trained this way.

    Example:
        >>> defaults_for("deepconvsep-stereo").optimizer
        'adadelta'
    """
    if model_name not in _PAPERS:
        raise InputError(f"model: got {model_name!r}, training takes {', '.join(_PAPERS)}")
    return _PAPERS[model_name]


def option_range(name: str) -> tuple[float, float]:
    """The least and the most that an option takes; those of all numbers where it has none."""
    return _RANGES.get(name, (-math.inf, math.inf))


def _check(name: str, value: float, least: float, most: float) -> None:
    whole = isinstance(least, int)
    right = isinstance(value, int if whole else (int, float)) and least <= value <= most
    if right and value < math.inf:
        return
    span = f"{least} to {most}" if most < math.inf else f"{least} or more"
    raise InputError(f"{name}: got {value!r}, takes {'a whole number, ' * whole}{span}")


#: System D. The paper names Adam and the patience alone. Assumed: the batch size, Adam's own
#: default of the learning rate, and a ceiling of epochs that early stopping is to come before.
_TALKERS = TrainingOptions(
    batch_size=32,
    batches_per_epoch=0,
    epochs=1000,
    optimizer="adam",
    learning_rate=1e-3,
    patience=5,
)

#: System E. The paper says nothing of how it is trained; all of it is assumed.
_TRANSFER = TrainingOptions(
    batch_size=8,
    batches_per_epoch=0,
    epochs=1000,
    optimizer="adam",
    learning_rate=1e-3,
    patience=20,
)

#: The papers' own, where they are not the defaults above.
_PAPERS = {
    "deepconvsep": TrainingOptions(batch_size=30, batches_per_epoch=0, epochs=30),
    "deepconvsep-stereo": TrainingOptions(silence=0.02, statistics=True, target_slope=0.5),
    # The text's learning rate, which swings; its table 6 has 0.01, the published program 1e-6. The
    # program's targets slope, by 0.5.
    "denoiser": TrainingOptions(
        batch_size=1,
        batches_per_epoch=300,
        epochs=100,
        optimizer="sgd",
        learning_rate=1e-5,
        silence=0.02,
    ),
    # Early stopping ends it; the ceiling is the project's.
    "informed": TrainingOptions(
        batch_size=128,
        batches_per_epoch=0,
        epochs=2000,
        optimizer="adam",
        learning_rate=1e-4,
        weight_decay=1e-3,
        patience=100,
        augmentation=4,
    ),
    **dict.fromkeys(("vl2m", "vl2m-ref", "av-concat", "av-concat-ref"), _TALKERS),
    **dict.fromkeys(("udt", "denoising-vae"), _TRANSFER),
}
