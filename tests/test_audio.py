"""Audio files: what is written comes back, streamed as at once, and bad files end in a sentence."""

import os
import signal
import subprocess
import sys
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest
import soundfile
from av.error import InvalidDataError

from sepfast.data import audio
from sepfast.data.audio import (
    AudioReader,
    AudioWriter,
    is_audio,
    read,
    read_span,
    write,
)
from sepfast.errors import InputError

RATE = 44100


def music(samples: int = RATE, channels: int = 2, seed: int = 0) -> np.ndarray:
    """A chord with a little noise, (channels, samples), within ±0.7."""
    rng = np.random.default_rng(seed)
    times = np.arange(samples) / RATE
    tones = [np.sin(2 * np.pi * (220 + 70 * c) * times) for c in range(channels)]
    noise = 0.02 * rng.standard_normal((channels, samples)).clip(-4, 4)
    return (0.6 * np.stack(tones) + noise).astype(np.float32)


def encode(path: Path, waveform: np.ndarray, codec: str) -> None:
    """Write a waveform through one of FFmpeg's encoders."""
    layout = {1: "mono", 2: "stereo"}[len(waveform)]
    frame = av.AudioFrame.from_ndarray(waveform, format="fltp", layout=layout)
    frame.sample_rate, frame.pts, frame.time_base = RATE, 0, Fraction(1, RATE)
    with av.open(str(path), "w") as container:
        stream = container.add_stream(codec, rate=RATE, layout=layout)
        resampler = av.AudioResampler(stream.format, layout, RATE, frame_size=stream.frame_size)
        for piece in (*resampler.resample(frame), *resampler.resample(None)):
            container.mux(stream.encode(piece))
        container.mux(stream.encode(None))


def cut(path: Path, share: float = 0.5) -> Path:
    path.write_bytes(path.read_bytes()[: int(path.stat().st_size * share)])
    return path


def corrupt(path: Path, span: int = 4000) -> Path:
    """Overwrite the middle of a file with noise."""
    content = bytearray(path.read_bytes())
    middle = len(content) // 2
    content[middle : middle + span] = np.random.default_rng(0).bytes(span)
    path.write_bytes(content)
    return path


def read_all(path: Path, size: int = 4096) -> np.ndarray:
    with AudioReader(path) as reader:
        return np.concatenate(list(reader.blocks(size)), axis=1)


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


# There whole or not at all


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


# Bad files


@pytest.mark.parametrize("suffix", [".wav", ".flac", ".mp3", ".m4a", ".ogg"])
@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "there is no such file"),
        (b"", "is empty"),
        (b"It was a dark and stormy night. " * 100, "is corrupt, or not an audio file"),
        (b"RIFF" + np.random.default_rng(0).bytes(3000), "is corrupt, or not an audio file"),
    ],
)
def test_no_audio(tmp_path, capfd, suffix, content, message):
    path = tmp_path / f"song{suffix}"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(InputError, match=message) as caught:
        read(path)
    assert str(caught.value).startswith(f"{path}: ")
    assert capfd.readouterr().err == ""  # the decoders stay quiet


def test_a_folder_and_a_video_are_no_audio(tmp_path):
    with pytest.raises(InputError, match="is not a file"):
        read(tmp_path)
    with av.open(str(tmp_path / "film.mp4"), "w") as container:
        stream = container.add_stream("mpeg4", rate=25)
        stream.width = stream.height = 32
        stream.pix_fmt = "yuv420p"
        frame = av.VideoFrame.from_ndarray(np.zeros((32, 32, 3), np.uint8))
        container.mux([*stream.encode(frame), *stream.encode(None)])
    with pytest.raises(InputError, match=r"film\.mp4: holds no audio"):
        read(tmp_path / "film.mp4")


def test_streams_that_are_not_there(tmp_path, song_path):
    write(tmp_path / "a.wav", music(10), RATE)
    with pytest.raises(InputError, match="holds 1 audio stream; stream 1 was asked for"):
        read(tmp_path / "a.wav", stream=1)
    for stream in (5, -1):
        with pytest.raises(InputError, match=f"5 audio streams; stream {stream} was asked for"):
            read(song_path, stream=stream)


