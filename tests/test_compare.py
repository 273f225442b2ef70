"""Experiments beside each other: medians, figure, command, and what does not compare."""

import math
from dataclasses import replace

import numpy as np
import pytest
import typer
from matplotlib.image import imread

from sepfast import InputError
from sepfast.cli.compare import compare
from sepfast.evaluation import (
    METRICS,
    Report,
    SongScores,
    SourceScores,
    compare_plots,
    medians_table,
)
from sepfast.evaluation.compare import _values
from sepfast.metrics import SilenceEnergy

NONE = SilenceEnergy(math.nan, 0)


def experiment(*sdr, pes=(), window=1.0, trusted=True) -> Report:
    """A report of songs with such an SDR, and PES of the first few of them."""
    songs = []
    for i, median in enumerate(sdr):
        energy = SilenceEnergy(pes[i], 3) if i < len(pes) else NONE
        frames = {m: np.array([median - 9, median, median + 1]) + j for j, m in enumerate(METRICS)}
        sources = {"vocals": SourceScores(frames, 0, energy, NONE)}
        songs.append(SongScores(f"song {i}", sources, window, 1.0, 1.0, trusted))
    return Report(songs)


def test_a_point_is_a_songs_median():
    values = _values(
        {"a": experiment(1.0, 2.0, math.inf), "b": experiment(1, 2, 3, pes=[-9])}, "vocals"
    )
    assert list(values) == ["sdr", "sar", "sir", "pes", "eps"]
    assert values["sdr"]["a"].tolist() == [1, 2]
    assert values["sar"]["b"].tolist() == [4, 5, 6]  # "sar" is the fourth of METRICS
    assert values["pes"]["b"].tolist() == [-9]
    assert values["eps"]["b"].size == 0


def test_medians_are_those_of_the_songs_that_have_a_score():
    found = medians_table(
        {"BL2": experiment(1, 5, 2, pes=[-20, -40]), "A1": experiment(3, 4, 5)}, "vocals"
    )
    assert found.header == tuple(
        f"{name} (dB)" if name != "experiment" else name
        for name in ("experiment", "SDR", "SAR", "SIR", "PES", "EPS")
    )
    assert found.rows[0] == ("BL2", "2.00", "5.00", "4.00", "-30.00 (2)", "-")
    assert found.rows[1] == ("A1", "4.00", "7.00", "6.00", "-", "-")
    assert "lower is better" in found.notes[0]
    doubted = medians_table({"a": experiment(1.0, trusted=False)}, "vocals")
    assert doubted.notes[1] == "SAR and SIR cannot be trusted in songs of a."


def test_figure(tmp_path):
    few, many = ({str(i): experiment(i, i + 2, 9, pes=[-i]) for i in range(n)} for n in (2, 11))
    pictures = []
    for name, reports in (("few", few), ("many", many)):
        compare_plots(reports, "vocals", tmp_path / f"{name}.png")
        pictures.append(imread(tmp_path / f"{name}.png")[..., :3])
        assert pictures[-1].shape == (600, 1400, 3)
    boxes = [(abs(p - np.array([0xA9, 0xCF, 0xE8]) / 255) < 0.01).all(-1) for p in pictures]
    for box in boxes:
        assert box[:, :900].any()  # SDR, SAR, SIR
        assert not box[:, 1190:].any()  # EPS: no song has one
    assert sum(np.diff(boxes[1][:, :300].any(0).astype(int)) > 0) > sum(
        np.diff(boxes[0][:, :300].any(0).astype(int)) > 0
    )


@pytest.mark.parametrize(
    ("second", "source", "message"),
    [
        (experiment(1.0, 2.0), "drums", "source: got 'drums', takes one of vocals"),
        (experiment(1.0, 2.0, window=2.0), "vocals", "b: has frames of 2 s every 1 s, a of 1 s"),
        (experiment(1.0), "vocals", "b: differs from a in song song 1"),
        (experiment(1.0, 2.0, 3.0), "vocals", "b: differs from a in song song 2"),
        (Report(), "vocals", "b: holds no songs"),
    ],
)
def test_what_does_not_compare(second, source, message, tmp_path):
    reports = {"a": experiment(1.0, 2.0), "b": second}
    with pytest.raises(InputError, match=message):
        compare_plots(reports, source, tmp_path / "a.png")
    with pytest.raises(InputError, match=message):
        medians_table(reports, source)
    assert not list(tmp_path.iterdir())


def test_order_of_songs_does_not_matter():
    first, second = experiment(1.0, 2.0), experiment(1.0, 2.0)
    second.songs.reverse()
    medians_table({"a": first, "b": second}, "vocals")
    second.songs[0] = replace(second.songs[0], name="song 0")  # twice the same
    with pytest.raises(InputError, match="differs from a"):
        medians_table({"a": first, "b": second}, "vocals")


def test_command(tmp_path, capsys):
    paths = [tmp_path / f"{name}.json" for name in "ab"]
    experiment(1.0, 3.0, pes=[-9.0, -9.0]).to_json(paths[0])
    experiment(2.0, 4.0).to_json(paths[1])
    figure = tmp_path / "figures" / "a.png"
    compare([f"BL2 [old]={paths[0]}", f"A1={paths[1]}"], figure, "vocals")
    said = capsys.readouterr().out
    assert figure.is_file()
    for text in ("BL2 [old]", "A1", "2.00", "3.00", "-9.00", "lower is better", str(figure)):
        assert text in said
    (tmp_path / "c.json").write_text("{}")
    cases = {
        "scores.json": "compare: got 'scores.json', takes NAME=SCORES.json",
        f"=={paths[0]}": "takes NAME=SCORES.json",
        f"BL2={paths[1]}": "compare: got BL2 twice",
        f"c={tmp_path / 'c.json'}": "c.json: holds no scores that sepfast wrote",
        f"d={tmp_path / 'd.json'}": "d.json: cannot be read",
    }
    for argument, message in cases.items():
        with pytest.raises(InputError, match=message):
            compare([f"BL2={paths[0]}", argument], tmp_path / "b.png", "vocals")
    assert not (tmp_path / "b.png").exists()


def test_it_is_a_command():
    from sepfast.cli.app import _app

    found = typer.main.get_command(_app()).commands["compare"]
    assert "Example" in found.help
    assert "sepfast compare BL2=bl2/scores.json" in found.help
