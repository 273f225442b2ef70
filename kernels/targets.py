"""The GPUs that every kernel is compiled for, on a machine that need not have one."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from sepfast.errors import InputError
from sepfast.kernels.precision import on_target


@dataclass(frozen=True)
class Target:
    """A GPU architecture as compilers know it.

    Attributes:
        backend: "cuda" or "hip".
        arch: compute capability, 90 for 9.0, or AMD's name, "gfx942".
        warp_size: threads of a warp.
        shared_limit: bytes of shared memory that a block can have.
    """

    backend: str
    arch: int | str
    warp_size: int
    shared_limit: int

    @property
    def name(self) -> str:
        """`cuda:90`, `hip:gfx942`."""
        return f"{self.backend}:{self.arch}"

    @property
    def precisions(self) -> frozenset[str]:
        """What kernels are given as PRECISION on this target."""
        return frozenset(on_target(self.backend, str(self.arch)).values())

    def takes(self, constants: Mapping[str, Any], device: str = "any") -> bool:
        """Whether a kernel with these constants, shipped for a device, is ever launched on it."""
        if device not in ("any", self.backend, self.name):
            return False
        return "PRECISION" not in constants or constants["PRECISION"] in self.precisions

    def for_triton(self) -> Any:
        """The same as Triton's `GPUTarget`."""
        from triton.backends.compiler import GPUTarget

        return GPUTarget(self.backend, self.arch, self.warp_size)


_KB = 1024
TARGETS = (
    Target("cuda", 80, 32, 163 * _KB),  # A100
    Target("cuda", 86, 32, 99 * _KB),  # RTX 30, A10
    Target("cuda", 89, 32, 99 * _KB),  # RTX 40, L40
    Target("cuda", 90, 32, 227 * _KB),  # H100, H200
    Target("cuda", 100, 32, 227 * _KB),  # B200
    Target("cuda", 120, 32, 99 * _KB),  # RTX 50
    Target("hip", "gfx942", 64, 64 * _KB),  # MI300
    Target("hip", "gfx1100", 32, 64 * _KB),  # RX 7900
)


def targets(names: Iterable[str] = ()) -> list[Target]:
    """The targets of these names, in the order of `TARGETS`; all of them for none.

    Raises:
        InputError: for a name that no target has.
    """
    wanted, known = set(names), {target.name: target for target in TARGETS}
    for name in sorted(wanted - known.keys()):
        raise InputError(f"target: got {name!r}, takes {', '.join(known)}")
    return [target for target in TARGETS if not wanted or target.name in wanted]
