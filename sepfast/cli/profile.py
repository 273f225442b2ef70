"""`sepfast profile`."""

from __future__ import annotations

import shlex
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.table import Table
from rich.text import Text

from sepfast.cli.console import bare_table, console, say
from sepfast.cli.options import Device
from sepfast.cli.plan import Plan, plan_of
from sepfast.cli.training_report import shown
from sepfast.errors import InputError

if TYPE_CHECKING:
    from sepfast.profiling import Profile, Row

#: Functions of PyTorch that are shown; the file has more.
_FUNCTIONS = 15
_BAR = 20
_TOOLS = (
    "the same steps on a GPU, as a timeline in Nsight Systems:",
    "the kernels of one in Nsight Compute; an operator's name in place of step shows its own:",
)


def profile(
    config: Annotated[
        str,
        typer.Argument(
            metavar="CONFIG",
            help="An experiment of a paper, see `sepfast experiments`, or a TOML file like theirs.",
        ),
    ],
    data: Annotated[
        Path | None,
        typer.Option(metavar="PATH", help="As of `sepfast train`. (default: made-up recordings)"),
    ] = None,
    settings: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="KEY=VALUE", help="As of `sepfast train`."),
    ] = None,
    steps: Annotated[
        int | None, typer.Option(help="Steps that are timed. (default: 3 on a CPU, 10 on a GPU)")
    ] = None,
    warm: Annotated[
        int | None, typer.Option(help="Steps before. (default: 1 on a CPU, 5 on a GPU)")
    ] = None,
    batch_size: Annotated[
        int | None,
        typer.Option(help="Examples a step. (default: the experiment's, on a CPU fewer)"),
    ] = None,
    fuse: Annotated[
        bool,
        typer.Option("--fuse/--no-fuse", help="Whether layers run as fused operators."),
    ] = True,
    device: Device = None,
    output: Annotated[
        Path | None,
        typer.Option(
            "-o", "--output", metavar="DIR", help="A new folder. (default: profile-CONFIG)"
        ),
    ] = None,
    ranges_only: Annotated[
        bool,
        typer.Option(
            "--ranges-only",
            help="Take the steps with their ranges, and write nothing: for Nsight, see below.",
        ),
    ] = False,
) -> None:
    """Take some steps of a training run, and show where their time goes.

    It needs no data: recordings are made up where none are given. What is shown is each operator's
    share of the steps, forward and backward, and PyTorch's own functions. DIR/trace.json is a trace
    for ui.perfetto.dev, DIR/functions.txt PyTorch's table, and DIR/summary.json all of it.

    [bold]Example[/bold]: sepfast profile b-stereo

    The two last lines are the commands by which Nsight Systems and Nsight Compute look at the same
    steps. They know the ranges of the steps by their names: step, data, forward, backward,
    optimiser, and those of the operators.

    [bold]Example[/bold]: sepfast profile c-m1 --steps 20 --set cuda_graph=true -o captured
    """
    if ranges_only and output is not None:
        raise InputError(f"-o: got {output} beside --ranges-only, takes one of them")
    plan = plan_of(config, None, settings or [])
    assert plan.experiment is not None
    folder = output or Path(f"profile-{plan.experiment.name}")
    given = _arguments(config, data, settings or [], warm, batch_size, device, fuse=fuse)
    commands = _commands(given, steps, folder)
    found = _profiled(
        plan,
        None if ranges_only else folder,
        data=data,
        steps=steps,
        warm=warm,
        device=device,
        fused=fuse,
        batch_size=batch_size,
        commands=commands,
    )
    if found is not None:
        _show(found, folder)
        _show_commands(commands)


def _profiled(plan: Plan, output: Path | None, **choices: Any) -> Profile | None:
    from sepfast.profiling import Subject, profile

    assert plan.experiment is not None
    name = plan.experiment.name
    subject = Subject(name, plan.model, plan.model_options, plan.options, plan.run)
    with shown() as report:
        return profile(subject, output, report=report, **choices)


def _arguments(
    config: str,
    data: Path | None,
    settings: Sequence[str],
    warm: int | None,
    batch_size: int | None,
    device: str | None,
    *,
    fuse: bool,
) -> list[str]:
    """What is to be given to do the same again, but for the steps."""
    given = ["profile", config]
    for flag, value in (
        ("--data", data), *(("--set", setting) for setting in settings),
        ("--warm", warm), ("--batch-size", batch_size), ("--device", device),
    ):  # fmt: skip
        given += [] if value is None else [flag, str(value)]
    return given if fuse else [*given, "--no-fuse"]


