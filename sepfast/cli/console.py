"""Where the program speaks: a terminal with bars and colours, or plain lines in a log."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import (
    BarColumn,
    Progress,
    TaskProgressColumn,
    TextColumn,
    TimeRemainingColumn,
)

console = Console(soft_wrap=True)
errors = Console(stderr=True, soft_wrap=True)


def complain(error: Exception) -> None:
    """Say in a sentence why a command cannot be carried out."""
    errors.print(f"sepfast: {error}", style="red", markup=False, highlight=False)


@contextmanager
def bar(
    description: str, *, plain: bool = False
) -> Iterator[Callable[[float, float | None], None]]:
    """A progress bar on a terminal; in a log, one line when the work begins.

    Args:
        description: what is being done.
        plain: the line on a terminal too, as where several processes share it.

    Yields:
        A function of what is done and what there is in all, None where that is not known.
    """
    if plain or not console.is_terminal:
        console.print(description, markup=False, highlight=False)
        yield lambda done, total: None
        return
    columns = (
        TextColumn("{task.description}", markup=False),
        BarColumn(),
        TaskProgressColumn(),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=console) as progress:
        task = progress.add_task(description, total=None)
        yield lambda done, total: progress.update(task, completed=done, total=total)
