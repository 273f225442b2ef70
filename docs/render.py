"""Fill the tables of the documentation from their data; `--check` only says which are stale.

    python docs/render.py [--check]

A page has a table between `<!-- rendered: WHAT ARGUMENT -->` and `<!-- /rendered -->`, each on a
line of its own. WHAT is one of

    accuracy OPERATOR   bounds of `sepfast/ops/accuracy.py` and the largest errors measured
    compiled OPERATOR   what `kernels/compiled.json` has of the kernels that it runs
    work OPERATOR       bytes and operations of its benchmark cases, by the work model
    measured OPERATOR   its rows of the results in `bench/results`
    glance all          a line for each operator and kind of system of these results

and ARGUMENT an operator, or "all" for the first two.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Sequence
from pathlib import Path

from render_tables import TABLES, Data

from sepfast.bench.results import read_report
from sepfast.errors import InputError
from sepfast.files import atomic
from sepfast.kernels.compile_result import TABLE, read_results
from sepfast.ops.accuracy import ACCURACY

DOCS = Path(__file__).resolve().parent
RESULTS = DOCS.parent / "bench" / "results"

_BEGIN, _END, _CLOSE = "<!-- rendered: ", " -->", "<!-- /rendered -->"


def read_data(table: Path = TABLE, results: Path = RESULTS) -> Data:
    """Read what the tables are made from.

    Args:
        table: of the compile gate.
        results: a folder of results files.

    Raises:
        InputError: for a results file that is not one.
    """
    return Data(
        *read_results(table), [read_report(path) for path in sorted(results.glob("*.json"))]
    )


def rendered(page: str, data: Data) -> str:
    """A page with its tables filled in.

    Raises:
        InputError: for a block that has no end, or that nothing can be rendered for.
    """
    lines: list[str] = []
    block = fence = ""
    for number, line in enumerate(page.splitlines(), 1):
        fence = _fence_behind(line, fence)
        if block and line.startswith(_BEGIN):
            break
        if block and line == _CLOSE:
            lines += ["", *_table(block, number, data), "", line]
            block = ""
        elif not block:
            lines.append(line)
        if not fence and line.startswith(_BEGIN) and line.endswith(_END):
            block = line.removeprefix(_BEGIN).removesuffix(_END)
    if block:
        raise InputError(f"rendered: {block} has no end, takes {_CLOSE} on a line of its own")
    return "\n".join(lines) + "\n"


def _fence_behind(line: str, fence: str) -> str:
    """The fence that a line leaves open, empty for none; longer ones hold shorter ones."""
    found = re.match(r"`{3,}", line.strip())
    if not found:
        return fence
    closes = fence and line.strip() == found[0] and len(found[0]) >= len(fence)
    return "" if closes else fence or found[0]


def _table(block: str, number: int, data: Data) -> list[str]:
    what, _, argument = block.partition(" ")
    known = set() if what == "glance" else set(ACCURACY)
    known |= {"all"} if what in ("accuracy", "compiled", "glance") else set()
    if what not in TABLES or argument not in known:
        raise InputError(f"line {number}: got 'rendered: {block}', takes {', '.join(TABLES)}, "
                         "each with an operator")  # fmt: skip
    return list(TABLES[what](argument, data))


def stale(docs: Path, data: Data, *, write: bool = False) -> list[Path]:
    """The pages whose tables are not what the data says; written where asked for.

    They are those of the folder, and the README beside it.

    Raises:
        InputError: for a page that cannot be rendered, which it names.
    """
    found = []
    beside = docs.parent / "README.md"
    for path in [*sorted(docs.rglob("*.md")), *[beside] * beside.is_file()]:
        page = path.read_text(encoding="utf-8")
        try:
            fresh = rendered(page, data)
        except InputError as error:
            raise InputError(f"{path.relative_to(docs.parent)}: {error}") from error
        if fresh != page:
            found.append(path)
            if write:
                with atomic(path) as temporary:
                    temporary.write_text(fresh, encoding="utf-8")
    return found


def main(arguments: Sequence[str]) -> int:
    """Render, or check: 1 where a page is stale, 2 where one cannot be rendered."""
    if list(arguments) not in ([], ["--check"]):
        print(f"got {' '.join(arguments)}, takes --check or nothing", file=sys.stderr)
        return 2
    check = bool(arguments)
    try:
        pages = stale(DOCS, read_data(), write=not check)
    except InputError as error:
        print(error, file=sys.stderr)
        return 2
    for page in pages:
        what = "stale, takes python docs/render.py" if check else "rendered"
        print(f"{page.relative_to(DOCS.parent)}: {what}")
    return 1 if check and pages else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
