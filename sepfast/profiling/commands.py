"""The command lines by which Nsight looks at a run.

The two have a range's domain on different sides: Nsight Systems takes range@domain, Nsight Compute
domain@range, with / behind it for a range that is pushed and popped. Both take a range of no domain
by its name. The ranges begin behind the warm-up, so that a range is one of the steps asked for.
Sources: the guides of Nsight Systems, "CLI profile command switch options", and of Nsight Compute's
command line, "NVTX filtering".
"""

from __future__ import annotations

import shlex
import shutil
import sys
from collections.abc import Sequence
from pathlib import Path

from sepfast.ops.ranges import DOMAIN, has_domain, prefixed

#: What a run under Nsight leaves out: two cannot trace a GPU at once.
QUIET = "--ranges-only"


def nsys_command(arguments: Sequence[str], folder: Path) -> str:
    """Nsight Systems, a timeline: from the first step that is not of the warm-up to the end.

    Args:
        arguments: of `sepfast`.
        folder: where the report is to be.
    """
    wanted = f"step@{DOMAIN}" if has_domain() else prefixed("step")
    # Strings that are not registered with NVTX, as PyTorch's, open no capture without the variable.
    parts = [
        "nsys", "profile", "--trace=cuda,nvtx,cudnn,cublas", "--sample=none", "--cpuctxsw=none",
        "--capture-range=nvtx", f"--nvtx-capture={wanted}", "--capture-range-end=none",
        "--env-var=NSYS_NVTX_PROFILER_REGISTER_ONLY=0", f"--output={folder / 'nsys'}",
        *_program(), *arguments, QUIET,
    ]  # fmt: skip
    return shlex.join(parts)


def ncu_command(arguments: Sequence[str], folder: Path, name: str = "step") -> str:
    """Nsight Compute, each kernel's counters: those that are launched inside a range.

    Args:
        arguments: of `sepfast`.
        folder: where the report is to be.
        name: of the range, such as an operator.
    """
    wanted = f"{DOMAIN}@{name}/" if has_domain() else f"{prefixed(name)}/"
    parts = [
        "ncu", "--nvtx", "--nvtx-include", wanted, "--set", "basic",
        "--export", str(folder / f"ncu-{name}"), *_program(), *arguments, QUIET,
    ]  # fmt: skip
    return shlex.join(parts)


def _program() -> list[str]:
    """How this program is called here."""
    return ["sepfast"] if shutil.which("sepfast") else [sys.executable, "-m", "sepfast"]
