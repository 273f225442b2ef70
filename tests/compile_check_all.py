"""Every kernel for one target, in the first and the last of its configurations.

All of them would take most of the tests' time; they are in the table that `sepfast compile-check
--update` makes. Of products that are three of TF32 each none is compiled here. Run as a program, in
a process that does not interpret, it writes what the gate says.
"""

import sys

from sepfast.kernels import catalog
from sepfast.kernels.compile_check import check
from sepfast.kernels.compile_result import write_results
from sepfast.kernels.targets import targets

TARGET, LEFT_OUT = "cuda:90", "tf32x3"


def main(path):
    quick = [entry for entry in catalog() if entry.constants.get("PRECISION") != LEFT_OUT]
    ends = {each.kernel: each for each in reversed(quick)}, {each.kernel: each for each in quick}
    entries = list({id(each): each for end in ends for each in end.values()}.values())
    write_results(path, check(entries, targets([TARGET])))


if __name__ == "__main__":
    main(sys.argv[1])
