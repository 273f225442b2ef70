"""`sepfast separate`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from sepfast.cli.console import bar, complain, say
from sepfast.cli.options import Denoisers, Device
from sepfast.errors import InputError
from sepfast.sharing import Team, shared

if TYPE_CHECKING:
    from sepfast.separation import Job, Separator

    _Work = tuple[Job, Path | None]


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
    skip_existing: Annotated[
        bool,
        typer.Option(
            "--skip-existing",
            help="Leave out recordings whose stems are all there, whatever model made them.",
        ),
    ] = False,
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

    Processes that torchrun starts share the recordings, each on its own GPU. With --skip-existing
    what was interrupted is taken up again.

    [bold]Example[/bold]: torchrun --nproc-per-node 4 -m sepfast separate songs -m
    model.safetensors -o stems --skip-existing
    """
    with shared() as team:
        _separate(
            team,
            inputs,
            _Output(output, format.value, subtype.value, skip_existing),
            _separator(team, model, overlap, denoise or [], device),
            side_info,
        )


@dataclass(frozen=True)
class _Output:
    """Where stems go to, and how."""

    folder: Path
    form: Literal["wav", "flac"]
    subtype: Literal["float", "int16"]
    skip_existing: bool


def _separator(
    team: Team, model: Path, overlap: int | None, denoise: list[Path], device: str | None
) -> Separator:
    from sepfast.checkpoint import load
    from sepfast.separation import Separator, load_denoisers

    return Separator(
        load(model),
        overlap=overlap,
        denoisers=load_denoisers(denoise),
        device=team.device(device),
    )


def _separate(
    team: Team,
    inputs: list[Path],
    output: _Output,
    separator: Separator,
    side_info: Path | None,
) -> None:
    from sepfast.separation import find_jobs, find_sides

    separator.check_side(side_info is not None)
    jobs = find_jobs(inputs, output.folder)
    sides: Sequence[Path | None] = [None] * len(jobs)
    if side_info is not None:
        sides = find_sides(side_info, jobs, output.folder)
    work = list(zip(jobs, sides, strict=True))
    if output.skip_existing:
        work = _missing(team, work, separator, output)
    # Nothing is written before all have looked at what is there.
    team.agree([str(job.folder) for job, _ in work])
    failed = []
    for job, side in team.share(work):
        try:
            _one(team, separator, job, side, output)
        except InputError as error:
            if len(work) == 1 and not team.several:
                raise
            failed.append(str(error))
            complain(error)
    told = [reason for of_one in team.exchange(failed, last=True) for reason in of_one]
    if told and team.leads:
        if team.several:
            complain("\n  ".join(["what could not be separated:", *told]))
        raise InputError(f"{len(told)} of {len(work)} files could not be separated")


def _missing(team: Team, work: list[_Work], separator: Separator, output: _Output) -> list[_Work]:
    """What has not all of its stems yet."""
    from sepfast.separation import has_stems

    left = [(job, s) for job, s in work if not has_stems(job, separator.sources, output.form)]
    if team.leads:
        say(f"{len(work) - len(left)} of {len(work)} recordings have their stems already")
    return left


def _one(team: Team, separator: Separator, job: Job, side: Path | None, output: _Output) -> None:
    """Separate a recording and say what was written."""
    from sepfast.separation import separate_file

    with bar(str(job.mixture), plain=team.several) as progress:
        stems = separate_file(
            separator,
            job,
            form=output.form,
            subtype=output.subtype,
            progress=progress,
            side=side,
        )
    for stem in stems:
        if stem.clipped:
            say(
                f"{stem.path}: {stem.clipped} samples beyond full scale were cut off "
                f"(peak {stem.peak:.2f}); --subtype float keeps them"
            )
    names = [stem.path.name for stem in stems]
    names += [] if side is None else ["alignment.csv", "alignment.png"]
    say(f"{job.folder}: {', '.join(names)}")
