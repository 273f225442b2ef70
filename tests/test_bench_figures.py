"""Pictures and page of results: what is shown, what is named, and what is refused."""

import base64
import io
import itertools
from dataclasses import replace
from html.parser import HTMLParser

import numpy as np
import pytest

from sepfast.bench import results
from sepfast.bench.report import wording
from sepfast.bench.report.figures import write_pictures
from sepfast.bench.report.labels import place_labels
from sepfast.bench.report.page import write_page
from sepfast.bench.report.roofline import _Roof
from sepfast.bench.report.speed_bars import speed_bars
from sepfast.bench.report.standing import standings, swept
from sepfast.bench.results import Report, Row
from sepfast.errors import InputError

VERSIONS = {"python": "3.12", "torch": "2.11", "triton": "3.6", "numpy": "2.0", "sepfast": "0.1.0"}
DIRTY = "abcdef123456-dirty"
CPU = {"kind": "cpu", "device": "A CPU", "system": "Linux", "threads": 2, "commit": DIRTY}
GPU = {"kind": "cuda", "device": "Made-up GPU", "capability": [9, 0], "memory_bytes": 80 * 10**9}
SETTINGS = {"minutes": 10.0, "quick": False, "only": "", "size": "small", "sweep": False}


def row(case, side, milliseconds, spread=0.02, **given) -> Row:
    """A row of a case of little work, on the CPU unless told otherwise."""
    of_case = {"case": case, "operator": case.partition("/")[2].partition("+")[0], "side": side}
    usual = {
        "precision": "highest", "gradient": "+" in case, "shapes": {"x": [2, 3]},
        "path": "pytorch", "kernels": [], "rounds": 5, "host_ms": milliseconds,
        "p20_ms": milliseconds * (1 - spread), "p50_ms": milliseconds,
        "p80_ms": milliseconds * (1 + spread), "least_bytes": 10**6, "moved_bytes": 10**6,
        "requested_bytes": 10**6, "operations": 10**7, "bound": "memory",
        "ceiling_percent": 40.0 / milliseconds, "peak_bytes": None, "error": 3e-7,
        "gradient_error": None, "ratio_to_eager": None,
    }  # fmt: skip
    return Row(**{**of_case, **usual, **given})


def report(rows, about=None, **given) -> Report:
    """A report of rows, whose operators were all verified."""
    checked = [
        {"case": r.case, "side": "ours", "precision": r.precision, "error": 3e-7, "path": r.path,
         "gradient_error": 0.0, "bound": 1e-6, "gradient_bound": 2e-6, "kernels": []}
        for r in rows if r.side == "ours" and " " not in r.operator
    ]  # fmt: skip
    made = Report({**CPU, "versions": VERSIONS, **(about or {})}, dict(SETTINGS))
    made.ceilings = {"copy": 1e10, "single": 5e10, "half": None}
    made.verification, made.rows, made.complete = checked, list(rows), True
    return replace(made, **given)


#: One that wins, one that loses to a third side, one that loses within the spread, a system.
ROWS = [
    row("song/stft", "ours", 1.0), row("song/stft", "eager", 2.0), row("song/stft", "cufft", 4.0),
    row("song/istft", "ours", 1.0), row("song/istft", "eager", 1.5),
    row("song/istft", "cufft", 0.5),
    row("training/conv_pair+gradient", "ours", 1.0, 0.2),
    row("training/conv_pair+gradient", "eager", 0.9, 0.2),
    row("training/step-mono-5", "ours", 5.0, operator="training step"),
    row("training/step-mono-5", "eager", 6.0, operator="training step"),
]  # fmt: skip


