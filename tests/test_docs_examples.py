"""The pages keep what they promise: their Python runs, their commands are there."""

import re
import runpy
import shlex
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
import typer

from sepfast import ops
from sepfast.cli.app import _app

ROOT = Path(__file__).parents[1]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
_TOOL = runpy.run_path(str(ROOT / "docs/run.py"))
blocks, runnable, run, Block = (_TOOL[name] for name in ("blocks", "runnable", "run", "Block"))

#: How the program is called in a shell, but for options of what starts it.
_PROGRAM = re.compile(r"(?:^|\s)(?:-m\s+)?sepfast\s+(?P<arguments>\S.*)")


def short(page):
    return str(page.relative_to(ROOT))


@pytest.fixture
def knobs():
    """What a page may turn, turned back."""
    threads, precision = torch.get_num_threads(), torch.get_float32_matmul_precision()
    state = torch.get_rng_state()
    torch.set_num_threads(1)
    with ops.use_backend("auto"):
        yield
    ops.enable_ranges(False)
    torch.set_num_threads(threads)
    torch.set_float32_matmul_precision(precision)
    torch.set_rng_state(state)


@pytest.mark.usefixtures("knobs")
@pytest.mark.parametrize("page", [p for p in PAGES if runnable(p)], ids=short)
def test_python_of_a_page_runs(page, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    names = {"__name__": page.stem}
    for block in runnable(page):
        run(block, names)


# Commands


def commands(block) -> Iterator[str]:
    """What a block has a shell do: without comments, prompts, output and ends of lines."""
    lines = block.text.replace("\\\n", " ").splitlines()
    if block.language == "console":
        lines = [line.removeprefix("$ ") for line in lines if line.startswith("$ ")]
    for line in lines:
        yield from re.split(r"\s*(?:&&|\||;)\s*", line.split(" #")[0])


def called() -> Iterator[tuple[str, str]]:
    """Where the program is called on the pages, and with what arguments."""
    for page in PAGES:
        for block in blocks(page):
            for command in commands(block) if block.language in ("sh", "console") else ():
                if found := _PROGRAM.search(command):
                    yield f"{short(page)}:{block.line}", found["arguments"]


CALLED = list(called())


def parsed(arguments):
    """Take arguments as the program does, and stop short of carrying them out."""
    group = typer.main.get_command(_app())
    context, words = None, ["sepfast", *shlex.split(arguments)]
    while hasattr(group, "commands"):
        context = group.make_context(words[0], words[1:], parent=context)
        _, group, rest = group.resolve_command(context, [*context._protected_args, *context.args])
        words = [group.name, *rest]
    if not {"-h", "--help"} & set(words):
        group.make_context(words[0], words[1:], parent=context)


@pytest.mark.parametrize(("place", "arguments"), CALLED, ids=[f"{p} {a}" for p, a in CALLED])
def test_commands_have_the_options_that_a_page_gives_them(place, arguments):
    parsed(arguments)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ("separate song.mp3 -m model --loudly", "--loudly"),
        ("separate", "inputs"),
        ("unmix song.mp3", "unmix"),
        ("train songs --epochs many", "integer"),
        ("import nobody model.pt", "nobody"),
        ("models all", "all"),
    ],
)
def test_commands_that_are_not_there_are_found(arguments, message):
    with pytest.raises(Exception, match=message):
        parsed(arguments)


def test_commands_are_found_in_the_shell():
    text = "x && sepfast a --b  # sepfast c\ntorchrun -m sepfast d \\\n e\npip install sepfast\n"
    found = map(_PROGRAM.search, commands(Block(ROOT, 1, "sh", text)))
    assert [m["arguments"].split() for m in found if m] == [["a", "--b"], ["d", "e"]]
    told = commands(Block(ROOT, 1, "console", "$ sepfast a\nsepfast: no\n"))
    assert list(told) == ["sepfast a"]


def test_files_that_commands_run_are_there():
    for page in PAGES:
        for block in blocks(page):
            if block.language not in ("sh", "console"):
                continue
            for name in re.findall(r"(?<![\w/.])(?:docs|bench|tests)/[\w/.-]+", block.text):
                there = (ROOT / name).exists() or "power_mask" in name  # which a page adds
                assert there, f"{short(page)}:{block.line}: {name}"


def test_every_page_is_in_the_index():
    listed = (ROOT / "docs/README.md").read_text() + (ROOT / "docs/operators/README.md").read_text()
    for page in PAGES[1:]:
        assert page.name == "README.md" or f"({page.name})" in listed, short(page)


# The tool that runs them

PAGE = """
<!-- not run: has no song -->
```python
play("song.mp3")
```

```python
print(1 + 1)
# 2
```

**`kernels/x.py`**, which is new

```python
import nothing
```

- In a list:

  ```python
  print("a")
  # b
  ```
"""


def test_blocks_are_run_but_for_those_that_say_why_not(tmp_path):
    page = tmp_path / "page.md"
    page.write_text(PAGE)
    found = list(blocks(page))
    assert [block.reason for block in found] == ["has no song", "", "", ""]
    assert [block.file for block in found] == ["", "", "kernels/x.py", ""]
    assert [block.line for block in found] == [4, 8, 15, 21]
    first, second = runnable(page)
    run(first, {})
    with pytest.raises(AssertionError, match=r"page.md:21: prints 'a\\n', is said to print\s+b"):
        run(second, {})


def test_a_block_without_an_end_is_refused(tmp_path):
    page = tmp_path / "page.md"
    page.write_text("```python\n1\n")
    with pytest.raises(ValueError, match="a block without an end"):
        list(blocks(page))
