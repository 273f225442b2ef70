"""The demonstration: a model that learns four seconds of a song and separates all six.

The song is the excerpt with four stems that the package `stempeg` carries. What is scored are the
two seconds that the model never saw, beside the mixture itself as the estimate of every source.
"""

from __future__ import annotations

import shutil
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from sepfast.checkpoint import save
from sepfast.data.audio import read
from sepfast.data.examples import statistics
from sepfast.data.songs import SOURCES, Song, SongAudio, find_songs
from sepfast.device import pick_device
from sepfast.errors import InputError
from sepfast.evaluation import SongScores, score_song
from sepfast.models import create_model
from sepfast.reference import DeepConvSep
from sepfast.separation import Job, Separator, separate_file
from sepfast.training import History, TrainingOptions, train
from sepfast.training.history import Report, Silent

#: Seconds of the song that the model learns.
LEARNT = 4.0

OPTIONS = TrainingOptions(
    batch_size=32,
    batches_per_epoch=25,
    epochs=20,
    optimizer="adam",
    learning_rate=1e-3,
    statistics=True,
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
    separate_file(Separator(model), Job(song.mixture.path, folder / "stems"))
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
    import stempeg

    songs, _ = find_songs(stempeg.example_stem_path())
    return songs[0]


def _trained(
    song: Song, run_dir: Path, options: TrainingOptions, device: str | None, report: Report
) -> tuple[DeepConvSep, History]:
    """A stereo model that has learnt the song's first seconds."""
    with torch.random.fork_rng(), tempfile.TemporaryDirectory() as cache:
        torch.manual_seed(options.seed)
        model = create_model("deepconvsep-stereo")
        assert isinstance(model, DeepConvSep)
        audio = SongAudio(
            song,
            sample_rate=model.sample_rate,
            channels=model.channels,
            stop=LEARNT,
            cache_dir=cache,
        )
        model.set_statistics(*statistics([audio], model.framing, device=pick_device(device)))
        return model, train(model, [audio], [], options, run_dir, device=device, report=report)


def _scored(folder: Path, song: Song, history: History, times: list[float]) -> Outcome:
    """Score what the model never saw, all of it as one frame."""
    true, rate = _unseen_stems(song)
    estimates = {s: _unseen(*read(folder / "stems" / f"{s}.wav")) for s in SOURCES}
    assert song.mixture is not None
    mixture = _unseen(*read(song.mixture.path, stream=song.mixture.stream))
    window = mixture.shape[-1] / rate
    scores = score_song(song.name, true, estimates, rate, window=window, hop=window)
    baseline = score_song(
        "mixture", true, dict.fromkeys(SOURCES, mixture), rate, window=window, hop=window
    )
    times = [*times, time.monotonic()]
    training, separation, scoring = (b - a for a, b in zip(times, times[1:], strict=False))
    return Outcome(folder, history, scores, baseline, (training, separation, scoring))


def _unseen_stems(song: Song) -> tuple[dict[str, np.ndarray], int]:
    tracks = {s: read(song.stems[s].path, stream=song.stems[s].stream) for s in SOURCES}
    return {s: _unseen(*track) for s, track in tracks.items()}, tracks["vocals"][1]


def _unseen(waveform: np.ndarray, sample_rate: int) -> np.ndarray:
    return waveform[:, round(LEARNT * sample_rate) :]
