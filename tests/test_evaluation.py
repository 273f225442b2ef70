"""Scored songs: their files, tables and figures, and the sentences for what cannot be scored."""

import csv
import json
import math
import os
import subprocess
import sys
from dataclasses import replace

import matplotlib
import numpy as np
import pytest
from matplotlib.image import imread

from sepfast.errors import InputError
from sepfast.evaluation import (
    METRICS,
    Report,
    SongScores,
    SourceScores,
    box_plots,
    colours,
    loss_curve,
    score_song,
    spectrograms,
    table,
)
from sepfast.metrics import SilenceEnergy, bss_eval, eps, pes

RATE = 8000


def noise(samples: int, seed: int) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal((1, samples))


@pytest.fixture(scope="module")
def references() -> dict[str, np.ndarray]:
    """Vocals that are silent in the second of three seconds, and drums."""
    vocals, drums = noise(3 * RATE, 0), noise(3 * RATE, 1)
    vocals[:, RATE : 2 * RATE] = 0
    return {"vocals": vocals, "drums": drums}


@pytest.fixture(scope="module")
def estimates(references) -> dict[str, np.ndarray]:
    """Each source with some of the other, drums first and silent in the third second."""
    vocals, drums = references["vocals"], references["drums"]
    estimates = {"drums": drums + 0.1 * vocals, "vocals": vocals + 0.1 * drums}
    estimates["drums"][:, 2 * RATE :] = 0
    return estimates


@pytest.fixture(scope="module")
def song(references, estimates) -> SongScores:
    return score_song("Überlied, 1", references, estimates, RATE)


def made_song(name: str, *, trusted: bool = True, **sdr: list[float]) -> SongScores:
    """A song with the given frames of SDR, and other scores from them."""
    sources = {
        source: SourceScores(
            {metric: np.array(frames) + i for i, metric in enumerate(METRICS)},
            0,
            SilenceEnergy(-30.0, 2),
            SilenceEnergy(math.nan, 0),
        )
        for source, frames in sdr.items()
    }
    return SongScores(name, sources, 1.0, 0.5, 10.0 if trusted else 4e11, trusted)


@pytest.fixture
def report(song) -> Report:
    return Report([song, made_song("b", vocals=[1.0, 2.0, math.nan, 9.0], drums=[math.inf])])


class TestScoreSong:
    def test_scores_each_source_by_its_name(self, song, references, estimates):
        order = ("vocals", "drums")
        stacks = (np.stack([of[s] for s in order]) for of in (references, estimates))
        expected = bss_eval(*stacks, RATE)
        assert tuple(song.sources) == order
        for j, source in enumerate(order):
            for metric in METRICS:
                frames = song.sources[source].frames[metric]
                np.testing.assert_array_equal(frames, getattr(expected, metric)[j])
        assert song.sources["vocals"].sdr == pytest.approx(20, abs=0.3)
        assert (song.conditioning, song.trusted) == (expected.conditioning, True)

    def test_counts_silence(self, song, references, estimates):
        vocals, drums = song.sources["vocals"], song.sources["drums"]
        assert (vocals.silent, drums.silent) == (1, 1)
        assert np.isfinite(vocals.frames["sdr"]).tolist() == [True, False, False]
        assert vocals.pes == pes(references["vocals"], estimates["vocals"], RATE)
        assert drums.eps == eps(references["drums"], estimates["drums"], RATE)
        assert (vocals.pes.frames, drums.eps.frames) == (1, 1)
        assert (vocals.eps.frames, drums.pes.frames) == (0, 0)

    def test_estimates_are_not_rescaled(self, references, estimates):
        halved = {source: 0.5 * wave for source, wave in references.items()}
        scores = score_song("half", references, halved, RATE)
        assert scores.sources["drums"].sdr == pytest.approx(20 * math.log10(2), abs=0.01)

    @pytest.mark.parametrize(
        ("change", "message"),
        [
            ({"drums": None}, "song: has no estimate of drums"),
            ({"bass": np.ones((1, 9))}, "song: has no reference of bass"),
            ({"drums": np.ones((1, 9))}, "estimate of drums has 1 channel of 9 samples, takes 1"),
            ({"drums": np.ones((2, 24000))}, "estimate of drums has 2 channels of 24000 samples"),
            ({"drums": np.ones(24000)}, "estimate of drums has shape"),
            ({"drums": np.full((1, 24000), np.inf)}, "song: estimates: holds NaN or infinite"),
            ({"drums": np.ones((1, 24000), int)}, "takes floats"),
        ],
    )
    def test_refuses_in_one_sentence(self, references, estimates, change, message):
        estimates = {s: w for s, w in (estimates | change).items() if w is not None}
        if "takes floats" in message:
            estimates = {s: w.astype(int) for s, w in estimates.items()}
        with pytest.raises(InputError, match=message) as error:
            score_song("song", references, estimates, RATE)
        assert "\n" not in str(error.value)

    def test_refuses_references(self, references, estimates):
        with pytest.raises(InputError, match="no references"):
            score_song("song", {}, {}, RATE)
        flat = {source: wave[0] for source, wave in references.items()}
        with pytest.raises(InputError, match="channels, samples"):
            score_song("song", flat, flat, RATE)


