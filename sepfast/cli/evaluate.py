"""`sepfast evaluate`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from sepfast.cli.console import bar, console
from sepfast.errors import InputError


def evaluate(
    references: Annotated[
        Path,
        typer.Argument(
            metavar="REFERENCES",
            help="Songs with their true stems: MUSDB18, MUSDB18-HQ, DSD100 or SONG/STEM.wav.",
        ),
    ],
    output: Annotated[Path, typer.Option("-o", "--output", help="Folder of the scores and plots.")],
    estimates: Annotated[
        Path | None,
        typer.Option("-e", "--estimates", help="Folder with SONG/STEM.wav, as separate writes."),
    ] = None,
    model: Annotated[
        Path | None, typer.Option("-m", "--model", help="A model that separates the mixtures.")
    ] = None,
    split: Annotated[str | None, typer.Option(help="train or test. (default: all songs)")] = None,
    window: Annotated[float, typer.Option(help="Seconds of a frame.")] = 1.0,
    hop: Annotated[float, typer.Option(help="Seconds from one frame to the next.")] = 1.0,
    device: Annotated[
        str | None, typer.Option(help="cpu, cuda, cuda:1 … (default: a GPU where there is one)")
    ] = None,
) -> None:
    """Score stems, or a model, against the true ones: SDR, ISR, SIR, SAR, PES and EPS.

    Writes scores.json, scores.csv (a row for each song, source and frame), a box plot, and for
    each song a spectrogram of its targets beside its estimates.

    [bold]Example[/bold]: sepfast evaluate musdb18 -m model.safetensors -o scores --split test
    """
    from sepfast.evaluation.songs import evaluate_songs, from_folder, from_model

    if (estimates is None) == (model is None):
        raise InputError("evaluate: takes either --estimates or --model")
    source = from_folder(estimates) if estimates else from_model(model, device)
    with bar("scoring") as progress:
        report = evaluate_songs(
            references,
            source,
            output,
            split=split,
            window=window,
            hop=hop,
            progress=progress,
            note=lambda text: console.print(text, markup=False, highlight=False),
        )
