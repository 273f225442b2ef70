"""What is profiled: a configuration's model, its batches and its training step."""

from __future__ import annotations

from collections.abc import Generator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from sepfast.data.examples import excerpt_framing
from sepfast.fusion import FuseReport, fuse, unfuse
from sepfast.models import create_model
from sepfast.profiling.made_up import (
    TALKERS_HELD_OUT,
    write_recordings,
    write_songs,
    write_talkers,
)
from sepfast.reference import DeepConvSep, DenoisingVAE, Informed, Model, StyleTransfer
from sepfast.reference.audiovisual import AudioVisual
from sepfast.reference.audiovisual_ref import Refining
from sepfast.training.course import Audio, Course, Material, SongCourse
from sepfast.training.course_deepconvsep import DeepConvSepCourse
from sepfast.training.course_denoiser import DenoiserCourse
from sepfast.training.courses import course_for
from sepfast.training.graph import graphed
from sepfast.training.history import Report
from sepfast.training.options import TrainingOptions
from sepfast.training.run_denoiser import Estimates
from sepfast.training.run_songs import Shares, songs_of
from sepfast.training.run_style_transfer import parts_of
from sepfast.training.run_talkers import talks_of
from sepfast.training.stepping import TrainingStep, batches, updates
from sepfast.training.update import Update

#: Examples a step on a CPU, at most, so that a few steps of any system take a minute on two cores.
_ON_CPU = {"deepconvsep": 30, "deepconvsep-stereo": 5, "udt": 1, "denoising-vae": 1, "informed": 1}
_ELSE_ON_CPU = 2
#: Seconds of a snippet of system E, likewise.
_SNIPPET = 0.5
_OF_SNIPPETS = ("udt", "denoising-vae")
#: Epochs that are never all gone through.
_ENDLESS = 10**9


@dataclass(frozen=True)
class Subject:
    """A configuration, as `sepfast train` is given it.

    Attributes:
        name: of the configuration.
        model: a name that `create_model` takes.
        model_options: what it is given.
        options: the choices of training.
        run: what else `train_folder` is given; of it, `source`, `split` and `video_rate` matter.
    """

    name: str
    model: str
    model_options: Mapping[str, Any]
    options: TrainingOptions
    run: Mapping[str, Any] = field(default_factory=dict)

    def sized(self, batch_size: int | None, device: torch.device) -> tuple[Subject, list[str]]:
        """With a batch that was asked for, else one that a CPU gets through.

        Returns:
            The subject, and in what it is smaller, a sentence each.
        """
        before, size, notes = self.options, self.options.batch_size, list[str]()
        options = replace(before, epochs=_ENDLESS)
        if device.type == "cpu" and batch_size is None:
            size = min(size, _ON_CPU.get(self.model, _ELSE_ON_CPU))
            if size < before.batch_size:
                notes.append(
                    f"on a CPU, {size} of the {before.batch_size} examples a step that it is "
                    "trained with; see --batch-size."
                )
            if self.model in _OF_SNIPPETS and before.snippet > _SNIPPET:
                options = replace(options, snippet=_SNIPPET)
                notes.append(f"on a CPU, snippets of {_SNIPPET:g} of their {before.snippet:g} s.")
        return replace(self, options=replace(options, batch_size=batch_size or size)), notes


@dataclass(frozen=True)
class Built:
    """What takes the steps.

    Attributes:
        model: on its device.
        steps: takes a step when it is asked for one, without end.
        fused: which layers run fused; None where none were to.
        notes: in what this is not the training run, a sentence each.
    """

    model: Model
    steps: Generator[Tensor]
    fused: FuseReport | None
    notes: tuple[str, ...]


