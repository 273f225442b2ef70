"""Files and the program with side information: what is written, and what is refused."""

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import soundfile
from test_separation_informed import CONTEXT, FALLING, RATE, looking, noise, small, table

from sepfast import InputError, save
from sepfast.data import read
from sepfast.separation import Alignment, Job, find_jobs, find_sides, separate_file


class TestFiles:
    @pytest.fixture
    def song(self, tmp_path):
        soundfile.write(tmp_path / "song.wav", noise(RATE * 3, 2).numpy(), RATE)
        return tmp_path / "song.wav"

    def test_stems_and_alignment_lie_together(self, song, tmp_path):
        side = tmp_path / "activity.csv"
        side.write_text("time,activity\n0,0\n1,1\n2,0\n")
        job = Job(song, tmp_path / "out")
        stems = separate_file(looking(0), job, side=side)
        assert [s.path.name for s in stems] == ["vocals.wav", "accompaniment.wav"]
        names = {p.name for p in job.folder.iterdir()}
        assert names == {"vocals.wav", "accompaniment.wav", "alignment.csv", "alignment.png"}
        for row in table(job.folder / "alignment.csv"):
            time, value, position = (float(row[k]) for k in ("time", "value", "position"))
            assert value == pytest.approx(float(1 <= time < 2))
            assert position == pytest.approx(time, abs=1e-4)
        assert (job.folder / "alignment.png").read_bytes().startswith(b"\x89PNG")

    def test_a_file_that_does_not_say_how_long_it_is(self, tmp_path):
        soundfile.write(tmp_path / "song.mp3", noise(RATE * 3, 1).numpy(), RATE)
        np.save(tmp_path / "side.npy", np.array([0.0, 1, 0]))
        separate_file(
            looking(0), Job(tmp_path / "song.mp3", tmp_path / "out"), side=tmp_path / "side.npy"
        )
        told = np.loadtxt(tmp_path / "out/alignment.csv", delimiter=",", skiprows=1)
        length = read(tmp_path / "song.mp3")[0].shape[1] / RATE
        sung = told[told[:, 1] > 0.5, 0]
        assert sung[0] == pytest.approx(length / 3, abs=0.04)
        assert sung[-1] == pytest.approx(length * 2 / 3, abs=0.04)

    def test_all_or_nothing(self, song, tmp_path, monkeypatch):
        job, before = Job(song, tmp_path / "out"), set(tmp_path.iterdir())
        side = tmp_path / "late.csv"
        side.write_text("0,0\n300,1\n")
        message = f"^{side}: goes to 300.0 s, the recording lasts 3.0 s$"
        with pytest.raises(InputError, match=message):
            separate_file(looking(0), job, side=side)
        monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
        with pytest.raises(InputError, match="matplotlib: is not installed"):
            separate_file(looking(0), job, side=FALLING)
        monkeypatch.undo()

        def fail(*_, **__):
            raise InputError("no picture")

        monkeypatch.setattr(Alignment, "write_png", fail)
        with pytest.raises(InputError, match="no picture"):
            separate_file(looking(0), job, side=FALLING)
        assert set(tmp_path.iterdir()) == before | {side}

    def test_what_another_process_puts_in_its_folder_stays(self, song, tmp_path, monkeypatch):
        def late(folder):
            (folder / "another.wav").touch()
            os.rmdir(folder)

        side = tmp_path / "late.csv"
        side.write_text("0,0\n300,1\n")
        monkeypatch.setattr(Path, "rmdir", late)
        with pytest.raises(InputError, match=r"goes to 300\.0 s"):
            separate_file(looking(0), Job(song, tmp_path / "out"), side=side)
        assert [p.name for p in (tmp_path / "out").iterdir()] == ["another.wav"]

    def test_each_mixture_has_its_own(self, tmp_path):
        songs, sides = tmp_path / "songs", tmp_path / "sides"
        for name in ("a/one.v2.wav", "two.wav"):
            (songs / name).parent.mkdir(parents=True, exist_ok=True)
            soundfile.write(songs / name, np.zeros((100, 1)), RATE)
        (sides / "a").mkdir(parents=True)
        jobs = find_jobs([songs], tmp_path / "out")
        (sides / "a/one.v2.csv").write_text("0\n")
        with pytest.raises(InputError, match=r"holds neither of two\.csv and two\.npy, takes one"):
            find_sides(sides, jobs, tmp_path / "out")
        np.save(sides / "two.npy", np.ones(1))
        found = find_sides(sides, jobs, tmp_path / "out")
        assert found == [sides / "a/one.v2.csv", sides / "two.npy"]
        (sides / "two.csv").write_text("0\n")
        with pytest.raises(InputError, match="holds both of"):
            find_sides(sides, jobs, tmp_path / "out")
        with pytest.raises(InputError, match="is one file for 2 mixtures"):
            find_sides(sides / "two.csv", jobs, tmp_path / "out")
        assert find_sides(sides / "two.csv", jobs[:1], tmp_path / "out") == [sides / "two.csv"]
        with pytest.raises(InputError, match="there is no such file or folder"):
            find_sides(tmp_path / "none", jobs, tmp_path / "out")

    def test_stems_of_an_earlier_run_are_no_mixtures(self, tmp_path, monkeypatch):
        monkeypatch.chdir(tmp_path)
        for name in ("a/one.wav", "stems/a/one/vocals.wav", "folder.wav/two.wav"):
            (tmp_path / "songs" / name).parent.mkdir(parents=True, exist_ok=True)
            (tmp_path / "songs" / name).touch()
        songs = tmp_path / "songs"
        for output in (songs / "stems", Path("songs/stems")):
            jobs = find_jobs([songs], output)
            assert [j.mixture.name for j in jobs] == ["one.wav", "two.wav"]
        assert len(find_jobs([songs / "stems"], songs / "stems")) == 1  # what is asked for

    def test_the_program(self, song, tmp_path):
        model = tmp_path / "informed.safetensors"
        save(small(), model)
        soundfile.write(tmp_path / "other.wav", noise(30_000, 1).numpy(), 22_050)
        sides = tmp_path / "sides"
        sides.mkdir()
        (sides / "song.csv").write_text("0,0\n1.5,1\n")
        np.save(sides / "other.npy", np.array([0, 1, 0, 1.0]))
        command = [sys.executable, "-m", "sepfast", "separate"]
        options = ["-m", model, "-o", tmp_path / "out"]

        def run(*arguments):
            return subprocess.run([*command, *arguments], capture_output=True, text=True)

        done = run(song, tmp_path / "other.wav", *options, "--side-info", sides)
        assert done.returncode == 0, done.stderr
        assert "alignment.csv, alignment.png" in done.stdout.replace("\n", " ")
        for name, frames in (("song", 95), ("other", 44)):
            written = tmp_path / "out" / name / "alignment.csv"
            times, values, positions = np.loadtxt(written, delimiter=",", skiprows=1, unpack=True)
            np.testing.assert_allclose(times, np.arange(frames) * 0.032, atol=1e-4)
            assert values.min() >= 0
            assert 0.5 < values.max() <= 1
            assert positions.min() >= 0
            assert positions.max() <= times[-1] + 1e-3
            assert np.abs(positions - times).max() <= CONTEXT * 0.032
        mixture, stem = (read(p)[0] for p in (song, tmp_path / "out/song/vocals.wav"))
        rest = read(tmp_path / "out/song/accompaniment.wav")[0]
        np.testing.assert_allclose(stem + rest, mixture, atol=1e-6)
        done = run(song, *options)
        assert done.returncode == 2
        assert "side: got None, takes side information" in done.stderr.replace("\n", " ")
