"""The folder of a training run: what it holds, and how a run goes on from it.

    last.pt             everything that the next epoch needs, written behind each epoch
    best.safetensors    the model of the best epoch; `sepfast.load` reads it
    log.csv             one row an epoch
    epochs/             the models of some epochs, the newest few; likewise
    run.json            what it was made with, see `sepfast.training.record`
    validation/         what it sounds like, see `sepfast.training.listening`
    tensorboard/        events, see `sepfast.training.board`

Each file is replaced in one step and `last.pt` comes last, so that an interruption at any moment
leaves a run that goes on from its last whole epoch.
"""

from __future__ import annotations

import io
import pickle
import re
import zipfile
from collections.abc import Mapping
from itertools import zip_longest
from pathlib import Path
from types import MappingProxyType
from typing import Any

import torch

from sepfast.checkpoint import save
from sepfast.errors import InputError
from sepfast.files import PathLike, atomic
from sepfast.reference import Model
from sepfast.training.history import Epoch, History
from sepfast.training.update import Update

_FORMAT = "sepfast-run"
_FILES = ("last.pt", "best.safetensors", "log.csv")
_EPOCH = re.compile(r"epoch-(\d{4,})\.safetensors")


def check_unused(path: PathLike) -> None:
    """Raise `InputError` where a folder holds a run already, which is never overwritten."""
    found = [Path(path) / name for name in _FILES if (Path(path) / name).exists()]
    if found:
        raise InputError(f"{found[0]}: is of a run already; resume it or take another folder")


class RunFolder:
    """A folder with one run in it.

    Args:
        path: the folder, made with the first file.
        identity: what makes the run this one and no other, by the words for a person; values
            in plain types. A run is not resumed with another.
        unsaid: what an identity that leaves a name out means by it.
        every: epochs from one model in `epochs` to the next; 0 for none.
        keep: how many of these are kept, the newest.
    """

    def __init__(
        self,
        path: PathLike,
        identity: dict[str, Any],
        unsaid: Mapping[str, Any] = MappingProxyType({}),
        every: int = 0,
        keep: int = 1,
    ) -> None:
        self.identity, self.unsaid = identity, unsaid
        self.every, self.keep = every, keep
        self.last, self.best, self.log = (Path(path) / name for name in _FILES)
        others = ("epochs", "run.json", "validation", "tensorboard")
        self.epochs, self.record, self.validation, self.tensorboard = (
            Path(path) / name for name in others
        )

    def save(self, model: Model, update: Update, history: History) -> None:
        """Write what stands after an epoch, or before the first.

        Args:
            model: made by `create_model`.
            update: of its parameters.
            history: the epochs so far.

        Raises:
            InputError: for a file that cannot be written; `last.pt` is as it was.
        """
        if history.epochs and history.best == history.epochs[-1]:
            save(model, self.best)
        if self.every and history.epochs and len(history.epochs) % self.every == 0:
            self._keep(model, len(history.epochs))
        if history.epochs:  # a run is one from `last.pt` on, and nothing is to be there before
            history.write_csv(self.log)
        state = {
            "format": _FORMAT,
            "identity": self.identity,
            "epochs": [vars(epoch) for epoch in history.epochs],
            "model": model.state_dict(),
            **update.state(),
        }
        # PyTorch's own writer has no word for a disk that is full.
        written = io.BytesIO()
        torch.save(state, written)
        with atomic(self.last) as temporary:
            temporary.write_bytes(written.getbuffer())

    def _keep(self, model: Model, epoch: int) -> None:
        """Keep an epoch's model, and of those kept before as many of the newest as are to be."""
        save(model, self.epochs / f"epoch-{epoch:04d}.safetensors")
        kept = {int(m[1]): f for f in self.epochs.iterdir() if (m := _EPOCH.fullmatch(f.name))}
        for older in sorted(kept)[: -self.keep]:
            kept[older].unlink()

    def restore(self, model: Model, update: Update) -> History:
        """Take a model and its optimizer to where the run stopped.

        Args:
            model: as it was made for the run.
            update: likewise.

        Returns:
            The epochs so far.

        Raises:
            InputError: where there is no checkpoint, a broken one, or that of another run.
        """
        state = self._read()
        self._check_identity(state["identity"])
        try:
            model.load_state_dict(state["model"])
            update.restore(state)
            return History([Epoch(**epoch) for epoch in state["epochs"]])
        except (KeyError, TypeError, ValueError, AttributeError, RuntimeError) as error:
            raise InputError(f"{self.last}: is broken, its state does not fit the run") from error

    def sweep(self) -> None:
        """Remove what a process that was killed has left half-written."""
        for folder in (self.last.parent, self.epochs, *self.validation.glob("epoch-*")):
            for left in folder.glob(".sepfast-*"):  # as `atomic` calls them
                left.unlink(missing_ok=True)

    def _read(self) -> dict[str, Any]:
        """The checkpoint; nothing but numbers and words is ever unpickled."""
        if not self.last.is_file():
            raise InputError(f"{self.last}: there is no such file, and so no run to resume")
        broken = InputError(f"{self.last}: is broken, or no checkpoint of sepfast")
        try:
            with zipfile.ZipFile(self.last) as archive:
                if archive.testzip():  # torch.load does not look at the checksums
                    raise broken
            state = torch.load(self.last, map_location="cpu", weights_only=True)
        except (zipfile.BadZipFile, RuntimeError, EOFError, pickle.UnpicklingError) as error:
            raise broken from error
        if not isinstance(state, dict) or state.get("format") != _FORMAT:
            raise broken
        if not isinstance(state.get("identity"), dict):
            raise broken
        return state

    def _check_identity(self, earlier: dict[str, Any]) -> None:
        for name in {**earlier, **self.identity}:
            before, now = (
                said.get(name, self.unsaid.get(name)) for said in (earlier, self.identity)
            )
            if before != now:
                there, here = _difference(before, now)
                raise InputError(
                    f"{self.last}: is of another run, {name} is {there!r} there and {here!r} here"
                )


def _difference(there: Any, here: Any) -> tuple[Any, Any]:
    """Two values, or of two lists the first entries that differ."""
    if not isinstance(there, list) or not isinstance(here, list):
        return there, here
    return next(pair for pair in zip_longest(there, here) if pair[0] != pair[1])