def on_gpu() -> Report:
    """Two precisions, graphs, compiled sides, memory and sweeps."""
    sides = {"ours": 1.0, "graph": 0.5, "eager": 4.0, "compiled": 0.8}
    peaks = {"ours": 2 * 10**7, "graph": 2 * 10**7, "eager": 8 * 10**7, "compiled": 5 * 10**7}
    rows = [
        row(case, side, ms, precision=precision, peak_bytes=peaks[side],
            path="triton" if side in ("ours", "graph") else "pytorch")
        for case in ("song/stft", "song/soft_mask")
        for precision in ("highest", "high")
        for side, ms in sides.items()
    ]  # fmt: skip
    sweeps = [
        replace(each, scale=scale, p20_ms=scale, p50_ms=scale, p80_ms=2 * scale)
        for each in rows
        for scale in (0.25, 0.5, 1.0)
        if each.case == "song/stft"
    ]
    ceilings = {"copy": 4e12, "single": 4e14, "half": 8e14}
    return report(rows, GPU, ceilings=ceilings, sweeps=sweeps)


def written(folder, name, made):
    path = folder / f"{name}.json"
    made.write(path)
    return path


class Seen(HTMLParser):
    """Tags with their attributes, and the text between them."""

    def __init__(self, page):
        super().__init__()
        self.tags, self.text = [], ""
        self.feed(page)

    def handle_starttag(self, tag, attributes):
        self.tags.append((tag, dict(attributes)))

    def handle_data(self, data):
        self.text += data

    def of(self, tag):
        return [attributes for name, attributes in self.tags if name == tag]


def page_of(folder, *made) -> tuple[str, Seen]:
    files = [written(folder, f"run{i}", each) for i, each in enumerate(made)]
    write_page(files, folder / "page.html")
    page = (folder / "page.html").read_text()
    return page, Seen(page)


@pytest.fixture(scope="module")
def both(tmp_path_factory):
    return page_of(tmp_path_factory.mktemp("page"), report(ROWS), on_gpu())


def pixels(image) -> np.ndarray:
    """(height, width, channels) of a PNG file, or of a picture of a page."""
    from matplotlib.image import imread

    if isinstance(image, dict):
        image = io.BytesIO(base64.b64decode(image["src"].partition(",")[2]))
    return imread(image, format="png")


class TestStanding:
    @pytest.mark.parametrize(
        ("ours", "other", "verdict"),
        [((1, 2, 3), (4, 5, 6), "wins"), ((4, 5, 6), (1, 2, 3), "loses"),
         ((1, 3, 5), (4, 5, 6), "level"), ((4, 5, 6), (1, 3, 5), "level")],
    )  # fmt: skip
    def test_spreads_that_overlap_are_level(self, ours, other, verdict):
        names = ("p20_ms", "p50_ms", "p80_ms")
        rows = [
            replace(row("song/stft", side, 1.0), **dict(zip(names, times, strict=True)))
            for side, times in (("ours", ours), ("eager", other))
        ]
        (standing,) = standings(report(rows))
        assert standing.verdict() == verdict
        assert standing.against("eager").middle == other[1] / ours[1]

    def test_the_faster_one_of_ours_stands_against_the_best_other(self):
        standing = standings(on_gpu())[0]
        assert (standing.ours.side, standing.best.side) == ("graph", "compiled")
        assert standing.against_best().middle == pytest.approx(1.6)
        assert (standing.verdict(), standing.verdict("ours")) == ("wins", "loses")
        assert standing.memory() == 0.25

    def test_error_is_the_nearest_to_its_bound(self):
        rows = [replace(ROWS[0], error=9e-7, gradient_error=1e-6), ROWS[1]]
        assert standings(report(rows))[0].exactness() == (9e-7, 1e-6)
        rows[0] = replace(rows[0], gradient_error=1.9e-6)
        assert standings(report(rows))[0].exactness() == (1.9e-6, 2e-6)
        assert standings(report(rows, verification=[]))[0].exactness().bound is None

    def test_sizes_in_order_and_one_alone_is_no_sweep(self):
        made = on_gpu()
        for rows in (made.sweeps, made.sweeps[::-1]):
            sizes = swept(replace(made, sweeps=rows))["song/stft", "high"]
            assert [each.ours.scale for each in sizes] == [0.25, 0.5, 1.0]
        assert not swept(replace(made, sweeps=[r for r in made.sweeps if r.scale == 1]))

    def test_losses_are_those_of_the_command(self):
        rows = [*ROWS, *on_gpu().rows]
        beyond, within = wording.losses(report(rows))
        assert len(beyond) + len(within) == len(results.losses(rows))
        assert [text.partition(" at ")[0] for text in beyond] == ["song/istft"]
        assert within[0].startswith("training/conv_pair+gradient")


