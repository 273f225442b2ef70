"""What a compiled kernel needs and does, read from what the disassemblers print."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass


@dataclass(frozen=True)
class MachineCode:
    """Counts of one kernel.

    Attributes:
        registers: of a thread; on AMD vector registers.
        stack: bytes of a thread in local memory (AMD: scratch).
        spills: instructions that reach local memory (AMD: registers spilled).
        tensor: tensor-core instructions.
        accesses: instructions that reach global memory.
        wide: those of them that move 16 bytes a thread.
    """

    registers: int
    stack: int
    spills: int
    tensor: int
    accesses: int
    wide: int


# "/*0780*/   @!P0 LDG.E.128 R4, ..." -> "LDG.E.128"; what follows in comments is the encoding.
_SASS = re.compile(r"^\s*/\*[0-9a-f]{4,}\*/\s+(?:@!?\w+\s+)?([A-Z]\w*(?:\.\w+)*)", re.MULTILINE)
# "\tglobal_load_dwordx4 v[0:3], ..." -> "global_load_dwordx4"; directives begin with a point.
_GCN = re.compile(r"^\s+([a-z]\w*)\b", re.MULTILINE)


def read_cuda(disassembly: str) -> MachineCode:
    """Counts from `cuobjdump --dump-resource-usage -sass` of a cubin with one kernel.

    Raises:
        ValueError: where the text is no such dump.
    """
    usage = re.search(r"REG:(\d+) STACK:(\d+)", disassembly)
    if usage is None:
        raise ValueError("cuobjdump printed no resource usage")
    operations = _SASS.findall(disassembly)
    accesses = _matching(r"LDG|STG|LDGSTS", operations)
    return MachineCode(
        registers=int(usage[1]),
        stack=int(usage[2]),
        spills=len(_matching(r"LDL|STL", operations)),
        # HMMA on Ampere, Ada and RTX 50, HGMMA on Hopper, UTCHMMA on B200.
        tensor=len(_matching(r"[A-Z]G?MMA|UTC\w*MMA", operations)),
        accesses=len(accesses),
        wide=sum(".128" in operation for operation in accesses),
    )


def read_amd(assembly: str) -> MachineCode:
    """Counts from AMD assembly with one kernel, as Triton keeps it.

    Raises:
        ValueError: where the text has no such kernel.
    """
    operations = _GCN.findall(assembly)
    accesses = _matching(r"(?:global|buffer|flat)_(?:load|store)_\w+", operations)
    return MachineCode(
        registers=_metadata(assembly, "vgpr_count"),
        stack=_metadata(assembly, "private_segment_fixed_size"),
        spills=_metadata(assembly, "vgpr_spill_count") + _metadata(assembly, "sgpr_spill_count"),
        tensor=len(_matching(r"v_s?(?:mfma|wmma)c?_\w+", operations)),
        accesses=len(accesses),
        wide=sum(operation.endswith(("x4", "b128")) for operation in accesses),
    )


def _matching(pattern: str, operations: Iterable[str]) -> list[str]:
    """Operations whose name before the first point is the pattern."""
    return [o for o in operations if re.fullmatch(pattern, o.partition(".")[0])]


def _metadata(assembly: str, name: str) -> int:
    found = re.search(rf"^[\s-]*\.{name}:\s*(\d+)", assembly, re.MULTILINE)
    if found is None:
        raise ValueError(f"the assembly does not give {name}")
    return int(found[1])