def built(
    subject: Subject,
    data: Path | None,
    folder: Path,
    device: torch.device,
    report: Report,
    *,
    fused: bool,
) -> Built:
    """Make all that training makes before its first step.

    Args:
        subject: the configuration.
        data: as `train_folder` takes it; None for made-up recordings.
        folder: a place for these, and for what is kept of them.
        device: where the model is.
        report: is told how far the making is.
        fused: whether layers run fused; the choice of the device, in training.

    Raises:
        InputError: as `train_folder` does.
    """
    notes: list[str] = []
    if data is None and subject.options.augmentation:
        # Variations are made once and kept: an epoch's first steps are no measure of them.
        subject = replace(subject, options=replace(subject.options, augmentation=0))
        notes.append("made-up recordings are not varied: augmentation is 0 here.")
    model, estimates = _model(subject)
    if isinstance(model, Refining):
        notes.append("the first of its two runs: the mask is the oracle's.")
    course_of = course_for(model, subject.options)
    cache = folder / "cache" if data is None else None
    if data is None:
        notes.append("the recordings are made up, of noise, and read from this machine's disk.")
        data = folder / "data"
        _make_up(data, subject, model, course_of, estimates, device)
        if isinstance(model, AudioVisual):
            notes.append(f"each is {_speech(device):g} s long; GRID's are 3 s.")
    material = _material(course_of, model, subject, data, cache, report, estimates)
    if estimates is not None:
        wanted = replace(material, options=replace(subject.options, statistics=True))
        DeepConvSepCourse.prepare(estimates.separator, wanted, device)
        estimates.attach_to(model)
        notes.append(
            "the separator is a fresh one: what it gives takes as long as a trained one's."
        )
    if issubclass(course_of, SongCourse):
        course_of.prepare(model, material, device)
    model = model.to(device).train()
    layers = fuse(model) if fused else None
    course = course_of(model, material)
    if isinstance(course, DenoiserCourse):
        (fuse if fused else unfuse)(course.separator)
    return Built(
        model, _steps(model, course, subject.options, device, report), layers, tuple(notes)
    )


def _model(subject: Subject) -> tuple[Model, Estimates | None]:
    """A fresh model; a denoiser also has what it learns from."""
    torch.manual_seed(subject.options.seed)
    made = dict(subject.model_options)
    if subject.model != "denoiser":
        return create_model(subject.model, **made), None
    separator = create_model("deepconvsep-stereo")
    assert isinstance(separator, DeepConvSep)
    estimates = Estimates(separator, subject.run.get("source", separator.sources[0]))
    return create_model(subject.model, **{**estimates.sizes, **made}), estimates


def _make_up(
    data: Path,
    subject: Subject,
    model: Model,
    course: type[Course[Any]],
    estimates: Estimates | None,
    device: torch.device,
) -> None:
    """Write recordings of a kind that a course takes."""
    size = subject.options.batch_size
    if issubclass(course, SongCourse):
        audio = _audio(course, model, estimates)
        seconds = [6.0, 6.0]
        if isinstance(model, Informed):
            fragment = excerpt_framing(model.framing).covered(model.context) / audio.sample_rate
            seconds = [size * fragment]
        write_songs(data, seconds, audio.sample_rate, audio.channels)
    elif isinstance(model, StyleTransfer):
        write_recordings(data, subject.options.snippet)
    else:
        write_talkers(data, size, _speech(device))


def _speech(device: torch.device) -> float:
    """Seconds of a made-up utterance."""
    return 1.0 if device.type == "cpu" else 3.0


def _audio(course: type[SongCourse], model: Model, estimates: Estimates | None) -> Audio:
    """How songs are opened, for a denoiser as its separator takes them."""
    if estimates is None:
        return course.audio(model)
    return DeepConvSepCourse.audio(estimates.separator)


def _material(
    course: type[Course[Any]],
    model: Model,
    subject: Subject,
    data: Path,
    cache: Path | None,
    report: Report,
    estimates: Estimates | None,
) -> Material[Any]:
    """What a course is made of; nothing is kept for validation where all may be learnt from."""
    options, made_up = subject.options, cache is not None
    heard: Any
    if issubclass(course, SongCourse):
        audio = _audio(course, model, estimates)
        heard, _ = songs_of(data, audio, Shares(0.0), options.seed, cache, None, report)
    elif isinstance(model, StyleTransfer):
        paired = isinstance(model, DenoisingVAE)
        heard, _ = parts_of(data, options, 0.0, cache, None, report, paired=paired)
    else:
        held_out = TALKERS_HELD_OUT if made_up else subject.run.get("validation")
        rate, split = subject.run.get("video_rate"), subject.run.get("split", "speakers")
        heard, _ = talks_of(
            data, options, held_out, rate, cache, None, report,
            split="speakers" if made_up else split,
        )  # fmt: skip
    return Material(heard, [], options, cache, report)


def _steps(
    model: Model,
    course: Course[Any],
    options: TrainingOptions,
    device: torch.device,
    report: Report,
) -> Generator[Tensor]:
    """The steps of training, one process alone."""
    update = Update(model, options)

    def loss(batch: tuple[Tensor, ...]) -> tuple[Tensor, Tensor]:
        value = course.loss(batch)
        return value, value

    step: Any = TrainingStep(model, update, loss)
    if options.cuda_graph:
        step = graphed(step, update.optimizer, device, report.note, update.obstacle)
    return updates(step, batches(course, options, device, 1))
