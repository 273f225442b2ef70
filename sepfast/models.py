"""Every model by its name, with the options that the papers give it."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any

from sepfast.errors import InputError
from sepfast.reference import (
    UDT,
    VL2M,
    AVConcat,
    AVConcatRef,
    DeepConvSep,
    Denoiser,
    DenoisingVAE,
    Informed,
    Model,
    VL2MRef,
)

#: Name -> (class, the options in which it differs from the class's defaults).
_MODELS: dict[str, tuple[Callable[..., Model], dict[str, Any]]] = {
    "deepconvsep": (DeepConvSep, {"channels": 1, "context": 25, "scale_factor": 0.3}),
    "deepconvsep-stereo": (DeepConvSep, {"channels": 2, "context": 30}),
    "denoiser": (Denoiser, {}),
    "informed": (Informed, {}),
    "vl2m": (VL2M, {}),
    "vl2m-ref": (VL2MRef, {}),
    "av-concat": (AVConcat, {}),
    "av-concat-ref": (AVConcatRef, {}),
    "udt": (UDT, {}),
    "denoising-vae": (DenoisingVAE, {}),
}


def list_models() -> list[str]:
    """Names that `create_model` takes."""
    return list(_MODELS)


def create_model(name: str, **options: Any) -> Model:
    """Build a model, with fresh weights.

    Args:
        name: one of `list_models()`.
        **options: what is to differ from the paper; `model_options(name)` lists them.

    Returns:
        The model. Its `model_name` and `model_options` are what `save` writes down.

    Raises:
        InputError: for an unknown name or option, or a value that the model cannot take.

    Example:
        >>> model = create_model("deepconvsep", context=30, tied=True)
        >>> model.context
        30
    """
    known = model_options(name)
    unknown = sorted(set(options) - set(known))
    if unknown:
        raise InputError(f"{name}: got option {unknown[0]!r}, takes {', '.join(known)}")
    build, paper = _MODELS[name]
    model = build(**{**paper, **options})
    model.model_name, model.model_options = name, options
    return model


def model_options(name: str) -> dict[str, Any]:
    """The options of a model and their default values.

    Raises:
        InputError: for an unknown name.
    """
    if name not in _MODELS:
        raise InputError(f"model: got {name!r}, takes one of {', '.join(_MODELS)}")
    build, paper = _MODELS[name]
    parameters = inspect.signature(build).parameters.values()
    return {p.name: paper.get(p.name, p.default) for p in parameters}


def option_types(name: str) -> dict[str, Any]:
    """The options of a model and their types, as its class writes them.

    Raises:
        InputError: for an unknown name.
    """
    model_options(name)
    parameters = inspect.signature(_MODELS[name][0], eval_str=True).parameters.values()
    return {p.name: p.annotation for p in parameters}
