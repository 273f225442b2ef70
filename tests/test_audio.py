"""Audio files: what is written comes back, streamed as at once."""

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import soundfile
from sounds import RATE, encode, music, read_all

from sepfast.data.audio import (
    AudioReader,
    AudioWriter,
    is_audio,
    read,
    read_span,
    write,
)
from sepfast.errors import InputError

# Writing and reading back


@pytest.mark.parametrize("channels", [1, 2, 5])
@pytest.mark.parametrize(
    ("suffix", "subtype", "step"),
    [
        (".wav", "float", 0),
        (".wav", "int16", 2**-15),
        (".flac", "int16", 2**-15),
        (".flac", "float", 2**-23),
        (".FLAC", "float", 2**-23),
    ],
)
def test_round_trip(tmp_path, suffix, subtype, step, channels):
    waveform = music(10_001, channels)
    path = tmp_path / f"song{suffix}"
    assert write(path, waveform, 32_000, subtype=subtype) == 0
    back, rate = read(path)
    assert rate == 32_000
    assert back.dtype == np.float32
    assert back.flags.c_contiguous
    assert back.shape == waveform.shape
    assert np.abs(back - waveform).max() <= step / 2
    # What has been rounded once is not changed again.
    write(path, back, 32_000, subtype=subtype)
    np.testing.assert_array_equal(read(path)[0], back)


@pytest.mark.parametrize("suffix", [".wav", ".flac"])
def test_sixteen_bits_are_rounded_to_the_nearest(tmp_path, suffix):
    codes = np.array([[-1.4, -0.6, -0.4, 0.4, 0.6, 1.4, 32766.6, -32767.6]])
    path = tmp_path / f"song{suffix}"
    write(path, codes / 2**15, RATE, subtype="int16")
    held, _ = soundfile.read(path, dtype="int16")
    assert held.tolist() == [-1, -1, 0, 0, 1, 1, 32767, -32768]


@pytest.mark.parametrize(("suffix", "subtype"), [(".wav", "int16"), (".flac", "float")])
def test_integers_clip_and_count(tmp_path, suffix, subtype):
    waveform = np.array([[0.5, 1.0, -1.0, 1.5], [-2.5, 1.0001, 0.0, -0.25]], np.float32)
    before = waveform.copy()
    path = tmp_path / f"loud{suffix}"
    with AudioWriter(path, RATE, 2, subtype=subtype) as writer:
        writer.write(waveform[:, :2])
        writer.write(waveform[:, 2:])
    assert writer.clipped == 3
    assert writer.peak == 2.5
    assert writer.samples == 4
    np.testing.assert_array_equal(waveform, before)
    np.testing.assert_allclose(read(path)[0], waveform.clip(-1, 1), atol=2**-15)
    assert write(path, waveform, RATE, subtype=subtype) == 3


def test_float_files_hold_what_is_beyond_full_scale(tmp_path):
    waveform = np.array([[0.5, -3.0, 1.25]])
    with AudioWriter(tmp_path / "loud.wav", RATE, 1) as writer:
        writer.write(waveform)
    assert writer.clipped == 0
    assert writer.peak == 3.0
    np.testing.assert_array_equal(read(tmp_path / "loud.wav")[0], waveform)


@pytest.mark.parametrize("kind", ["float64", "float16", "transposed"])
def test_other_floats_and_strides_are_written_alike(tmp_path, kind):
    waveform = music(1000).astype(np.float16).astype(np.float32)
    given = np.asfortranarray(waveform) if kind == "transposed" else waveform.astype(kind)
    write(tmp_path / "a.wav", given, RATE)
    np.testing.assert_array_equal(read(tmp_path / "a.wav")[0], waveform)


@pytest.mark.parametrize("suffix", [".aiff", ".ogg"])
def test_other_formats_of_soundfile(tmp_path, suffix):
    waveform = music(20_000)
    path = tmp_path / f"song{suffix}"
    soundfile.write(path, waveform.T, RATE)
    with AudioReader(path) as reader:
        assert (reader.sample_rate, reader.channels, reader.samples) == (RATE, 2, 20_000)
    expected = soundfile.read(path, dtype="float32", always_2d=True)[0].T
    np.testing.assert_array_equal(read_all(path, 777), expected)


@pytest.mark.parametrize(
    ("suffix", "codec", "channels", "extra", "tolerance"),
    [
        (".mp3", "libmp3lame", 2, 0, 0.03),
        (".m4a", "aac", 2, 2048, 0.03),
        (".m4a", "aac", 1, 2048, 0.03),
        (".m4a", "alac", 2, 0, 2**-15),
        (".mka", "pcm_u8", 2, 0, 2**-7),
        (".mka", "pcm_s16le", 2, 0, 2**-15),
        (".mka", "pcm_s32le", 2, 0, 2**-23),
        (".mka", "pcm_f32le", 1, 0, 0),
        (".mka", "pcm_f64le", 2, 0, 0),
    ],
)
def test_formats_of_ffmpeg(tmp_path, suffix, codec, channels, extra, tolerance):
    """Neither delayed nor scaled; a lossy codec may pad its last frames."""
    waveform = music(30_000, channels)
    path = tmp_path / f"song{suffix}"
    encode(path, waveform, codec)
    with AudioReader(path) as reader:
        assert (reader.sample_rate, reader.channels, reader.samples) == (RATE, channels, None)
    back, _ = read(path)
    assert back.dtype == np.float32
    assert 0 <= back.shape[1] - 30_000 <= extra
    inner = waveform[:, 2000:28_000]  # lossy codecs smear the edges
    errors = {lag: back[:, 2000 + lag : 28_000 + lag] - inner for lag in range(-3, 4)}
    powers = {lag: np.square(error).mean() for lag, error in errors.items()}
    assert min(powers, key=powers.__getitem__) == 0
    assert powers[0] ** 0.5 <= tolerance


