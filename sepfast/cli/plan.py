"""What `sepfast train` is to do: an experiment or a model, with what --set changes of it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sepfast.errors import InputError

if TYPE_CHECKING:
    from sepfast.experiments import Experiment
    from sepfast.training.options import TrainingOptions
    from sepfast.values import Taken

_MODEL = "deepconvsep-stereo"


@dataclass(frozen=True)
class Plan:
    """A run to be.

    Attributes:
        model: its name.
        model_options: what `create_model` is to be given.
        options: the choices of training.
        run: what else `train_folder` is to be given.
        experiment: what it is made from; None for the model as it is in its paper.
    """

    model: str
    model_options: Mapping[str, Any]
    options: TrainingOptions
    run: Mapping[str, Any]
    experiment: Experiment | None

    @property
    def text(self) -> str | None:
        """The experiment's file."""
        return None if self.experiment is None else self.experiment.text

    def check_needs(self, **given: Path | None) -> None:
        """Raise where something is not given that the experiment cannot do without.

        Raises:
            InputError: for a separator or extra songs that the experiment needs and that are
                missing; a mask model and what to begin with are for a second step alone.
        """
        if self.experiment is None:
            return
        for name, path in given.items():
            if path is None and name in self.experiment.needs:
                raise InputError(
                    f"{self.experiment.name}: got no {flag_of(name)}, takes "
                    f"{needed_in_words(name, self.experiment.needs[name])}"
                )

    def options_with(self, reading: str | None, **flags: Any) -> TrainingOptions:
        """The choices of training with those that flags make.

        Args:
            reading: of the loss; None for the plan's.
            flags: option -> value; None for the plan's.
        """
        if reading is not None:
            flags["loss"] = replace(self.options.loss, reading=reading)  # type: ignore[arg-type]
        return replace(self.options, **{name: v for name, v in flags.items() if v is not None})

    def folder(self) -> Path:
        """Where a run is kept that no folder was given for.

        Raises:
            InputError: for a run without an experiment, which has no name.
        """
        if self.experiment is None:
            raise InputError("-o: got no folder, takes one for the run")
        return Path("runs", self.experiment.name)

    def run_with(self, **flags: Any) -> dict[str, Any]:
        """What `train_folder` is to be given besides, where flags say it before all else."""
        return {**self.run, **{name: v for name, v in flags.items() if v is not None}}


def flag_of(name: str) -> str:
    """The flag by which something that an experiment needs is given."""
    return f"--{name.replace('_', '-')}"


def needed_in_words(name: str, what: str) -> str:
    """What is to be given by a flag: other data, or the best model of an experiment."""
    return f"a folder of {what}" if name == "extra" else f"the best model of {what}"


def plan_of(config: str | None, model: str | None, settings: Iterable[str]) -> Plan:
    """What is to be trained, and how.

    Args:
        config: an experiment's name, or the path of a file like theirs.
        model: a model's name; None for the experiment's, or system B's.
        settings: KEY=VALUE, each an option of the model, of training, of the loss or of the run.

    Raises:
        InputError: for an unknown experiment, model or KEY, or a VALUE that is not taken.
    """
    from sepfast.experiments import experiment
    from sepfast.training import defaults_for

    if config is None:
        name = model or _MODEL
        return _changed(Plan(name, {}, defaults_for(name), {}, None), settings)
    found = experiment(config)
    if model not in (None, found.model):
        raise InputError(f"--model: got {model}, {found.name} takes {found.model}")
    plan = Plan(found.model, found.model_options, found.options, found.run, found)
    return _changed(plan, settings)


def _changed(plan: Plan, settings: Iterable[str]) -> Plan:
    """A plan with settings. Where a model and training had one of a name, the model's is meant."""
    from sepfast.experiments import RUN, loss_options, options_of_model, trained, training_options
    from sepfast.values import check_names

    places: dict[str, Mapping[str, Taken]] = {
        "model": options_of_model(plan.model),
        "training": training_options(),
        "loss": loss_options(),
        "run": RUN,
    }
    known = {key: each for place in reversed(places.values()) for key, each in place.items()}
    changes: dict[str, dict[str, Any]] = {place: {} for place in places}
    for setting in settings:
        key, equals, text = setting.partition("=")
        if not equals:
            raise InputError(f"--set: got {setting!r}, takes KEY=VALUE")
        check_names("--set", [key], known)
        place = next(place for place, options in places.items() if key in options)
        changes[place][key] = known[key].parsed(f"--set {key}", text)
    loss = {"loss": changes["loss"]} if changes["loss"] else {}
    return replace(
        plan,
        model_options={**plan.model_options, **changes["model"]},
        options=trained("--set", plan.options, {**changes["training"], **loss}),
        run={**plan.run, **changes["run"]},
    )


def one_of(argument: Path | None, option: Path | None) -> Path:
    """The data, given as DATA or by --data.

    Raises:
        InputError: where both are given, or neither.
    """
    if argument is not None and option is not None:
        raise InputError(f"--data: got {option} beside {argument}, takes one of the two")
    found = argument or option
    if found is None:
        raise InputError("train: got no data, takes a folder as DATA or --data")
    return found


def epochs_of(text: str) -> tuple[int, ...]:
    """Milestones from text such as "60,120".

    Raises:
        InputError: for anything but whole numbers.
    """
    try:
        return tuple(int(epoch) for epoch in text.split(",")) if text else ()
    except ValueError:
        raise InputError(f"milestones: got {text!r}, takes epochs like 60,120") from None


def fraction_or_folder(text: str) -> float | Path:
    """What validation is: a number, or else a path."""
    try:
        return float(text)
    except ValueError:
        return Path(text)
