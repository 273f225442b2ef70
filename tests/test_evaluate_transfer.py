"""Evaluating targets taken out of mixtures, from end to end."""

import math
from dataclasses import dataclass

import numpy as np
import pytest
from test_transfer_scores import BLUE, SAMPLES, WAVEFORMS, boxes
from typer.testing import CliRunner

from sepfast import InputError, create_model, save
from sepfast.cli.app import _app
from sepfast.data.audio import write
from sepfast.data.clips import SAMPLE_RATE as RATE
from sepfast.data.clips import open_clip
from sepfast.data.duets import draw_duets, write_duets
from sepfast.evaluation.transfer import (
    FolderTargets,
    ModelTargets,
    TargetEstimator,
    evaluate_transfer,
)
from sepfast.evaluation.transfer_scores import TransferReport


@dataclass(frozen=True)
class Known:
    """A mixture, target and rest in memory."""

    name: str
    content: np.ndarray

    def waveforms(self, cache_dir=None):
        return self.content.astype(np.float32)


class Told(TargetEstimator):
    """What a function makes of a mixture's name."""

    label = "told"

    def __init__(self, target) -> None:
        self.target = target

    def __call__(self, name, mixture):
        return self.target(name)


def test_a_mixture_that_cannot_be_scored_does_not_stop_the_others(tmp_path):
    items = [Known(name, WAVEFORMS) for name in "abc"]
    notes, done = [], []
    told = Told(lambda name: WAVEFORMS[1, : SAMPLES - (name == "b")])
    found = evaluate_transfer(
        items, told, tmp_path, progress=lambda *a: done.append(a), note=notes.append
    )
    assert [one.name for one in found.mixtures] == ["a", "c"]
    assert done == [(1, 3), (2, 3), (3, 3)]
    assert notes == ["skipped: b: estimate: got shape (4399,), takes (4400,) as the mixture"]
    assert sorted(p.name for p in tmp_path.iterdir()) == [
        "scores.csv",
        "scores.json",
        "scores.png",
    ]
    assert TransferReport.from_json(tmp_path / "scores.json") == found
    assert boxes(tmp_path / "scores.png", BLUE) == [0, 0, 0]  # all beyond what is drawn


