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
    console.print(_table(header, rows, lambda row: None))


def show_columns(
    header: Sequence[str],
    rows: Sequence[Sequence[str]],
    style: Callable[[Sequence[str]], str | None] = lambda row: None,
) -> None:
    """Print a table on a terminal; in a log plain columns, in lines of any length.

    Args:
        header: of the columns.
        rows: their cells, as they are.
        style: of a row, on a terminal.
    """
    if console.is_terminal:
        console.print(_table(header, rows, style), soft_wrap=False)
        return
    for line in columns([header, *rows]):
        say(line)


def columns(rows: Sequence[Sequence[str]]) -> Iterator[str]:
    """Rows as lines, each column as wide as its widest cell."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for row in rows:
        cells = (cell.ljust(width) for cell, width in zip(row, widths, strict=True))
        yield "  ".join(cells).rstrip()


def bare_table() -> Table:
    """A table without lines, to be given its columns and rows."""
    return Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="bold")


def _table(
    header: Sequence[str],
    rows: Iterable[Sequence[str]],
    style: Callable[[Sequence[str]], str | None],
) -> Table:
    table = Table(*header)
    for row in rows:
        table.add_row(*map(Text, row), style=style(row))
    return table


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
