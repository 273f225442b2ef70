"""Songs as samples: any span reads as the decoded whole does."""

import os
import pickle
from pathlib import Path

import numpy as np
import pytest

from sepfast.data import SOURCES, Song, SongAudio, find_songs, resample, write
from sepfast.data.song_audio import default_cache_dir
from sepfast.errors import InputError

RATE = 8000


def noise(samples: int = RATE, channels: int = 2, seed: int = 0) -> np.ndarray:
    rng = np.random.default_rng(seed)
    return rng.uniform(-0.2, 0.2, (channels, samples)).astype(np.float32)


def record(folder: Path, *, mixture: bool = True, rate: int = RATE, **lengths: int) -> np.ndarray:
    """A song folder of noise, in float; returns (1 + 4, 2, samples), the mixture first."""
    folder.mkdir(parents=True, exist_ok=True)
    waves = {
        name: noise(lengths.get(name, rate), seed=seed) for seed, name in enumerate(SOURCES, 1)
    }
    longest = max(wave.shape[1] for wave in waves.values())
    padded = [np.pad(w, ((0, 0), (0, longest - w.shape[1]))) for w in waves.values()]
    total = np.sum(padded, axis=0)
    if mixture:
        waves["mixture"] = total
    for name, wave in waves.items():
        write(folder / f"{name}.wav", wave, rate)
    return np.stack([total, *padded])


def only_song(root: Path) -> Song:
    (song,), skipped = find_songs(root)
    assert skipped == []
    return song


@pytest.fixture
def cache(tmp_path) -> Path:
    return tmp_path / "cache"


@pytest.mark.parametrize("mixture", [True, False])
def test_reads_are_slices_of_the_whole(tmp_path, cache, mixture):
    whole = record(tmp_path / "song", mixture=mixture)
    song = only_song(tmp_path)
    assert (song.mixture is None) is not mixture
    audio = SongAudio(song, sample_rate=RATE, channels=2, cache_dir=cache)
    assert audio.samples == RATE
    for start, stop in ((0, RATE), (0, 1), (17, 17), (1234, 5678), (RATE - 1, RATE)):
        part = audio.read(start, stop)
        assert part.dtype == np.float32
        np.testing.assert_allclose(part, whole[:, :, start:stop], atol=1e-7)
        np.testing.assert_array_equal(part[1:], whole[1:, :, start:stop])
    assert not cache.exists()  # wav files at this rate are read where they are


def test_beyond_the_end_there_are_zeros(tmp_path, cache):
    whole = record(tmp_path / "song")
    audio = SongAudio(only_song(tmp_path), sample_rate=RATE, channels=2, cache_dir=cache)
    part = audio.read(RATE - 10, RATE + 10)
    np.testing.assert_array_equal(part[..., :10], whole[..., -10:])
    assert not part[..., 10:].any()
    far = audio.read(3 * RATE, 3 * RATE + 5)
    assert far.shape == (5, 2, 5)
    assert not far.any()


def test_a_read_is_the_callers_own(tmp_path, song_path, cache):
    record(tmp_path / "song")
    for song, rate in ((only_song(tmp_path), RATE), (only_song(song_path), 44100)):
        audio = SongAudio(song, sample_rate=rate, channels=2, cache_dir=cache)
        before = audio.read(0, 100)
        audio.read(0, 100)[:] = 9
        np.testing.assert_array_equal(audio.read(0, 100), before)


@pytest.mark.parametrize(("start", "stop"), [(-1, 5), (5, 4)])
def test_spans_that_run_backwards_are_refused(tmp_path, cache, start, stop):
    record(tmp_path / "song")
    audio = SongAudio(only_song(tmp_path), sample_rate=RATE, channels=2, cache_dir=cache)
    with pytest.raises(InputError, match=f"start, stop: got {start}, {stop}"):
        audio.read(start, stop)


