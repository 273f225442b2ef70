"""Evaluating songs from end to end, and the demonstration that does it on a real one."""

import csv
import json
from dataclasses import replace

import numpy as np
import pytest
import soundfile
import torch
from test_evaluation import made_song

from sepfast import InputError, Separator, create_model, demo, load
from sepfast.data import SOURCES, find_songs
from sepfast.data.side_line import TrueLine
from sepfast.evaluation.informed import from_model
from sepfast.evaluation.songs import (
    ORACLES,
    evaluate_songs,
    from_folder,
    from_oracle,
    from_separator,
    open_recording,
)

RATE = 8000


@pytest.fixture
def songs(tmp_path):
    """Two songs of 1.5 s whose sources sound in different bands."""
    seconds = np.arange(12_000) / RATE
    for name in ("one", "two"):
        (tmp_path / "songs" / name).mkdir(parents=True)
        for source, pitch in zip(SOURCES, (300, 900, 1700, 2900), strict=True):
            noise = np.random.default_rng(pitch).standard_normal((2, seconds.size))
            wave = 0.2 * np.sin(2 * np.pi * pitch * seconds) + 1e-3 * noise
            soundfile.write(tmp_path / "songs" / name / f"{source}.wav", wave.T, RATE, "FLOAT")
    return tmp_path / "songs"


def test_scores_and_pictures_are_written(songs, tmp_path):
    done = []
    report = evaluate_songs(
        songs, from_oracle("wiener"), tmp_path / "out", progress=lambda *a: done.append(a)
    )
    assert done == [(1, 2), (2, 2)]
    assert [song.name for song in report.songs] == ["one", "two"]
    assert all(report.songs[0].sources[s].sdr > 20 for s in SOURCES)
    made = {str(p.relative_to(tmp_path / "out")) for p in (tmp_path / "out").rglob("*.*")}
    spectrograms = {"spectrograms/one.png", "spectrograms/two.png"}
    kept = {"songs/one.json", "songs/two.json"}
    joined = {"scores.json", "scores.csv", "scores.summary.csv", "scores.png"}
    assert made == joined | spectrograms | kept
    with (tmp_path / "out/scores.csv").open(newline="") as file:
        assert len(list(csv.DictReader(file))) == 2 * 4 * 1
    assert json.loads((tmp_path / "out/scores.json").read_text())["summary"].keys() == set(SOURCES)


def test_songs_of_one_name_in_two_splits_have_pictures_of_their_own(songs, tmp_path, monkeypatch):
    monkeypatch.setattr(
        "sepfast.evaluation.songs.score_song", lambda name, *_, **__: made_song(name, bass=[1.0])
    )
    for split, name in (("train", "one"), ("test", "two")):
        (songs / split).mkdir()
        (songs / name).rename(songs / split / "song")
    evaluate_songs(songs, from_oracle("mixture"), tmp_path / "out")
    for split in ("train", "test"):
        assert (tmp_path / "out/spectrograms" / split / "song.png").is_file()
        assert (tmp_path / "out/songs" / split / "song.json").is_file()


def test_oracles_know_more_than_the_mixture(songs):
    recording = open_recording(find_songs(songs)[0][0])
    np.testing.assert_allclose(recording.mixture, sum(recording.stems.values()), atol=1e-6)
    error = {}
    for name in ORACLES:
        estimates = from_oracle(name)(recording)
        assert list(estimates) == list(SOURCES)
        error[name] = sum(np.square(estimates[s] - recording.stems[s]).sum() for s in SOURCES)
    assert max(error["binary"], error["wiener"]) < 0.01 * error["mixture"]
    with pytest.raises(InputError, match="oracle: got 'ideal', takes one of mixture"):
        from_oracle("ideal")


def test_stems_of_a_folder_and_of_a_model(songs):
    recording = open_recording(find_songs(songs)[0][0])
    estimates = from_folder(songs)(recording)
    assert all(np.array_equal(estimates[s], recording.stems[s]) for s in SOURCES)
    separated = from_separator(Separator(create_model("deepconvsep-stereo")))(recording)
    assert {s: e.shape for s, e in separated.items()} == dict.fromkeys(SOURCES, (2, 12_000))


def test_one_bad_song_does_not_stop_the_others(songs, tmp_path):
    estimates = tmp_path / "estimates"
    (estimates / "one").mkdir(parents=True)
    for source in SOURCES:
        data, _ = soundfile.read(songs / "one" / f"{source}.wav")
        soundfile.write(estimates / "one" / f"{source}.wav", data, RATE)
    notes = []
    report = evaluate_songs(songs, from_folder(estimates), tmp_path / "out", note=notes.append)
    assert [song.name for song in report.songs] == ["one"]
    assert len(notes) == 1
    assert "holds no vocals.wav" in notes[0]


def test_what_cannot_be_scored_is_named(songs, tmp_path):
    with pytest.raises(InputError, match="no such folder of estimates"):
        from_folder(tmp_path / "nowhere")
    (tmp_path / "none").mkdir()
    with pytest.raises(InputError, match="none of 2 songs could be scored, the first"):
        evaluate_songs(songs, from_folder(tmp_path / "none"), tmp_path / "out")
    soundfile.write(songs / "one" / "bass.wav", np.zeros((100, 2)), RATE)
    with pytest.raises(InputError, match="holds 2 channels of 100 samples at 8000 Hz"):
        open_recording(find_songs(songs)[0][0])


