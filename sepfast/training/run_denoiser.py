"""What a denoiser learns from: a trained separator, and one of its sources."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from sepfast.checkpoint import load
from sepfast.errors import InputError
from sepfast.files import PathLike
from sepfast.reference import DeepConvSep, Denoiser, Model


@dataclass(frozen=True)
class Estimates:
    """What a separator makes of a source.

    Attributes:
        separator: trained.
        source: one of its sources.
    """

    separator: DeepConvSep
    source: str

    @property
    def sizes(self) -> dict[str, int]:
        """The options that a denoiser of them has."""
        return {"channels": self.separator.channels, "bins": self.separator.framing.bins}

    def attach_to(self, model: Model) -> None:
        """Tell a denoiser that it is to learn from them."""
        assert isinstance(model, Denoiser)  # the only one that `estimates_of` gives any
        model.attach(self.separator, self.source)


def estimates_of(
    name: str, options: Mapping[str, Any], separator: PathLike | None, source: str | None
) -> Estimates | None:
    """The estimates that a model learns from; None for one that learns from none.

    Args:
        name: the model's.
        options: what `create_model` is to be given.
        separator: a saved DeepConvSep.
        source: one of its sources.

    Raises:
        InputError: where one of the two is missing, given to no avail, or does not fit.
    """
    given = {"separator": separator, "source": source}
    if name != "denoiser":
        for argument, value in given.items():
            if value is not None:
                raise InputError(f"{argument}: got {value}, {name} takes none")
        return None
    for argument in given:
        if options.get(argument):
            raise InputError(f"model_options: got {argument}, takes it as the run's own")
    if separator is None or source is None:
        missing = "separator" if separator is None else "source"
        raise InputError(
            f"{missing}: got None, a denoiser learns what a trained separator makes of a source"
        )
    model = load(separator)
    if not isinstance(model, DeepConvSep):
        raise InputError(
            f"separator: got {model.model_name} in {separator}, takes deepconvsep or "
            "deepconvsep-stereo"
        )
    if source not in model.sources:
        raise InputError(f"source: got {source!r}, {separator} has {', '.join(model.sources)}")
    return Estimates(model, source)