def test_sources_in_the_order_asked_for(tmp_path, cache):
    whole = record(tmp_path / "song")
    options = {"sample_rate": RATE, "channels": 2, "cache_dir": cache}
    audio = SongAudio(only_song(tmp_path), sources=("bass", "vocals"), **options)
    np.testing.assert_array_equal(audio.read(5, 50), whole[[0, 3, 1], :, 5:50])
    (tmp_path / "song/mixture.wav").unlink()
    audio = SongAudio(only_song(tmp_path), sources=("bass",), **options)
    np.testing.assert_allclose(audio.read(5, 50), whole[[0, 3], :, 5:50], atol=1e-7)
    with pytest.raises(InputError, match="song: has no piano"):
        SongAudio(only_song(tmp_path), sources=("piano",), **options)


def test_channels_are_averaged_and_doubled(tmp_path, cache):
    whole = record(tmp_path / "song")
    write(tmp_path / "song/drums.wav", noise(channels=1, seed=9), RATE)
    write(tmp_path / "song/bass.wav", noise(channels=3, seed=8), RATE)
    song = only_song(tmp_path)
    mono = SongAudio(song, sample_rate=RATE, channels=1, cache_dir=cache).read(0, 100)
    assert mono.shape == (5, 1, 100)
    np.testing.assert_allclose(mono[1], whole[1, :, :100].mean(axis=0, keepdims=True), atol=1e-7)
    np.testing.assert_array_equal(mono[2], noise(channels=1, seed=9)[:, :100])
    expected = noise(channels=3, seed=8)[:, :100].mean(axis=0, keepdims=True)
    np.testing.assert_allclose(mono[3], expected, atol=1e-7)
    options = {"sample_rate": RATE, "channels": 2, "cache_dir": cache}
    stereo = SongAudio(song, sources=("vocals", "drums"), **options).read(0, 100)
    np.testing.assert_array_equal(stereo[1], whole[1, :, :100])
    np.testing.assert_array_equal(stereo[2], np.repeat(mono[2], 2, axis=0))
    with pytest.raises(InputError, match=r"bass\.wav: has 3 channels, takes 1 or 2"):
        SongAudio(song, **options)
    with pytest.raises(InputError, match="channels: got 3, takes 1 or 2"):
        SongAudio(song, sample_rate=RATE, channels=3, cache_dir=cache)


def test_a_span_of_a_song(tmp_path, cache):
    whole = record(tmp_path / "song")
    options = {"sample_rate": RATE, "channels": 2, "cache_dir": cache}
    song = only_song(tmp_path)
    audio = SongAudio(song, start=0.25, stop=0.75, **options)
    assert audio.samples == 4000
    np.testing.assert_array_equal(audio.read(0, 4000), whole[..., 2000:6000])
    beyond = audio.read(3990, 4010)
    np.testing.assert_array_equal(beyond[..., :10], whole[..., 5990:6000])
    assert not beyond[..., 10:].any()  # what lies behind the span is not heard
    assert SongAudio(song, start=0.5, **options).samples == 4000
    assert SongAudio(song, start=0.5, stop=9, **options).samples == 4000
    for start, stop in ((1.0, None), (-0.1, 0.5), (0.5, 0.5), (0.0, 0.0)):
        with pytest.raises(InputError, match=r"song: has no samples from .* it lasts 1\.00 s"):
            SongAudio(song, start=start, stop=stop, **options)
    with pytest.raises(InputError, match=r"from 0\.0 s to 0\.0 s; it lasts"):
        SongAudio(song, stop=0.0, **options)


# Lengths


def test_a_few_samples_less_are_padded(tmp_path, cache):
    whole = record(tmp_path / "song", drums=RATE - 700)
    audio = SongAudio(only_song(tmp_path), sample_rate=RATE, channels=2, cache_dir=cache)
    assert audio.samples == RATE
    np.testing.assert_array_equal(audio.read(7000, RATE), whole[..., 7000:])
    assert not audio.read(RATE - 700, RATE)[2].any()


