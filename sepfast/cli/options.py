"""Options that several commands share."""

from __future__ import annotations

from typing import Annotated

import typer

Device = Annotated[
    str | None, typer.Option(help="cpu, cuda, cuda:1 … (default: a GPU where there is one)")
]