def _commands(given: Sequence[str], steps: int | None, folder: Path) -> list[str]:
    """Nsight Systems sees all steps; Nsight Compute runs a kernel tens of times, and sees one."""
    from sepfast.profiling.commands import ncu_command, nsys_command

    counted = [*given, *([] if steps is None else ["--steps", str(steps)])]
    return [nsys_command(counted, folder), ncu_command([*given, "--steps", "1"], folder)]


def _show(found: Profile, folder: Path) -> None:
    """What was seen, the most important first."""
    examples = f"{found.batch_size} example{'s' * (found.batch_size > 1)}"
    say(f"{found.name}: a step of {found.model} with {examples} takes {found.seconds:.3g} s")
    say(f"on {found.device}, where operators ran {found.path}")
    if not found.device_rows:
        warning = "fused kernels do not run on a CPU: these shares are no measure of a GPU's"
        console.print(warning, style="yellow", highlight=False)
    for note in found.notes:
        say(note)
    console.print()
    console.print(_shares(found), soft_wrap=False)
    if found.busy is not None:
        say(f"the GPU had a kernel to run in {found.busy:.0%} of the time")
    console.print()
    console.print(_functions(found), soft_wrap=False)
    console.print()
    say(f"{folder}: trace.json for ui.perfetto.dev, functions.txt, summary.json")


def _shares(found: Profile) -> Table:
    """The shares of phases, and beneath each of its operators and of what is outside of them."""
    on_gpu = bool(found.device_rows)
    table = bare_table()
    table.add_column("share of a step", no_wrap=True, min_width=30)
    table.add_column("GPU" if on_gpu else "time", justify="right")
    table.add_column("", no_wrap=True, width=_BAR)
    if on_gpu:
        table.add_column("host", justify="right")
    table.add_column("calls", justify="right")
    host, device = ({_place(row): row for row in rows} for rows in (found.rows, found.device_rows))
    first = device if on_gpu else host
    places = [*host, *(place for place in device if place not in host)]
    for phase in dict.fromkeys(place[0] for place in places):
        inside = [place for place in places if place[0] == phase]
        inside.sort(key=lambda place: (not place[1], -_share(first, [place])))
        plain = inside == [(phase, "")]
        table.add_row(Text(phase, style="bold"), *_cells(found, first, host, inside, plain))
        for place in () if plain else inside:
            name = place[1] or "outside of operators"
            table.add_row(f"  {name}", *_cells(found, first, host, [place], True))
    return table


def _place(row: Row) -> tuple[str, str]:
    return row.phase, row.operator


def _share(rows: Mapping[tuple[str, str], Row], places: Sequence[tuple[str, str]]) -> float:
    return sum(rows[place].share for place in places if place in rows)


def _cells(
    found: Profile,
    first: Mapping[tuple[str, str], Row],
    host: Mapping[tuple[str, str], Row],
    places: Sequence[tuple[str, str]],
    alone: bool,
) -> list[str]:
    """Behind a name: the share, a bar, on a GPU the host's share, and of one row its calls."""
    share = _share(first, places)
    cells = [f"{share:.1%}", "█" * round(share * _BAR)]
    if found.device_rows:
        cells.append(f"{_share(host, places):.1%}")
    calls = host[places[0]].calls if alone and places[0] in host else 0.0
    return [*cells, f"{calls:g}" if places[0][1] and calls else ""]


def _functions(found: Profile) -> Table:
    """PyTorch's functions that take most by themselves."""
    table = bare_table()
    table.add_column("PyTorch's functions", no_wrap=True, min_width=30, max_width=60)
    table.add_column("GPU" if found.device_rows else "time", justify="right")
    table.add_column("calls", justify="right")
    for function in found.functions[:_FUNCTIONS]:
        table.add_row(Text(function.name), f"{function.share:.1%}", f"{function.calls}")
    return table


def _show_commands(commands: Sequence[str]) -> None:
    """Nsight's, in lines that can be copied together."""
    for what, command in zip(_TOOLS, commands, strict=True):
        console.print()
        say(what)
        lines = [""]
        for word in map(shlex.quote, shlex.split(command)):
            if lines[-1] and len(lines[-1]) + len(word) > console.width - 6:
                lines.append("")
            lines[-1] += f" {word}" if lines[-1] else word
        say("  " + " \\\n    ".join(lines))