def test_much_less_is_refused(tmp_path, cache):
    record(tmp_path / "song", drums=RATE - 900)
    song = only_song(tmp_path)
    with pytest.raises(InputError, match=r"drums\.wav: lasts 0\.89 s, but .*\.wav lasts 1\.00 s"):
        SongAudio(song, sample_rate=RATE, channels=2, cache_dir=cache)
    # What is not asked for does not matter.
    SongAudio(song, sources=("bass",), sample_rate=RATE, channels=2, cache_dir=cache)


# Decoding to the cache


def test_another_rate_is_resampled_once(tmp_path, cache):
    whole = record(tmp_path / "song", rate=3 * RATE)
    audio = SongAudio(only_song(tmp_path), sample_rate=RATE, channels=1, cache_dir=cache)
    assert audio.samples == RATE
    expected = np.stack([resample(w.mean(axis=0, keepdims=True), 3 * RATE, RATE) for w in whole])
    np.testing.assert_allclose(audio.read(0, RATE), expected, atol=1e-6)
    np.testing.assert_array_equal(audio.read(100, 300), audio.read(0, RATE)[..., 100:300])
    assert len(list(cache.iterdir())) == 5


def test_a_real_song_is_decoded_whole(song_path, mixture, stems, cache):
    audio = SongAudio(only_song(song_path), sample_rate=44100, channels=2, cache_dir=cache)
    assert audio.samples == 268_288
    whole = np.stack([mixture, *stems])
    np.testing.assert_array_equal(audio.read(0, 268_288), whole)
    np.testing.assert_array_equal(audio.read(65_500, 65_600), whole[..., 65_500:65_600])


def modification_times(folder: Path) -> dict[str, int]:
    return {path.name: path.stat().st_mtime_ns for path in folder.iterdir()}


