"""Kernels that the compile gate must refuse, each for a reason of its own.

Run as a program, in a process that does not interpret, it writes what the gate says of them.
"""

import os
import sys

import triton
import triton.language as tl

from sepfast.kernels.compile_check import check
from sepfast.kernels.compile_result import write_results
from sepfast.kernels.launch import Entry
from sepfast.kernels.targets import targets


@triton.jit
def spilling(x, SIZE: tl.constexpr):
    at = tl.arange(0, SIZE)
    values = tl.load(x + at)  # all of them are needed until their sum is known
    tl.store(x + at, values / tl.sum(values))


@triton.jit
def product(a, b, out, SIZE: tl.constexpr, INPUTS: tl.constexpr):
    at = tl.arange(0, SIZE)[:, None] * SIZE + tl.arange(0, SIZE)[None, :]
    tl.store(out + at, tl.dot(tl.load(a + at), tl.load(b + at), input_precision=INPUTS))


@triton.jit
def faulty(x, SIZE: tl.constexpr):
    tl.store(x + tl.arange(0, SIZE), 0)


class _Crash:
    """Takes down the process that would compile it."""

    __name__ = "crashing"
    cache_key = ""

    @property
    def arg_names(self):
        os._exit(1)


crashing = _Crash()


def entry(function, constants, *, pointers=("x",), dots=False, warps=8):
    signature = dict.fromkeys(pointers, "*fp32")
    options = {"num_warps": warps}
    return Entry(function.__name__, function, signature, constants, options, dots)


def product_entry(size, inputs):
    constants = {"SIZE": size, "INPUTS": inputs}
    return entry(product, constants, pointers=("a", "b", "out"), dots=True)


def main(path):
    entries = [
        entry(spilling, {"SIZE": 16384}, warps=1),
        product_entry(32, "tf32"),
        product_entry(16, "ieee"),
        product_entry(128, "tf32"),
        entry(faulty, {"SIZE": 3}),
        entry(faulty, {"LENGTH": 4}),
        entry(crashing, {}),
    ]
    results = check(entries, targets(["cuda:86"]), workers=2, cached=False)
    results += check(entries[:1], targets(["hip:gfx1100"]), workers=1, cached=False)
    write_results(path, results)


if __name__ == "__main__":
    main(sys.argv[1])
