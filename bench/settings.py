"""What a run of the benchmarks is given."""

from __future__ import annotations

import math
import time
from dataclasses import dataclass
from pathlib import Path

import torch

from sepfast.bench.cases import suite
from sepfast.bench.systems import systems
from sepfast.errors import InputError

#: Where results go where nothing else is said.
OUT = Path("sepfast-bench.json")


@dataclass(frozen=True)
class Settings:
    """What the command was given.

    Attributes:
        out: the file of the results; tuned configurations go to `tuned/` beside it.
        stop: when the time is up, by `time.monotonic`.
        quick: few rounds, no tuning, nothing compiled.
        only: what a case's name must contain.
        device: where it runs.
        sweep: whether to time at several scales; a GPU does where time is left, whatever this says.
    """

    out: Path
    stop: float
    quick: bool
    only: str
    device: torch.device
    sweep: bool = False

    @property
    def on_gpu(self) -> bool:
        """Whether kernels can run."""
        return self.device.type == "cuda"

    def left(self) -> float:
        """Seconds until the time is up."""
        return self.stop - time.monotonic()


def settings(
    begin: float,
    *,
    out: Path = OUT,
    minutes: float = 10.0,
    quick: bool = False,
    only: str = "",
    device: str = "",
    sweep: bool = False,
) -> Settings:
    """What the command line says, verified.

    Args:
        begin: when the command began, by `time.monotonic`.
        out: the file of the results.
        minutes: the time limit.
        quick: as `Settings` has it; so are `only` and `sweep`.
        only: likewise.
        device: cpu or cuda; a GPU where there is one if empty.
        sweep: likewise.

    Raises:
        InputError: for what it does not take.
    """
    if not (minutes > 0 and math.isfinite(minutes)):
        raise InputError(f"--minutes: got {minutes}, takes a number above 0")
    if device not in ("", "cpu", "cuda"):
        raise InputError(f"--device: got {device!r}, takes cpu or cuda")
    if device == "cuda" and not torch.cuda.is_available():
        raise InputError("--device: got 'cuda', takes cpu, as PyTorch sees no GPU")
    if out.is_dir():
        raise InputError(f"--out: got {out}, which is a folder, takes the name of a file")
    names = [case.name for case in suite("full")] + [system.name for system in systems("full")]
    if not any(only in name for name in names):
        raise InputError(f"--only: got {only!r}, takes a part of {', '.join(names)}")
    device = device or ("cuda" if torch.cuda.is_available() else "cpu")
    return Settings(out, begin + 60 * minutes, quick, only, torch.device(device), sweep)
