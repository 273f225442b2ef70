"""Audio files that are written are there whole or not at all, and never over a limit."""

import signal
from pathlib import Path

import numpy as np
import pytest
from sounds import RATE, music

from sepfast.data import audio
from sepfast.data.audio import (
    AudioWriter,
    write,
)
from sepfast.errors import InputError
from sepfast.files import atomic


@pytest.mark.parametrize("name", [".", "..", "", "song"])
def test_a_folder_is_no_file_to_write(name, tmp_path, monkeypatch):
    (tmp_path / "song").mkdir()
    monkeypatch.chdir(tmp_path)
    with pytest.raises(InputError, match="is a folder"), atomic(name):
        raise AssertionError("nothing is to be written")
    assert list(tmp_path.iterdir()) == [tmp_path / "song"]


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt, SystemExit])
@pytest.mark.parametrize("suffix", [".wav", ".flac"])
def test_an_exception_leaves_the_old_file_and_nothing_else(tmp_path, suffix, error):
    path = tmp_path / f"song{suffix}"
    write(path, music(100), RATE)
    before = path.read_bytes()

    def fail() -> None:
        with AudioWriter(path, RATE, 2) as writer:
            writer.write(music(50_000))
            assert len(list(tmp_path.iterdir())) == 2
            raise error

    with pytest.raises(error):
        fail()
    assert list(tmp_path.iterdir()) == [path]
    assert path.read_bytes() == before


def test_the_old_file_stays_until_the_new_one_is_in_its_place(tmp_path, monkeypatch):
    path = tmp_path / "song.wav"
    write(path, music(100), RATE)
    before = path.read_bytes()

    def fail(self: Path, target: Path) -> None:
        raise PermissionError("made up")

    monkeypatch.setattr(Path, "replace", fail)
    with pytest.raises(PermissionError):
        write(path, music(200), RATE)
    assert path.read_bytes() == before
    assert list(tmp_path.iterdir()) == [path]


def test_the_file_appears_at_the_end(tmp_path):
    path = tmp_path / "song.wav"
    with AudioWriter(path, RATE, 2) as writer:
        writer.write(music(1000))
        assert not path.exists()
    assert list(tmp_path.iterdir()) == [path]


def test_a_new_file_is_as_open_to_others_as_any(tmp_path):
    write(tmp_path / "song.wav", music(10), RATE)
    (tmp_path / "plain").touch()
    assert (tmp_path / "song.wav").stat().st_mode == (tmp_path / "plain").stat().st_mode


@pytest.fixture
def small_disk():
    """No file grows beyond 100 kB."""
    resource = pytest.importorskip("resource")
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, limits[1]))
    yield
    resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    signal.signal(signal.SIGXFSZ, handler)


@pytest.mark.parametrize("suffix", [".wav", ".flac"])
@pytest.mark.parametrize("samples", [11_000, 100_000])
def test_a_full_disk_is_said_and_leaves_nothing(tmp_path, small_disk, suffix, samples):
    """Also where the last bytes are only written on closing."""
    noise = np.random.default_rng(0).uniform(-1, 1, (4, samples))
    with pytest.raises(InputError, match=r"song.*: cannot be written; is the disk full\?"):
        write(tmp_path / f"song{suffix}", noise, RATE)
    assert list(tmp_path.iterdir()) == []


def test_a_wav_file_stops_at_its_limit(tmp_path, monkeypatch):
    monkeypatch.setattr(audio, "_WAV_BYTES", 8 * 1000)
    write(tmp_path / "fits.wav", music(1000), RATE)
    with pytest.raises(InputError, match="passes the 4 GiB"):
        write(tmp_path / "long.wav", music(1001), RATE)
    write(tmp_path / "long.flac", music(1001), RATE)
    assert not (tmp_path / "long.wav").exists()


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("song.mp3", {}, "only .wav and .flac files are written"),
        ("song.wav", {"subtype": "int8"}, "subtype: got 'int8', takes float, int16"),
        ("file/song.wav", {}, "cannot be written"),
        ("folder.wav", {}, "is a folder"),
        ("song.flac", {"sample_rate": 2_000_000}, "FLAC does not take 2 channels at 2000000 Hz"),
        ("song.wav", {"sample_rate": 0}, "WAV does not take 2 channels at 0 Hz"),
    ],
)
def test_bad_places_to_write(tmp_path, name, options, message):
    (tmp_path / "file").write_text("a file, not a folder")
    (tmp_path / "folder.wav").mkdir()
    before = sorted(tmp_path.rglob("*"))
    with pytest.raises(InputError, match=message):
        write(tmp_path / name, music(10), **{"sample_rate": RATE, **options})
    assert sorted(tmp_path.rglob("*")) == before


def test_flac_takes_eight_channels(tmp_path):
    write(tmp_path / "a.flac", music(10, 8), RATE)
    with pytest.raises(InputError, match="FLAC does not take 9 channels"):
        write(tmp_path / "b.flac", music(10, 9), RATE)


@pytest.mark.parametrize(
    ("block", "message"),
    [
        (np.zeros(10, np.float32), r"block: got shape \(10,\), takes \(2, samples\)"),
        (np.zeros((1, 10), np.float32), r"block: got shape \(1, 10\)"),
        (np.zeros((2, 10), np.int16), "block: got int16 samples, takes floats"),
        (np.full((2, 10), np.nan), r"a\.wav: holds NaN or infinite samples at 1.00 s"),
        (np.full((2, 10), -np.inf), "holds NaN or infinite samples"),
    ],
)
def test_bad_blocks_to_write(tmp_path, block, message):
    def attempt() -> None:
        with AudioWriter(tmp_path / "a.wav", RATE, 2) as writer:
            writer.write(music(RATE))
            writer.write(block)

    with pytest.raises(InputError, match=message):
        attempt()
    assert list(tmp_path.iterdir()) == []


def test_write_takes_two_axes(tmp_path):
    with pytest.raises(InputError, match=r"waveform: got shape \(10,\)"):
        write(tmp_path / "a.wav", np.zeros(10), RATE)