class TestPictures:
    def test_files_have_the_names_of_results(self, tmp_path):
        files = [written(tmp_path, "here", report(ROWS[:2]))]
        drawn = write_pictures(files, tmp_path / "drawn")
        assert [path.name for path in drawn] == ["here-roofline.png", "here-speed.png"]
        assert sorted((tmp_path / "drawn").iterdir()) == drawn

    def test_width_ink_and_light_ground(self, both):
        for picture in both[1].of("img"):
            image = pixels(picture)
            height, width, _ = image.shape
            assert width == 1400
            assert 300 < height < 2000
            light = image[..., :3].mean(-1)
            assert (light > 0.98).mean() > 0.6
            assert 0.005 < (light < 0.6).mean() < 0.4
            assert light[[0, -1]].min() > 0.98  # nothing is cut off at top or bottom

    def test_losing_bars_are_orange(self, tmp_path):
        def orange(rows):
            speed_bars(report(rows), tmp_path / "speed.png", "highest")
            image = pixels(tmp_path / "speed.png")[..., :3]
            return (np.abs(image - np.array([0xD5, 0x5E, 0x00]) / 255).max(-1) < 0.02).sum()

        assert orange(ROWS[:3]) == 0
        assert orange(ROWS[:6]) > 1000

    def test_a_roof_is_bytes_and_then_products(self):
        roof = _Roof(copy=1e10, matrix=5e10, unit=1e9)
        assert [roof.at(intensity) for intensity in (1, roof.ridge, 100)] == [10, 50, 50]
        assert roof.height(row("song/stft", "ours", 2.0, operations=10**7)) == 5

    def test_labels_cover_neither_each_other_nor_points(self):
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure

        figure = Figure(figsize=(7, 4), dpi=200)
        FigureCanvasAgg(figure)
        ax = figure.subplots()
        ax.set(xlim=(0, 10), ylim=(0, 10))
        spots = [(5 + 0.25 * i, 5 + 0.15 * (i % 3)) for i in range(9)]
        place_labels(ax, [(f"operator_{i}", *spot) for i, spot in enumerate(spots)])
        boxes = [text.get_window_extent() for text in ax.texts]
        assert len(boxes) == 9
        assert not any(a.overlaps(b) for a, b in itertools.combinations(boxes, 2))
        marks = ax.transData.transform(spots)
        assert not any(box.contains(*mark) for box in boxes for mark in marks)


