"""What came of compiling a kernel for a target, its verdict, and the table of all of them."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from sepfast.files import PathLike, atomic
from sepfast.kernels._catalog import identity
from sepfast.kernels.targets import TARGETS, targets

#: The table that is checked in, of all kernels on all targets.
TABLE = Path(__file__).parent / "compiled.json"


@dataclass(frozen=True)
class Result:
    """One kernel in one configuration on one target.

    Attributes:
        kernel: its name.
        target: the target's name.
        constants: compile-time argument -> value.
        options: num_warps and num_stages.
        dots: whether it multiplies matrices.
        registers: of a thread; on AMD vector registers.
        shared: bytes of shared memory of a block.
        stack: bytes of a thread in local memory (AMD: scratch).
        spills: instructions that reach local memory (AMD: registers spilled).
        tensor: tensor-core instructions.
        accesses: instructions that reach global memory.
        wide: those of them that move 16 bytes a thread.
        error: the first line of why it does not compile, empty where it does.
    """

    kernel: str
    target: str
    constants: Mapping[str, Any]
    options: Mapping[str, int]
    dots: bool
    registers: int
    shared: int
    stack: int
    spills: int
    tensor: int
    accesses: int
    wide: int
    error: str = ""

    def order(self) -> tuple[str, str, int]:
        """Sorts by kernel, constants and options; targets in the order of `TARGETS`."""
        at = [target.name for target in TARGETS].index(self.target)
        return self.kernel, identity(self.constants, self.options), at

    def configuration(self) -> str:
        """Constants and options in short, `BLOCK=512 SOURCES=4 num_warps=4`."""
        pairs = [*sorted(self.constants.items()), *sorted(self.options.items())]
        return " ".join(f"{name}={value}" for name, value in pairs)

    def faults(self) -> list[str]:
        """What is wrong with it, in a few words each; empty where it passes."""
        if self.error:
            return [f"does not compile: {self.error}"]
        faults = []
        if self.spills:
            what = "instructions that reach local memory"
            faults.append(f"spills registers ({self.spills} {what})")
        if self.stack:
            faults.append(f"keeps {self.stack} bytes a thread in local memory, not in registers")
        (target,) = targets([self.target])
        if self.shared > target.shared_limit:
            faults.append(f"takes {self.shared} bytes of shared memory of {target.shared_limit}")
        if self.dots and not self.tensor and self.constants.get("PRECISION") != "ieee":
            faults.append("multiplies matrices without tensor cores")
        return faults

    def problems(self) -> list[str]:
        """Its faults as sentences that say of what."""
        about = f"{self.kernel} ({self.configuration()}) on {self.target}"
        return [f"{about}: {fault}" for fault in self.faults()]


def write_results(path: PathLike, results: Iterable[Result]) -> None:
    """Write results as JSON, one to a line, with the version of Triton and all problems.

    Raises:
        InputError: where the file cannot be written.
    """
    import triton

    results = sorted(results, key=Result.order)
    problems = [problem for result in results for problem in result.problems()]
    head = f'"triton": {json.dumps(triton.__version__)},\n"problems": {json.dumps(problems)}'
    rows = ",\n".join(json.dumps(asdict(result)) for result in results)
    with atomic(path) as temporary:
        temporary.write_text(f'{{\n{head},\n"rows": [\n{rows}\n]\n}}\n')


def read_results(path: PathLike) -> tuple[str, list[Result]]:
    """The version of Triton and the results of a file that `write_results` wrote."""
    found = json.loads(Path(path).read_text())
    return found["triton"], [Result(**row) for row in found["rows"]]
