"""`sepfast experiments`."""

from __future__ import annotations

from itertools import groupby
from typing import TYPE_CHECKING, Annotated

import typer
from rich.table import Table
from rich.text import Text

from sepfast.cli.console import bare_table, console, say
from sepfast.cli.plan import flag_of, needed_in_words

if TYPE_CHECKING:
    from sepfast.experiments import Experiment, Score


_BEST = "best.safetensors"


def experiments(
    name: Annotated[
        str | None,
        typer.Argument(metavar="NAME", help="An experiment, or a TOML file like theirs."),
    ] = None,
) -> None:
    """List the experiments of the papers, or show one: its file, and how it is run.

    sepfast train --config NAME trains one. Its file says under "assumed" what
    the paper leaves open. Scores are the papers' own, mean and deviation where
    there are two, and left out where a paper gives none as a number.

    [bold]Example[/bold]: sepfast experiments b-stereo
    """
    from sepfast.experiments import experiment, list_experiments

    if name is None:
        console.print(_listing([experiment(each) for each in list_experiments()]))
        return
    found = experiment(name)
    for line in (*found.text.splitlines(), "", *_how(found)):
        say(line)


def _listing(found: list[Experiment]) -> Table:
    """A row an experiment, those of a system and a data set together."""
    table = bare_table()
    table.add_column("experiment", no_wrap=True)
    table.add_column("what")
    table.add_column("published, dB", no_wrap=True)
    for (system, data), group in groupby(found, key=lambda each: (each.system, each.data)):
        rows = list(group)
        parts = (part for each in rows for part in each.published)
        table.add_row()
        table.add_row(
            Text(f"{system}: {data}", style="bold"), "", Text(next(parts, ""), style="bold")
        )
        for each in rows:
            table.add_row(each.name, each.title, _headline(each))
    return table


def _headline(found: Experiment) -> str:
    """The first score that the paper gives, and nothing where it gives none."""
    for metrics in found.published.values():
        metric, score = next(iter(metrics.items()))
        return f"{metric} {_shown(score)}"
    return ""


def _shown(score: Score) -> str:
    return f"{score[0]} ± {score[1]}" if isinstance(score, tuple) else str(score)


def _how(found: Experiment) -> list[str]:
    """The commands that it takes."""
    own = f"runs/{found.name}"
    lines = ["Run as"]
    needs = dict(found.needs)
    if needs.get("init") == found.name:
        first = f"{own}-first"
        lines += [*_command(found, [f"-o {first}"]), "and then"]
        flags = [f"--init {first}/{_BEST}"]
        del needs["init"]
    else:
        flags = []
    flags += [f"{flag_of(name)} {_value(name, what)}" for name, what in needs.items()]
    lines += _command(found, flags)
    lines += [f"where {_value(n, w)} is {needed_in_words(n, w)}" for n, w in needs.items()]
    return lines


def _command(found: Experiment, flags: list[str]) -> list[str]:
    """A command as lines, each flag beneath it."""
    parts = [f"  sepfast train --config {found.name} --data {found.data}"]
    parts += [f"      {flag}" for flag in flags]
    return [f"{part} \\" for part in parts[:-1]] + parts[-1:]


def _value(name: str, what: str) -> str:
    """What stands behind a flag."""
    return "MORE" if name == "extra" else f"runs/{what}/{_BEST}"