class TestReport:
    def test_summary(self):
        report = Report()
        report.add(made_song("a", vocals=[1.0, 2.0, 9.0, math.nan], drums=[0.0]))
        report.add(made_song("b", vocals=[4.0], trusted=False))
        vocals, drums = report.summary().values()
        assert vocals.frames["sdr"].mean == 4.0
        assert vocals.frames["sdr"].median == 3.0
        assert vocals.frames["sdr"].count == 4
        assert vocals.songs["sdr"].median == 3.0
        assert vocals.songs["isr"].mean == 4.0
        assert vocals.songs["pes"].mean == -30.0
        assert vocals.songs["eps"].count == 0
        assert (vocals.untrusted, drums.untrusted) == (1, 0)

    def test_json_is_strict_and_comes_back(self, report, tmp_path):
        path = tmp_path / "new" / "scores.json"
        report.to_json(path)

        def refuse(constant: str) -> None:
            raise AssertionError(constant)

        content = json.loads(path.read_text(encoding="utf-8"), parse_constant=refuse)
        assert content["songs"][0]["sources"]["vocals"]["sdr"][1] is None
        assert content["songs"][1]["sources"]["drums"]["sdr"] == ["inf"]
        assert content["summary"]["vocals"]["frames"]["sdr"]["count"] == 4
        again = Report.from_json(path)
        assert again.sources == report.sources
        for before, after in zip(report.songs, again.songs, strict=True):
            assert (before.name, before.hop, before.trusted) == (
                after.name,
                after.hop,
                after.trusted,
            )
            for source, scores in before.sources.items():
                for metric in METRICS:
                    np.testing.assert_array_equal(
                        scores.frames[metric], after.sources[source].frames[metric]
                    )
                assert str(scores.pes) == str(after.sources[source].pes)
        again.to_json(tmp_path / "again.json")
        assert (tmp_path / "again.json").read_bytes() == path.read_bytes()

    @pytest.mark.parametrize("text", ["", "[]", "{}", '{"format": "sepfast-scores", "songs": 1}'])
    def test_json_of_something_else(self, text, tmp_path):
        (tmp_path / "scores.json").write_text(text)
        with pytest.raises(InputError, match="no scores"):
            Report.from_json(tmp_path / "scores.json")
        with pytest.raises(InputError, match="cannot be read"):
            Report.from_json(tmp_path / "none.json")

    def test_csv_has_a_row_for_each_frame(self, report, tmp_path):
        beside = report.to_csv(tmp_path / "scores.csv")
        with open(tmp_path / "scores.csv", newline="", encoding="utf-8") as file:
            rows = list(csv.DictReader(file))
        assert len(rows) == 3 + 3 + 4 + 1
        first, silent = rows[0], rows[1]
        assert (first["song"], first["source"], first["frame"]) == ("Überlied, 1", "vocals", "0")
        assert float(first["sdr"]) == pytest.approx(report.songs[0].sources["vocals"].sdr, rel=1e-5)
        assert (silent["start_s"], silent["sdr"], silent["sir_sar_trusted"]) == ("1", "", "true")
        assert rows[-1]["sdr"] == "inf"
        with open(beside, newline="", encoding="utf-8") as file:
            summary = list(csv.DictReader(file))
        assert beside.name == "scores.summary.csv"
        assert len(summary) == 2 * (4 + 6)
        found = report.summary()["vocals"].songs["sdr"].median
        row = next(r for r in summary if (r["metric"], r["over"]) == ("sdr", "songs"))
        assert float(row["median"]) == pytest.approx(found, rel=1e-5)

    def test_csv_distrusts_sir_and_sar_alone(self, tmp_path):
        doubted = Report([made_song("a", vocals=[1.0, 3.0], trusted=False)])
        with open(doubted.to_csv(tmp_path / "a.csv"), newline="", encoding="utf-8") as file:
            rows = list(csv.DictReader(file))
        assert {row["metric"] for row in rows if row["trusted"] == "false"} == {"sir", "sar"}

    def test_infinite_window_can_be_written(self, references, tmp_path):
        scores = score_song("a", references, references, RATE, window=math.inf, hop=math.inf)
        report = Report([scores])
        report.to_csv(tmp_path / "scores.csv")
        report.to_json(tmp_path / "scores.json")
        assert Report.from_json(tmp_path / "scores.json").songs[0].window == math.inf
        assert (tmp_path / "scores.csv").read_text().splitlines()[1].startswith("a,vocals,0,0,")

    def test_a_failed_write_leaves_what_was_there(self, report, tmp_path, monkeypatch):
        path = tmp_path / "scores.json"
        path.write_text("before")
        monkeypatch.setattr(os, "replace", lambda *paths: (_ for _ in ()).throw(OSError("full")))
        for write in (report.to_json, report.to_csv, lambda p: box_plots(report, p)):
            with pytest.raises(OSError, match="full"):
                write(path)
        assert path.read_text() == "before"
        assert os.listdir(tmp_path) == ["scores.json"]


