"""Which course a model is trained with."""

from __future__ import annotations

from dataclasses import fields
from typing import Any

from torch import nn

from sepfast.errors import InputError
from sepfast.reference import DeepConvSep, Denoiser, Informed, Model
from sepfast.reference.audiovisual import AudioVisual
from sepfast.reference.style_transfer import StyleTransfer
from sepfast.training.course import Course
from sepfast.training.course_audiovisual import AudioVisualCourse
from sepfast.training.course_deepconvsep import DeepConvSepCourse
from sepfast.training.course_denoiser import DenoiserCourse
from sepfast.training.course_informed import InformedCourse
from sepfast.training.course_style_transfer import StyleTransferCourse
from sepfast.training.options import TrainingOptions

#: Class of models -> their course.
_COURSES: dict[type[Model], type[Course[Any]]] = {
    DeepConvSep: DeepConvSepCourse,
    Denoiser: DenoiserCourse,
    Informed: InformedCourse,
    AudioVisual: AudioVisualCourse,
    StyleTransfer: StyleTransferCourse,
}


def course_for(model: nn.Module, options: TrainingOptions) -> type[Course[Any]]:
    """The course for a model.

    Args:
        model: made by `create_model`.
        options: what it is to be trained with.

    Raises:
        InputError: for a model that no course is for, one without a name, or an option that its
            course does not look at.
    """
    for taken, course in _COURSES.items():
        if isinstance(model, taken):
            if not model.model_name:
                raise InputError("model: got one without a name, takes one that create_model made")
            _check_used(taken.__name__, course, options)
            return course
    known = " or ".join(taken.__name__ for taken in _COURSES)
    raise InputError(f"model: got a {type(model).__name__}, training takes a {known}")


def _check_used(name: str, course: type[Course[Any]], options: TrainingOptions) -> None:
    """Raise where an option was chosen that changes nothing for this model."""
    of_some = frozenset[str]().union(*(other.uses for other in _COURSES.values()))
    plain = TrainingOptions()
    for option in (field.name for field in fields(options) if field.name in of_some - course.uses):
        value, default = getattr(options, option), getattr(plain, option)
        if value != default:
            raise InputError(f"{option}: got {value!r}, {name} is trained with {default!r} only")
