"""The demonstration: a model that learns four seconds of a song and separates all six.

The song is the excerpt with four stems that the package `stempeg` carries. What is scored are the
two seconds that the model never saw, beside the mixture itself as the estimate of every source.
"""

from __future__ import annotations

import shutil
import tempfile
import time
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import numpy as np
import torch

from sepfast.checkpoint import save
from sepfast.data.song_audio import SongAudio
from sepfast.data.songs import Song, find_songs
from sepfast.errors import InputError
from sepfast.evaluation import SongScores, loss_curve, score_song, spectrograms
from sepfast.evaluation.page import Cell, Picture, Section, Sound, Table, write_page
from sepfast.evaluation.songs import (
    Estimator,
    Recording,
    from_folder,
    from_oracle,
    open_recording,
)
from sepfast.models import create_model
from sepfast.packages import example_song
from sepfast.reference import DeepConvSep
from sepfast.separation import Job, Separator, separate_file
from sepfast.training import History, TrainingOptions, train
from sepfast.training.history import Report, Silent

#: Seconds of the song that the model learns.
LEARNT = 4.0

#: One song is too little for extrema per bin, so that magnitudes are scaled by one factor.
MODEL_OPTIONS = {"scale_factor": 0.1}
OPTIONS = TrainingOptions(
    batch_size=32,
    batches_per_epoch=25,
    epochs=12,
    optimizer="adam",
    learning_rate=1e-3,
    target_slope=0.5,
    time_limit=100.0,
)

#: What a demonstration leaves, and the next one replaces.
_MADE = ("report.html", "model.safetensors", "loss.png", "spectrograms.png", "run", "stems")


@dataclass(frozen=True)
class Outcome:
    """What the demonstration made.

    Attributes:
        folder: where everything is.
        history: the training.
        scores: of the stems in the unseen seconds.
        baseline: of the mixture as the estimate of every source.
        seconds: what training, separation and scoring took.
    """

    folder: Path
    history: History
    scores: SongScores
    baseline: SongScores
    seconds: tuple[float, float, float]

    @property
    def page(self) -> Path:
        """The report."""
        return self.folder / "report.html"

    def sdr(self, source: str) -> tuple[float, float]:
        """SDR in dB of a source in the unseen seconds: of the mixture, and of the stem."""
        return self.baseline.sources[source].sdr, self.scores.sources[source].sdr


def run(
    folder: Path,
    *,
    options: TrainingOptions = OPTIONS,
    device: str | None = None,
    report: Report | None = None,
) -> Outcome:
    """Train, separate, score and report.

    Args:
        folder: where it goes; what an earlier demonstration left there is replaced.
        options: how to train.
        device: where to compute; None for the GPU where there is one.
        report: is told how far it is.

    Raises:
        InputError: for a folder that holds something else, or cannot be written.
    """
    report = report or Silent()
    _clear(folder)
    song = _song()
    times = [time.monotonic()]
    model, history = _trained(song, folder / "run", options, device, report)
    save(model, folder / "model.safetensors")
    times.append(time.monotonic())
    report.note("separating the whole song")
    assert song.mixture is not None
    separate_file(Separator(model), Job(song.mixture.path, folder / "stems" / song.name))
    times.append(time.monotonic())
    report.note("scoring the seconds that the model never saw")
    outcome = _scored(folder, song, history, times)
    _write_report(outcome, song)
    return outcome


def _clear(folder: Path) -> None:
    """Remove what an earlier demonstration left, and nothing else."""
    if folder.exists() and not folder.is_dir():
        raise InputError(f"{folder}: is a file, takes the name of a folder")
    others = [p for p in folder.iterdir() if p.name not in _MADE] if folder.exists() else []
    if others:
        raise InputError(f"{folder}: holds {others[0].name}, takes a folder of its own")
    for name in _MADE:
        path = folder / name
        shutil.rmtree(path) if path.is_dir() else path.unlink(missing_ok=True)


def _song() -> Song:
    songs, _ = find_songs(example_song())
    return songs[0]