class TestTable:
    def test_a_row_for_each_source(self, report):
        found = table(report)
        assert [row[0] for row in found.rows] == ["vocals", "drums"]
        assert {len(row) for row in found.rows} == {len(found.header)} == {7}
        assert len(found.notes) == 1
        assert "?" not in str(found.rows)

    def test_marks_what_cannot_be_trusted_and_says_why(self):
        songs = [made_song("a", vocals=[1.0, 3.0]), made_song("b", trusted=False, vocals=[4.0])]
        found = table(Report(songs))
        marks = dict(zip(found.header, ("?" in cell for cell in found.rows[0]), strict=True))
        assert [name for name, marked in marks.items() if marked] == ["SIR (dB)", "SAR (dB)"]
        assert found.rows[0][1] == "3.0 (2.7 ± 1.2)"
        assert found.rows[0][5:] == ("-30.0", "-")
        assert "1 of 2 songs" in found.notes[1]
        assert "4e+11" in found.notes[1]

    def test_counts_the_songs_that_have_silence(self):
        songs = [made_song(name, vocals=[1.0]) for name in "abc"]
        silent = replace(songs[0].sources["vocals"], pes=SilenceEnergy(math.nan, 0))
        songs.append(replace(songs[0], name="d", sources={"vocals": silent}))
        assert table(Report(songs)).rows[0][5:] == ("-30.0 (3)", "-")

    def test_nothing_to_show(self):
        assert list(table(Report()).rows) == []
        nothing = table(Report([made_song("a", vocals=[math.nan])]))
        assert nothing.rows[0][:5] == ("vocals", "-", "-", "-", "-")


def pixels(path) -> np.ndarray:
    """The picture, (height, width, 3), which must hold more than its background."""
    picture = imread(path)[..., :3]
    assert len(np.unique((255 * picture) @ (65536, 256, 1))) > 20
    return picture


def shows(picture: np.ndarray, colour: str) -> bool:
    """Whether a hundred pixels or more have a colour."""
    wanted = matplotlib.colors.to_rgb(colour)
    return np.count_nonzero((abs(picture - wanted) < 2 / 255).all(-1)) > 100


