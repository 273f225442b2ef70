"""The tables of the documentation are what their data says."""

import importlib
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
from made_results import ROW, report
from PIL import Image

from sepfast import InputError
from sepfast.bench.results import Report, Row
from sepfast.kernels.compile_result import TABLE
from sepfast.kernels.targets import TARGETS
from sepfast.kernels.tuning import shipped_kernels
from sepfast.ops.accuracy import ACCURACY

DOCS = Path(__file__).parents[1] / "docs"


@pytest.fixture(scope="module")
def render():
    """The script as a module."""
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(DOCS))
        yield importlib.import_module("render")


@pytest.fixture(scope="module")
def data(render):
    return render.read_data()


def _row(**given) -> Row:
    made = replace(
        ROW, case="song/soft_mask", operator="soft_mask", path="pytorch", ceiling_percent=42.0,
        error=1.25e-7, ratio_to_eager=0.5,
    )  # fmt: skip
    return replace(made, **given)


def _report(kind: str, *rows: Row) -> Report:
    made = report(*rows, kind=kind, device="a machine")
    made.environment["commit"] = "0123456789ab-dirty"
    made.settings |= {"minutes": 9.7, "only": "soft", "size": "small", "sweep": True}
    return made


def _block(what: str) -> str:
    return f"above\n<!-- rendered: {what} -->\n<!-- /rendered -->\nbelow\n"


def test_the_pages_are_rendered(render, data):
    pages = render.stale(DOCS, data)
    assert not pages, "run `make docs`: " + ", ".join(page.name for page in pages)


def test_the_pictures_are_of_the_results(data):
    """`make docs` draws them; each says in its file what it is of."""
    sources = {report.digest() for report in data.reports}
    pictures = sorted((DOCS / "figures").glob("*.png"))
    assert {path.name.rpartition("-")[2] for path in pictures} >= {"roofline.png", "speed.png"}
    assert set(map(_source, pictures)) == sources


def _source(picture: Path) -> str | None:
    with Image.open(picture) as image:
        return image.info.get("Source")


def test_a_number_that_changed_makes_a_page_stale(render, data, tmp_path, monkeypatch):
    docs = tmp_path / "docs"
    shutil.copytree(DOCS, docs)
    render.stale(docs, data, write=True)
    assert render.stale(docs, data) == []
    page = docs / "accuracy.md"
    page.write_text(page.read_text().replace("5e-07", "4e-07", 1))
    assert render.stale(docs, data) == [page]
    render.stale(docs, data, write=True)
    monkeypatch.setattr(render, "DOCS", docs)
    assert render.main(["--check"]) == 0
    bound = ACCURACY["soft_mask"]["highest"]._replace(forward=3e-7)
    monkeypatch.setitem(ACCURACY, "soft_mask", dict.fromkeys(ACCURACY["soft_mask"], bound))
    assert page in render.stale(docs, data)
    assert render.main(["--check"]) == 1
    assert page in render.stale(docs, data)  # it was only looked at


def test_the_command_takes_nothing_else(render, capsys):
    assert render.main(["--chek"]) == 2
    assert "takes --check or nothing" in capsys.readouterr().err


@pytest.mark.parametrize("what", ["accuracy", "accuracy none", "colour soft_mask", "work all"])
def test_what_cannot_be_rendered_is_one_sentence(render, data, what, tmp_path):
    (tmp_path / "page.md").write_text(_block(what))
    with pytest.raises(InputError, match=rf"page.md: line 3: got 'rendered: {what}'"):
        render.stale(tmp_path, data)


def test_a_block_without_an_end_is_refused(render, data):
    for page in ("<!-- rendered: work lstm -->\n", _block("work lstm").replace("/", "", 1)):
        with pytest.raises(InputError, match="work lstm has no end"):
            render.rendered(page, data)


def test_what_is_around_a_table_stays_and_fences_are_left_alone(render, data):
    fenced = f"````markdown\n```sh\n{_block('work lstm')}```\n{_block('work lstm')}````\n"
    once = render.rendered(fenced + _block("work lstm"), data)
    assert once.startswith(f"{fenced}above\n")
    assert once.endswith("takes.\n\n<!-- /rendered -->\nbelow\n")
    assert render.rendered(once, data) == once


def test_every_kernel_is_on_an_operators_page_with_its_worst(render, data):
    render_tables = importlib.import_module("render_tables")
    kernels = set(shipped_kernels())
    of = {operator: render_tables.kernels_of(operator, kernels) for operator in ACCURACY}
    assert set().union(*of.values()) == kernels
    assert all(of.values())
    made = [each for each in data.compiled if each.kernel == "sepfast_soft_mask_forward"]
    here = [each for each in made if each.target == "cuda:90"]
    others = [each for each in made if each.target not in ("cuda:90", "hip:gfx942")]
    worse = replace(here[0], registers=199, shared=1536, spills=7)
    page = render.rendered(
        _block("compiled soft_mask"), data._replace(compiled=[*others, *here, worse])
    )
    row = f"| `sepfast_soft_mask_forward` | cuda:90 | 199 | 1.5 | - | 7 | {len(here) + 1} |"
    assert row in page
    assert "| `sepfast_soft_mask_forward` | hip:gfx942 | not shipped |" in page
    whole = render.rendered(_block("compiled all"), data._replace(compiled=[*others, worse]))
    assert "; 1 of them spills registers." in whole


def test_measured_results_are_shown_and_where_ours_is_slower_too(render, data):
    rows = (
        _row(),
        _row(side="compiled", p50_ms=5.0, error=None),
        _row(side="graph", p50_ms=0.5, ratio_to_eager=2.0, path="triton"),
        _row(case="song/stft", operator="stft"),
    )
    cpu, gpu = _report("cpu", *rows), _report("cuda", *rows)
    page = render.rendered(_block("measured soft_mask"), data._replace(reports=[cpu, gpu]))
    command = "`sepfast bench --minutes 10 --sweep --only soft --device cpu`"
    assert f", small shapes, commit 0123456789+: {command}" in page
    ours = "| `song/soft_mask` | highest | pytorch | **0.50** | 2.50 | 42 | 1.2e-07 | - |"
    assert ours in page
    assert page.count("ms") == 1  # times on a GPU alone
    assert "| `song/soft_mask`, in a CUDA graph | highest | triton | 0.500 | 2.00 | 10.00 |" in page
    assert "song/stft" not in page
    assert "Not measured" in render.rendered(_block("measured lstm"), data._replace(reports=[cpu]))
    accuracy = render.rendered(_block("accuracy soft_mask"), data._replace(reports=[cpu]))
    assert "| any | 2e-07 | 5e-07 | 1.2e-07 | - | pytorch on a machine |" in accuracy


def test_the_targets_on_the_page_are_those_of_the_gate():
    page = (DOCS / "compiled.md").read_text()
    for target in TARGETS:
        row = next(line for line in page.splitlines() if line.startswith(f"| {target.name} |"))
        assert row.endswith(f"| {target.shared_limit // 1024} |")
    assert TABLE.name in page