@pytest.mark.parametrize(
    ("names", "message"),
    [
        ("", "items: got no mixtures"),
        ("aba", "items: hold a twice"),
        ("ab", "none of 2 mixtures could be scored, the first: a: estimate"),
    ],
)
def test_what_cannot_be_evaluated(names, message, tmp_path):
    items = [Known(name, WAVEFORMS) for name in names]
    with pytest.raises(InputError, match=message):
        evaluate_transfer(items, Told(lambda name: np.zeros(2)), tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_a_folders_estimates_are_heard_as_the_mixtures_are(tmp_path):
    mixture, target = WAVEFORMS[:2]
    write(tmp_path / "a.b.wav", np.stack([target, 0 * target]), RATE)  # a dot is part of a name
    (tmp_path / "a").mkdir()
    write(tmp_path / "a" / "target.flac", target[None, ::2], RATE // 2)
    write(tmp_path / "c.wav", target[None, 1:], RATE)
    told = FolderTargets(tmp_path)
    assert told.label == tmp_path.name
    np.testing.assert_array_equal(told("a.b", mixture), target / 2)
    assert told("a", mixture).shape == mixture.shape
    with pytest.raises(InputError, match=r"c\.wav: holds 4399 samples at 16000 Hz, takes 4400"):
        told("c", mixture)
    with pytest.raises(InputError, match=r"holds no d\.wav or .flac, nor d/target.wav"):
        told("d", mixture)
    with pytest.raises(InputError, match="no such folder of estimates"):
        FolderTargets(tmp_path / "nowhere")


def test_a_models_target_is_its_first_source():
    model = create_model("udt", hidden=2, sources=("voice", "band"))
    told = ModelTargets(model)
    assert told.label == "udt"
    separated = told._separator(WAVEFORMS[:1], RATE)
    np.testing.assert_array_equal(told("a", WAVEFORMS[0]), separated["voice"][0].numpy())
    with pytest.raises(InputError, match=r"model: got .*, takes one that"):
        ModelTargets(create_model("av-concat", hidden=2))
    with pytest.raises(InputError, match="model: got informed, which takes side information"):
        ModelTargets(create_model("informed"))


def run(*arguments):
    return CliRunner().invoke(_app(), [str(argument) for argument in arguments])


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    """Pairs, their estimates, and recordings of two people with a manifest of duets of them."""
    root = tmp_path_factory.mktemp("transfers")
    for name in ("one", "two"):
        write(root / f"pairs/mixtures/{name}.wav", WAVEFORMS[:1], RATE)
        write(root / f"pairs/clean/{name}.wav", WAVEFORMS[1:2], RATE)
    write(root / "pairs/mixtures/lonely.wav", WAVEFORMS[:1], RATE)
    write(root / "mine/one.wav", WAVEFORMS[1:2] + 0.1 * WAVEFORMS[2:], RATE)
    write(root / "mine/two/target.wav", WAVEFORMS[1:2] + WAVEFORMS[2:] / 2, RATE)
    clips = []
    for seed, who in enumerate(("her", "him")):
        path = root / f"people/{who}/a.wav"
        voice = np.random.default_rng(seed).standard_normal((1, 6000)).astype(np.float32)
        write(path, 0.1 * voice, RATE)
        clips.append(open_clip(f"{who}/a", [path]))
    for name, seed in (("train", 1), ("test", 2)):
        write_duets(root / f"{name}.csv", draw_duets(clips[:1], clips[1:], 1, seed, 0.2))
    save(create_model("udt", hidden=2), root / "udt.safetensors")
    return root


def test_command_line_of_pairs(data, tmp_path):
    result = run("evaluate", data / "pairs", "-e", data / "mine", "-o", tmp_path / "scores")
    assert result.exit_code == 0, result.output
    # SIR of 20 and 6.02 dB.
    for expected in ("skipped: ", "lonely", "mixture", "mine", "13.01 (9.5, 16.5)", "2 mixtures"):
        assert expected in result.output
    found = TransferReport.from_json(tmp_path / "scores/scores.json")
    assert [one.name for one in found.mixtures] == ["one", "two"]
    assert [one.estimate["sir"] for one in found.mixtures] == pytest.approx([20, 6.0206], abs=1e-3)


def test_command_line_of_duets_and_their_figure(data, tmp_path):
    manifests = [data / f"{name}.csv" for name in ("test", "train")]
    options = ("--data", data / "people", "-m", data / "udt.safetensors", "--device", "cpu")
    result = run("evaluate", manifests[0], *options, "-o", tmp_path / "test")
    assert result.exit_code == 0, result.output
    assert "udt" in result.output
    found = TransferReport.from_json(tmp_path / "test/scores.json").mixtures
    assert len(found) == 1
    assert found[0].mixture["si_sdr"] == pytest.approx(0, abs=0.5)  # mixed at 0 dB
    assert math.isfinite(found[0].estimate["si_sdr"])
    again = run("evaluate", *manifests, *options, "-o", tmp_path / "both")
    # Both are number 1 of a woman and a man, as names go.
    assert again.exit_code == 2
    assert "twice, take each mixture once" in again.stderr
    scores = tmp_path / "test/scores.json"
    shown = run("compare", f"UDT test={scores}", f"again={scores}", "-o", tmp_path / "a.png")
    assert shown.exit_code == 0, shown.output
    for expected in ("UDT test", "again", "SI-SDR", "figure: "):
        assert expected in shown.output
    assert (tmp_path / "a.png").is_file()
    songs = tmp_path / "songs.json"
    songs.write_text('{"format": "sepfast-scores", "version": 1, "songs": []}')
    refused = {
        ("--source", "vocals"): "--source: got vocals, takes none",
        (f"songs={songs}",): "compare: got scores of targets in a and of songs in songs, takes one",
        (f"gone={tmp_path / 'gone.json'}",): "gone.json: cannot be read",
    }
    for more, message in refused.items():
        result = run("compare", f"a={scores}", *more, "-o", tmp_path / "b.png")
        assert result.exit_code == 2
        assert message in result.stderr
    result = run("compare", f"songs={songs}", "-o", tmp_path / "b.png")
    assert "--source: got none, takes a source of the songs" in result.stderr
    assert not (tmp_path / "b.png").exists()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["pairs"], "takes of duets and pairs one of --estimates and --model"),
        (["pairs", "-e", "mine", "-m", "x"], "takes of duets and pairs one of"),
        (["pairs", "-e", "mine", "--data", "people"], "takes of a folder with mixtures/ and clean"),
        (["pairs", "test.csv", "-e", "mine"], "takes one folder with mixtures/ and clean/"),
        (["test.csv", "-e", "mine"], "takes --data with a manifest, the folder of its recordings"),
        (["test.csv", "pairs.csv", "-e", "mine"], "pairs.csv: is no manifest of duets, takes"),
        *(
            (["test.csv", "-e", "mine", *more], "takes of duets and pairs no --oracle, --side-info")
            for more in (
                ["--oracle", "mixture"],
                ["--side-info", "x"],
                ["--split", "test"],
                ["--window", "2"],
                ["--hop", "2"],
                ["--video-rate", "25"],
            )
        ),
    ],
)
def test_options_that_do_not_fit(data, arguments, message, tmp_path, monkeypatch):
    monkeypatch.chdir(data)
    result = run("evaluate", *arguments, "-o", tmp_path / "scores")
    assert result.exit_code == 2
    assert message in result.stderr
    assert not (tmp_path / "scores").exists()
