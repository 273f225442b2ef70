"""Plain samples of WAV files: read from anywhere they are what libsndfile reads."""

import pickle
import struct

import numpy as np
import pytest
import soundfile
from test_song_audio import RATE, noise, only_song, record

from sepfast import InputError
from sepfast.data import SongAudio
from sepfast.data.raw_samples import RawSamples, wav_samples


def written(path, channels: int, subtype: str, form: str = "WAV", samples: int = 1000):
    soundfile.write(path, noise(samples, channels).T * 4, RATE, subtype=subtype, format=form)
    return path


def fitted(whole: np.ndarray, rows: int) -> np.ndarray:
    """(samples, channels) as one row or two."""
    if rows == 1:
        return whole.T.mean(axis=0, keepdims=True)
    return np.repeat(whole.T, 2, axis=0) if whole.shape[1] == 1 else whole.T


@pytest.mark.parametrize("form", ["WAV", "WAVEX"])
@pytest.mark.parametrize("subtype", ["PCM_16", "PCM_24", "FLOAT"])
@pytest.mark.parametrize(("channels", "rows"), [(1, 1), (1, 2), (2, 1), (2, 2), (3, 1)])
def test_plain_files_read_as_libsndfile_reads_them(tmp_path, form, subtype, channels, rows):
    path = written(tmp_path / "a.wav", channels, subtype, form)
    raw = pickle.loads(pickle.dumps(wav_samples(path)))
    assert (raw.samples, raw.channels) == (1000, channels)
    whole = fitted(soundfile.read(path, dtype="float32", always_2d=True)[0], rows)
    for start, stop in ((0, 1000), (17, 18), (333, 900), (999, 1000), (5, 5)):
        out = np.full((rows, stop - start), np.nan, np.float32)
        raw.read_into(out, start)
        np.testing.assert_array_equal(out, whole[:, start:stop])


@pytest.mark.parametrize(
    ("name", "subtype"), [("a.wav", "PCM_32"), ("a.wav", "PCM_U8"), ("a.wav", "DOUBLE")]
)
def test_other_encodings_are_left_to_a_decoder(tmp_path, name, subtype):
    assert wav_samples(written(tmp_path / name, 2, subtype)) is None


def test_what_is_no_wav_file_has_no_plain_samples(tmp_path):
    written(tmp_path / "a.flac", 2, "PCM_16", "FLAC")
    for name, content in (("empty", b""), ("short", b"RIFF1234WAVEfmt "), ("junk", b"junk" * 99)):
        (tmp_path / name).write_bytes(content)
    for path in [*tmp_path.iterdir(), tmp_path / "none"]:
        assert wav_samples(path) is None


def test_chunks_before_the_samples_are_passed_over(tmp_path):
    path = written(tmp_path / "a.wav", 2, "PCM_16")
    content = path.read_bytes()
    odd = b"note" + struct.pack("<I", 7) + b"data" * 2  # 7 bytes and one of padding
    path.write_bytes(content[:12] + odd + content[12:])
    raw = wav_samples(path)
    out = np.empty((2, 1000), np.float32)
    raw.read_into(out, 0)
    np.testing.assert_array_equal(out, soundfile.read(path, dtype="float32")[0].T)


def test_a_file_that_has_become_shorter_or_is_gone_is_named(tmp_path):
    path = written(tmp_path / "a.wav", 2, "PCM_24")
    raw, out = wav_samples(path), np.empty((2, 100), np.float32)
    path.write_bytes(path.read_bytes()[: raw.offset + 950 * 6])
    raw.read_into(out, 850)
    with pytest.raises(InputError, match=r"a\.wav: ends at sample 950, before 1000"):
        raw.read_into(out, 900)
    path.unlink()
    with pytest.raises(InputError, match=r"a\.wav: cannot be read \(No such file"):
        raw.read_into(out, 0)
    with pytest.raises(InputError, match="encoding: got 'int8', takes int16, int24, float32"):
        RawSamples(path, 44, 1000, 2, "int8")


@pytest.mark.parametrize("mixture", [True, False])
@pytest.mark.parametrize("rate", [RATE, 2 * RATE])
def test_rows_of_a_song_are_those_of_its_reads(tmp_path, mixture, rate):
    record(tmp_path / "song", mixture=mixture, rate=rate)
    options = {"sample_rate": RATE, "channels": 2, "cache_dir": tmp_path / "cache"}
    song = SongAudio(only_song(tmp_path), sources=("bass", "vocals"), start=0.25, **options)
    for start in (0, 700, song.samples - 50, song.samples + 9):
        expected = song.read(start, start + 100)
        out = np.full((3, 2, 100), np.nan, np.float32)
        song.read_into(out, start)
        np.testing.assert_array_equal(out, expected)
        for row in range(3):
            one = np.full((2, 100), np.nan, np.float32)
            song.read_row(one, row, start)
            np.testing.assert_array_equal(one, expected[row])
    with pytest.raises(InputError, match=r"out: got shape \(2, 2, 9\), takes \(3, 2, samples\)"):
        song.read_into(np.empty((2, 2, 9), np.float32), 0)


def test_nan_in_a_plain_file_is_found_where_it_is(tmp_path):
    whole = record(tmp_path / "song")
    whole[1, 1, RATE // 2] = np.nan
    soundfile.write(tmp_path / "song/vocals.wav", whole[1].T, RATE, subtype="FLOAT")
    song = SongAudio(only_song(tmp_path), sample_rate=RATE, channels=1, cache_dir=tmp_path)
    song.read(0, RATE // 2)
    with pytest.raises(InputError, match=r"vocals\.wav: holds NaN or infinite samples at 0\.50 s"):
        song.read(RATE // 2 - 9, RATE // 2 + 1)