def test_a_file_without_samples(tmp_path):
    for suffix in (".wav", ".flac"):
        path = tmp_path / f"empty{suffix}"
        write(path, np.zeros((2, 0), np.float32), RATE)
        with pytest.raises(InputError, match=r"holds no samples|is empty"):
            AudioReader(path)


def test_silence_is_fine(tmp_path):
    write(tmp_path / "a.wav", np.zeros((2, 100), np.float32), RATE)
    assert not read(tmp_path / "a.wav")[0].any()


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("size", [1000, 1 << 20])
def test_samples_that_are_no_numbers(tmp_path, value, size):
    waveform = music(2 * RATE)
    waveform[1, int(1.25 * RATE)] = value
    path = tmp_path / "song.wav"
    soundfile.write(path, waveform.T, RATE, subtype="FLOAT")
    with pytest.raises(InputError, match=r"song\.wav: holds NaN or infinite samples at 1\.25 s$"):
        read_all(path, size)
    with pytest.raises(InputError, match=r"at 1\.25 s$"):
        read_span(path, RATE, 2 * RATE)
    assert read_span(path, 0, RATE).shape == (2, RATE)


def lossless(path: Path) -> None:
    soundfile.write(path, music(RATE).T, RATE)


ENCODERS = {
    "song.wav": lossless,
    "song.aiff": lossless,
    "song.flac": lossless,
    "song.mp3": lambda path: encode(path, music(RATE), "libmp3lame"),
    "song.m4a": lambda path: encode(path, music(RATE), "aac"),
    "song.aac": lambda path: encode(path, music(RATE), "aac"),
}


@pytest.mark.parametrize("share", [0.9, 0.5])
@pytest.mark.parametrize("name", ENCODERS)
def test_truncated_files(tmp_path, name, share):
    path = tmp_path / name
    ENCODERS[name](path)
    assert read_all(path).shape[1] >= RATE
    with pytest.raises(InputError, match=f"{name}: is (truncated|corrupt)"):
        read_all(cut(path, share))


