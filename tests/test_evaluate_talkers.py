"""Evaluating mixtures of talkers from end to end."""

import csv
import json
import math
import random
import sys
from dataclasses import replace

import numpy as np
import pytest
import soundfile
from talking import RATE, crowd, talk, voice
from test_speech import noise
from typer.testing import CliRunner

from sepfast import InputError, create_model, metrics, save
from sepfast.cli.app import _app
from sepfast.data import find_utterances, mix, write_manifest
from sepfast.data.landmarks import read_landmarks
from sepfast.data.speaker_statistics import speaker_statistics
from sepfast.evaluation import talkers
from sepfast.evaluation.speech_scores import SpeechReport, speech_table
from sepfast.evaluation.talkers import (
    FolderEstimator,
    ModelEstimator,
    VoiceEstimator,
    evaluate_talkers,
    mixture_name,
)


class Told(VoiceEstimator):
    """The target, or what a function makes of mixture and target."""

    label = "told"

    def __init__(self, voice=lambda mixture, target: target) -> None:
        self.voice = voice

    def __call__(self, mixture, noisy):
        return self.voice(mixture, mixture.target.waveform()).astype(np.float32)


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    """Four speakers with two utterances each."""
    return crowd(tmp_path_factory.mktemp("talkers"), speakers=4, utterances=2)


@pytest.fixture(scope="module")
def manifests(data, tmp_path_factory):
    """Four mixtures of two speakers, and two of three."""
    said = find_utterances(data)[0]
    two = [mix(said[i], [said[(i + 2) % 8]]) for i in (0, 1, 2, 6)]
    three = [mix(said[i], [said[i + 2], said[i + 5]]) for i in (0, 2)]
    folder = tmp_path_factory.mktemp("manifests")
    for name, mixtures in (("two", two), ("three", three)):
        write_manifest(folder / f"{name}.csv", mixtures)
    return {"two": (folder / "two.csv", two), "three": (folder / "three.csv", three)}


@pytest.mark.parametrize("score", ["pesq", "visqol"])
def test_a_package_that_is_not_installed(score, monkeypatch, packages, data, manifests, tmp_path):
    monkeypatch.setitem(sys.modules, score, None)
    with pytest.raises(InputError, match=rf"{score}: the package .* takes `pip install 'sepfast"):
        getattr(metrics, score)(noise(RATE), noise(RATE), RATE)
    report = evaluate_talkers([manifests["three"][0]], data, Told(), tmp_path)
    assert score not in report.metrics
    assert report.metrics[0] == "sdr"
    table = speech_table(report)
    assert len(table.header) == 3
    assert table.notes[1:] == [report.missing[score]]
    assert json.loads((tmp_path / "scores.json").read_text())["missing"] == dict(report.missing)


def test_the_target_scores_far_above_the_mixture(packages, data, manifests, tmp_path):
    paths = [manifests[name][0] for name in ("two", "three")]
    done = []
    report = evaluate_talkers(paths, data, Told(), tmp_path, progress=lambda *a: done.append(a))
    assert done[-1] == (6, 6)
    assert [mixture.talkers for mixture in report.mixtures] == [2] * 4 + [3] * 2
    for mixture in report.mixtures:
        assert mixture.enhanced["sdr"] > 100 > 20 > mixture.noisy["sdr"]
        assert (mixture.enhanced["pesq"], mixture.noisy["pesq"]) == (4, 2)
    # Two interferers are worse than the first of them alone.
    assert report.mixtures[4].noisy["sdr"] < report.mixtures[0].noisy["sdr"]
    table = speech_table(report)
    names = ("SDR (dB)", "PESQ", "ViSQOL")
    assert table.header == ["", *(f"{n} speakers: {name}" for n in (2, 3) for name in names)]
    noisy, told = table.rows
    assert (noisy[0], noisy[2:4], noisy[5:]) == (
        "noisy",
        ["2.00 (4)", "3.00 (4)"],
        ["2.00 (2)", "3.00 (2)"],
    )
    assert (told[0], told[2:4], told[5:]) == (
        "told",
        ["4.00 (4)", "5.00 (4)"],
        ["4.00 (2)", "5.00 (2)"],
    )
    mean = np.mean([mixture.noisy["sdr"] for mixture in report.mixtures[:4]])
    assert noisy[1] == f"{mean:.2f} (4)"
    assert "4 of 2 speakers, 2 of 3 speakers" in table.notes[0]


