"""`sepfast evaluate`."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from sepfast.cli.console import bar, say, show
from sepfast.cli.evaluate_talkers import are_manifests, score_manifests
from sepfast.cli.evaluate_transfer import are_transfers, score_transfers
from sepfast.cli.options import Denoisers, Device
from sepfast.errors import InputError
from sepfast.sharing import Team, how_many, shared

if TYPE_CHECKING:
    import torch

    from sepfast.evaluation import ScoreTable
    from sepfast.evaluation.songs import Estimator


class Oracle(StrEnum):
    """Estimates without any separation, or with knowledge of the truth."""

    mixture = "mixture"
    binary = "binary"
    wiener = "wiener"


def evaluate(
    references: Annotated[
        list[Path],
        typer.Argument(
            metavar="REFERENCES",
            help="Songs with their true stems: MUSDB18, MUSDB18-HQ, DSD100 or SONG/STEM.wav; "
            "manifests of talkers or of duets, such as test.csv of a run; or a folder with "
            "mixtures/NAME and clean/NAME.",
        ),
    ],
    output: Annotated[Path, typer.Option("-o", "--output", help="Folder of the scores and plots.")],
    estimates: Annotated[
        Path | None,
        typer.Option(
            "-e",
            "--estimates",
            help="Folder with SONG/STEM.wav, as separate writes; of talkers "
            "with s1_a+s2_b.wav, where a of s1 is heard among b of s2; of duets and pairs with "
            "NAME.wav or NAME/target.wav.",
        ),
    ] = None,
    model: Annotated[
        Path | None, typer.Option("-m", "--model", help="A model that separates the mixtures.")
    ] = None,
    oracle: Annotated[
        Oracle | None,
        typer.Option(help="The mixture itself, or masks that only the true stems can give."),
    ] = None,
    side_info: Annotated[
        Path | None,
        typer.Option(
            "--side-info",
            metavar="FOLDER",
            help="SONG.csv or SONG.npy for a model that takes side information. (default: made "
            "from the true target, as in training)",
        ),
    ] = None,
    split: Annotated[
        str | None,
        typer.Option(
            help="train, test, or a list of songs' names such as RUN/test.txt. (default: all songs)"
        ),
    ] = None,
    window: Annotated[float, typer.Option(help="Seconds of a frame.")] = 1.0,
    hop: Annotated[float, typer.Option(help="Seconds from one frame to the next.")] = 1.0,
    data: Annotated[
        Path | None,
        typer.Option(metavar="FOLDER", help="The recordings of a manifest, as train takes them."),
    ] = None,
    video_rate: Annotated[
        float | None,
        typer.Option(
            help="Frames a second of a talker's landmarks. (default: what NAME.json says)"
        ),
    ] = None,
    resume: Annotated[
        bool,
        typer.Option(
            "--resume",
            help="Keep the scores in OUTPUT/songs that were made with the same options, and score "
            "the other songs; stems and side information are taken to be unchanged.",
        ),
    ] = False,
    denoise: Denoisers = None,
    device: Device = None,
) -> None:
    """Score stems, or a model, against the true ones: SDR, ISR, SIR, SAR, PES and EPS.

    Writes scores.json, scores.csv (a row for each song, source and frame), a box plot, and for
    each song a spectrogram of its targets beside its estimates; for a model with attention also
    where it looked in its side information.

    An informed model is scored in mono at its own sample rate, its target and the rest of the
    mixture: songs need their mixture and the target's stem alone.

    Of manifests, each mixture of talkers is scored as it is and enhanced: SDR, PESQ and ViSQOL, as
    a table and in scores.json and scores.csv. PESQ and ViSQOL need their packages:
    pip install 'sepfast\\[speech]'

    [bold]Example[/bold]: sepfast evaluate musdb18 -m model.safetensors -o scores --split test

    [bold]Example[/bold]: sepfast evaluate run/test.csv --data grid -m vl2m.safetensors -o scores

    Of duets, and of pairs in mixtures/ and clean/, each mixture is scored as it is and by its
    target: SI-SDR, SIR and SAR, as a table, in scores.json and scores.csv and as a box plot.

    [bold]Example[/bold]: sepfast evaluate run/test.csv --data timit -m udt.safetensors -o scores

    [bold]Example[/bold]: sepfast evaluate pairs -m udt.safetensors -o scores

    Processes that torchrun starts share the songs, each on its own GPU. With --resume what was
    interrupted is taken up again.

    [bold]Example[/bold]: torchrun --nproc-per-node 4 -m sepfast evaluate musdb18 -m
    model.safetensors -o scores --resume
    """
    transfers = are_transfers(references)
    songs = not (transfers or are_manifests(references))
    if not songs and (resume or how_many() > 1):
        raise InputError("evaluate: takes --resume and several processes for songs alone")
    if denoise and (model is None or not songs):
        raise InputError("--denoise: takes a --model that separates songs")
    if transfers:
        if oracle or side_info or split or video_rate is not None or (window, hop) != (1.0, 1.0):
            raise InputError(
                "evaluate: takes of duets and pairs no --oracle, --side-info, --split, --window, "
                "--hop or --video-rate"
            )
        found = score_transfers(
            references, data, output, estimates=estimates, model=model, device=device
        )
        _show(found, f"scores and plot: {output}")
        return
    if not songs:
        if oracle or side_info or split or (window, hop) != (1.0, 1.0):
            raise InputError(
                "evaluate: takes of manifests no --oracle, --side-info, --split, --window or --hop"
            )
        found = score_manifests(
            references,
            data,
            output,
            estimates=estimates,
            model=model,
            video_rate=video_rate,
            device=device,
        )
        _show(found, f"scores: {output}")
        return
    if len(references) > 1 or data is not None or video_rate is not None:
        raise InputError(
            "evaluate: takes one folder of songs, or manifests that end in .csv with --data and "
            "--video-rate"
        )
    if sum(given is not None for given in (estimates, model, oracle)) != 1:
        raise InputError("evaluate: takes one of --estimates, --model and --oracle")
    if side_info is not None and model is None:
        raise InputError("--side-info: takes a --model that is told it")
    given = _Given(estimates, model, oracle, side_info, tuple(denoise or ()))
    _score_songs(
        references[0], given, output, device, split=split, window=window, hop=hop, resume=resume
    )


def _score_songs(
    references: Path,
    given: _Given,
    output: Path,
    device: str | None,
    *,
    split: str | None,
    window: float,
    hop: float,
    resume: bool,
) -> None:
    """Score songs, in all processes that share them; the first shows what was found."""
    from sepfast.evaluation import table
    from sepfast.evaluation.songs import evaluate_songs

    with shared() as team:
        estimator = given.estimator(team.device(device))
        with bar("scoring", plain=team.several) as progress:
            report = evaluate_songs(
                references,
                estimator,
                output,
                split=split,
                window=window,
                hop=hop,
                resume=resume,
                made_by=given.made_by(references),
                team=team,
                progress=_counted(team) if team.several else progress,
                note=say,
            )
    if team.leads:
        _show(table(report), f"scores and plots: {output}")


def _counted(team: Team) -> Callable[[float, float | None], None]:
    """A line after each song: bars of several processes would lie over each other."""
    return lambda done, total: say(f"process {team.rank}: {done} of {total} songs")


def _show(found: ScoreTable, where: str) -> None:
    show(found.header, found.rows)
    for text in (*found.notes, where):
        say(text)


@dataclass(frozen=True)
class _Given:
    """What the estimates are of."""

    estimates: Path | None
    model: Path | None
    oracle: Oracle | None
    side_info: Path | None
    denoise: tuple[Path, ...]

    def estimator(self, device: torch.device) -> Estimator:
        """What gives them."""
        from sepfast.evaluation import songs

        if self.estimates is not None:
            return songs.from_folder(self.estimates)
        if self.oracle is not None:
            return songs.from_oracle(self.oracle.value)
        from sepfast.checkpoint import load
        from sepfast.evaluation.informed import from_model
        from sepfast.separation import load_denoisers

        assert self.model is not None
        return from_model(
            load(self.model),
            device=device,
            side_info=self.side_info,
            denoisers=load_denoisers(list(self.denoise)),
        )

    def made_by(self, references: Path) -> str:
        """What tells them from others: models go by what they hold, folders by where they are."""
        models = [*([self.model] if self.model else []), *sorted(self.denoise)]
        folders = [path for path in (self.estimates, self.side_info) if path is not None]
        said = [f"songs {references.resolve()}", *([self.oracle.value] if self.oracle else [])]
        said += [f"model {_digest(path)}" for path in models]
        return "; ".join(said + [f"folder {path.resolve()}" for path in folders])


def _digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
