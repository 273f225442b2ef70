"""Mixtures to judge by: duets at 0 dB with their manifest, and pairs of files."""

from pathlib import Path

import numpy as np
import pytest
import soundfile
from spoken import RATE, speech, write_pairs, write_sphere, write_timit

from sepfast import InputError
from sepfast.data.clips import Clip, SnippetDraw, find_audio, open_clip
from sepfast.data.duets import (
    Duet,
    draw_duets,
    find_pairs,
    is_duet_manifest,
    is_pair_folder,
    read_duets,
    write_duets,
)
from sepfast.data.resampling import resample
from sepfast.data.timit import find_timit


def clip(path: Path, samples: np.ndarray, rate: int = RATE) -> Clip:
    path.parent.mkdir(parents=True, exist_ok=True)
    soundfile.write(path, samples, rate, subtype="FLOAT")
    return open_clip(path.stem, [path])


@pytest.fixture(scope="module")
def timit(tmp_path_factory) -> Path:
    return write_timit(tmp_path_factory.mktemp("timit"), dialects=[3], seconds=0.3)


def sides(root: Path) -> tuple[list[Clip], list[Clip]]:
    found, _ = find_timit(root)
    return tuple([each.clip for each in found if each.sex == sex] for sex in "fm")


# Clips


@pytest.mark.parametrize(("start", "count"), [(0, 100), (3, 0), (-5, 20), (90, 30), (-7, 120)])
def test_a_clip_is_zero_before_and_behind(tmp_path, start, count):
    sound = speech("f", 100 / RATE).astype(np.float32)
    heard = clip(tmp_path / "a.wav", sound).read(start, count)
    padded = np.concatenate([np.zeros(10, np.float32), sound, np.zeros(50, np.float32)])
    np.testing.assert_array_equal(heard, padded[10 + start : 10 + start + count])


def test_other_rates_and_channels_are_the_mean_resampled(tmp_path):
    stereo = np.stack([speech("f", 0.2, 1, 44100), speech("m", 0.2, 2, 44100)])
    heard = clip(tmp_path / "a.flac.wav", stereo.T, 44100)
    cache = tmp_path / "cache"
    assert heard.samples == 3200
    expected = resample(stereo.mean(0, keepdims=True).astype(np.float32), 44100, RATE)[0]
    np.testing.assert_allclose(heard.read(100, 3000, cache), expected[100:3100], atol=1e-6)
    assert len(list(cache.iterdir())) == 1
    plain = clip(tmp_path / "b.wav", stereo.T, RATE)
    np.testing.assert_allclose(plain.read(7, 50, cache), stereo.mean(0)[7:57], atol=1e-7)
    assert len(list(cache.iterdir())) == 1  # what is at 16 kHz is read where it is


def test_a_file_that_has_changed_is_not_read_as_if_it_had_not(tmp_path):
    heard = clip(tmp_path / "a.wav", np.ones(100))
    clip(tmp_path / "a.wav", np.ones(90))
    with pytest.raises(InputError, match="has 90 samples at 16000 Hz, and had 100"):
        heard.read(0, 10)


def test_snippets_start_anywhere_and_short_recordings_lie_in_the_middle(tmp_path):
    ramp = np.arange(1, 13) / 16
    draw = SnippetDraw([[clip(tmp_path / "a.wav", ramp)]], 10)
    random = np.random.default_rng(0)
    drawn = [draw.draw(random) for _ in range(40)]
    assert {each.start for each in drawn} == {0, 1, 2}
    for each in drawn:
        np.testing.assert_array_equal(each.waveform, ramp[each.start : each.start + 10])
    short = SnippetDraw([[clip(tmp_path / "b.wav", ramp[:7])]], 10).draw(random)
    assert short.start == -1
    np.testing.assert_array_equal(short.waveform, [0, *ramp[:7], 0, 0])


def test_silence_is_drawn_again_until_nothing_is_heard(tmp_path):
    silent, heard = clip(tmp_path / "s.wav", np.zeros(90)), clip(tmp_path / "h.wav", np.ones(90))
    random = np.random.default_rng(0)
    draw = SnippetDraw([[silent], [heard]], 30)
    assert {draw.draw(random).clip.key for _ in range(20)} == {"h"}
    with pytest.raises(InputError, match=r"s\.wav: is silent from 0\.00 s on, as are the 99"):
        SnippetDraw([[silent]], 30).draw(random)


# Duets


def test_both_sides_have_one_power_and_the_target_its_own(timit):
    targets, interferers = sides(timit)
    for duet in draw_duets(targets, interferers, 8, seed=1, seconds=0.2):
        mixture, target, rest = duet.waveforms()
        assert mixture.shape == (3200,)
        assert mixture.dtype == np.float32
        np.testing.assert_array_equal(mixture, target + rest)
        np.testing.assert_allclose((rest**2).sum(), (target**2).sum(), rtol=1e-5)
        whole, _ = soundfile.read(duet.target.audio, dtype="float32")
        start = duet.target_start
        np.testing.assert_array_equal(target, whole[start : start + 3200])
        other, _ = soundfile.read(duet.interferer.audio)
        other = other[duet.interferer_start :][:3200]
        assert np.corrcoef(other, rest)[0, 1] > 1 - 1e-6


