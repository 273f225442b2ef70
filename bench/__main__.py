"""`python -m sepfast.bench`: verification, speed and, on a GPU, tuning, in ten minutes.

Pieces are taken in the order of their importance until the time is up, and the results so far are
written after each. Needs torch and numpy, and triton on a GPU; `sepfast bench` is the same, and
compares and draws results, too.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from sepfast.bench.run import Run
from sepfast.bench.settings import OUT, settings
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
        chosen = settings(begin, **vars(_parser().parse_args(arguments)))
        return Run(chosen).all()
    except InputError as error:
        print(error, file=sys.stderr)
        return 2


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        "python -m sepfast.bench", description="Verify, time and tune.", epilog=_EXAMPLE
    )
    parser.add_argument("--out", type=Path, default=OUT, help="results")
    parser.add_argument("--minutes", type=float, default=10.0, help="time limit")
    parser.add_argument("--quick", action="store_true", help="few rounds, no tuning or compiling")
    parser.add_argument("--only", default="", help="what has a name that contains this")
    parser.add_argument("--device", default="", help="cpu or cuda; a GPU where there is one")
    parser.add_argument("--sweep", action="store_true", help="at several scales, too")
    return parser


if __name__ == "__main__":
    sys.exit(main())
