"""A command that several processes carry out, and one of them speaks for."""

from __future__ import annotations

import functools
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

import typer

from sepfast.cli.console import complain, console
from sepfast.errors import InputError

if TYPE_CHECKING:
    from sepfast.training.processes import Processes


def one_voice(command: Callable[..., None]) -> Callable[..., None]:
    """A command that prints once, whichever of torchrun's processes has something to say.

    Args:
        command: with a `device` among its options, to be carried out by all of them.
    """

    @functools.wraps(command)
    def run(*args: object, **kwargs: object) -> None:
        if os.environ.get("WORLD_SIZE", "1") == "1":
            command(*args, **kwargs)
            return
        from sepfast.training.processes import Agreed, Lost, formed

        device = kwargs["device"]
        assert device is None or isinstance(device, str)
        try:
            with formed(device) as processes:
                console.quiet = not processes.first
                try:
                    with _agreed(processes):
                        command(*args, **kwargs)
                except Agreed as error:
                    if processes.first:
                        complain(error)
                    # torchrun ends all as soon as one has ended: not before it is said.
                    processes.agree(None)
                    raise typer.Exit(2) from error
        except (Lost, KeyboardInterrupt) as error:
            if os.environ.get("RANK", "0") == "0":
                raise
            raise typer.Exit(2 if isinstance(error, Lost) else 130) from None

    return run


@contextmanager
def _agreed(processes: Processes) -> Iterator[None]:
    """Have all know of an error from before they have begun to talk to each other."""
    try:
        yield
    except InputError as error:
        if not processes.begun:
            processes.agree(error)
        raise
