"""The operators' pages: one each, all built alike, with links that lead somewhere."""

import re
from pathlib import Path

import pytest
import torch

from sepfast import ops
from sepfast.ops.accuracy import ACCURACY

ROOT = Path(__file__).parents[1]
PAGES = ROOT / "docs" / "operators"
OPERATORS = sorted(name for name in ops.__all__ if hasattr(torch.ops.sepfast, name))
DOCUMENTS = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]

SECTIONS = [
    "Use",
    "Mathematics",
    "Shapes and types",
    "How the kernel works",
    "Bytes and operations",
    "Accuracy",
    "When it wins and when it loses",
    "Compiled",
    "Files",
]
#: Section -> what is rendered at its end.
RENDERED = {
    "Bytes and operations": "work",
    "Accuracy": "accuracy",
    "When it wins and when it loses": "measured",
    "Compiled": "compiled",
}
ROOMS = ("reference", "kernels", "sepfast/ops", "tests", "bench")

_LINK = re.compile(r"\[[^\]]*\]\(([^)\s]+)\)")
_CODE = re.compile(r"^```.*?^```", re.MULTILINE | re.DOTALL)


def prose(document: Path) -> str:
    """A document without its blocks of code."""
    return _CODE.sub("", document.read_text(encoding="utf-8"))


def sections(operator: str) -> dict[str, str]:
    """A page's text by section, in order."""
    text = (PAGES / f"{operator}.md").read_text(encoding="utf-8")
    _, *parts = re.split(r"^## ", text, flags=re.MULTILINE)
    return dict(part.split("\n", 1) for part in parts)


def anchors(document: Path) -> set[str]:
    """What of a document can be linked to, as GitHub names its headings."""
    headings = re.findall(r"^#+ (.+)$", prose(document), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


def test_each_operator_has_a_page_and_a_line_in_the_index():
    assert len(OPERATORS) >= 16
    assert set(OPERATORS) == set(ACCURACY)
    assert sorted(page.stem for page in PAGES.glob("*.md") if page.stem != "README") == OPERATORS
    index = (PAGES / "README.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\| \[(\w+)\]\((\w+)\.md\) \| .{10,} \| [A-E ]+ \|$", index, re.MULTILINE)
    assert sorted(rows) == [(name, name) for name in OPERATORS]


@pytest.mark.parametrize("operator", OPERATORS)
def test_a_page_has_its_sections_in_order(operator):
    text = (PAGES / f"{operator}.md").read_text(encoding="utf-8")
    assert text.startswith(f"# {operator}\n")
    found = sections(operator)
    assert list(found) == SECTIONS
    assert f"sepfast.ops.{operator}(" in found["Use"]
    assert "assert" in found["Use"]
    assert "$$" in found["Mathematics"]


@pytest.mark.parametrize("operator", OPERATORS)
def test_a_page_has_a_place_for_each_table(operator):
    for section, text in sections(operator).items():
        what = RENDERED.get(section)
        expected = [f"{what} {operator}"] if what else []
        opened = r"^<!-- rendered: (.+?) -->\n(?:(?!<!-- rendered).)*?^<!-- /rendered -->$"
        assert re.findall(opened, text, re.MULTILINE | re.DOTALL) == expected, section


@pytest.mark.parametrize("operator", OPERATORS)
def test_a_page_leads_to_the_five_rooms(operator):
    links = [(PAGES / link).resolve() for link in _LINK.findall(sections(operator)["Files"])]
    folders = {link.parent.relative_to(ROOT).as_posix() for link in links}
    assert folders >= set(ROOMS)
    (module,) = (link for link in links if link.parent == ROOT / "sepfast" / "ops")
    assert f"def {operator}(" in module.read_text(encoding="utf-8")


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: str(path.relative_to(ROOT)))
def test_links_resolve(document):
    for link in _LINK.findall(prose(document)):
        if re.match(r"[a-z]+:", link):
            continue
        path, _, anchor = link.partition("#")
        target = (document.parent / path).resolve() if path else document
        assert target.exists(), link
        assert not anchor or anchor in anchors(target), link


@pytest.mark.parametrize("operator", OPERATORS)
def test_a_page_survives_markdown(operator):
    """GitHub's Markdown takes backslashes from punctuation before the mathematics is looked at.

    A line of a paragraph that begins with "+ t2" or "1. The" begins a list.
    """
    text = prose(PAGES / f"{operator}.md")
    assert not re.search(r"^(\d+[.)]|[-+*]) ", text, re.MULTILINE)
    formulas = re.findall(r"\$\$(.+?)\$\$|\$([^$\n]+)\$", text)
    assert formulas
    for formula in map("".join, formulas):
        assert not re.search(r"\\[^a-zA-Z]|[*<>]", formula), formula
        assert formula == formula.strip(), formula
        assert formula.count("{") == formula.count("}"), formula
    assert all(line.count("$") % 2 == 0 for line in text.splitlines())
