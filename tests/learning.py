"""Runs of training to test with: songs of tones, a small model and its options."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import soundfile
import torch
from test_examples import Memory

from sepfast import create_model
from sepfast.training import TrainingOptions, defaults_for
from sepfast.training.history import Silent

#: Of a DeepConvSep.
SMALL = {"context": 8, "n1": 4, "n2": 4, "units": 16}
QUICK = TrainingOptions(
    batch_size=4,
    batches_per_epoch=3,
    epochs=4,
    optimizer="adam",
    learning_rate=1e-3,
    validation_batches=2,
)


def fresh(name: str = "deepconvsep", **options) -> torch.nn.Module:
    torch.manual_seed(1)
    return create_model(name, **{**SMALL, **options})


def tones(samples: int = 30_000, seed: int = 0, name: str = "tones") -> Memory:
    """Four sources with a band each, (5, 1, samples)."""
    random = np.random.default_rng(seed)
    time = np.arange(samples) / 44100
    sources = [
        np.sin(2 * np.pi * random.uniform(hertz, 1.3 * hertz) * time)
        * (1 + np.sin(2 * np.pi * random.uniform(2, 9) * time))
        for hertz in (800, 6000, 80, 2500)
    ]
    waveforms = 0.2 * np.array(sources, np.float32)[:, None]
    return Memory(np.concatenate([waveforms.sum(0, keepdims=True), waveforms]), name)


SONGS = [tones(seed=0, name="a"), tones(seed=1, name="b")]


VALIDATION = [tones(seed=2, name="c")]


class Recorder(Silent):
    """Keeps what it is told, and interrupts after a number of steps."""

    def __init__(self, interrupt_after: int = 10**9) -> None:
        self.steps, self.notes, self.best = [], [], []
        self.interrupt_after = interrupt_after

    def note(self, text):
        self.notes.append(text)

    def progress(self, task, done, total):
        if task == "training":
            self.steps.append((done, total))
            if len(self.steps) == self.interrupt_after:
                raise KeyboardInterrupt

    def epoch(self, epoch, best):
        self.best.append(best)


def losses(history) -> list[tuple[float, float | None]]:
    return [(epoch.training_loss, epoch.validation_loss) for epoch in history.epochs]


def files(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def write_song(folder: Path, song: Memory, channels: int = 2) -> None:
    folder.mkdir(parents=True)
    names = ("mixture", "vocals", "drums", "bass", "other")
    for name, waveform in zip(names, song.waveforms, strict=True):
        stereo = np.repeat(waveform, channels, axis=0).T
        soundfile.write(folder / f"{name}.wav", stereo, 44100, subtype="FLOAT")


def folder_of(path: Path, count: int) -> Path:
    for number in range(count):
        write_song(path / f"song {number}", tones(12_000, seed=number))
    return path


STEREO = replace(defaults_for("deepconvsep-stereo"), batch_size=2, batches_per_epoch=2, epochs=2)


def snapshot(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}
