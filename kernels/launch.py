"""The one way from Python to a kernel: where it runs, what it is given, what it may write."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import torch
import triton
from torch import Tensor

from sepfast.kernels.tuning import Config, lookup, shipped

#: What of a configuration is Triton's.
_OPTIONS = ("num_warps", "num_stages")


@dataclass(frozen=True)
class Entry:
    """A kernel in one shipped configuration: all that compiling it takes.

    Attributes:
        kernel: its name, `sepfast_<op>_<stage>`.
        function: the Triton function.
        signature: run-time argument -> Triton type.
        constants: compile-time argument -> value, of which "PRECISION" limits the targets.
        options: num_warps and num_stages.
        dots: whether it multiplies matrices, and tensor-core instructions are expected.
        device: the target that it is shipped for, or "any".
    """

    kernel: str
    function: Any
    signature: Mapping[str, str]
    constants: Mapping[str, Any]
    options: Mapping[str, int]
    dots: bool
    device: str = "any"


@dataclass(frozen=True)
class Kernel:
    """A Triton function and what is needed to launch it, or to compile it without a GPU.

    Attributes:
        function: the Triton function.
        signature: run-time argument -> Triton type, in order.
        variants: takes the key of a tuned configuration and gives sets of compile-time arguments
            that together reach every branch; the compile gate takes each.
        dots: whether it multiplies matrices.
    """

    function: Any
    signature: Mapping[str, str]
    variants: Callable[..., Iterable[Mapping[str, Any]]]
    dots: bool = False

    @property
    def name(self) -> str:
        """`sepfast_<op>_<stage>`."""
        return self.function.__name__

    def config(self, device: torch.device, **key: Any) -> Config:
        """The tuned configuration nearest to a key, for a device."""
        return lookup(self.name, device, **key)

    def launch(self, programs: int, *args: Any, config: Config, **constants: Any) -> None:
        """Run `programs` programs on the device of the first argument, unless there are none."""
        if programs == 0:
            return
        with torch.cuda.device_of(args[0]):
            self.function[(programs,)](*args, **constants, **self._taken(config))

    def entries(self) -> Iterator[Entry]:
        """Every variant in every configuration that is shipped for it."""
        for device, key, config in shipped(self.name):
            blocks = self._taken(config)
            options = {k: blocks.pop(k) for k in _OPTIONS if k in blocks}
            for variant in self.variants(**key):
                yield Entry(
                    self.name,
                    self.function,
                    self.signature,
                    {**variant, **blocks},
                    options,
                    self.dots,
                    device,
                )

    def _taken(self, config: Config) -> dict[str, int]:
        """What of a configuration the kernel is given; the rest was for its launcher."""
        names = {*self.function.arg_names, *_OPTIONS}
        return {name: value for name, value in config.items() if name in names}


def signature(pointers: str, numbers: Iterable[str], floats: str = "") -> dict[str, str]:
    """Run-time arguments with their Triton types, in order; words are separated by blanks."""
    return {
        **dict.fromkeys(pointers.split(), "*fp32"),
        **dict.fromkeys(numbers, "i32"),
        **dict.fromkeys(floats.split(), "fp32"),
    }


def empty(shape: Sequence[int], like: Tensor, dtype: torch.dtype | None = None) -> Tensor:
    """Memory for a result, not yet written; all results come from here."""
    return torch.empty(*shape, dtype=dtype or like.dtype, device=like.device)


@lru_cache(maxsize=64)
def processors(device: torch.device) -> int:
    """Multiprocessors of a device; 1 for the interpreter's."""
    if device.type != "cuda":
        return 1
    return torch.cuda.get_device_properties(device).multi_processor_count


def blocks(length: int, block: int) -> int:
    """Blocks that cover a length."""
    return triton.cdiv(length, block)


def shares(length: int, block: int, programs: int, device: torch.device) -> tuple[int, int]:
    """How a sum is shared by more programs than there are results, where these are too few.

    Args:
        length: terms of the sum; none are one share of none.
        block: terms that a program takes at a time.
        programs: programs where each has a whole sum.
        device: where they run.

    Returns:
        Shares, for about two programs to every processor, and the terms of each, whole blocks.
    """
    wanted = max(1, 2 * processors(device) // max(1, programs))
    share = blocks(blocks(length, block), wanted) * block
    return (blocks(length, share) if length else 1), max(share, block)
