"""`sepfast separate`."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from sepfast.cli.console import bar, console, errors
from sepfast.cli.options import Denoisers, Device
from sepfast.errors import InputError


class Format(StrEnum):
    """Files that stems are written to."""

    wav = "wav"
    flac = "flac"


class Subtype(StrEnum):
    """How a sample is written."""

    float = "float"
    int16 = "int16"


def separate(
    inputs: Annotated[
        list[Path], typer.Argument(metavar="IN…", help="Files, or folders to search through.")
    ],
    model: Annotated[Path, typer.Option("-m", "--model", help="A model that sepfast saved.")],
    output: Annotated[Path, typer.Option("-o", "--output", help="Folder of the stems' folders.")],
    format: Annotated[Format, typer.Option(help="Files of the stems.")] = Format.wav,
    subtype: Annotated[
        Subtype, typer.Option(help="Samples of the stems; float FLAC files have 24 bits.")
    ] = Subtype.float,
    overlap: Annotated[
        int | None, typer.Option(help="Frames that contexts share. (default: the model's)")
    ] = None,
    side_info: Annotated[
        Path | None,
        typer.Option(
            metavar="PATH",
            help="What an informed model is told: a .csv or .npy for one mixture, or a folder with "
            "NAME.csv or NAME.npy for each.",
        ),
    ] = None,
    denoise: Denoisers = None,
    device: Device = None,
) -> None:
    """Separate recordings: every source of IN becomes OUTPUT/NAME/SOURCE.wav.

    Takes wav, flac, mp3, ogg, m4a and .stem.mp4 in mono or stereo, of any length and sample rate.

    [bold]Example[/bold]: sepfast separate song.mp3 -m model.safetensors -o stems

    A model of system C is told about the vocals with --side-info. A .csv has a time in seconds and
    a value in each line, such as 12.5,1 where singing starts and 20.25,0 where it ends: a value
    holds until the next line's time, the last to the end. A .csv of values alone, or a .npy, is
    spread evenly over the recording. Values are what the model was trained with: 0 and 1 for
    activity (A1, A2, A3, A3.2), the summed magnitude for M1 and M2. Where the model looked comes
    out as OUTPUT/NAME/alignment.csv and alignment.png.

    [bold]Example[/bold]: sepfast separate song.wav -m informed.safetensors --side-info activity.csv
    -o stems

    A stem of system B can be denoised, by a model that was trained for it with -m denoiser. What
    it takes away is in no other stem, so that they do not add up to the recording any more.

    [bold]Example[/bold]: sepfast separate song.wav -m model.safetensors --denoise
    vocals.safetensors --denoise drums.safetensors -o stems
    """
    from sepfast.checkpoint import load
    from sepfast.device import pick_device
    from sepfast.separation import (
        Separator,
        find_jobs,
        find_sides,
        load_denoisers,
        separate_file,
    )

    separator = Separator(
        load(model),
        overlap=overlap,
        denoisers=load_denoisers(denoise or []),
        device=pick_device(device),
    )
    separator.check_side(side_info is not None)
    jobs = find_jobs(inputs, output)
    sides = [None] * len(jobs) if side_info is None else find_sides(side_info, jobs, output)
    failed = 0
    for job, side in zip(jobs, sides, strict=True):
        try:
            with bar(str(job.mixture)) as progress:
                stems = separate_file(
                    separator,
                    job,
                    form=format.value,
                    subtype=subtype.value,
                    progress=progress,
                    side=side,
                )
        except InputError as error:
            if len(jobs) == 1:
                raise
            failed += 1
            errors.print(f"sepfast: {error}", style="red", markup=False, highlight=False)
            continue
        for stem in stems:
            if stem.clipped:
                console.print(
                    f"{stem.path}: {stem.clipped} samples beyond full scale were cut off "
                    f"(peak {stem.peak:.2f}); --subtype float keeps them",
                    markup=False,
                    highlight=False,
                )
        names = [stem.path.name for stem in stems]
        names += [] if side is None else ["alignment.csv", "alignment.png"]
        console.print(f"{job.folder}: {', '.join(names)}", highlight=False)
    if failed:
        raise InputError(f"{failed} of {len(jobs)} files could not be separated")
