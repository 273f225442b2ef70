"""From a folder of songs to a trained model."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

import numpy as np
import torch

from sepfast.data.song_audio import SongAudio
from sepfast.data.songs import Song, find_songs
from sepfast.device import pick_device
from sepfast.errors import InputError
from sepfast.files import PathLike
from sepfast.models import create_model
from sepfast.reference import Model
from sepfast.training.course import Audio
from sepfast.training.courses import course_for
from sepfast.training.folder import check_unused
from sepfast.training.history import History, Report, Silent
from sepfast.training.options import TrainingOptions, defaults_for
from sepfast.training.trainer import train

#: Fewer songs than this are all trained on.
_LEAST_TO_VALIDATE = 5


def train_folder(
    data: PathLike,
    run_dir: PathLike,
    model_name: str,
    options: TrainingOptions | None = None,
    *,
    model_options: Mapping[str, Any] | None = None,
    validation: float | PathLike = 0.2,
    cache_dir: PathLike | None = None,
    device: str | None = None,
    resume: bool = False,
    report: Report | None = None,
) -> History:
    """Train a model on the songs beneath a folder; of a data set with splits, on its "train".

    Args:
        data: songs in any layout that `find_songs` knows.
        run_dir: where the run is kept.
        model_name: "deepconvsep", "deepconvsep-stereo" or "informed".
        options: the choices of training; None for the paper's.
        model_options: what `create_model` is to be given.
        validation: the fraction of songs that is kept for validation, at least one of five or
            more and none of fewer; or a folder of songs of its own.
        cache_dir: where decoded songs and varied fragments are kept; None for the user's cache.
        device: where to train; None for the GPU where there is one.
        resume: go on with the run in `run_dir`.
        report: is told how far it is and what was skipped.

    Returns:
        All epochs of the run.

    Raises:
        InputError: where there are no usable songs, and as `train` does.
    """
    report = report or Silent()
    paper = defaults_for(model_name)
    options = options or paper
    if not resume:
        check_unused(run_dir)
    model = _fresh(model_name, model_options or {}, options.seed)
    course = course_for(model, options)
    audio = course.audio(model)
    songs, held_out = _split(data, validation, audio, options.seed, report)
    training = _opened(songs, audio, cache_dir, report)
    validating = _opened(held_out, audio, cache_dir, report) if held_out else []
    if not resume:
        progress = partial(report.progress, "statistics")
        course.prepare(model, training, options, progress, pick_device(device))
    return train(
        model,
        training,
        validating,
        options,
        run_dir,
        cache_dir=cache_dir,
        device=device,
        resume=resume,
        report=report,
    )


def _fresh(name: str, options: Mapping[str, Any], seed: int) -> Model:
    """A model whose weights follow from the seed."""
    with torch.random.fork_rng([]):
        torch.manual_seed(seed)
        return create_model(name, **options)


def _split(
    data: PathLike, validation: float | PathLike, audio: Audio, seed: int, report: Report
) -> tuple[list[Song], list[Song]]:
    """The songs to train on, and those to validate on."""
    songs = [song for song in _found(data, audio, report) if song.split in (None, "train")]
    if not songs:
        raise InputError(f"{data}: holds test songs alone, training takes others")
    if not isinstance(validation, (int, float)):
        return songs, _found(validation, audio, report)
    if not 0 <= validation < 1:
        raise InputError(f"validation: got {validation}, takes a fraction below 1, or a folder")
    if validation and len(songs) < _LEAST_TO_VALIDATE:
        report.note(
            f"no validation with fewer than {_LEAST_TO_VALIDATE} songs ({len(songs)} here): "
            "the best epoch is that of the lowest training loss"
        )
        return songs, []
    count = max(1, round(validation * len(songs))) if validation else 0
    order = np.random.default_rng(seed).permutation(len(songs))
    held_out = set(order[:count].tolist())
    return (
        [song for number, song in enumerate(songs) if number not in held_out],
        [song for number, song in enumerate(songs) if number in held_out],
    )


def _found(folder: PathLike, audio: Audio, report: Report) -> list[Song]:
    songs, skipped = find_songs(folder, sources=audio.sources)
    for reason in skipped:
        report.note(f"skipped: {reason}")
    return songs


def _opened(
    songs: Sequence[Song], audio: Audio, cache_dir: PathLike | None, report: Report
) -> list[SongAudio]:
    """The songs that can be decoded, as the course wants them."""
    opened, reasons = [], []
    for done, song in enumerate(songs, 1):
        try:
            opened.append(
                SongAudio(
                    song,
                    sample_rate=audio.sample_rate,
                    channels=audio.channels,
                    sources=audio.sources,
                    cache_dir=cache_dir,
                )
            )
        except InputError as error:
            reasons.append(str(error))
            report.note(f"skipped: {error}")
        report.progress("songs", done, len(songs))
    if not opened:
        raise InputError(f"none of {len(songs)} songs can be used, the first because {reasons[0]}")
    return opened