def test_scores_do_not_depend_on_the_order(packages, data, manifests, tmp_path):
    path, mixtures = manifests["two"]
    other = tmp_path / "other.csv"
    write_manifest(other, random.Random(0).sample(mixtures, len(mixtures)))
    heard = Told(lambda mixture, target: target + 0.03 * noise(target.size).astype(np.float32))
    first, second = (evaluate_talkers([p], data, heard, tmp_path / p.stem) for p in (path, other))
    assert first.mixtures != second.mixtures
    by_name = [{m.name: m for m in report.mixtures} for report in (first, second)]
    assert by_name[0] == by_name[1]
    assert len(by_name[0]) == 4


def test_silence_has_no_score_and_is_counted(packages, tmp_path):
    root = crowd(tmp_path / "data", speakers=2, utterances=1)
    talk(root / "s3", "mute", waveform=np.zeros(RATE // 2))
    said = find_utterances(root)[0]
    pairs = ((0, 1), (1, 0), (2, 0))  # the last one's target is silent
    write_manifest(tmp_path / "m.csv", [mix(said[i], [said[j]]) for i, j in pairs])

    def mute_s2(mixture, target):
        return 0 * target if mixture.target.speaker == "s2" else target

    report = evaluate_talkers([tmp_path / "m.csv"], root, Told(mute_s2), tmp_path / "out")
    assert [math.isnan(m.enhanced["sdr"]) for m in report.mixtures] == [False, True, True]
    assert [math.isnan(m.noisy["sdr"]) for m in report.mixtures] == [False, False, True]
    noisy, told = speech_table(report).rows
    assert [cell.split()[1] for cell in noisy[1:]] == ["(2)"] * 3
    assert [cell.split()[1] for cell in told[1:]] == ["(1)"] * 3
    written = json.loads((tmp_path / "out/scores.json").read_text())
    assert written["mixtures"][2]["enhanced"] == {"sdr": None, "pesq": None, "visqol": None}
    counts = {(e["row"], e["score"]): (e["count"], e["mixtures"]) for e in written["summary"]}
    assert counts["noisy", "pesq"] == (2, 3)
    assert counts["told", "visqol"] == (1, 3)
    with (tmp_path / "out/scores.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["row"] for row in rows] == ["noisy", "told"] * 3
    assert [row["sdr"] == "" for row in rows] == [False, False, False, True, True, True]


def test_all_silent_is_a_dash(packages):
    assert metrics.statistics([math.nan]).count == 0
    report = SpeechReport("told", {"pesq": "gone", "visqol": "gone too"})
    none = {"sdr": math.nan}
    report.mixtures.append(talkers.TalkerScores("a", 2, none, none))
    table = speech_table(report)
    assert table.rows == [["noisy", "- (0)"], ["told", "- (0)"]]
    assert table.notes[1:] == ["gone", "gone too"]
    with pytest.raises(InputError, match="label: got 'noisy'"):
        SpeechReport("noisy")


def test_a_model_is_given_the_target_and_its_speakers_statistics(
    packages, data, manifests, tmp_path, monkeypatch
):
    told = []

    def heard(self, waveform, rate, landmarks, video_rate, *, statistics=None):
        told.append((waveform, rate, landmarks, video_rate, statistics))
        return enhance(self, waveform, rate, landmarks, video_rate, statistics=statistics)

    enhance = talkers.Enhancer.__call__
    monkeypatch.setattr(talkers.Enhancer, "__call__", heard)
    path, mixtures = manifests["three"]
    estimator = ModelEstimator(create_model("av-concat", hidden=2), cache_dir=tmp_path / "cache")
    assert estimator.label == "av-concat"
    report = evaluate_talkers([path], data, estimator, tmp_path, cache_dir=tmp_path / "cache")
    assert len(report.mixtures) == 2
    usual = speaker_statistics(find_utterances(data)[0], mixtures, cache_dir=tmp_path / "cache")
    for mixture, (waveform, rate, landmarks, video_rate, statistics) in zip(
        mixtures, told, strict=True
    ):
        np.testing.assert_array_equal(waveform, mixture.waveforms(tmp_path / "cache")[:1])
        assert (rate, video_rate) == (RATE, 25)
        np.testing.assert_array_equal(landmarks, read_landmarks(mixture.target.landmarks))
        own = usual[mixture.target.speaker]
        np.testing.assert_array_equal(statistics.mixtures.mean, own.mixtures.mean)
        np.testing.assert_array_equal(statistics.motion.mean, own.motion.mean)
    with pytest.raises(InputError, match="takes one that enhances by a face"):
        ModelEstimator(create_model("deepconvsep"))


def write_targets(folder, mixtures):
    folder.mkdir(exist_ok=True)
    for mixture in mixtures:
        wave = mixture.target.waveform()
        soundfile.write(folder / f"{mixture_name(mixture)}.wav", wave, RATE, subtype="FLOAT")
    return folder


def run(*arguments):
    return CliRunner().invoke(_app(), [str(argument) for argument in arguments])


def test_command_line(packages, data, manifests, tmp_path):
    paths = [manifests[name][0] for name in ("two", "three")]
    for _, mixtures in manifests.values():
        folder = write_targets(tmp_path / "mine", mixtures)
    options = ("--data", data, "-o", tmp_path / "scores")
    result = run("evaluate", *paths, "-e", folder, *options)
    assert result.exit_code == 0, result.output
    for expected in ("scoring", "noisy", "mine", "4.00 (4)", "5.00 (2)", "scores: "):
        assert expected in result.output
    written = json.loads((tmp_path / "scores/scores.json").read_text())
    assert [entry["talkers"] for entry in written["mixtures"]] == [2] * 4 + [3] * 2
    assert min(entry["enhanced"]["sdr"] for entry in written["mixtures"]) > 100
    assert not (tmp_path / "scores/scores.png").exists()


def test_command_line_with_a_model(packages, data, manifests, tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    save(create_model("vl2m", hidden=2, layers=1), tmp_path / "vl2m.safetensors")
    options = ("--data", data, "-m", tmp_path / "vl2m.safetensors", "--device", "cpu")
    result = run("evaluate", manifests["two"][0], *options, "-o", tmp_path / "scores")
    assert result.exit_code == 0, result.output
    assert "vl2m" in result.output
    assert "2.00 (4)" in result.output


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["two.csv", "--data", "."], "takes of manifests one of --estimates and --model"),
        (["two.csv", "--data", ".", "-e", "x", "-m", "y"], "takes of manifests one of"),
        (["two.csv", "-e", "x"], "takes --data with a manifest"),
        (["two.csv", "--oracle", "mixture"], "takes of manifests no --oracle"),
        (["two.csv", "-e", "x", "--window", "2"], "takes of manifests no --oracle"),
        (["two.csv", "-e", "nowhere", "--data", "."], "there is no such folder of estimates"),
        (["two.csv", "songs", "-e", "x"], "takes one folder of songs, or manifests"),
        (["songs", "-e", "x", "--data", "."], "takes one folder of songs, or manifests"),
    ],
)
def test_options_that_do_not_fit(arguments, message, tmp_path):
    result = run("evaluate", *arguments, "-o", tmp_path / "scores")
    assert result.exit_code == 2
    assert message in result.stderr
    assert not (tmp_path / "scores").exists()


def test_a_mixture_that_cannot_be_scored_does_not_stop_the_others(
    packages, data, manifests, tmp_path
):
    path, mixtures = manifests["two"]
    folder = write_targets(tmp_path / "mine", mixtures)
    first, second, third, fourth = (folder / f"{mixture_name(m)}.wav" for m in mixtures)
    first.unlink()
    soundfile.write(second, voice(RATE // 2 - 1, 0), RATE)
    soundfile.write(third, np.zeros((RATE // 2, 2)), RATE)
    notes = []
    report = evaluate_talkers(
        [path], data, FolderEstimator(folder), tmp_path / "out", note=notes.append
    )
    assert [m.name for m in report.mixtures] == [fourth.stem]
    for note, reason in zip(
        notes,
        (
            f"holds no {first.stem}.wav or .flac",
            "holds 1 channels of 7999 samples at 16000 Hz, takes 1 of 8000 at 16000 Hz",
            "holds 2 channels of 8000 samples",
        ),
        strict=True,
    ):
        assert note.startswith("skipped: s")
        assert reason in note
    fourth.unlink()
    with pytest.raises(InputError, match="none of 4 mixtures could be scored, the first: s"):
        evaluate_talkers([path], data, FolderEstimator(folder), tmp_path / "none")
    assert not (tmp_path / "none").exists()


def test_mixtures_of_one_name_are_refused(data, manifests, tmp_path):
    path, (first, *_) = manifests["two"]
    write_manifest(tmp_path / "again.csv", [replace(first, offsets=(3,))])
    with pytest.raises(InputError, match=r"hold s1_a\+s2_a twice"):
        evaluate_talkers([path, tmp_path / "again.csv"], data, Told(), tmp_path / "out")
