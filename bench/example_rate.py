"""How fast system B's training examples come: plain, with dropped sources, and remixed.

    python -m sepfast.bench.example_rate --songs 10 --seconds 180 --workers 0 1 2

Songs of noise are written first, as 16-bit WAV files of 44.1 kHz, 32 MB a minute each with their
stems, and removed again. The rate is that of whole batches as a training step is given them: read,
mixed, passed by the silence filter and, from workers, handed to this process. It is the best of
some rounds of `--batches`; on a busy machine it says as much of the load, which is printed, as of
the examples. The processors' time of an example, over all processes, says how fast it can be: two
cores give at most two seconds of it a second. `--profile` says where this process spends its own.
"""

from __future__ import annotations

import argparse
import cProfile
import os
import pstats
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from itertools import islice, product
from pathlib import Path

import numpy as np
import torch
from torch.utils.data import DataLoader

from sepfast import create_model
from sepfast.data import SOURCES, SongAudio, find_songs
from sepfast.data.augmented_examples import Augmentation
from sepfast.data.examples import Examples, Excerpts, SilenceFilter, excerpt_framing
from sepfast.reference import DeepConvSep
from sepfast.training.course_deepconvsep import ExampleBatches

_RATE = 44100
#: What every rate is compared to by eye.
_AUGMENTATIONS = {
    "plain": Augmentation(),
    "drop": Augmentation(source_drop=1.0),
    "remix": Augmentation(remix=1.0),
}
_ROUNDS = 3


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; 0."""
    given = _parser().parse_args(arguments)
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory(dir=given.folder) as folder:
        excerpts, model = _written(Path(folder), given.songs, given.seconds)
        keep = None if given.no_filter else SilenceFilter.of(model, 0.02)
        for name, augmentation in _AUGMENTATIONS.items():
            examples = Examples(excerpts, given.batch_size, 0, keep, augmentation)
            if given.profile:
                _profile(name, examples, given.batches)
                continue
            for workers in given.workers:
                rate, busy = measured(examples, workers, given.batches)
                print(
                    f"{name:6} {workers} workers  {rate:6.0f} examples/s  "
                    f"{1e3 * busy:.2f} ms of processors each  (load {os.getloadavg()[0]:.1f})",
                    flush=True,
                )
    return 0


def measured(examples: Examples, workers: int, batches: int) -> tuple[float, float]:
    """Examples a second, the best of some rounds in one go, and processors' seconds an example."""
    before = sum(os.times()[:4])
    loader = DataLoader(
        ExampleBatches(examples, workers),
        batch_size=None,
        sampler=list(product((1,), range((1 + _ROUNDS) * batches))),
        num_workers=workers,
    )
    stream: Iterator[Sequence[torch.Tensor]] = iter(loader)
    _take(stream, batches)  # workers start, files come into memory
    rates = []
    for _ in range(_ROUNDS):
        began = time.perf_counter()
        taken = _take(stream, batches)
        rates.append(taken / (time.perf_counter() - began))
    del stream, loader  # its workers end, and their time is counted
    examples_made = examples.batch_size * batches * (1 + _ROUNDS)
    return max(rates), (sum(os.times()[:4]) - before) / examples_made


def _take(stream: Iterator[Sequence[torch.Tensor]], batches: int) -> int:
    """Examples in the next batches, each of which is looked at once."""
    count = 0
    for waveforms, *_ in islice(stream, batches):
        count += len(waveforms)
        waveforms.view(-1)[::1024].sum()  # a page that no one reads is never handed over
    return count


def _profile(name: str, examples: Examples, batches: int) -> None:
    profile = cProfile.Profile(time.process_time)
    profile.enable()
    for item in range(batches):
        _ = examples[1, item]
    profile.disable()
    print(name)
    pstats.Stats(profile, stream=sys.stdout).sort_stats("tottime").print_stats(18)


def _written(folder: Path, songs: int, seconds: float) -> tuple[Excerpts, DeepConvSep]:
    """Songs of noise, and a model that is as loud as they are."""
    for number in range(songs):
        _write_song(folder / f"song {number}", number, round(seconds * _RATE))
    model = create_model("deepconvsep-stereo")
    assert isinstance(model, DeepConvSep)
    # Noise of 0.05 has magnitudes of about 0.03 in this framing.
    model.set_statistics(torch.zeros(10, 513), torch.full((10, 513), 0.5))
    found, _ = find_songs(folder)
    opened = [SongAudio(song, sample_rate=_RATE, channels=2) for song in found]
    return Excerpts(opened, excerpt_framing(model.framing).covered(model.context)), model


def _write_song(folder: Path, seed: int, samples: int) -> None:
    """Stems of noise and their sum, block by block."""
    import soundfile

    folder.mkdir()
    random = np.random.default_rng(seed)
    names = ("mixture", *SOURCES)
    files = [
        soundfile.SoundFile(folder / f"{name}.wav", "w", _RATE, 2, subtype="PCM_16")
        for name in names
    ]
    for start in range(0, samples, _RATE):
        shape = (len(SOURCES), min(_RATE, samples - start), 2)
        stems = random.normal(0, 0.05, shape).astype(np.float32)
        for file, wave in zip(files, (stems.sum(0), *stems), strict=True):
            file.write(wave)
    for file in files:
        file.close()


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        "python -m sepfast.bench.example_rate", description="Training examples a second."
    )
    parser.add_argument("--songs", type=int, default=10)
    parser.add_argument("--seconds", type=float, default=180.0, help="of each song")
    parser.add_argument("--batch-size", type=int, default=5)
    parser.add_argument("--batches", type=int, default=200, help="a round")
    parser.add_argument("--workers", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--folder", type=Path, help="where the songs are written for a while")
    parser.add_argument("--no-filter", action="store_true", help="without the silence filter")
    parser.add_argument("--profile", action="store_true", help="of this process, without workers")
    return parser


if __name__ == "__main__":
    sys.exit(main())
