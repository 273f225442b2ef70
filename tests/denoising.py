"""What the tests of denoisers share: songs, a small separator and denoisers of its output."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from learning import QUICK as PLAIN
from learning import SMALL
from test_examples import Memory

from sepfast import create_model
from sepfast.data.examples import statistics
from sepfast.training import train

QUICK = replace(PLAIN, epochs=3, silence=0.001)


def song(seed: int, samples: int = 20_000) -> Memory:
    """Four sources, each a chord that comes and goes, somewhere in stereo."""
    random = np.random.default_rng(seed)
    time = np.arange(samples) / 44100
    sources = random.normal(0, 1e-4, (4, 2, samples))
    for source, pitch in zip(sources, (900, 3000, 200, 1700), strict=True):
        for start in range(0, samples, 4000):
            part = slice(start, start + 4000)
            partials = [np.sin(2 * np.pi * n * pitch * time[part]) / n for n in (1, 2, 3, 4, 5)]
            sides = 0.1 * (random.random() < 0.5) * random.uniform(0.5, 1, (2, 1))
            source[:, part] += sides * sum(partials)
    waveforms = sources.astype(np.float32)
    return Memory(np.concatenate([waveforms.sum(0, keepdims=True), waveforms]), f"song {seed}")


SONGS, HELD_OUT = [song(seed) for seed in range(4)], [song(seed) for seed in range(10, 12)]


def learnt_separator(folder: Path):
    """A small system B that has learnt a little; not to be changed."""
    torch.manual_seed(0)
    model = create_model("deepconvsep-stereo", **SMALL)
    model.set_statistics(*statistics(SONGS, model.framing))
    options = replace(QUICK, batches_per_epoch=10, epochs=1, learning_rate=3e-3)
    train(model, SONGS, [], options, folder)
    return model.requires_grad_(False)


def fresh(separator, source: str = "vocals", **options):
    """An untrained denoiser, small unless told otherwise, for a source of a separator."""
    torch.manual_seed(1)
    model = create_model("denoiser", features=options.pop("features", 16), **options)
    model.attach(separator, source)
    return model
