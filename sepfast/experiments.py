"""The experiments of the papers: a TOML file each, in `configs/`, from a name to a training run.

name, title, system, paper, data    what it is, in words
assumed         a sentence for each value that the paper leaves open or that cannot be read
[model]         name, and options of `create_model`
[training]      `TrainingOptions`, where they are not the paper's of the model; [training.loss]
                the weights and the reading of DeepConvSep's loss
[run]           what else `train_folder` takes: see `RUN`
[needs]         init, mask_model, separator: the experiment whose best model is to be given;
                extra: what other data
[published]     [published.PART]: metric -> the paper's score in dB, or points of PESQ and
                ViSQOL, or [mean, standard deviation]
"""

from __future__ import annotations

import math
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cache
from importlib.resources import files
from pathlib import Path
from typing import Any, get_type_hints

import torch

from sepfast.errors import InputError
from sepfast.files import PathLike
from sepfast.models import create_model, list_models, option_types
from sepfast.reference import FRAMINGS, LossWeights
from sepfast.reference.informed import SIDE_KINDS
from sepfast.training.courses import course_for
from sepfast.training.options import TrainingOptions, defaults_for, option_range
from sepfast.values import Taken, check_names, fitted, nearest, taken

#: A score, or its mean and standard deviation.
Score = float | tuple[float, float]

_TEXT = Taken(str)
_WORDS = dict.fromkeys(("name", "title", "system", "paper", "data"), _TEXT)
_TABLES = ("model", "training", "run", "needs", "published")

#: What `train_folder` is given beside a model and its `TrainingOptions`, and what each takes.
RUN: Mapping[str, Taken] = {
    "validation": Taken(float, 0, 0.9),
    "test": Taken(float, 0, 0.9),
    "validate_on_test": Taken(bool),
    "split": Taken(str, words=("speakers", "utterances")),
    "test_talkers": Taken(int, 2),
    "video_rate": Taken(float, 1),
    "source": _TEXT,
}

#: What is given by a flag of `sepfast train`, each a file but for `extra`, a folder.
NEEDS: Mapping[str, Taken] = dict.fromkeys(("init", "mask_model", "separator", "extra"), _TEXT)

#: Least, and most, of the models' options that are numbers; 0 stands for a default in some.
_SPANS = {
    **dict.fromkeys(("f1", "t2", "pool", "layers", "mask_layers"), (0, math.inf)),
    **dict.fromkeys(("scale_factor", "power"), (0.0, math.inf)),
    **dict.fromkeys(("reconstruction", "consistency", "latent"), (0.0, math.inf)),
    "dropout": (0.0, 1.0),
}
_CHOICES = {"framing": tuple(FRAMINGS), "side": tuple(SIDE_KINDS)}


@dataclass(frozen=True)
class Experiment:
    """An experiment of a paper.

    Attributes:
        name: what `sepfast train --config` calls it.
        title: what sets it apart, in a line.
        system: "A" to "E".
        paper: which, and where in it.
        data: the data set.
        model: a name that `create_model` takes.
        model_options: what it is to be given.
        options: the choices of training.
        run: names of `RUN` -> what `train_folder` is to be given besides.
        needs: names of `NEEDS` -> the experiment whose best model it is, or other data in words.
        published: part -> metric -> the paper's score.
        assumed: a sentence for each value that is not the paper's.
        text: the file, to be kept with a run.
    """

    name: str
    title: str
    system: str
    paper: str
    data: str
    model: str
    model_options: Mapping[str, Any]
    options: TrainingOptions
    run: Mapping[str, Any]
    needs: Mapping[str, str]
    published: Mapping[str, Mapping[str, Score]]
    assumed: tuple[str, ...]
    text: str


def list_experiments() -> list[str]:
    """Names that `experiment` takes, sorted.

    Example:
        >>> list_experiments()[0]
        'a-1'
    """
    entries = files("sepfast.configs").iterdir()
    return sorted(e.name.removesuffix(".toml") for e in entries if e.name.endswith(".toml"))


def experiment(name_or_path: PathLike) -> Experiment:
    """An experiment, read and checked.

    Args:
        name_or_path: one of `list_experiments()`, or the path of a TOML file like theirs, such as
            the `experiment.toml` of a run.

    Raises:
        InputError: for an unknown experiment, a file that is no TOML, an unknown name or a value
            that is not taken, with the nearest one.

    Example:
        >>> experiment("a-4").options.batch_size
        128
    """
    known, path = list_experiments(), Path(name_or_path)
    if str(name_or_path) in known:
        text = (files("sepfast.configs") / f"{name_or_path}.toml").read_text("utf-8")
        return parse_experiment(text, f"{name_or_path}.toml")
    if path.suffix != ".toml" and not path.is_file():
        near = nearest(str(name_or_path), known)
        hint = f"; the nearest is {near!r}" if near else ""
        raise InputError(
            f"experiment: got {str(name_or_path)!r}, takes one that `sepfast experiments` lists, "
            f"or a TOML file like theirs{hint}"
        )
    try:
        return parse_experiment(path.read_text("utf-8"), str(path))
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror})") from error
    except UnicodeDecodeError as error:
        raise InputError(f"{path}: is no text in UTF-8") from error


