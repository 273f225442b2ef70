"""`sepfast train`."""

from __future__ import annotations

from dataclasses import replace
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from sepfast.cli.console import console
from sepfast.cli.options import Device
from sepfast.cli.training_report import losses, shown
from sepfast.errors import InputError

if TYPE_CHECKING:
    from sepfast.training.history import History
    from sepfast.training.options import TrainingOptions

_PAPER = "Training, where it is to differ from the paper"


class Optimizer(StrEnum):
    """What updates the weights."""

    adadelta = "adadelta"
    adam = "adam"


class Voice(StrEnum):
    """Whose voice is wanted."""

    f = "f"
    m = "m"


class Reading(StrEnum):
    """Readings of the loss."""

    code = "code"
    paper = "paper"


def train(
    data: Annotated[
        Path,
        typer.Argument(
            metavar="DATA",
            help="A folder in the layout of MUSDB18, MUSDB18-HQ or DSD100, or SONG/STEM.wav; for "
            "talkers of GRID or TCD-TIMIT, or SPEAKER/audio/NAME.wav with landmarks/NAME.txt; for "
            "style transfer TIMIT, or a folder with mixtures/ and clean/.",
        ),
    ],
    output: Annotated[
        Path, typer.Option("-o", "--output", metavar="RUN", help="Folder of the run.")
    ],
    model: Annotated[
        str,
        typer.Option(
            "-m",
            "--model",
            help="deepconvsep, deepconvsep-stereo or informed; of talkers vl2m, vl2m-ref, "
            "av-concat or av-concat-ref; for style transfer udt or denoising-vae.",
        ),
    ] = "deepconvsep-stereo",
    settings: Annotated[
        list[str] | None,
        typer.Option(
            "--set", metavar="KEY=VALUE", help="An option of the model, see `sepfast models`."
        ),
    ] = None,
    init: Annotated[
        Path | None, typer.Option(metavar="FILE", help="A trained model to begin with.")
    ] = None,
    mask_model: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE", help="A trained vl2m whose masks vl2m-ref or av-concat-ref refine."
        ),
    ] = None,
    validation: Annotated[
        str | None,
        typer.Option(
            help="Fraction of the songs kept for validation, or a folder of others; of talkers, "
            "the fraction of speakers, with as many for the test. (default: 0.2; of talkers, as "
            "in the paper)"
        ),
    ] = None,
    video_rate: Annotated[
        float | None,
        typer.Option(help="Video frames a second, for landmarks that no file tells it of."),
    ] = None,
    resume: Annotated[
        bool, typer.Option("--resume", help="Go on with the run, from its last whole epoch.")
    ] = False,
    device: Device = None,
    workers: Annotated[
        int | None, typer.Option(help="Processes that read examples ahead. (default: none)")
    ] = None,
    cuda_graph: Annotated[
        bool | None,
        typer.Option(
            "--cuda-graph/--no-cuda-graph",
            help="Replay each step as one CUDA graph, faster with small batches. (default: no)",
        ),
    ] = None,
    epochs: Annotated[
        int | None, typer.Option(help="Epochs at most.", rich_help_panel=_PAPER)
    ] = None,
    batch_size: Annotated[
        int | None, typer.Option(help="Examples a step.", rich_help_panel=_PAPER)
    ] = None,
    batches_per_epoch: Annotated[
        int | None,
        typer.Option(help="Steps an epoch; 0 for all of the songs.", rich_help_panel=_PAPER),
    ] = None,
    optimizer: Annotated[
        Optimizer | None, typer.Option(help="What updates the weights.", rich_help_panel=_PAPER)
    ] = None,
    learning_rate: Annotated[
        float | None, typer.Option(help="Of the first epoch.", rich_help_panel=_PAPER)
    ] = None,
    weight_decay: Annotated[
        float | None,
        typer.Option(
            help="How much of each weight is added to its gradient.", rich_help_panel=_PAPER
        ),
    ] = None,
    milestones: Annotated[
        str | None,
        typer.Option(
            metavar="N,N…",
            help="Epochs after which the learning rate falls to a tenth.",
            rich_help_panel=_PAPER,
        ),
    ] = None,
    patience: Annotated[
        int | None,
        typer.Option(
            help="Stop after N epochs without a better loss; 0 for never.", rich_help_panel=_PAPER
        ),
    ] = None,
    time_limit: Annotated[
        float | None,
        typer.Option(
            help="Seconds after which training ends; 0 for never.", rich_help_panel=_PAPER
        ),
    ] = None,
    seed: Annotated[
        int | None, typer.Option(help="Of weights, examples and dropout.", rich_help_panel=_PAPER)
    ] = None,
    silence: Annotated[
        float | None,
        typer.Option(
            help="Least mean of an example's scaled mixture; 0 takes every example.",
            rich_help_panel=_PAPER,
        ),
    ] = None,
    statistics: Annotated[
        bool | None,
        typer.Option(
            "--statistics/--no-statistics",
            help="Scale each bin to what the training songs span.",
            rich_help_panel=_PAPER,
        ),
    ] = None,
    target_slope: Annotated[
        float | None,
        typer.Option(
            help="How far targets are turned down at the highest bin.", rich_help_panel=_PAPER
        ),
    ] = None,
    augmentation: Annotated[
        int | None,
        typer.Option(
            help="Versions of each fragment, varied in level and pitch; 0 for it as it is.",
            rich_help_panel=_PAPER,
        ),
    ] = None,
    talkers: Annotated[
        int | None, typer.Option(help="In each mixture of talkers.", rich_help_panel=_PAPER)
    ] = None,
    snippet: Annotated[
        float | None,
        typer.Option(help="Seconds of an example of style transfer.", rich_help_panel=_PAPER),
    ] = None,
    voice: Annotated[
        Voice | None,
        typer.Option(help="Whose voice is wanted of TIMIT.", rich_help_panel=_PAPER),
    ] = None,
    loss: Annotated[
        Reading | None,
        typer.Option(
            help="The loss as published in code, or in the paper.", rich_help_panel=_PAPER
        ),
    ] = None,
) -> None:
    """Train a model on songs with stems, on talkers, or on mixtures and clean recordings.

    What is not given is as in the model's paper.

    RUN/best.safetensors is the model of the best epoch, RUN/log.csv a table of all epochs, and
    RUN/last.pt is what --resume goes on from, also after Ctrl-C. vl2m-ref and av-concat-ref learn
    in two runs: the second has the first's best model as --init, and a vl2m as --mask-model.

    [bold]Example[/bold]: sepfast train musdb18 -o run -m deepconvsep-stereo --epochs 500

    udt learns without pairs: from DATA/mixtures, and recordings of what is wanted in DATA/clean
    that need not be in any mixture. denoising-vae takes pairs of equal names. Of TIMIT,
    RUN/train.csv and RUN/test.csv are the mixtures to evaluate with.

    [bold]Example[/bold]: sepfast train recordings -o run -m udt
    """
    from sepfast.training import train_folder

    options = _options(
        model,
        loss,
        epochs=epochs,
        batch_size=batch_size,
        batches_per_epoch=batches_per_epoch,
        optimizer=optimizer and optimizer.value,
        learning_rate=learning_rate,
        weight_decay=weight_decay,
        milestones=None if milestones is None else _milestones(milestones),
        patience=patience,
        time_limit=time_limit,
        seed=seed,
        silence=silence,
        statistics=statistics,
        target_slope=target_slope,
        augmentation=augmentation,
        talkers=talkers,
        snippet=snippet,
        voice=voice and voice.value,
        workers=workers,
        cuda_graph=cuda_graph,
    )
    with shown() as report:
        history = train_folder(
            data,
            output,
            model,
            options,
            model_options=_model_options(model, settings or []),
            init=init,
            mask_model=mask_model,
            validation=None if validation is None else _fraction_or_folder(validation),
            video_rate=video_rate,
            device=device,
            resume=resume,
            report=report,
        )
    console.print(_conclusion(output, history), markup=False, highlight=False)