def _trained(
    song: Song, run_dir: Path, options: TrainingOptions, device: str | None, report: Report
) -> tuple[DeepConvSep, History]:
    """A stereo model that has learnt the song's first seconds."""
    with torch.random.fork_rng(), tempfile.TemporaryDirectory() as cache:
        torch.manual_seed(options.seed)
        model = create_model("deepconvsep-stereo", **MODEL_OPTIONS)
        assert isinstance(model, DeepConvSep)
        audio = SongAudio(
            song,
            sample_rate=model.sample_rate,
            channels=model.channels,
            stop=LEARNT,
            cache_dir=cache,
        )
        return model, train(model, [audio], [], options, run_dir, device=device, report=report)


def _scored(folder: Path, song: Song, history: History, times: list[float]) -> Outcome:
    """Score what the model never saw, all of it as one frame."""
    true = open_recording(song)
    window = _unseen(true, true.mixture).shape[-1] / true.sample_rate
    references = {source: _unseen(true, stem) for source, stem in true.stems.items()}

    def scores(estimator: Estimator) -> SongScores:
        estimates = {s: _unseen(true, stem) for s, stem in estimator(true).items()}
        return score_song(
            song.name, references, estimates, true.sample_rate, window=window, hop=window
        )

    separated, baseline = scores(from_folder(folder / "stems")), scores(from_oracle("mixture"))
    training, separation, scoring = (b - a for a, b in pairwise([*times, time.monotonic()]))
    return Outcome(folder, history, separated, baseline, (training, separation, scoring))


def _unseen(song: Recording, waveform: np.ndarray) -> np.ndarray:
    """The part of a waveform that the model never saw."""
    return waveform[:, round(LEARNT * song.sample_rate) :]


def _write_report(outcome: Outcome, song: Song) -> None:
    """The page, and the pictures in it."""
    folder, true = outcome.folder, open_recording(song)
    stems = from_folder(folder / "stems")(true)
    epochs = outcome.history.epochs
    loss_curve(folder / "loss.png", [e.epoch for e in epochs], [e.training_loss for e in epochs])
    spectrograms(folder / "spectrograms.png", true.stems, stems, true.sample_rate)
    scores, listening = _score_table(outcome), _listening_table(true, stems)
    training, separation, scoring = outcome.seconds
    write_page(
        outcome.page,
        "sepfast demo: four stems of a real recording",
        f"A stereo DeepConvSep learnt the first {LEARNT:.0f} seconds of “{song.name}” in "
        f"{training:.0f} s and separated all of it. The seconds behind them it never saw: they "
        "are what the scores are of.",
        [
            Section("Scores on the unseen seconds", [scores, _WHAT_SDR_IS]),
            Section("Listen", [listening, _WHAT_TO_EXPECT]),
            Section(
                "Spectrograms",
                [Picture(folder / "spectrograms.png", "True stems beside separated ones.")],
            ),
            Section(
                "Training",
                [
                    Picture(folder / "loss.png", "Training loss, the sum over a batch."),
                    f"Training {training:.0f} s, separation of {_seconds(true):.1f} s of stereo "
                    f"{separation:.2f} s, scoring {scoring:.0f} s.",
                ],
            ),
        ],
    )


_WHAT_SDR_IS = (
    "Source to distortion ratio by museval, in dB, all unseen samples as one frame; higher is "
    "better. The mixture itself, taken for every source, is what any separation has to beat."
)
_WHAT_TO_EXPECT = (
    "Four seconds of one song are little to learn from: the first four seconds show what the model "
    "remembers, the rest what it has understood. Trained on a data set, it knows more songs."
)


def _score_table(outcome: Outcome) -> Table:
    rows = [
        [source, *(f"{value:.1f}" for value in outcome.sdr(source))]
        for source in outcome.scores.sources
    ]
    return Table(["SDR, dB", "mixture as the estimate", "separated"], rows)


def _listening_table(true: Recording, stems: Mapping[str, np.ndarray]) -> Table:
    rate = true.sample_rate
    rows: list[list[Cell]] = [
        [source, Sound(stems[source], rate), Sound(stem, rate)]
        for source, stem in true.stems.items()
    ]
    rows.append(["mixture", Sound(true.mixture, rate), ""])
    return Table(["", "separated", "true"], rows)


def _seconds(song: Recording) -> float:
    return song.mixture.shape[-1] / song.sample_rate