class TestPlots:
    def test_box_plots(self, report, tmp_path):
        box_plots(report, tmp_path / "boxes.png")
        picture = pixels(tmp_path / "boxes.png")
        assert picture.shape == (560, 1400, 3)
        assert shows(picture, colours(["vocals"])["vocals"])
        assert not shows(picture, colours(["bass"])["bass"])

    def test_box_plots_show_a_baseline_and_what_is_not_trusted(self, tmp_path):
        report = Report([made_song(n, bass=[i, 5.0, 8.0]) for i, n in enumerate("abc")])
        doubted = Report([made_song("a", bass=[2.0, 5.0, 8.0], trusted=False)])
        paths = [tmp_path / f"{name}.png" for name in ("one", "two", "songs")]
        box_plots(report, paths[0])
        box_plots(report, paths[1], baseline=doubted, names=("ours", "theirs"))
        box_plots(report, paths[2], over="songs")
        one, two, songs = (pixels(path) for path in paths)
        assert shows(two, "#BFE7DC")  # a quarter of bass on white
        assert not shows(one, "#BFE7DC")
        title = (slice(0, 40), slice(700, 1400))
        assert (one[title] < 0.5).sum() < (two[title] < 0.5).sum()
        assert not np.array_equal(one, songs)

    def test_box_plots_without_a_score(self, tmp_path):
        box_plots(Report([made_song("a", vocals=[math.nan])]), tmp_path / "boxes.png")
        with pytest.raises(InputError, match="no songs"):
            box_plots(Report(), tmp_path / "none.png")
        assert not (tmp_path / "none.png").exists()

    def test_spectrograms(self, stems, tmp_path):
        names = ("vocals", "drums")
        targets = {name: wave[:, 44100:66150] for name, wave in zip(names, stems, strict=False)}
        quiet = {name: 0.01 * wave for name, wave in targets.items()}
        spectrograms(tmp_path / "a.png", targets, targets, 44100)
        spectrograms(tmp_path / "b.png", targets, quiet, 44100)
        same, faint = pixels(tmp_path / "a.png"), pixels(tmp_path / "b.png")
        assert same.shape == faint.shape == (700, 1400, 3)
        left, right = (slice(0, 700), slice(0, 650)), (slice(60, 600), slice(700, 1200))
        np.testing.assert_array_equal(same[left], faint[left])
        assert same[right].mean() > faint[right].mean() + 0.1

    def test_spectrograms_of_silence_and_of_a_sample(self, tmp_path):
        for samples in (1, 5000):
            silence = {"vocals": np.zeros((1, samples), np.float32)}
            spectrograms(tmp_path / "silence.png", silence, silence, 16000)
            assert imread(tmp_path / "silence.png").shape[:2] == (400, 1400)

    def test_spectrograms_refuse(self, tmp_path):
        one, two = {"vocals": np.ones((1, 9))}, {"vocals": np.ones((2, 9))}
        for other, message in ((two, "vocals: got shapes"), ({}, "got none"), ({"x": 1}, "got x")):
            with pytest.raises(InputError, match=message):
                spectrograms(tmp_path / "none.png", one, other, RATE)

    def test_loss_curve(self, tmp_path):
        path = tmp_path / "loss.png"
        loss_curve(path, range(1, 9), [8.0, 4, 3, 2, 1, 1, 1, 1])
        alone = pixels(path)
        loss_curve(path, range(1, 9), [8.0, 4, 3, 2, 1, 1, 1, 1], [8, 5, 4, 3, 3, 4, 5, math.nan])
        both = pixels(path)
        assert alone.shape == both.shape == (700, 1400, 3)
        assert shows(alone, "#0072B2")
        assert shows(both, "#D55E00")
        assert not shows(alone, "#D55E00")

    def test_loss_curve_of_one_epoch(self, tmp_path):
        loss_curve(tmp_path / "loss.png", [1], [2.0], [math.nan])
        with pytest.raises(InputError, match="one for each"):
            loss_curve(tmp_path / "loss.png", [1, 2], [2.0])
        with pytest.raises(InputError, match="one for each"):
            loss_curve(tmp_path / "loss.png", [], [])

    def test_no_setting_of_matplotlib_changes(self, report, tmp_path):
        with matplotlib.rc_context({"font.size": 3.0}):
            before = dict(matplotlib.rcParams)
            box_plots(report, tmp_path / "boxes.png")
            assert dict(matplotlib.rcParams) == before

    def test_one_colour_a_source(self):
        field = colours(["vocals", "drums", "bass", "other", "accompaniment", "piano", "speech"])
        assert len(set(field.values())) == len(field)
        assert colours(["other", "vocals"])["vocals"] == field["vocals"]


def test_import_is_light():
    """Scores and figures load museval, scipy and matplotlib when they are first used."""
    code = (
        "import sys, sepfast.metrics, sepfast.evaluation.score, sepfast.evaluation.plots;"
        "heavy = {'museval', 'scipy', 'matplotlib', 'pandas'} & set(sys.modules);"
        "assert not heavy, heavy"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
