"""`python -m sepfast.bench`: verification, speed and, on a GPU, tuning, in ten minutes.

Pieces are taken in the order of their importance until the time is up, and the results so far are
written after each. Needs torch and numpy, and triton on a GPU.
"""

from __future__ import annotations

import argparse
import math
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import torch

from sepfast.bench.cases import suite
from sepfast.bench.run import Run, Settings
from sepfast.bench.systems import systems
from sepfast.errors import InputError

_EXAMPLE = "example: python -m sepfast.bench --only masked_istft --minutes 3 --out results.json"


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command.

    Args:
        arguments: of the command line; the process's own by default.

    Returns:
        0; 1 where something computes wrong numbers; 2 for arguments that it does not take.
    """
    begin = time.monotonic()
    try:
        settings = _settings(_parser().parse_args(arguments), begin)
    except InputError as error:
        print(error, file=sys.stderr)
        return 2
    return Run(settings).all()


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        "python -m sepfast.bench", description="Verify, time and tune.", epilog=_EXAMPLE
    )
    parser.add_argument("--out", type=Path, default=Path("sepfast-bench.json"), help="results")
    parser.add_argument("--minutes", type=float, default=10.0, help="time limit")
    parser.add_argument("--quick", action="store_true", help="few rounds, no tuning or compiling")
    parser.add_argument("--only", default="", help="what has a name that contains this")
    parser.add_argument("--device", default="", help="cpu or cuda; a GPU where there is one")
    return parser


def _settings(given: argparse.Namespace, begin: float) -> Settings:
    if not (given.minutes > 0 and math.isfinite(given.minutes)):
        raise InputError(f"--minutes: got {given.minutes}, takes a number above 0")
    if given.device not in ("", "cpu", "cuda"):
        raise InputError(f"--device: got {given.device!r}, takes cpu or cuda")
    if given.device == "cuda" and not torch.cuda.is_available():
        raise InputError("--device: got 'cuda', but PyTorch sees no GPU")
    names = [case.name for case in suite("full")] + [system.name for system in systems("full")]
    if not any(given.only in name for name in names):
        raise InputError(f"--only: got {given.only!r}, takes a part of {', '.join(names)}")
    device = given.device or ("cuda" if torch.cuda.is_available() else "cpu")
    return Settings(
        given.out, begin + 60 * given.minutes, given.quick, given.only, torch.device(device)
    )


if __name__ == "__main__":
    sys.exit(main())
