"""NIST SPHERE files are read as any other, and what is wrong with one is said."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from spoken import write_sphere

from sepfast import InputError
from sepfast.data.audio import AudioReader, is_audio, read, read_span, write

CODES = np.random.default_rng(0).integers(-32768, 32768, 1001).astype(np.int16)


@pytest.mark.parametrize("order", ["01", "10"])
@pytest.mark.parametrize("name", ["SA1.WAV", "sa1.wav", "sa1.sph", "SA1.SPH"])
def test_sphere_is_known_by_its_content(tmp_path, name, order):
    path = write_sphere(tmp_path / name, CODES, order=order)
    assert is_audio(path)
    waveform, rate = read(path)
    assert rate == 16000
    np.testing.assert_array_equal(waveform, CODES[None] / np.float32(32768))
    np.testing.assert_array_equal(read_span(path, 17, 900), waveform[:, 17:900])
    with AudioReader(path) as reader:
        assert (reader.samples, reader.channels) == (1001, 1)


def test_the_coding_may_be_named_and_channels_be_two(tmp_path):
    path = write_sphere(tmp_path / "a.sph", CODES[:1000].reshape(-1, 2), 8000, coding="pcm")
    waveform, rate = read(path)
    assert (waveform.shape, rate) == ((2, 500), 8000)
    np.testing.assert_array_equal(waveform[1], CODES[1:1000:2] / np.float32(32768))


def test_mu_law(tmp_path):
    codes = np.arange(256, dtype=np.uint8)
    waveform, _ = read(write_sphere(tmp_path / "a.wav", codes, 8000, coding="ulaw"))
    flipped = ~codes
    steps = ((2.0 * (flipped & 15) + 33) * 2.0 ** (flipped >> 4 & 7) - 33) * 4
    expected = np.where(flipped & 128, -steps, steps) / 32768
    np.testing.assert_allclose(waveform[0], expected, atol=1e-7)


@pytest.mark.parametrize("suffix", [".WAV", ".sph"])
@pytest.mark.parametrize(
    ("held", "fields", "message"),
    [
        (1000, {}, "is truncated: 2,000 of 2,002 bytes of samples are there"),
        (1001, {"sample_count": 2000}, "is truncated: 2,002 of 4,000 bytes"),
        (1001, {"channel_count": 2}, "is truncated: 2,002 of 4,004 bytes"),
        (0, {}, "is truncated: 0 of 2,002 bytes"),
    ],
)
def test_a_file_shorter_than_its_header_says(tmp_path, suffix, held, fields, message):
    path = write_sphere(tmp_path / f"a{suffix}", CODES, **fields)
    path.write_bytes(path.read_bytes()[: 1024 + 2 * held])
    with pytest.raises(InputError, match=message) as caught:
        read(path)
    assert str(caught.value).startswith(f"{path}: ")


def test_compression_is_named_with_what_undoes_it(tmp_path):
    coding = "pcm,embedded-shorten-v2.00"
    path = write_sphere(tmp_path / "a.wav", CODES[:300], coding=coding, sample_count=1001)
    message = r"compressed with shorten-v2\.00, takes it uncompressed; .* w_decode or .* sph2pipe$"
    with pytest.raises(InputError, match=message):
        read(path)


@pytest.mark.parametrize("kept", [7, 12, 300])
def test_a_header_that_is_cut_is_no_audio(tmp_path, capfd, kept):
    path = write_sphere(tmp_path / "a.wav", CODES)
    path.write_bytes(path.read_bytes()[:kept])
    with pytest.raises(InputError, match="is corrupt, or not an audio file"):
        read(path)
    assert capfd.readouterr().err == ""


@given(
    st.binary(max_size=9),
    st.lists(
        st.tuples(
            st.sampled_from(["sample_count", "channel_count", "sample_n_bytes", "sample_coding"]),
            st.text(st.characters(max_codepoint=255), max_size=5),
        ).map(lambda field: f"{field[0]} -i {field[1]}\n".encode("latin-1"))
    ),
)
def test_whatever_a_header_says_an_error_is_one_of_input(tmp_path_factory, size, fields):
    path = tmp_path_factory.getbasetemp() / "any.sph"
    path.write_bytes(b"NIST_1A" + size + b"".join(fields))
    with pytest.raises(InputError, match=r"any\.sph: "):
        read(path)


def test_a_riff_file_by_the_name_of_a_sphere_file_is_read(tmp_path):
    write(tmp_path / "a.wav", CODES[None] / np.float32(32768), 16000)
    other = (tmp_path / "a.wav").rename(tmp_path / "a.sph")
    np.testing.assert_array_equal(read(other)[0], CODES[None] / np.float32(32768))