def test_a_sum_beyond_full_scale_is_kept(tmp_path):
    loud, quiet = clip(tmp_path / "a.wav", np.ones(100)), clip(tmp_path / "b.wav", np.ones(100) / 8)
    mixture, target, rest = Duet("x", loud, 0, quiet, 0, 100, 0).waveforms()
    np.testing.assert_allclose([mixture[0], target[0], rest[0]], [2, 1, 1], rtol=1e-6)
    # Of a short one, the power is that of the snippet with its silence.
    rest = Duet("x", loud, 0, quiet, -100, 200, 0).waveforms()[2]
    np.testing.assert_allclose([rest[:100].max(), rest[100:].min()], [0, 1], rtol=1e-6)
    with pytest.raises(InputError, match=r"b\.wav: is silent in x"):
        Duet("x", loud, 0, quiet, -300, 200, 0).waveforms()


def test_duets_follow_from_the_seed_and_differ_by_name(timit):
    targets, interferers = sides(timit)
    duets = draw_duets(targets, interferers, 30, seed=4)
    assert duets == draw_duets(targets, interferers, 30, seed=4)
    others = draw_duets(targets, interferers, 30, seed=5)
    assert [duet.name for duet in duets] != [duet.name for duet in others]
    assert len({duet.name for duet in duets}) == 30
    assert {duet.samples for duet in duets} == {32000}
    assert {duet.target.key.split("/")[2] for duet in duets} == {"FCAX0", "FCBX0"}
    assert {duet.interferer.key.split("/")[2] for duet in duets} == {"MCAX0", "MCBX0"}
    first = duets[0]
    heard = ("-".join(each.key.split("/")[-2:]) for each in (first.target, first.interferer))
    assert first.name == "_".join(("01", *heard))


def test_speakers_are_as_likely_whatever_they_say(tmp_path):
    for n in range(19):
        write_sphere(tmp_path / f"DR1/FAAA0/SX{n}.WAV", speech("f", 0.1, n))
    write_sphere(tmp_path / "DR1/FBBB0/SX0.WAV", speech("f", 0.1))
    write_sphere(tmp_path / "DR1/MAAA0/SX0.WAV", speech("m", 0.1))
    duets = draw_duets(*sides(tmp_path), 60, seed=0, seconds=0.05)
    assert 20 <= sum("FBBB0" in duet.target.key for duet in duets) <= 40


def test_duets_of_nothing_are_refused(timit):
    targets, _ = sides(timit)
    with pytest.raises(InputError, match="count, seed, seconds: got 0, 0, 2"):
        draw_duets(targets, targets, 0, 0)
    with pytest.raises(InputError, match="clips, samples: got 0 in 0 groups"):
        draw_duets(targets, [], 1, 0)


# The manifest


def test_a_manifest_holds_all_and_the_data_may_move(timit, tmp_path):
    duets = draw_duets(*sides(timit), 12, seed=3, seconds=0.5)  # longer than what is said
    path = tmp_path / "test.csv"
    write_duets(path, duets)
    assert is_duet_manifest(path)
    assert read_duets(path, timit) == duets
    for source in list(timit.rglob("*.WAV")):
        copy = tmp_path / "moved" / str(source.relative_to(timit)).lower()
        copy.parent.mkdir(parents=True, exist_ok=True)
        copy.write_bytes(source.read_bytes())
    moved = read_duets(path, tmp_path / "moved")
    assert [each.name for each in moved] == [each.name for each in duets]
    for each, own in zip(moved, duets, strict=True):
        np.testing.assert_array_equal(each.waveforms(), own.waveforms())


def test_other_files_are_no_manifests(tmp_path):
    (tmp_path / "talkers.csv").write_text("target,seed,interferer 1,offset 1\n")
    (tmp_path / "noise.csv").write_bytes(bytes(range(256)))
    (tmp_path / "empty.csv").touch()
    for name in ("talkers.csv", "noise.csv", "empty.csv", "none.csv", "."):
        assert not is_duet_manifest(tmp_path / name)
    for name, message in (("talkers", "is no manifest of duets"), ("noise", "cannot be read")):
        with pytest.raises(InputError, match=message):
            read_duets(tmp_path / f"{name}.csv", tmp_path)
    with pytest.raises(InputError, match="duets: got none"):
        write_duets(tmp_path / "none.csv", [])