class TestPage:
    def test_needs_nothing_from_elsewhere(self, both):
        page, seen = both
        assert "http:" not in page
        assert "https:" not in page
        assert not {"script", "link", "iframe"} & {tag for tag, _ in seen.tags}
        assert "url(" not in page
        sources = [image["src"] for image in seen.of("img")]
        assert all(source.startswith("data:image/png;base64,") for source in sources)
        assert len(sources) == 2 + 7

    def test_has_every_case_by_name_and_a_roofline_for_each_device(self, both):
        _, seen = both
        for each in (*ROWS, *on_gpu().rows):
            assert seen.text.count(each.case) >= 1, each.case
        rooflines = [image for image in seen.of("img") if image["alt"].startswith("Roofline")]
        assert len(rooflines) == 2
        assert "At a glance: A CPU" in seen.text
        assert "At a glance: Made-up GPU" in seen.text

    def test_can_be_read_without_seeing_it(self, both):
        _, seen = both
        assert seen.of("html")[0]["lang"] == "en"
        assert all(header.get("scope") in ("col", "row") for header in seen.of("th"))
        alternatives = [image["alt"] for image in seen.of("img")]
        assert all(alternatives)
        speeds = [text for text in alternatives if text.startswith("Speed of ours")]
        assert "song/istft 1.50 times (loses)" in speeds[0]

    def test_losing_cases_are_told_in_words(self, both):
        _, seen = both
        assert "song/istft: torch.stft is 2.00 times as fast as ours." in seen.text
        assert "training/conv_pair+gradient: eager is 1.11 times as fast as ours." in seen.text
        assert "faster than every other side in 2 of 4 cases, level with the fastest one in 1 and" \
            " loses 1" in seen.text  # fmt: skip

    def test_cpu_has_no_times_and_tells_what_is_missing(self, tmp_path):
        wrong = {"case": "song/chain", "side": "ours", "precision": "high", "failed": "off by 1"}
        made = report(ROWS, skipped={"tuning": "needs a GPU"}, complete=False)
        made.verification.append(wrong)
        _, seen = page_of(tmp_path, made)
        assert " ms" not in seen.text
        assert (
            "OMP_NUM_THREADS=2 sepfast bench --minutes 10 --device cpu --out results.json"
            in seen.text
        )
        assert "git checkout abcdef123456  # and changes that were not committed" in seen.text
        assert "Peak memory: not measured on this machine." in seen.text
        assert "Sizes: the run had no sweep." in seen.text
        assert "Wrong, and therefore not timed: song/chain, high: off by 1." in seen.text
        assert "1 were wrong and not timed" in seen.text
        assert "tuning: needs a GPU." in seen.text
        assert "The run ended before all was done." in seen.text

    def test_gpu_has_times_even_without_memory_and_sizes(self, tmp_path):
        rows = [replace(r, peak_bytes=None) for r in on_gpu().rows if r.precision == "high"]
        _, seen = page_of(tmp_path, report(rows, GPU))
        assert "0.500 ms" in seen.text
        assert "sepfast bench --minutes 10 --device cuda --out" in seen.text
        assert [image["alt"][:5] for image in seen.of("img")] == ["Roofl", "Speed"]

    def test_tests_that_failed_are_told(self):
        for code, told in ((1, ["GPU tests failed: 1 failed."]), (0, [])):
            made = report(ROWS, GPU, gpu_tests={"exit": code, "tail": ["9 passed", "1 failed"]})
            assert [text for text in wording.missing(made) if text.startswith("GPU")] == told

    def test_hostile_names_stay_text(self, tmp_path):
        name = '<script>x</script>"onload="y" & $\\frac{$'
        rows = [replace(r, case=f"{name}/{r.case}", operator=name) for r in ROWS[:3]]
        made = report(rows, {"device": name, "system": name}, skipped={name: name})
        made.settings["only"] = "x; rm -r y"
        _, seen = page_of(tmp_path, made)
        assert not seen.of("script")
        assert not any("onload" in attributes for _, attributes in seen.tags)
        assert f"{name}/song/stft" in seen.text
        assert "--only 'x; rm -r y'" in seen.text


class TestRefusals:
    @pytest.mark.parametrize("write", [write_page, write_pictures])
    def test_in_one_sentence(self, write, tmp_path):
        empty = written(tmp_path, "empty", report([]))
        (tmp_path / "more").mkdir()
        again = written(tmp_path / "more", "empty", report([]))
        for files, why in (
            ([], "got no file, takes at least one"),
            ([empty], "holds no case in which ours was timed, takes at least one"),
            ([empty, again], "got two files named empty, takes different names"),
            ([tmp_path / "none.json"], "cannot be read"),
        ):
            with pytest.raises(InputError, match=why) as error:
                write(files, tmp_path / "out")
            assert "\n" not in str(error.value)
            assert not (tmp_path / "out").exists()
