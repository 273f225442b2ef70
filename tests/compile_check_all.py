"""All kernels for one target, but for those whose products are three of TF32 each.

Those take most of the time, and are in the table that `sepfast compile-check --update` makes. Run
as a program, in a process that does not interpret, it writes what the gate says.
"""

import sys

from sepfast.kernels import catalog
from sepfast.kernels.compile_check import check
from sepfast.kernels.compile_result import write_results
from sepfast.kernels.targets import targets

TARGET, LEFT_OUT = "cuda:90", "tf32x3"


def main(path):
    entries = [entry for entry in catalog() if entry.constants.get("PRECISION") != LEFT_OUT]
    write_results(path, check(entries, targets([TARGET])))


if __name__ == "__main__":
    main(sys.argv[1])
