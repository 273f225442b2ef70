"""`sepfast compile-check`."""

from __future__ import annotations

import importlib.util
import os
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from sepfast.cli.console import bar, console, errors, say, show_columns
from sepfast.errors import InputError

if TYPE_CHECKING:
    from sepfast.kernels.compile_result import Result
    from sepfast.kernels.launch import Entry

_HEADER = (
    "kernel", "constants", "target", "registers", "shared", "spills", "tensor", "16 B", "verdict",
)  # fmt: skip


def compile_check(
    target: Annotated[
        list[str] | None,
        typer.Option(help="cuda:90, hip:gfx942 … Can be given several times. (default: all)"),
    ] = None,
    kernel: Annotated[
        list[str] | None,
        typer.Option(metavar="NAME", help="Can be given several times. (default: all)"),
    ] = None,
    json: Annotated[
        Path | None, typer.Option(metavar="PATH", help="A file to write the results to.")
    ] = None,
    jobs: Annotated[
        int | None,
        typer.Option(metavar="N", help="Kernels to compile at a time. (default: one a core)"),
    ] = None,
    no_cache: Annotated[
        bool, typer.Option("--no-cache", help="Compile what was compiled before, too.")
    ] = False,
    update: Annotated[
        bool,
        typer.Option("--update", help="Rewrite the table that is checked in, if nothing fails."),
    ] = False,
) -> None:
    """Compile every kernel for every GPU it is shipped for; this needs no GPU.

    Fails, with exit code 1, where a kernel does not compile, spills registers, takes more shared
    memory than there is, or multiplies matrices without tensor cores.

    [bold]Example[/bold]: sepfast compile-check --target cuda:90 --target hip:gfx942
    """
    from sepfast.kernels.targets import targets

    if update and (target or kernel):
        raise InputError("--update: got --target or --kernel besides, takes a run of everything")
    if jobs is not None and jobs < 1:
        raise InputError(f"--jobs: got {jobs}, takes 1 or more")
    on = targets(target or ())
    entries = _entries(kernel or [])

    from sepfast.kernels.compile_check import check
    from sepfast.kernels.compile_result import TABLE, write_results

    with bar(f"compiling {len(entries)} configurations for {len(on)} targets") as progress:
        results = check(entries, on, workers=jobs, cached=not no_cache, progress=_noted(progress))
    show_columns(_HEADER, [_row(result) for result in results])
    if json is not None:
        write_results(json, results)
    problems = [problem for result in results for problem in result.problems()]
    for problem in problems:
        errors.print(problem, style="red", markup=False, highlight=False, emoji=False)
    failed = sum(bool(result.faults()) for result in results)
    say(f"{len(results)} compiled, {failed} failed")
    if problems:
        raise typer.Exit(1)
    if update:
        write_results(TABLE, results)
        say(f"{TABLE}: written")


def _entries(names: list[str]) -> list[Entry]:
    """The catalog, or those of its kernels that are named."""
    from sepfast.kernels import catalog

    if importlib.util.find_spec("triton") is None:
        raise InputError("compile-check: takes Triton, which is not installed")
    os.environ.pop("TRITON_INTERPRET", None)  # Triton, when imported, is to compile
    entries = catalog()
    known = sorted({entry.kernel for entry in entries})
    for name in names:
        if name not in known:
            raise InputError(f"--kernel: got {name!r}, takes {', '.join(known)}")
    return [entry for entry in entries if not names or entry.kernel in names]


def _noted(progress: Callable[[float, float | None], None]) -> Callable[..., None]:
    """Progress that says now and then how far it is in a log, too; all of it takes long."""

    def note(done: int, total: int) -> None:
        progress(done, total)
        if done and done % 100 == 0 and not console.is_terminal:
            say(f"{done} of {total}")

    return note


def _row(result: Result) -> tuple[str, ...]:
    counts = (result.registers, result.shared, result.spills, result.tensor)
    wide = f"{result.wide}/{result.accesses}"
    verdict = "fails" if result.faults() else "passes"
    name = result.kernel.removeprefix("sepfast_")
    return name, result.configuration(), result.target, *map(str, counts), wide, verdict
