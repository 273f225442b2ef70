"""Where the program speaks: a terminal with bars and colours, or plain lines in a log."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager

from rich.console import Console
from rich.progress import (
    BarColumn,
    Progress,
    TaskProgressColumn,
    TextColumn,
    TimeRemainingColumn,
)
from rich.table import Table
from rich.text import Text

console = Console(soft_wrap=True)
errors = Console(stderr=True, soft_wrap=True)


def say(text: str) -> None:
    """Print a sentence as it is: what stands in brackets or colons may be part of a file's name."""
    console.print(text, markup=False, highlight=False, emoji=False)


def complain(error: Exception | str) -> None:
    """Say in a sentence why a command cannot be carried out."""
    errors.print(f"sepfast: {error}", style="red", markup=False, highlight=False, emoji=False)


def show(header: Sequence[str], rows: Iterable[Sequence[str]]) -> None:
    """Print a table whose cells are as they are, like `say`'s sentences."""
    table = Table(*header)
    for row in rows:
        table.add_row(*map(Text, row))
    console.print(table)


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
        say(description)
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
