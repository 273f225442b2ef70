"""`sepfast enhance` as a person meets it."""

import sys

import numpy as np
import pytest
import soundfile
from talking import VIDEO_RATE, face
from test_enhance import RATE, filmed, level, small, wave
from test_landmarks import film, square

from sepfast import create_model, save
from sepfast.cli import main
from sepfast.data import read
from sepfast.data.landmarks import write_landmarks
from sepfast.separation import Enhancer, write_statistics


class TestProgram:
    @pytest.fixture
    def here(self, tmp_path, monkeypatch):
        """A model whose mask is one, a mixture of 0.5 s at 44.1 kHz in stereo, and a face."""
        save(level("av-concat", 1), tmp_path / "model.safetensors")
        sound = 1.2 * np.sin(2 * np.pi * 300 * np.arange(22_050) / 44_100)
        soundfile.write(tmp_path / "mixture.wav", np.stack([sound, sound / 2], 1), 44_100, "FLOAT")
        write_landmarks(tmp_path / "face.txt", face(13, VIDEO_RATE, 0), VIDEO_RATE)
        monkeypatch.chdir(tmp_path)
        return tmp_path

    @pytest.fixture
    def run(self, here, monkeypatch, capsys):
        """The program; gives what it prints, and where it fails sees that it leaves nothing."""

        def run(*options, face="face.txt", output="out/voice.wav", code=0):
            arguments = ["mixture.wav", "--landmarks", face, "-m", "model.safetensors"]
            words = ["sepfast", "enhance", *arguments, "-o", output, *options, "--device", "cpu"]
            monkeypatch.setattr(sys, "argv", words)
            before = everything(here)
            with pytest.raises(SystemExit) as ended:
                main()
            told = capsys.readouterr()
            assert ended.value.code == code, told.err
            if code:
                assert told.err.count("\n") == 1
                assert everything(here) == before
            return told.err if code else told.out

        return run

    def test_end_to_end(self, here, run):
        told = run()
        assert "out/voice.wav: peak 1.2" in told
        assert "cut off" not in told
        voice, rate = read(here / "out/voice.wav")
        mixture = read(here / "mixture.wav")[0]
        assert rate == 44_100
        assert voice.shape == mixture.shape
        np.testing.assert_allclose(voice[:, 500:-500], mixture[:, 500:-500], atol=1e-4)

    def test_options(self, here, run):
        (here / "face.json").unlink()
        usual = Enhancer(small()).statistics([(wave(1, 3000), RATE, *filmed(3000))])
        write_statistics(here / "s1.npz", usual)
        options = ["--video-rate", "25", "--statistics", "s1.npz", "--subtype", "int16"]
        told = run(*options, output="voice.flac")
        assert "samples beyond full scale were cut off (peak 1.2" in told
        assert soundfile.info(here / "voice.flac").subtype == "PCM_16"

    def test_a_film_is_looked_at(self, here, run, monkeypatch):
        film(here / "film.mp4", [True] * 13)
        monkeypatch.setattr("sepfast.data.face.DlibDetector", lambda: square)
        assert "film.mp4" in run(face="film.mp4")
        assert (here / "out/voice.wav").is_file()
        said = run("--video-rate", "25", face="film.mp4", output="other.wav", code=2)
        assert "a film, which has its own" in said

    def test_without_dlib_it_says_so(self, here, run, monkeypatch):
        monkeypatch.setitem(sys.modules, "dlib", None)
        film(here / "film.mp4", [True] * 13)
        assert "dlib is not installed" in run(face="film.mp4", code=2)

    def test_what_cannot_be_used(self, here, run):
        write_landmarks(here / "short.txt", face(5, VIDEO_RATE, 0), VIDEO_RATE)
        assert "0.20 s; takes 0.4" in run(face="short.txt", code=2)
        assert "there is no such file" in run(face="film.mp4", code=2)
        assert "is read from" in run(output="mixture.wav", code=2)
        assert "only .wav and .flac" in run(output="voice.mp3", code=2)
        assert "is a folder" in run(output=".", code=2)
        assert "no such file" in run("--statistics", "none.npz", code=2)
        (here / "face.json").unlink()
        assert "no face.json that tells" in run(code=2)
        save(create_model("vl2m-ref", hidden=4), here / "model.safetensors")
        assert "without a VL2M" in run("--video-rate", "25", code=2)


def everything(folder):
    """All folders, and all files with what is in them."""
    return {path: path.read_bytes() if path.is_file() else None for path in folder.rglob("*")}
