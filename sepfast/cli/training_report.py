"""How far a training run is, on a terminal or in a log."""

from __future__ import annotations

from typing import TYPE_CHECKING, Self

from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TaskID,
    TextColumn,
    TimeRemainingColumn,
)

from sepfast.cli.console import console, say

if TYPE_CHECKING:
    from sepfast.training.history import Epoch, Task

_TASKS = {
    "songs": "Opening songs",
    "fragments": "Cutting songs",
    "utterances": "Reading talkers",
    "speakers": "Measuring speakers",
    "recordings": "Reading recordings",
    "statistics": "Measuring levels",
    "training": "Training",
}


def shown() -> _Bars | _Lines:
    """A report to the terminal or the log, for a `with` block."""
    return _Bars() if console.is_terminal else _Lines()


class _Lines:
    """A report for a log: a line when a task begins, and one for each epoch."""

    def __init__(self) -> None:
        self.task: Task | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        """Nothing is left open."""

    def note(self, text: str) -> None:
        """Print a sentence."""
        say(text)

    def progress(self, task: Task, done: int, total: int) -> None:
        """Print a task's name when it begins."""
        if task != self.task:
            self.task = task
            self.note(_TASKS[task])

    def epoch(self, epoch: Epoch, best: bool) -> None:
        """Print an epoch's losses."""
        rate, seconds = f"learning rate {epoch.learning_rate:g}", f"{epoch.seconds:.1f} s"
        mark = ", best so far" if best else ""
        self.note(f"epoch {epoch.epoch}: {losses(epoch)}, {rate}, {seconds}{mark}")


class _Bars:
    """A report for a terminal: a bar for each task, the last epoch's losses beside it."""

    def __init__(self) -> None:
        self.bars = Progress(
            TextColumn("{task.description}", markup=False),
            BarColumn(),
            MofNCompleteColumn(),
            TimeRemainingColumn(),
            TextColumn("{task.fields[losses]}", markup=False),
            console=console,
        )
        self.tasks: dict[Task, TaskID] = {}

    def __enter__(self) -> Self:
        self.bars.start()
        return self

    def __exit__(self, *exc: object) -> None:
        self.bars.stop()

    def note(self, text: str) -> None:
        """Print a sentence above the bars."""
        say(text)

    def progress(self, task: Task, done: int, total: int) -> None:
        """Move a task's bar."""
        if task not in self.tasks:
            self.tasks[task] = self.bars.add_task(_TASKS[task], losses="")
        self.bars.update(self.tasks[task], completed=done, total=total)

    def epoch(self, epoch: Epoch, best: bool) -> None:
        """Show an epoch's losses."""
        self.bars.update(self.tasks["training"], losses=f"epoch {epoch.epoch}: {losses(epoch)}")


def losses(epoch: Epoch) -> str:
    """An epoch's losses in words."""
    text = f"training loss {epoch.training_loss:.5g}"
    if epoch.validation_loss is None:
        return text
    return f"{text}, validation loss {epoch.validation_loss:.5g}"
