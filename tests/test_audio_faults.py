"""Audio files that are broken, cut short or something else: one sentence, and nothing made up."""

from pathlib import Path

import av
import numpy as np
import pytest
import soundfile
from av.error import InvalidDataError
from sounds import RATE, encode, music, read_all

from sepfast.data.audio import (
    AudioReader,
    read,
    read_span,
    write,
)
from sepfast.errors import InputError


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