def parse_experiment(text: str, where: str) -> Experiment:
    """An experiment from the text of its file.

    Args:
        text: TOML.
        where: what an error is to begin with.

    Raises:
        InputError: as `experiment` does.
    """
    try:
        table = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise InputError(f"{where}: is no TOML ({error})") from error
    check_names(where, table, (*_WORDS, "assumed", *_TABLES))
    for name in (*_WORDS, "model"):
        if name not in table:
            raise InputError(f"{where}: has no {name}, takes {', '.join((*_WORDS, 'model'))}")
    for name in _TABLES:
        if not isinstance(table.get(name, {}), dict):
            raise InputError(f"{where}: {name} is {table[name]!r}, takes a table, [{name}]")
    words = fitted(where, {name: table[name] for name in _WORDS}, _WORDS)
    model, model_options = _model(f"{where}, [model]", table["model"])
    options = trained(f"{where}, [training]", defaults_for(model), table.get("training", {}))
    _check_whole(where, model, model_options, options)
    return Experiment(
        **words,
        model=model,
        model_options=model_options,
        options=options,
        run=fitted(f"{where}, [run]", table.get("run", {}), RUN),
        needs=fitted(f"{where}, [needs]", table.get("needs", {}), NEEDS),
        published=_published(where, table.get("published", {})),
        assumed=Taken(str, many=True).fitted(f"{where}, assumed", table.get("assumed", [])),
        text=text,
    )


def trained(where: str, options: TrainingOptions, given: Mapping[str, Any]) -> TrainingOptions:
    """Training options with some of them changed.

    Args:
        where: what an error is to begin with.
        options: what they are to differ from.
        given: name -> value, as TOML has it; `loss` is a table of `LossWeights`' own.

    Raises:
        InputError: for an unknown name or a value that is not taken, with the nearest one.
    """
    plain = {name: value for name, value in given.items() if name != "loss"}
    changed = fitted(where, plain, training_options())
    if not isinstance(given.get("loss", {}), Mapping):
        raise InputError(f"{where}, loss: got {given['loss']!r}, takes a table, [training.loss]")
    weights = fitted(f"{where}, loss", given.get("loss", {}), loss_options())
    try:
        return replace(options, **changed, loss=replace(options.loss, **weights))
    except InputError as error:
        raise InputError(f"{where}, {error}") from error


@cache
def training_options() -> Mapping[str, Taken]:
    """The names of `TrainingOptions` but for `loss`, and what each takes."""
    hints = get_type_hints(TrainingOptions)
    return {n: taken(hint, *option_range(n)) for n, hint in hints.items() if n != "loss"}


@cache
def loss_options() -> Mapping[str, Taken]:
    """The names of `LossWeights`, and what each takes."""
    return {name: taken(hint) for name, hint in get_type_hints(LossWeights).items()}


@cache
def options_of_model(name: str) -> Mapping[str, Taken]:
    """The options of a model but for what a run gives it, and what each takes."""
    known = {}
    for option, hint in option_types(name).items():
        if option in NEEDS or option in RUN:
            continue
        each = taken(hint)
        if each.kind in (int, float) and not each.many:
            each = taken(hint, *_SPANS.get(option, (1, math.inf)))
        known[option] = replace(each, words=_CHOICES.get(option, each.words))
    return known


def _model(where: str, table: Mapping[str, Any]) -> tuple[str, dict[str, Any]]:
    """A model's name and its options."""
    name = Taken(str, words=tuple(list_models())).fitted(f"{where}, name", table.get("name"))
    given = {option: value for option, value in table.items() if option != "name"}
    return name, fitted(where, given, options_of_model(name))


def _check_whole(
    where: str, model: str, model_options: Mapping[str, Any], options: TrainingOptions
) -> None:
    """Raise for options that are right each by itself, and do not go together."""
    at = "[model]"
    try:
        with torch.device("meta"):
            made = create_model(model, **model_options)
        at = "[training]"
        course_for(made, options)
    except InputError as error:
        raise InputError(f"{where}, {at}, {error}") from error


def _published(where: str, table: Mapping[str, Any]) -> dict[str, dict[str, Score]]:
    """The scores of each part."""
    scores: dict[str, dict[str, Score]] = {}
    for part, metrics in table.items():
        if not isinstance(metrics, dict):
            raise InputError(f"{where}, [published]: got {part!r}, takes [published.{part}]")
        scores[part] = {
            metric: _score(f"{where}, [published.{part}], {metric}", score)
            for metric, score in metrics.items()
        }
    return scores


def _score(where: str, value: Any) -> Score:
    number = Taken(float)
    if not isinstance(value, list):
        return float(number.fitted(where, value))
    if len(value) != 2:
        raise InputError(f"{where}: got {value!r}, takes a score, or [mean, standard deviation]")
    mean, deviation = (number.fitted(where, each) for each in value)
    return mean, deviation
