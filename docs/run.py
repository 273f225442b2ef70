"""Run the Python blocks of a page, one behind the other, as the tests do.

    python docs/run.py docs/speed-up-your-model.md

The blocks of a page share their names. A block is left out where the line before it is
`<!-- not run: reason -->`, or names a file in bold, which is what the block is of. Comments right
below a `print` are what it prints. Files that a page writes go to a folder that is gone afterwards.
"""

from __future__ import annotations

import ast
import io
import re
import sys
from collections.abc import Iterator
from contextlib import chdir, redirect_stdout
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

_FENCE = re.compile(r"(?P<indent> *)(?P<fence>`{3,})(?P<language>\w*)\s*")
_NOT_RUN = re.compile(r"<!-- not run: (?P<reason>\S.*?) -->")
_FILE = re.compile(r"\*\*`(?P<file>[\w./-]+)`\*\*(, \S.*)?")


@dataclass(frozen=True)
class Block:
    """A block of a page.

    Attributes:
        page: the page.
        line: the number of its first line, 1 for that of the page.
        language: as it is named behind the fence.
        text: what is in it.
        reason: why it is not run, empty where it is.
        file: the file that it is of, empty where none is named.
    """

    page: Path
    line: int
    language: str
    text: str
    reason: str = ""
    file: str = ""

    def __str__(self) -> str:
        return f"{self.page.name}:{self.line}"


def blocks(page: Path) -> Iterator[Block]:
    """The fenced blocks of a page, from the top.

    Args:
        page: a file in Markdown.

    Raises:
        ValueError: for a block without an end.
    """
    lines, before, number = page.read_text(encoding="utf-8").splitlines(), "", 0
    while number < len(lines):
        opened = _FENCE.fullmatch(lines[number])
        if opened is None:
            before = lines[number].strip() or before
            number += 1
            continue
        first, end = number + 1, opened["indent"] + opened["fence"]
        if end not in lines[first:]:
            raise ValueError(f"{page}:{first}: a block without an end")
        number = lines.index(end, first)
        text = "".join(f"{line.removeprefix(opened['indent'])}\n" for line in lines[first:number])
        reason, file = _NOT_RUN.fullmatch(before), _FILE.fullmatch(before)
        yield Block(
            page, first + 1, opened["language"], text,
            reason["reason"] if reason else "", file["file"] if file else "",
        )  # fmt: skip
        before, number = "", number + 1


def runnable(page: Path) -> list[Block]:
    """The Python blocks of a page that are run."""
    return [b for b in blocks(page) if b.language == "python" and not b.reason and not b.file]


def run(block: Block, names: dict[str, Any]) -> None:
    """Run a block.

    Args:
        block: a block of Python.
        names: what the blocks before it have defined; it adds its own.

    Raises:
        AssertionError: where a `print` prints something else than the comments below it.
    """
    lines = block.text.splitlines()
    for statement in ast.parse(block.text).body:
        shown = _comment(lines[statement.end_lineno :]) if _prints(statement) else []
        ast.increment_lineno(statement, block.line - 1)
        code = compile(ast.Module([statement], []), str(block.page), "exec")
        if not shown:
            exec(code, names)
            continue
        with redirect_stdout(io.StringIO()) as printed:
            exec(code, names)
        found = printed.getvalue()
        sys.stdout.write(found)
        if found.split() != " ".join(shown).split():
            raise AssertionError(
                f"{block.page}:{statement.lineno}: prints {found!r}, is said to print "
                + "\n".join(shown)
            )


def _prints(statement: ast.stmt) -> bool:
    if not isinstance(statement, ast.Expr) or not isinstance(statement.value, ast.Call):
        return False
    function = statement.value.func
    return isinstance(function, ast.Name) and function.id == "print"


def _comment(lines: list[str]) -> list[str]:
    """The comment that lines begin with."""
    texts = []
    for line in lines:
        if not line.startswith("#"):
            break
        texts.append(line[1:])
    return texts


def main() -> int:
    """Run the pages that are given."""
    pages = [Path(argument) for argument in sys.argv[1:]]
    if not pages or not all(page.is_file() for page in pages):
        print(__doc__, file=sys.stderr)
        return 2
    for page in pages:
        names: dict[str, Any] = {"__name__": page.stem}
        found = runnable(page)
        with TemporaryDirectory() as folder, chdir(folder):
            for block in found:
                run(block, names)
    return 0


if __name__ == "__main__":
    sys.exit(main())