@pytest.mark.parametrize(
    ("column", "value", "message"),
    [
        ("name", "../x", "line 2 takes name, target, target start"),
        ("name", "", "line 2 takes name"),
        ("name", "..", "line 2 takes name"),
        ("target", "DR3/FXYZ0/SA1", "line 2 names DR3/FXYZ0/SA1, which is not in "),
        ("interferer", "broken", r"line 2 names what cannot be read: .*broken\.wav: is corrupt"),
        ("target start", "0.5", "line 2 takes name"),
        ("samples", "0", "line 2 takes name"),
        ("seed", "-1", "line 2 takes name"),
    ],
)
def test_a_bad_line_is_named(tmp_path, column, value, message):
    heard = {"a": clip(tmp_path / "a.wav", np.ones(9)), "b": clip(tmp_path / "b.wav", np.ones(9))}
    (tmp_path / "broken.wav").write_bytes(b"RIFF and no more of it")
    path = tmp_path / "test.csv"
    write_duets(path, [Duet("one", heard["a"], 0, heard["b"], 0, 9, 0)])
    header, line = path.read_text().splitlines()
    names, fields = header.split(","), line.split(",")
    fields[names.index(column)] = value
    path.write_text(f"{header}\n{','.join(fields)}\n")
    with pytest.raises(InputError, match=message):
        read_duets(path, tmp_path)


def test_two_of_one_name_and_no_lines_are_refused(tmp_path):
    heard = clip(tmp_path / "a.wav", np.ones(9))
    path = tmp_path / "test.csv"
    write_duets(path, [Duet("one", heard, 0, heard, 0, 9, 0)] * 2)
    with pytest.raises(InputError, match="line 3 has the name of another, one"):
        read_duets(path, tmp_path)
    path.write_text(path.read_text().splitlines()[0] + "\n")
    with pytest.raises(InputError, match="holds no duets"):
        read_duets(path, tmp_path)
    with pytest.raises(InputError, match="there is no such folder"):
        read_duets(path, tmp_path / "none")


# Pairs


def test_pairs_are_by_name_in_any_format_and_folder(tmp_path):
    write_pairs(tmp_path, ["a", "deep/b", "deep_b"], seconds=0.1)
    mixture, _ = soundfile.read(tmp_path / "mixtures/a.wav", dtype="float32")
    clean, _ = soundfile.read(tmp_path / "clean/a.wav", dtype="float32")
    (tmp_path / "clean/a.wav").unlink()
    soundfile.write(tmp_path / "clean/a.FLAC", np.stack([clean, clean], 1), RATE, "PCM_24")
    clip(tmp_path / "clean/alone.wav", np.ones(9))
    assert is_pair_folder(tmp_path)
    pairs, skipped = find_pairs(tmp_path)
    assert skipped == []
    assert [pair.name for pair in pairs] == ["a", "deep_b", "deep_b-2"]
    assert pairs[1].target.key == "clean/deep/b"
    heard = pairs[0].waveforms()
    np.testing.assert_array_equal(heard[0], mixture)
    np.testing.assert_allclose(heard[1], clean, atol=1e-6)
    np.testing.assert_array_equal(heard[2], heard[0] - heard[1])


def test_pairs_are_as_long_to_the_sample(tmp_path):
    write_pairs(tmp_path, ["a", "b", "c", "d", "e"], seconds=0.1, rate=44100)
    clip(tmp_path / "clean/a.wav", np.ones(4409), 44100)
    clip(tmp_path / "clean/b.wav", np.ones(1600))
    clip(tmp_path / "clean/c.wav", np.ones(1602))
    (tmp_path / "clean/d.wav").unlink()
    (tmp_path / "clean/e.wav").write_bytes(b"no audio")
    pairs, skipped = find_pairs(tmp_path)
    assert [pair.name for pair in pairs] == ["b"]
    assert pairs[0].waveforms(tmp_path / "cache").shape == (3, 1600)
    assert len(skipped) == 5
    assert "a.wav has 4,410 samples at 44100 Hz, but" in skipped[0]
    assert "has 1,602 at 16000 Hz" in skipped[1]
    assert "d.wav has no clean/d" in skipped[2]
    assert "e.wav has no clean/e" in skipped[3]
    assert "e.wav: is corrupt" in skipped[4]


def test_a_compressed_file_is_decoded_to_know_its_length(tmp_path):
    rate, sound = 16000, speech("f", 0.2)
    (tmp_path / "mixtures").mkdir()
    soundfile.write(tmp_path / "mixtures/a.mp3", sound, rate, format="MP3")
    found = find_audio(tmp_path)["mixtures/a"]
    heard = open_clip("mixtures/a", found, tmp_path / "cache")
    assert heard.samples == len(heard.read(0, heard.samples, tmp_path / "cache")) >= len(sound)
    assert len(list((tmp_path / "cache").iterdir())) == 1


def test_where_there_are_no_pairs_it_is_said(tmp_path):
    with pytest.raises(InputError, match="takes a folder that holds mixtures/ and clean/"):
        find_pairs(tmp_path)
    write_pairs(tmp_path, "a")
    (tmp_path / "clean/a.wav").rename(tmp_path / "clean/b.wav")
    with pytest.raises(InputError, match=r"holds no pairs; looked for mixtures/NAME.*has no clean"):
        find_pairs(tmp_path)