def test_the_cache_is_used_again(tmp_path, cache):
    record(tmp_path / "song", rate=3 * RATE)
    options = {"sample_rate": RATE, "channels": 2, "cache_dir": cache}
    song = only_song(tmp_path)
    first = SongAudio(song, **options).read(0, RATE)
    before = modification_times(cache)
    np.testing.assert_array_equal(SongAudio(song, **options).read(0, RATE), first)
    assert modification_times(cache) == before
    SongAudio(song, **{**options, "channels": 1})
    SongAudio(song, **{**options, "sample_rate": RATE // 2})
    assert len(modification_times(cache)) == 3 * len(before)


@pytest.mark.parametrize("same", ["size", "time"])
def test_a_file_that_changes_is_decoded_anew(tmp_path, cache, same):
    record(tmp_path / "song", rate=3 * RATE)
    options = {"sample_rate": RATE, "channels": 2, "cache_dir": cache}
    song, path = only_song(tmp_path), tmp_path / "song/bass.wav"
    first, before = SongAudio(song, **options).read(0, RATE), path.stat()
    new = noise(3 * RATE, seed=77)
    write(path, new, 3 * RATE, subtype="float" if same == "size" else "int16")
    times = (1, 1) if same == "size" else (before.st_atime_ns, before.st_mtime_ns)
    os.utime(path, ns=times)
    assert (path.stat().st_size == before.st_size) is (same == "size")
    part = SongAudio(song, **options).read(0, RATE)
    np.testing.assert_allclose(part[3], resample(new, 3 * RATE, RATE), atol=1e-4)
    np.testing.assert_array_equal(part[[0, 1, 2, 4]], first[[0, 1, 2, 4]])


@pytest.mark.parametrize("damage", ["empty", "half", "junk", "shape", "type"])
def test_a_broken_cache_is_written_again(tmp_path, cache, damage):
    record(tmp_path / "song", rate=3 * RATE)
    options = {"sample_rate": RATE, "channels": 2, "cache_dir": cache}
    expected = SongAudio(only_song(tmp_path), **options).read(0, RATE)
    for path in cache.iterdir():
        whole, content = np.load(path), path.read_bytes()
        if damage == "shape":
            np.save(path, whole[:, :1])
        elif damage == "type":
            np.save(path, whole.astype(np.float64))
        else:
            broken = {"empty": b"", "half": content[: len(content) // 2], "junk": b"junk" * 999}
            path.write_bytes(broken[damage])
    again = SongAudio(only_song(tmp_path), **options)
    np.testing.assert_array_equal(again.read(0, RATE), expected)
    assert len(list(cache.iterdir())) == 5


def test_a_failed_decoding_leaves_nothing(tmp_path, cache):
    record(tmp_path / "song", rate=3 * RATE)
    path = tmp_path / "song/mixture.flac"
    (tmp_path / "song/mixture.wav").unlink()
    write(path, noise(3 * RATE), 3 * RATE)
    path.write_bytes(path.read_bytes()[:-9000])
    with pytest.raises(InputError, match=r"mixture\.flac: is (corrupt|truncated)"):
        SongAudio(only_song(tmp_path), sample_rate=RATE, channels=2, cache_dir=cache)
    assert list(cache.iterdir()) == []


def test_a_cache_that_cannot_be_written(tmp_path):
    record(tmp_path / "song", rate=3 * RATE)
    (tmp_path / "file").write_text("a file, not a folder")
    with pytest.raises(InputError, match="cannot be written"):
        SongAudio(
            only_song(tmp_path), sample_rate=RATE, channels=2, cache_dir=tmp_path / "file/cache"
        )


def test_where_the_cache_is(monkeypatch, tmp_path):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert default_cache_dir() == tmp_path / "sepfast"
    record(tmp_path / "song", rate=2 * RATE)
    SongAudio(only_song(tmp_path / "song"), sample_rate=RATE, channels=1)
    assert len(list((tmp_path / "sepfast").iterdir())) == 5
    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert default_cache_dir() == tmp_path / ".cache/sepfast"


def test_a_missing_file_is_named(tmp_path, cache):
    record(tmp_path / "song")
    song = only_song(tmp_path)
    (tmp_path / "song/bass.wav").unlink()
    with pytest.raises(InputError, match=r"bass\.wav: there is no such file"):
        SongAudio(song, sample_rate=RATE, channels=2, cache_dir=cache)


# Workers


@pytest.mark.parametrize("rate", [RATE, 3 * RATE])
def test_pickling_sends_paths_alone(tmp_path, cache, rate):
    record(tmp_path / "song", rate=rate)
    audio = SongAudio(only_song(tmp_path), sample_rate=RATE, channels=2, cache_dir=cache)
    expected = audio.read(10, 500)
    sent = pickle.dumps(audio)
    assert len(sent) < 5000
    np.testing.assert_array_equal(pickle.loads(sent).read(10, 500), expected)


@pytest.mark.skipif(not Path("/proc/self/fd").exists(), reason="counts open files in /proc")
def test_no_file_stays_open(tmp_path, cache):
    record(tmp_path / "a", rate=RATE)
    record(tmp_path / "b", rate=2 * RATE)
    before = len(os.listdir("/proc/self/fd"))
    songs = [
        SongAudio(song, sample_rate=RATE, channels=2, cache_dir=cache)
        for song in find_songs(tmp_path)[0]
    ]
    for audio in songs:
        audio.read(0, 100)
    assert len(os.listdir("/proc/self/fd")) == before


def test_long_files_are_decoded_in_little_memory(tmp_path, cache):
    import tracemalloc

    record(tmp_path / "song", rate=2 * RATE)
    SongAudio(only_song(tmp_path), sample_rate=RATE, channels=2, cache_dir=cache)  # imports
    for name in ("mixture", *SOURCES):
        write(tmp_path / f"song/{name}.wav", np.zeros((2, 2_000_000), np.float32), 2 * RATE)
    tracemalloc.start()
    audio = SongAudio(only_song(tmp_path), sample_rate=RATE, channels=2, cache_dir=cache)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert audio.samples == 1_000_000
    assert peak < 4_000_000  # one track is 8 MB
