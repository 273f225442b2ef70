"""From a folder of songs, talkers or other recordings to a trained model."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import torch

from sepfast.checkpoint import load
from sepfast.data.excerpts import Recording
from sepfast.data.style_transfer import Part
from sepfast.errors import InputError
from sepfast.files import PathLike, atomic
from sepfast.models import create_model
from sepfast.models import model_options as options_of
from sepfast.reference import VL2M, DenoisingVAE, Model, StyleTransfer
from sepfast.reference.audiovisual_ref import Refining
from sepfast.training.board import check_board
from sepfast.training.course import Material, SongCourse
from sepfast.training.course_audiovisual import AudioVisualCourse, Talk
from sepfast.training.courses import course_for
from sepfast.training.folder import check_unused
from sepfast.training.history import History, Report, Silent
from sepfast.training.lock import locked
from sepfast.training.options import TrainingOptions, defaults_for
from sepfast.training.processes import formed
from sepfast.training.run_denoiser import Estimates, estimates_of
from sepfast.training.run_songs import Shares, songs_of
from sepfast.training.run_style_transfer import parts_of
from sepfast.training.run_talkers import SplitBy, talks_of
from sepfast.training.trainer import train


def train_folder(
    data: PathLike,
    run_dir: PathLike,
    model_name: str,
    options: TrainingOptions | None = None,
    *,
    model_options: Mapping[str, Any] | None = None,
    init: PathLike | None = None,
    mask_model: PathLike | None = None,
    separator: PathLike | None = None,
    source: str | None = None,
    validation: float | PathLike | None = None,
    test: float | None = None,
    validate_on_test: bool = False,
    extra: PathLike | None = None,
    split: SplitBy | None = None,
    test_talkers: int | None = None,
    video_rate: float | None = None,
    cache_dir: PathLike | None = None,
    device: str | None = None,
    resume: bool = False,
    report: Report | None = None,
    experiment: str | None = None,
) -> History:
    """Train a model on the songs, talkers or other recordings beneath a folder.

    Of a data set of songs with splits, its "train" is taken.

    System D's models take talkers, in mixtures that are drawn with the seed and kept in
    `train.csv`, `validation.csv` and `test.csv` of the run. The two that refine a mask learn in
    two steps: on the oracle's, then, by `init` and `mask_model`, on a VL2M's. All steps are to
    have the same seed, so that none has heard the test's speakers.

    System E's models take TIMIT, or `mixtures` and `clean`, two folders of recordings that for
    "udt" need have nothing to do with each other; "denoising-vae" takes pairs by their names. Of
    TIMIT, mixtures to evaluate with are kept in `train.csv` and `test.csv` of the run.

    Args:
        data: songs in any layout that `find_songs` knows, talkers in one of `find_utterances`, or
            what `find_parts` takes.
        run_dir: where the run is kept.
        model_name: "deepconvsep", "deepconvsep-stereo", "denoiser", "informed", "vl2m",
            "vl2m-ref", "av-concat", "av-concat-ref", "udt" or "denoising-vae".
        options: the choices of training; None for the paper's.
        model_options: what `create_model` is to be given.
        init: a saved model of that name, whose weights, options and scaling it begins with.
        mask_model: a saved "vl2m", which the model is to hold, frozen.
        separator: a saved "deepconvsep" or "deepconvsep-stereo", whose output a denoiser learns
            from; it stays as it is and is not in the denoiser's file.
        source: the one of its sources that is denoised.
        validation: of songs, the fraction that is kept for validation, at least one of five or
            more and none of fewer, or a folder of songs of its own; None for 0.2. Of talkers, the
            fraction of the speakers for validation, and as many for the test; None for the
            paper's. For system E, the fraction of the recordings, of TIMIT of the speakers; None
            for 0.2.
        test: of songs, the fraction that is kept for the test, drawn as those for validation are
            from all songs, and listed in `test.txt` of the run; None for the data set's own split.
        validate_on_test: whether to validate on the data set's own test songs.
        extra: a folder of more songs to train on, and for nothing else.
        split: of talkers, "speakers" for no speaker in two parts, which None stands for, or
            "utterances" for each speaker in all, the speaker-dependent setting.
        test_talkers: of talkers, how many there are in the mixtures of one more manifest of the
            test, such as `test-3.csv`.
        video_rate: of talkers, video frames a second where no file beside the landmarks says.
        cache_dir: where decoded songs, varied fragments and statistics are kept; None for the
            user's cache.
        device: where to train; None for the GPU where there is one, for each of several processes
            one of its own.
        resume: go on with the run in `run_dir`.
        report: is told how far it is and what was skipped.
        experiment: the text of what the run is made from, kept as its `experiment.toml`.

    Returns:
        All epochs of the run.

    Raises:
        InputError: where there is nothing usable in the folder, for a saved model that does not
            fit, and as `train` does.
    """
    report = report or Silent()
    paper = defaults_for(model_name)
    options = options or paper
    if options.tensorboard:
        check_board()
    with formed(device) as group, ExitStack() as stack:
        report = report if group.first else Silent()
        with group.together():
            if group.first:
                # From before the lists of mixtures are written.
                stack.enter_context(locked(run_dir, report.note))
                if not resume:
                    check_unused(run_dir)
        with group.in_turn():
            estimates = estimates_of(model_name, model_options or {}, separator, source)
            model = _model(
                model_name, model_options or {}, options.seed, init, mask_model, estimates
            )
            course = course_for(model, options)
            if not issubclass(course, SongCourse):
                _refuse(model_name, test=test, validate_on_test=validate_on_test, extra=extra)
            if not issubclass(course, AudioVisualCourse):
                _refuse(model_name, split=split, test_talkers=test_talkers)
            training: list[Recording] | list[Talk] | list[Part]
            validating: list[Recording] | list[Talk] | list[Part]
            manifests = run_dir if group.first and not resume else None
            if issubclass(course, SongCourse):
                audio = course.audio(model)
                shares = Shares(validation, test, validate_on_test, extra)
                training, validating = songs_of(
                    data, audio, shares, options.seed, cache_dir, manifests, report
                )
                if not resume and init is None:
                    folder = None if cache_dir is None else Path(cache_dir)
                    songs = Material(training, validating, options, folder, report)
                    course.prepare(model, songs, group.place(device))
            elif isinstance(model, StyleTransfer):
                paired = isinstance(model, DenoisingVAE)
                training, validating = parts_of(
                    data, options, validation, cache_dir, manifests, report, paired=paired
                )
            else:
                training, validating = talks_of(
                    data, options, validation, video_rate, cache_dir, manifests, report,
                    split=split or "speakers", test_talkers=test_talkers,
                )  # fmt: skip
        with group.together():
            if experiment is not None and group.first and not resume:
                with atomic(Path(run_dir) / "experiment.toml") as temporary:
                    temporary.write_text(experiment, "utf-8")
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
            data=data,
        )


def _refuse(model_name: str, **given: object) -> None:
    """Raise for an argument that has nothing to say about what a model learns from."""
    for argument, value in given.items():
        if value is not None and value is not False:
            raise InputError(f"{argument}: got {value}, {model_name} takes none")


def _model(
    name: str,
    options: Mapping[str, Any],
    seed: int,
    init: PathLike | None,
    mask_model: PathLike | None,
    estimates: Estimates | None,
) -> Model:
    """What a run begins with, told what else it learns from."""
    if estimates is not None:
        options = {**estimates.sizes, **options}
    if options.get("mask_model"):
        raise InputError("model_options: got mask_model, takes a trained VL2M as the run's own")
    model = _fresh(name, options, seed) if init is None else _loaded(init, name, options)
    if mask_model is not None:
        _hold(model, mask_model)
    if estimates is not None:
        estimates.attach_to(model)
    return model


def _fresh(name: str, options: Mapping[str, Any], seed: int) -> Model:
    """A model whose weights follow from the seed."""
    with torch.random.fork_rng([]):
        torch.manual_seed(seed)
        return create_model(name, **options)


def _loaded(path: PathLike, name: str, options: Mapping[str, Any]) -> Model:
    """A saved model, of the name and the options that are asked for."""
    model = load(path)
    if model.model_name != name:
        raise InputError(f"{path}: holds {model.model_name}, takes {name} to begin with")
    saved = {**options_of(name), **model.model_options}
    for option, value in options.items():
        known = saved.get(option)
        # A file has lists for tuples.
        if (tuple(known) if isinstance(known, list) else known) != value:
            raise InputError(f"{option}: got {value!r}, the model in {path} has {known!r}")
    return model


def _hold(model: Model, path: PathLike) -> None:
    """Put a saved VL2M into a model."""
    if not isinstance(model, Refining):
        raise InputError(f"mask_model: got {path}, {model.model_name} takes none")
    held = load(path)
    if not isinstance(held, VL2M):
        raise InputError(f"mask_model: got {held.model_name} in {path}, takes vl2m")
    model.hold(held)