def test_stem_streams(song_path, mixture, stems):
    """The five streams of a real song: exact in length, in time with each other, told apart."""
    for stream in range(5):
        with AudioReader(song_path, stream=stream) as reader:
            assert (reader.sample_rate, reader.channels) == (44100, 2)
            assert sum(block.shape[1] for block in reader.blocks(10_000)) == 268_288
    inner = slice(44_100, 220_500)  # the excerpt's edges hold bursts where it was cut
    whole, total = mixture[:, inner], stems.sum(axis=0)[:, inner]
    residual = 10 * np.log10(np.square(total - whole).sum() / np.square(whole).sum())
    # The mixture was mastered after the stems were summed; without any one stem it is far worse.
    assert -24 < residual < -20
    for stem in stems[:, :, inner]:
        assert np.square(total - stem - whole).sum() > 5 * np.square(total - whole).sum()
    spectra = np.abs(np.fft.rfft(stems[:, 0, inner])) ** 2
    bins = np.arange(spectra.shape[1])
    centroids = (bins * spectra).sum(axis=1) / spectra.sum(axis=1)
    assert np.argsort(centroids).tolist() == [2, 1, 3, 0]  # bass, drums, other, vocals


# Streaming


@pytest.mark.parametrize("size", [1000, 1024, 1025, 4096, 100_000])
@pytest.mark.parametrize("suffix", [".wav", ".m4a"])
def test_blocks_are_the_whole(tmp_path, suffix, size):
    path = tmp_path / f"song{suffix}"
    if suffix == ".wav":
        write(path, music(30_000), RATE)
    else:
        encode(path, music(30_000), "aac")
    with AudioReader(path) as reader:
        blocks = list(reader.blocks(size))
    whole, _ = read(path)
    assert all(block.shape == (2, size) for block in blocks[:-1])
    assert 0 < blocks[-1].shape[1] <= size
    assert all(block.flags.c_contiguous and block.dtype == np.float32 for block in blocks)
    np.testing.assert_array_equal(np.concatenate(blocks, axis=1), whole)


def test_blocks_of_one_sample(tmp_path):
    write(tmp_path / "a.wav", music(7), RATE)
    np.testing.assert_array_equal(read_all(tmp_path / "a.wav", 1), music(7))


def test_a_reader_reads_once_and_takes_a_real_size(tmp_path):
    write(tmp_path / "a.wav", music(100), RATE)
    with AudioReader(tmp_path / "a.wav") as reader:
        with pytest.raises(InputError, match="size: got 0"):
            reader.blocks(0)
        list(reader.blocks(10))
        with pytest.raises(RuntimeError, match="open the file again"):
            reader.blocks(10)


def test_reading_does_not_keep_the_file(tmp_path):
    """A span of a long file is had without the file: memory does not depend on its length."""
    import tracemalloc

    path = tmp_path / "long.wav"
    with AudioWriter(path, RATE, 2, subtype="int16") as writer:
        for _ in range(40):
            writer.write(np.zeros((2, 50_000), np.float32))
    read_all(path)  # imports, once
    tracemalloc.start()
    with AudioReader(path) as reader:
        assert sum(block.shape[1] for block in reader.blocks(8192)) == 2_000_000
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 1_000_000  # the whole would be 16 MB


@pytest.mark.parametrize("suffix", [".wav", ".flac"])
@pytest.mark.parametrize(("start", "stop"), [(0, 10), (4095, 4097), (1, 20_000), (19_999, 20_000)])
def test_spans_are_slices(tmp_path, suffix, start, stop):
    path = tmp_path / f"song{suffix}"
    write(path, music(20_000), RATE, subtype="int16")
    np.testing.assert_array_equal(read_span(path, start, stop), read(path)[0][:, start:stop])


def test_spans_beyond_the_end_are_refused(tmp_path):
    write(tmp_path / "a.wav", music(100), RATE)
    with pytest.raises(InputError, match=r"a\.wav: ends at sample 100, before 101"):
        read_span(tmp_path / "a.wav", 90, 101)
    with pytest.raises(InputError, match="cannot be read from sample 500 on"):
        read_span(tmp_path / "a.wav", 500, 501)


# Bad files


def test_names_with_colons_and_spaces(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    encode(Path("plain.m4a"), music(RATE), "aac")
    os.rename("plain.m4a", "http: a song.m4a")
    assert read("http: a song.m4a")[0].shape[0] == 2
    write("b: c.wav", music(10), RATE)
    assert read("b: c.wav")[0].shape == (2, 10)


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("song.wav", True),
        ("SONG.MP3", True),
        ("song.stem.mp4", True),
        ("a/b.c.flac", True),
        ("._song.wav", False),
        ("song.txt", False),
        ("wav", False),
    ],
)
def test_names_of_audio_files(name, expected):
    assert is_audio(name) is expected


def test_importing_needs_no_audio_library():
    code = (
        "import sys, sepfast, sepfast.data\n"
        "sys.exit(any(name in sys.modules for name in ('soundfile', 'soxr', 'av')))"
    )
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0
