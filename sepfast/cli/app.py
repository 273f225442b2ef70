"""The program `sepfast`: its commands, and what it does when one cannot be carried out."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable

import typer

from sepfast.cli.bench import bench
from sepfast.cli.compare import compare
from sepfast.cli.compile_check import compile_check
from sepfast.cli.console import complain, errors
from sepfast.cli.demo import demo
from sepfast.cli.doctor import doctor
from sepfast.cli.enhance import enhance
from sepfast.cli.evaluate import evaluate
from sepfast.cli.experiments import experiments
from sepfast.cli.export import export
from sepfast.cli.fuse_report import fuse_report
from sepfast.cli.importing import importing
from sepfast.cli.landmarks import landmarks
from sepfast.cli.models import models
from sepfast.cli.profile import profile
from sepfast.cli.separate import separate
from sepfast.cli.train import train
from sepfast.errors import InputError

_COMMANDS: dict[str, Callable[..., None]] = {
    "demo": demo,
    "separate": separate,
    "enhance": enhance,
    "train": train,
    "experiments": experiments,
    "evaluate": evaluate,
    "compare": compare,
    "landmarks": landmarks,
    "models": models,
    "bench": bench,
    "fuse-report": fuse_report,
    "export": export,
    "profile": profile,
    "compile-check": compile_check,
    "doctor": doctor,
}


def main() -> None:
    """Run the program: exit 0 when done, 2 for what cannot be used, 130 for Ctrl-C."""
    _app()()


def _app() -> typer.Typer:
    app = typer.Typer(
        help="Separate recordings into their sources, and train the models that do it.",
        no_args_is_help=True,
        add_completion=False,
        pretty_exceptions_enable=False,
        rich_markup_mode="rich",
        context_settings={"help_option_names": ["-h", "--help"]},
    )
    for name, command in _COMMANDS.items():
        app.command(name)(_reported(command))
    app.add_typer(importing(_reported), name="import")
    return app


def _reported(command: Callable[..., None]) -> Callable[..., None]:
    """A command that says in one sentence why it cannot be carried out."""

    @functools.wraps(command)
    def run(*args: object, **kwargs: object) -> None:
        try:
            command(*args, **kwargs)
        except InputError as error:
            complain(error)
            raise typer.Exit(2) from error
        except KeyboardInterrupt:
            errors.print("sepfast: interrupted; nothing half-written is left", highlight=False)
            raise typer.Exit(130) from None

    run.__doc__ = _flowing(command.__doc__ or "")
    return run


def _flowing(text: str) -> str:
    """A docstring with a line for each paragraph, which the terminal then breaks at its width."""
    paragraphs = inspect.cleandoc(text).split("\n\n")
    return "\n\n".join(paragraph.replace("\n", " ") for paragraph in paragraphs)