def test_an_mp4_cut_between_frames(tmp_path):
    """Its index, in front, promises more than is there, but every frame that is there is whole."""
    path, fast = tmp_path / "song.m4a", tmp_path / "fast.m4a"
    encode(path, music(RATE), "aac")
    with (
        av.open(str(path)) as source,
        av.open(str(fast), "w", options={"movflags": "faststart"}) as target,
    ):
        stream = target.add_stream_from_template(source.streams.audio[0])
        for packet in source.demux(audio=0):
            if packet.size:
                packet.stream = stream
                target.mux(packet)
    assert read_all(fast).shape == read_all(path).shape
    with av.open(str(fast)) as container:
        ends = [packet.pos + packet.size for packet in container.demux(audio=0) if packet.size]
    fast.write_bytes(fast.read_bytes()[: ends[len(ends) // 2]])
    with pytest.raises(InputError, match=r"fast\.m4a: is truncated or corrupt: it ends at 0\.5"):
        read_all(fast)


@pytest.mark.parametrize("name", ["song.flac", "song.mp3", "song.m4a", "song.aac", "song.ogg"])
def test_corruption_midway(tmp_path, name):
    path = tmp_path / name
    {**ENCODERS, "song.ogg": lossless}[name](path)
    with pytest.raises(InputError, match=f"{name}: is .*corrupt"):
        read_all(corrupt(path))


def test_seeking_into_corruption(tmp_path):
    path = tmp_path / "song.flac"
    lossless(path)
    corrupt(path)
    with pytest.raises(InputError, match=r"song\.flac: (cannot be read|ends at)"):
        read_span(path, RATE // 2, RATE)


def test_channels_that_change_midway(tmp_path):
    path = tmp_path / "song.aac"
    encode(tmp_path / "mono.aac", music(RATE, 1), "aac")
    encode(path, music(RATE), "aac")
    path.write_bytes(path.read_bytes() + (tmp_path / "mono.aac").read_bytes())
    with pytest.raises(InputError, match=r"song\.aac: changes its sample rate or channels midway"):
        read_all(path)


@pytest.mark.parametrize("tail", [b"TAG" + bytes(125), bytes(500)])
def test_what_follows_an_mp3_is_left_alone(tmp_path, tail):
    path = tmp_path / "song.mp3"
    ENCODERS["song.mp3"](path)
    whole = read_all(path)
    path.write_bytes(path.read_bytes() + tail)
    np.testing.assert_array_equal(read_all(path), whole)


@pytest.mark.parametrize("size", [0, 200, 100_000])
def test_an_mp3_behind_a_tag_is_measured_without_it(tmp_path, size):
    path = tmp_path / "song.mp3"
    ENCODERS["song.mp3"](path)
    whole = read_all(path).shape
    plain = path.read_bytes()
    start = 10 + int.from_bytes(plain[6:10], "big") if plain[:3] == b"ID3" else 0
    digits = bytes(size >> shift & 127 for shift in (21, 14, 7, 0))
    path.write_bytes(b"ID3\x04\x00\x00" + digits + bytes(size) + plain[start:])
    assert read_all(path).shape == whole
    with pytest.raises(InputError, match="is truncated"):
        read_all(cut(path, 1 - 0.5 * (len(plain) - start) / path.stat().st_size))


def test_headers_written_to_a_pipe_promise_nothing(tmp_path):
    path = tmp_path / "song.wav"
    lossless(path)
    content = bytearray(path.read_bytes())
    at = content.find(b"data") + 4
    for size in (0xFFFFFFFF, 0x7FFFF000):
        content[at : at + 4] = size.to_bytes(4, "little")
        path.write_bytes(content)
        assert read_all(path).shape == (2, RATE)


def test_an_mp3_by_another_name(tmp_path):
    ENCODERS["song.mp3"](tmp_path / "song.mp3")
    (tmp_path / "song.wav").write_bytes((tmp_path / "song.mp3").read_bytes())
    np.testing.assert_array_equal(read_all(tmp_path / "song.wav"), read_all(tmp_path / "song.mp3"))


def test_an_mp3_without_a_count_of_its_frames(tmp_path):
    """Its length can only be guessed; all of it comes out."""
    path = tmp_path / "song.mp3"
    quiet_then_loud = np.concatenate([music(RATE) * 1e-4, music(2 * RATE)], axis=1)
    encode(path, quiet_then_loud, "libmp3lame")
    content = bytearray(path.read_bytes())
    at = max(content.find(b"Xing"), content.find(b"Info"))
    content[at : at + 4] = bytes(4)
    path.write_bytes(content)
    assert read_all(path).shape[1] >= 3 * RATE


def test_a_flac_written_to_a_pipe(tmp_path):
    """Its header does not say how long it is."""
    path = tmp_path / "song.flac"
    lossless(path)
    expected, content = read_all(path), bytearray(path.read_bytes())
    content[21] &= 0xF0  # the 36 bits of the number of samples, in STREAMINFO
    content[22:26] = bytes(4)
    path.write_bytes(content)
    with AudioReader(path) as reader:
        assert reader.samples is None
    np.testing.assert_array_equal(read_all(path), expected)


def test_decoder_errors_do_not_come_through(tmp_path, monkeypatch):
    """Whatever FFmpeg finds wrong, and wherever, the caller sees one kind of error."""
    path = tmp_path / "song.m4a"
    encode(path, music(RATE), "aac")
    with AudioReader(path) as reader:

        def chunks(size: int):
            yield np.zeros((2, RATE // 2), np.float32)
            raise InvalidDataError(1, "made up")

        monkeypatch.setattr(reader._decoder, "chunks", chunks)
        with pytest.raises(InputError, match=r"song\.m4a: is corrupt at 0\.50 s"):
            list(reader.blocks(1000))


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