RATE_C = 16000


@pytest.fixture
def sung(tmp_path, monkeypatch):
    """A song of 1.5 s in stereo, its vocals silent in the first second, and one without vocals."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    vocals, rest = 0.1 * np.random.default_rng(0).standard_normal((2, 24_000, 2))
    vocals[:RATE_C] = 0
    for name, sources in (("sung", ("vocals", "mixture")), ("other", ("mixture", "bass"))):
        (tmp_path / "sung" / name).mkdir(parents=True)
        for source in sources:
            wave = vocals if source == "vocals" else rest + vocals
            path = tmp_path / "sung" / name / f"{source}.wav"
            soundfile.write(path, wave, RATE_C, "FLOAT")
    return tmp_path / "sung"


def test_informed_is_scored_in_mono_on_its_target_and_the_rest(sung, tmp_path):
    notes, out = [], tmp_path / "out"
    estimator = from_model(create_model("informed", hidden=2))
    recording = estimator.open(find_songs(sung, sources=("vocals",))[0][0])
    mixture, _ = soundfile.read(sung / "sung/mixture.wav", dtype="float32")
    assert recording.sample_rate == RATE_C
    np.testing.assert_allclose(recording.mixture, mixture.mean(1)[None], atol=1e-7)
    np.testing.assert_allclose(sum(recording.stems.values()), recording.mixture, atol=1e-7)
    assert not recording.stems["vocals"][:, :RATE_C].any()

    report = evaluate_songs(sung, estimator, out, note=notes.append)
    assert [song.name for song in report.songs] == ["sung"]
    assert list(report.sources) == ["vocals", "accompaniment"]
    assert report.songs[0].sources["vocals"].pes.frames == 1
    assert report.songs[0].sources["accompaniment"].pes.frames == 0
    assert "has no vocals" in notes[0]
    assert (out / "alignments/sung.png").stat().st_size > 10_000
    again = evaluate_songs(sung, estimator, out)  # the same random numbers
    assert again.songs[0].sources["vocals"].pes == report.songs[0].sources["vocals"].pes


def test_informed_is_told_the_truth_or_lines_of_files(sung, tmp_path, monkeypatch):
    told = []

    def heard(self, waveform, rate, *, side=None, alignment=None):
        told.append((side, alignment))
        return dict.fromkeys(self.sources, torch.zeros(waveform.shape))

    monkeypatch.setattr(Separator, "__call__", heard)
    lines = tmp_path / "lines"
    lines.mkdir()
    (lines / "sung.csv").write_text("time,active\n0,0\n1,1\n")
    song = find_songs(sung, sources=("vocals",))[0][0]
    for given in ({"side": "M1"}, {"side": "BL2"}, {"attention": False}):
        estimator = from_model(create_model("informed", hidden=2, **given))
        estimator(estimator.open(song))
    assert isinstance(told[0][0], TrueLine)
    assert [side is None for side, _ in told] == [False, True, True]
    assert [alignment is None for _, alignment in told] == [False, False, True]
    estimator = from_model(create_model("informed", hidden=2), side_info=lines)
    estimator(estimator.open(song))
    assert told[-1][0].times.tolist() == [0, 1]
    with pytest.raises(InputError, match=r"lines: holds no other.csv or .npy"):
        estimator(replace(estimator.open(song), name="other"))


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("informed", {"side": "BL2", "hidden": 2}, "takes None"),
        ("informed", {"attention": False, "hidden": 2}, "takes None"),
        ("deepconvsep-stereo", {}, "takes None"),
    ],
)
def test_lines_for_a_model_that_takes_none(name, options, message, tmp_path):
    with pytest.raises(InputError, match=message):
        from_model(create_model(name, **options), side_info=tmp_path)
    with pytest.raises(InputError, match="no such folder of side information"):
        from_model(create_model(name, **options), side_info=tmp_path / "nowhere")


def test_demo_leaves_a_model_stems_and_a_page(tmp_path):
    short = replace(demo.OPTIONS, epochs=1, batches_per_epoch=1, batch_size=2)
    state = torch.random.get_rng_state()
    outcome = demo.run(tmp_path / "demo", options=short, device="cpu")
    assert torch.equal(torch.random.get_rng_state(), state)
    assert {p.name for p in (tmp_path / "demo").iterdir()} == set(demo._MADE)
    before = [round(outcome.sdr(source)[0], 1) for source in SOURCES]
    assert before == [-4.8, -4.6, -3.4, -6.7]
    assert load(tmp_path / "demo/model.safetensors").channels == 2
    page = outcome.page.read_text()
    assert page.count("<audio") == 9
    assert page.count("<img") == 2
    # It replaces its own, and touches nothing else.
    (tmp_path / "demo/mine.txt").touch()
    with pytest.raises(InputError, match=r"holds mine.txt, takes a folder of its own"):
        demo.run(tmp_path / "demo", options=short)
    assert outcome.page.is_file()