def _conclusion(folder: Path, history: History) -> str:
    best = history.best
    assert best is not None  # a run has an epoch at least
    ended = {"patience": ", stopped early", "time limit": ", out of time"}.get(history.ended, "")
    return (
        f"{folder / 'best.safetensors'}: epoch {best.epoch} of {len(history.epochs)}{ended}, "
        f"{losses(best)}"
    )


def _options(model: str, reading: Reading | None, **given: Any) -> TrainingOptions:
    """The paper's options with those that were given."""
    from sepfast.training import defaults_for

    options = defaults_for(model)
    if reading is not None:
        given["loss"] = replace(options.loss, reading=reading.value)
    return replace(options, **{name: value for name, value in given.items() if value is not None})


def _model_options(model: str, settings: list[str]) -> dict[str, Any]:
    """KEY=VALUE, each value in the type of the option's default."""
    from sepfast.models import model_options

    defaults = model_options(model)
    options = {}
    for setting in settings:
        key, equals, text = setting.partition("=")
        if not equals:
            raise InputError(f"--set: got {setting!r}, takes KEY=VALUE")
        options[key] = _value(key, text, defaults.get(key, ""))
    return options


def _value(key: str, text: str, default: Any) -> Any:
    try:
        if isinstance(default, bool):
            return {"true": True, "false": False}[text.lower()]
        if isinstance(default, tuple):
            return tuple(text.split(","))
        return type(default)(text)
    except (KeyError, ValueError):
        raise InputError(f"--set {key}: got {text!r}, takes a value like {default!r}") from None


def _milestones(text: str) -> tuple[int, ...]:
    try:
        return tuple(int(epoch) for epoch in text.split(",")) if text else ()
    except ValueError:
        raise InputError(f"milestones: got {text!r}, takes epochs like 60,120") from None


def _fraction_or_folder(text: str) -> float | Path:
    try:
        return float(text)
    except ValueError:
        return Path(text)
