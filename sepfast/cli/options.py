"""Options that several commands share."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

Device = Annotated[
    str | None, typer.Option(help="cpu, cuda, cuda:1 … (default: a GPU where there is one)")
]

Denoisers = Annotated[
    list[Path] | None,
    typer.Option(
        "--denoise",
        metavar="FILE",
        help="A denoiser of a source, made by train -m denoiser; once for each source.",
    ),
]
