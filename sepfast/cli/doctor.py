"""`sepfast doctor`."""

from __future__ import annotations

import json as json_format
from collections.abc import Iterator
from typing import TYPE_CHECKING, Annotated

import typer

from sepfast.cli.console import columns, say
from sepfast.cli.options import Device

if TYPE_CHECKING:
    from sepfast.doctor import Examination
    from sepfast.selfcheck import Check


def doctor(
    interpret: Annotated[
        bool,
        typer.Option("--interpret", help="Run the kernels too, without a GPU, in some seconds."),
    ] = False,
    json: Annotated[bool, typer.Option("--json", help="Print all of it as JSON.")] = False,
    device: Device = None,
) -> None:
    """Show what sepfast runs on, which operators run kernels and why others do not.

    Every operator is run on a tiny input and held to float64. Fails, with exit code 1, where one
    is wrong. What is printed is made for a bug report: it has neither your name nor your folders.

    [bold]Example[/bold]: sepfast doctor --interpret
    """
    from sepfast.device import pick_device
    from sepfast.doctor import examine
    from sepfast.surroundings import anonymous

    found = examine(pick_device(device), interpret=interpret)
    if json:
        typer.echo(json_format.dumps(found.as_json(), indent=1))
    else:
        for line in _lines(found):
            say(anonymous(line))
    if not found.passed:
        raise typer.Exit(1)


def _lines(found: Examination) -> Iterator[str]:
    yield from _about(found)
    yield ""
    yield from _tuned(found)
    yield ""
    yield from _operators(found.checks)
    yield ""
    for finding in found.findings:
        yield f"- {finding.what} {finding.advice}"
    failed = sum(not check.passed for check in found.checks)
    yield f"{len(found.checks)} checks, {failed} failed"


def _about(found: Examination) -> Iterator[str]:
    """Name and value, line by line."""
    settings, system = found.settings, found.system
    versions = {name: value or "missing" for name, value in found.versions.items()}
    yield _pair("versions", ", ".join(f"{name} {value}" for name, value in versions.items()))
    there = (f"{each.name} {each.version}" for each in found.packages if each.version)
    yield _pair("packages", ", ".join(there))
    for each in found.packages:
        if not each.version:
            yield _pair("missing", f"{each.name}, for {each.needed_for}")
    yield _pair("system", system["system"])
    yield _pair("CPU", f"{system['processor']}, {system['cores']} cores, "
                f"PyTorch's threads {system['threads']}")  # fmt: skip
    for gpu in found.gpus:
        size = f"{gpu.memory_bytes / 2**30:.1f} GiB"
        driver = f", driver {system['driver']}" if system["driver"] else ""
        yield _pair("GPU", f"{gpu.name}, {gpu.architecture}, {size}{driver}")
    if not found.gpus:
        yield _pair("GPU", "none")
    yield _pair("settings", f"device {settings['device']}, precision {settings['precision']}, "
                f"backend {settings['backend']}, "
                f"Triton's interpreter {'on' if settings['interpreter'] else 'off'}")  # fmt: skip
    for language, path in found.compilers.items():
        yield _pair(f"{language} compiler", path or "none")
    for cache in found.caches:
        writable = "" if cache.writable else ", cannot be written"
        size = f"{cache.size_bytes / 2**20:.1f} MiB"
        yield _pair("cache", f"{cache.of}: {cache.path}, {size}{writable}")


def _pair(name: str, value: str) -> str:
    return f"{name:14}{value}"


def _tuned(found: Examination) -> Iterator[str]:
    """How many kernels are tuned; by name where there are GPUs."""
    for architecture, kinds in found.tuned.items():
        counts = {kind: len(names) for kind, names in kinds.items()}
        yield _pair(
            architecture, f"{counts['own']} kernels have configurations of its own, "
            f"{counts['general']} general ones, {counts['none']} none",
        )  # fmt: skip
        for kind, names in kinds.items():
            if found.gpus and names:
                yield _pair(f"  {kind}", ", ".join(each.removeprefix("sepfast_") for each in names))


def _operators(checks: list[Check]) -> Iterator[str]:
    """A table; reasons are written once, below."""
    heading = ("operator", "place", "runs", "error", "of", "gradients", "of", "check")
    yield from columns([heading, *map(_row, checks)])
    reasons: dict[tuple[str, str], list[str]] = {}
    for check in checks:
        reasons.setdefault((check.place, check.why_not), []).append(check.operator)
    for (place, reason), names in reasons.items():
        whole = len(names) == sum(check.place == place for check in checks)
        if reason:
            yield f"PyTorch runs on {place}, {reason}: {'all' if whole else ', '.join(names)}"


def _row(check: Check) -> tuple[str, ...]:
    errors = (check.error, check.gradient_error)
    error, gradient = ("-" if each is None else f"{each:.1e}" for each in errors)
    bounds = f"{check.bound:.0e}", f"{check.gradient_bound:.0e}"
    verdict = "passes" if check.passed else "FAILS"
    return (check.operator, check.place, check.runs, error, bounds[0], gradient, bounds[1], verdict)
