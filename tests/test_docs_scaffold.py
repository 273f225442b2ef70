"""The operator that `docs/add-an-operator.md` adds: laid into a copy of the tree, it works."""

import json
import os
import runpy
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from rooms import missing

pytest.importorskip("triton")

ROOT = Path(__file__).parents[1]
PAGE = ROOT / "docs/add-an-operator.md"
_ROOMS = ("reference", "kernels", "bench", "configs")
_PAGES = runpy.run_path(str(ROOT / "docs/run.py"))

BLOCKS = [block for block in _PAGES["blocks"](PAGE) if block.file]
KERNELS = ("sepfast_power_mask_forward", "sepfast_power_mask_backward")


def copied(folder):
    """A copy of the tree whose folders are one package for whoever has it on the path."""
    for name in ("sepfast", "tests", "docs", *_ROOMS):
        shutil.copytree(ROOT / name, folder / name, ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(ROOT / "pyproject.toml", folder)
    for room in _ROOMS:
        (folder / "sepfast" / room).symlink_to(folder / room)
    return folder


def lay(root, block):
    """A block's file, or its lines in a file that is there."""
    path = root / block.file
    if block.language != "diff":
        assert not path.exists(), block
        path.write_text(block.text)
        return
    text = path.read_text()
    for hunk in block.text.split("@@\n"):
        lines = hunk.splitlines(keepends=True)
        assert all(line[0] in " +-\n" for line in lines), block
        old, new = (
            "".join(line[1:] or line for line in lines if line[0] not in other) for other in "+-"
        )
        assert text.count(old) == 1, f"{block}: these lines are not in {block.file} once:\n{old}"
        text = text.replace(old, new)
    path.write_text(text)


@pytest.fixture(scope="module")
def scaffold(tmp_path_factory):
    """The tree with the operator in it."""
    root = copied(tmp_path_factory.mktemp("tree"))
    for block in BLOCKS:
        lay(root, block)
    return root


def started(root, *arguments, interpret=True):
    """A process of Python for which the copy is the package."""
    environment = os.environ | {"PYTHONPATH": str(root), "OMP_NUM_THREADS": "1"}
    environment.pop("TRITON_INTERPRET", None)
    if interpret:
        environment["TRITON_INTERPRET"] = "1"
    streams = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "text": True}
    return subprocess.Popen([sys.executable, *arguments], cwd=root, env=environment, **streams)


def ended(process):
    """The exit code of a process and what it printed."""
    text, _ = process.communicate(timeout=120)
    return process.returncode, text


def own_tests(root, *arguments):
    """A process that runs the operator's own tests, and what else it is told."""
    command = ("-m", "pytest", "-q", "-p", "no:cacheprovider", "tests/test_power_mask.py")
    return started(root, *command, *arguments)


def test_the_operator_of_the_page_works(scaffold, tmp_path):
    contract = "power_mask and (opcheck or finite_differences)"
    files = "tests/test_contract.py", "tests/test_docs_operators.py"
    own = own_tests(scaffold, *files, "-k", f"test_power_mask or a_page or ({contract})")
    results = tmp_path / "results.json"
    named = [each for name in KERNELS for each in ("--kernel", name)]
    gate = started(
        scaffold, "-m", "sepfast", "compile-check", *named, "--target", "cuda:90", "--jobs", "1",
        "--no-cache", "--json", results, interpret=False,
    )  # fmt: skip
    for process in (own, gate):
        code, text = ended(process)
        assert code == 0, text[-4000:]
    rows = json.loads(results.read_text())["rows"]
    assert {row["kernel"] for row in rows} == set(KERNELS)


def test_a_wrong_kernel_is_found(scaffold):
    """So it is the page's operator that is tested."""
    path = scaffold / "kernels/power_mask.py"
    right = path.read_text()
    path.write_text(right.replace("0, 2 * y *", "0, y *"))
    try:
        code, text = ended(own_tests(scaffold, "-x", "-k", "wiener_mask and kernels"))
    finally:
        path.write_text(right)
    assert code == 1, text
    assert "test_it_is_the_wiener_mask" in text


def test_no_room_is_missing(scaffold):
    assert missing(scaffold) == []


@pytest.fixture(scope="module")
def bare(tmp_path_factory):
    """The tree as it is."""
    return copied(tmp_path_factory.mktemp("bare"))


@pytest.mark.parametrize("left_out", BLOCKS, ids=lambda block: block.file)
def test_a_room_that_is_left_out_is_missed(bare, left_out):
    for block in BLOCKS:
        if block is not left_out:
            lay(bare, block)
    found = missing(bare)
    for block in BLOCKS:
        if (ROOT / block.file).is_file():
            shutil.copy(ROOT / block.file, bare / block.file)
        else:
            (bare / block.file).unlink(missing_ok=True)
    assert any("power_mask" in line for line in found)


def test_the_code_is_as_the_house_has_it(scaffold):
    files = [block.file for block in BLOCKS if block.file.endswith(".py")]
    for command in (["check"], ["format", "--check"]):
        ruff = [sys.executable, "-m", "ruff", *command, "--no-cache", *files]
        done = subprocess.run(ruff, cwd=scaffold, capture_output=True, text=True)
        assert done.returncode == 0, done.stdout + done.stderr
