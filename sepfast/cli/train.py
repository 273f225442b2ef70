"""`sepfast train`."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from sepfast.cli.console import say
from sepfast.cli.options import Device
from sepfast.cli.plan import epochs_of, fraction_or_folder, one_of, plan_of
from sepfast.cli.processes import one_voice
from sepfast.cli.training_report import losses, shown

if TYPE_CHECKING:
    from sepfast.training.history import History

_PAPER = "Training, where it is to differ from the paper"


class Optimizer(StrEnum):
    """What updates the weights."""

    adadelta = "adadelta"
    adam = "adam"
    sgd = "sgd"


class Precision(StrEnum):
    """Types that products are computed in."""

    float32 = "float32"
    bfloat16 = "bfloat16"
    float16 = "float16"


class Voice(StrEnum):
    """Whose voice is wanted."""

    f = "f"
    m = "m"


class Reading(StrEnum):
    """Readings of the loss."""

    code = "code"
    paper = "paper"


@one_voice
def train(
    data: Annotated[
        Path | None,
        typer.Argument(
            metavar="DATA",
            help="A folder in the layout of MUSDB18, MUSDB18-HQ or DSD100, or SONG/STEM.wav; for "
            "talkers of GRID or TCD-TIMIT, or SPEAKER/audio/NAME.wav with landmarks/NAME.txt; for "
            "style transfer TIMIT, or a folder with mixtures/ and clean/.",
        ),
    ] = None,
    data_option: Annotated[
        Path | None, typer.Option("--data", metavar="PATH", help="DATA, given by name.")
    ] = None,
    output: Annotated[
        Path | None,
        typer.Option(
            "-o",
            "--output",
            metavar="RUN",
            help="Folder of the run. (default: of an experiment, runs/NAME)",
        ),
    ] = None,
    config: Annotated[
        str | None,
        typer.Option(
            metavar="NAME|FILE",
            help="An experiment of a paper, see `sepfast experiments`, or a TOML file like theirs.",
        ),
    ] = None,
    model: Annotated[
        str | None,
        typer.Option(
            "-m",
            "--model",
            help="deepconvsep, deepconvsep-stereo, denoiser or informed; of talkers vl2m, "
            "vl2m-ref, av-concat or av-concat-ref; for style transfer udt or denoising-vae. "
            "(default: deepconvsep-stereo)",
        ),
    ] = None,
    settings: Annotated[
        list[str] | None,
        typer.Option(
            "--set",
            metavar="KEY=VALUE",
            help="An option of the model, see `sepfast models`, or of training or the run, by its "
            "name in an experiment's file.",
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
    separator: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="A trained deepconvsep whose output is denoised."),
    ] = None,
    source: Annotated[
        str | None, typer.Option(help="The source of it that is denoised, such as vocals.")
    ] = None,
    extra: Annotated[
        Path | None,
        typer.Option(metavar="FOLDER", help="More songs to train on, and for nothing else."),
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
    checkpoint_every: Annotated[
        int | None,
        typer.Option(help="Keep the model of each Nth epoch in RUN/epochs; 0 for none."),
    ] = None,
    keep: Annotated[
        int | None, typer.Option(help="How many of these are kept, the newest. (default: 5)")
    ] = None,
    listen: Annotated[
        int | None,
        typer.Option(
            help="Separate an excerpt of a validation song each N epochs, to RUN/validation; 0 for "
            "never."
        ),
    ] = None,
    tensorboard: Annotated[
        bool | None,
        typer.Option(
            "--tensorboard/--no-tensorboard",
            help="Write curves and excerpts to RUN/tensorboard. (default: no)",
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
    clip_norm: Annotated[
        float | None,
        typer.Option(
            help="Scale gradients of a larger norm down to this one; 0 for never.",
            rich_help_panel=_PAPER,
        ),
    ] = None,
    precision: Annotated[
        Precision | None,
        typer.Option(help="Of products in training; float16 on a GPU.", rich_help_panel=_PAPER),
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
    remix: Annotated[
        float | None,
        typer.Option(
            help="Probability that an example's sources are drawn from any song and time each.",
            rich_help_panel=_PAPER,
        ),
    ] = None,
    source_drop: Annotated[
        float | None,
        typer.Option(
            help="Probability that some sources are taken out of an example's mixture.",
            rich_help_panel=_PAPER,
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

    What is not given is as in the experiment, and else as in the model's paper. Where something is
    given twice, a flag such as --epochs goes before --set, and --set before --config.

    [bold]Example[/bold]: sepfast train --config b-stereo --data musdb18 --set epochs=500

    RUN/best.safetensors is the model of the best epoch, RUN/log.csv a table of all epochs, and
    RUN/last.pt is what --resume goes on from, also after Ctrl-C; RUN/run.json says with which
    options, versions and device it was made. vl2m-ref and av-concat-ref learn in two runs: the
    second has the first's best model as --init, and a vl2m as --mask-model.

    [bold]Example[/bold]: sepfast train musdb18 -o run -m deepconvsep-stereo --epochs 500

    A denoiser learns what the output of a trained separator lacks, for one of its sources:
    separate and evaluate take it as --denoise.

    [bold]Example[/bold]: sepfast train musdb18 -o run-vocals -m denoiser
    --separator run/best.safetensors --source vocals

    udt learns without pairs: from DATA/mixtures, and recordings of what is wanted in DATA/clean
    that need not be in any mixture. denoising-vae takes pairs of equal names. Of TIMIT,
    RUN/train.csv and RUN/test.csv are the mixtures to evaluate with.

    [bold]Example[/bold]: sepfast train recordings -o run -m udt

    Several GPUs share each step's batch: torchrun starts a process for each, on one machine or
    many that see the same folders. A run goes on with any number of them.

    [bold]Example[/bold]: torchrun --nproc-per-node 4 -m sepfast train musdb18 -o run
    """
    from sepfast.training import train_folder

    data = one_of(data, data_option)
    plan = plan_of(config, model, settings or [])
    plan.check_needs(separator=separator, extra=extra)
    output = output or plan.folder()
    options = plan.options_with(
        loss and loss.value,
        epochs=epochs,
        batch_size=batch_size,
        batches_per_epoch=batches_per_epoch,
        optimizer=optimizer and optimizer.value,
        learning_rate=learning_rate,
        weight_decay=weight_decay,
        milestones=None if milestones is None else epochs_of(milestones),
        patience=patience,
        time_limit=time_limit,
        seed=seed,
        silence=silence,
        statistics=statistics,
        target_slope=target_slope,
        remix=remix,
        source_drop=source_drop,
        augmentation=augmentation,
        talkers=talkers,
        snippet=snippet,
        voice=voice and voice.value,
        workers=workers,
        cuda_graph=cuda_graph,
        precision=precision and precision.value,
        clip_norm=clip_norm,
        checkpoint_every=checkpoint_every,
        keep=keep,
        tensorboard=tensorboard,
        listen=listen,
    )
    with shown() as report:
        history = train_folder(
            data,
            output,
            plan.model,
            options,
            model_options=plan.model_options,
            init=init,
            mask_model=mask_model,
            separator=separator,
            extra=extra,
            **plan.run_with(
                source=source,
                validation=None if validation is None else fraction_or_folder(validation),
                video_rate=video_rate,
            ),
            experiment=plan.text,
            device=device,
            resume=resume,
            report=report,
        )
    say(_conclusion(output, history))


def _conclusion(folder: Path, history: History) -> str:
    best = history.best
    assert best is not None  # a run has an epoch at least
    ended = {"patience": ", stopped early", "time limit": ", out of time"}.get(history.ended, "")
    return (
        f"{folder / 'best.safetensors'}: epoch {best.epoch} of {len(history.epochs)}{ended}, "
        f"{losses(best)}"
    )
