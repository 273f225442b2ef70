"""Peak memory of a command of ours, in a process of its own; Linux."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

# VmHWM is of the program alone; `ru_maxrss` would still know the process that started it.
_PROGRAM = """
import re
from sepfast.cli import main
try:
    main()
finally:
    status = open("/proc/self/status").read()
    print("\\npeak", re.search(r"VmHWM:\\s+(\\d+) kB", status)[1])
"""


def peak_memory(*arguments: object, cwd: Path) -> float:
    """Run `sepfast` with some arguments and tell its peak resident memory, in MB."""
    command = [sys.executable, "-c", _PROGRAM, *map(str, arguments)]
    done = subprocess.run(command, cwd=cwd, capture_output=True, text=True, check=True)
    return int(done.stdout.rsplit("peak ", 1)[1]) / 1024
