"""Talkers: their utterances are found, split and counted."""

import os
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from talking import RATE, crowd, face, people, talk, voice

from sepfast import InputError
from sepfast.data import find_utterances, split_speakers, split_utterances
from sepfast.data.landmarks import landmark_motion, write_landmarks
from sepfast.data.speaker_statistics import (
    Moments,
    RunningMoments,
    compressed,
    normalised,
    speaker_statistics,
)
from sepfast.data.talker_mixtures import draw_mixtures
from sepfast.reference import FRAMINGS, stft


def keys(utterances) -> list[str]:
    return [utterance.key for utterance in utterances]


@pytest.fixture(scope="module")
def data(tmp_path_factory) -> Path:
    return crowd(tmp_path_factory.mktemp("data"), speakers=3, utterances=3)


def test_grid_and_one_speaker_alone(data):
    found, skipped = find_utterances(str(data))
    assert skipped == []
    assert keys(found) == [f"s{s}/{name}" for s in (1, 2, 3) for name in "abc"]
    assert found[0].audio == data / "s1/audio/a.wav"
    assert found[0].landmarks == data / "s1/landmarks/a.txt"
    assert (found[0].samples, found[0].video_rate, found[0].seconds) == (8000, 25, 0.5)
    assert keys(find_utterances(data / "s2")[0]) == ["s2/a", "s2/b", "s2/c"]


def test_tcd_timit_as_it_comes_without_lipspeakers(tmp_path):
    for speaker in ("volunteers/01M", "volunteers/02F", "lipspeakers/Lipspkr1"):
        talk(tmp_path / speaker, "sa1", video_rate=30000 / 1001)
    clips = tmp_path / "volunteers/02F/Clips"
    clips.mkdir()
    (tmp_path / "volunteers/02F/audio").rename(clips / "straightcam")
    found, skipped = find_utterances(tmp_path)
    assert (keys(found), skipped) == (["01M/sa1", "02F/sa1"], [])
    assert found[1].audio == clips / "straightcam/sa1.wav"
    assert found[1].video_rate == 30000 / 1001


def test_rates_and_arrays_are_taken_where_files_do_not_tell(tmp_path):
    landmarks = talk(tmp_path / "s1", "a")
    landmarks.with_suffix(".json").unlink()
    landmarks.unlink()
    np.save(landmarks.with_suffix(".npy"), face(13, 25, 0))
    with pytest.raises(InputError, match=r"holds no utterances.*skipped 1.* takes video_rate"):
        find_utterances(tmp_path)
    (found,), _ = find_utterances(tmp_path, video_rate=25)
    assert found.video_rate == 25
    assert found.landmarks.suffix == ".npy"


def test_what_cannot_be_used_is_skipped_with_its_reason(tmp_path):
    for name in "abcdef":
        talk(tmp_path / "s1", name, seconds=0.6)
    landmarks = tmp_path / "s1/landmarks"
    (landmarks / "b.txt").unlink()
    (landmarks / "c.txt").write_text("1 2 3\n")
    write_landmarks(landmarks / "d.txt", face(10, 25, 0), 25)  # 0.4 s
    (tmp_path / "s1/audio/e.wav").write_bytes(b"RIFF0000WAVEfmt nonsense")
    (tmp_path / "s1/audio/.hidden.wav").touch()
    (tmp_path / "s2").mkdir()
    (tmp_path / "notes.txt").touch()
    told = []
    found, skipped = find_utterances(tmp_path, progress=lambda *at: told.append(at))
    assert keys(found) == ["s1/a", "s1/f"]
    assert told[-1] == (6, 6)
    for reason, (name, why) in zip(
        skipped,
        [
            ("b.wav", "has no landmarks/b.txt or .npy"),
            ("c.txt", "line 1 holds 3 columns"),
            ("d.txt", "got 10 video frames at 25 a second, 0.40 s; takes 0.52 s or more"),
            ("e.wav", "is corrupt"),
        ],
        strict=True,
    ):
        assert name in reason
        assert why in reason


def test_nothing_found_says_what_was_looked_for(tmp_path):
    with pytest.raises(InputError, match="there is no such folder"):
        find_utterances(tmp_path / "none")
    with pytest.raises(InputError, match=r"looked for SPEAKER/audio/NAME\.wav"):
        find_utterances(tmp_path)


def test_utterances_are_heard_at_16_khz_and_seen_at_100(tmp_path):
    stereo = np.stack([voice(12501, 1, 25000), voice(12501, 2, 25000)], axis=-1)
    talk(tmp_path / "s1", "a", rate=25000, waveform=stereo)
    (found,), _ = find_utterances(tmp_path)
    assert found.samples == 8001
    heard = found.waveform(tmp_path / "cache")
    assert heard.shape == (8001,)
    assert heard.dtype == np.float32
    louder = np.sqrt(np.mean(heard.astype(float) ** 2) / np.mean(stereo.mean(1) ** 2))
    assert 0.7 < louder < 1.01  # less what lies above 8 kHz
    assert found.frames == FRAMINGS["landmarks"].frames(8001) == 52
    shown = np.rint(face(12, 25, 0))
    np.testing.assert_array_equal(found.motion(), landmark_motion(shown, 25, 52))
    found.landmarks.write_text("1 2 3\n")
    with pytest.raises(InputError, match=r"^[^:]*a\.txt: line 1 holds 3 columns"):
        found.motion()


@pytest.mark.parametrize(
    ("speakers", "counts"), [(33, (25, 4, 4)), (59, (51, 4, 4)), (10, (8, 1, 1)), (3, (1, 1, 1))]
)
def test_splits_by_speaker_are_disjoint_whole_and_reproducible(speakers, counts):
    utterances = people(speakers, 2)
    split = split_speakers(utterances, seed=1)
    parts = [{utterance.speaker for utterance in part} for part in split]
    assert tuple(map(len, parts)) == counts
    assert len(set.union(*parts)) == speakers
    assert sum(map(len, split)) == len(utterances)
    again = split_speakers(utterances[::-1], seed=1)
    assert [{u.speaker for u in part} for part in again] == parts
    if speakers > 3:
        other = split_speakers(utterances, seed=2)
        assert [{u.speaker for u in part} for part in other] != parts


def test_splits_by_utterance_have_all_speakers_in_all_parts():
    utterances = people(4, 10)
    split = split_utterances(utterances, seed=1)
    for part, count in zip(split, (8, 1, 1), strict=True):
        assert [sum(u.speaker == f"s{s}" for u in part) for s in range(4)] == [count] * 4
    assert sorted(keys([u for part in split for u in part])) == sorted(keys(utterances))
    assert split_utterances(utterances[::-1], seed=1) == split
    assert split_utterances(utterances, seed=2) != split
    # A speaker's own split does not depend on who else is there.
    alone = split_utterances(people(1, 10), seed=1)
    assert keys(alone.test) == [u.key for u in split.test if u.speaker == "s0"]


@pytest.mark.parametrize(
    "fractions", [(0.5, 0.5, 0.5), (0.8, 0.2, 0.0), (0.8, 0.2), (0.1, 0.4, 0.5)]
)
def test_bad_fractions(fractions):
    with pytest.raises(InputError, match="fractions: got"):
        split_speakers(people(3, 1), 0, fractions=fractions)


def test_too_few_to_split():
    with pytest.raises(InputError, match="for 2 speakers, which leaves a part empty"):
        split_speakers(people(2, 5), 0)
    with pytest.raises(InputError, match="for 2 utterances of s0"):
        split_utterances(people(2, 2), 0)


@settings(max_examples=30, deadline=None)
@given(st.lists(st.integers(0, 9), min_size=1, max_size=6), st.floats(-1e4, 1e4))
def test_moments_in_blocks_are_those_of_all_at_once(blocks, offset):
    random = np.random.default_rng(len(blocks))
    values = random.normal(offset, 0.5, (1 + sum(blocks), 3))
    running = RunningMoments(3)
    for part in np.split(values, np.cumsum(blocks)):
        running.add(part)
    mean, deviation = running.moments()
    np.testing.assert_allclose(mean, values.mean(0), rtol=1e-6)
    if len(values) > 2:
        np.testing.assert_allclose(deviation, values.std(0), rtol=1e-5)


def test_no_deviation_is_one_even_where_a_constant_is_not_exact():
    running = RunningMoments(2)
    for length in (3, 7, 11):
        running.add(np.tile(np.array([[0.0, 0.1]], np.float32), (length, 1)))
    moments = running.moments()
    np.testing.assert_array_equal(moments.deviation, 1)
    np.testing.assert_array_equal(normalised(np.zeros((4, 2), np.float32), moments)[:, 0], 0)
    with pytest.raises(InputError, match="got no frames"):
        RunningMoments(2).moments()


def test_normalised():
    moments = Moments(np.array([1, 2], np.float32), np.array([2, 4], np.float32))
    out = normalised(np.array([[[3, 2]]], np.float32), moments)
    np.testing.assert_array_equal(out, [[[1, 0]]])


def _all_at_once(blocks) -> tuple[np.ndarray, np.ndarray]:
    values = np.concatenate(list(blocks)).astype(np.float64)
    return values.mean(0), values.std(0)


def test_statistics_are_those_of_all_of_a_speaker(data, tmp_path):
    utterances, _ = find_utterances(data)
    mixtures, _ = draw_mixtures(utterances, 3, utterances_per_speaker=2)
    found = speaker_statistics(utterances, mixtures, cache_dir=tmp_path)
    assert sorted(found) == ["s1", "s2", "s3"]
    own = [u for u in utterances if u.speaker == "s2"]
    heard = [m for m in mixtures if m.target.speaker == "s2"]
    assert (len(own), len(heard)) == (3, 6)

    def spectrogram(waveform):
        complex_ = stft(torch.from_numpy(waveform).double(), FRAMINGS["landmarks"])
        return complex_.norm(dim=-1).numpy() ** 0.3

    for kept, blocks in (
        (found["s2"].speech, (spectrogram(u.waveform()) for u in own)),
        (found["s2"].mixtures, (spectrogram(m.waveforms()[0]) for m in heard)),
        (found["s2"].motion, (u.motion() for u in own)),
    ):
        mean, deviation = _all_at_once(blocks)
        deviation = np.where(deviation == 0, 1, deviation)
        np.testing.assert_allclose(kept.mean, mean, rtol=1e-4, atol=1e-6)
        np.testing.assert_allclose(kept.deviation, deviation, rtol=1e-4, atol=1e-6)
    np.testing.assert_allclose(
        found["s2"].threshold(),
        found["s2"].speech.mean + 0.6 * found["s2"].speech.deviation,
        rtol=1e-6,
    )
    # Normalised by them, a speaker's data has mean 0 and deviation 1 wherever it varies.
    motion = np.concatenate([normalised(u.motion(), found["s2"].motion) for u in own])
    varies = found["s2"].motion.deviation != 1
    assert varies.any()
    np.testing.assert_allclose(motion[:, varies].std(0), 1, rtol=1e-4)
    np.testing.assert_allclose(motion.mean(0), 0, atol=1e-4)


def test_statistics_are_kept_until_a_file_changes(data, tmp_path, monkeypatch):
    root, cache = tmp_path / "data", tmp_path / "cache"
    shutil.copytree(data, root)
    utterances, _ = find_utterances(root)
    mixtures, _ = draw_mixtures(utterances, 3, utterances_per_speaker=1)
    made = []
    monkeypatch.setattr(
        "sepfast.data.speaker_statistics.compressed",
        lambda waveform: made.append(1) or compressed(waveform),
    )

    def again() -> int:
        made.clear()
        found = speaker_statistics(utterances, mixtures, cache_dir=cache)
        for speaker in first:
            np.testing.assert_array_equal(found[speaker].speech, first[speaker].speech)
        return len(made)

    first = speaker_statistics(utterances, mixtures, cache_dir=cache)
    assert len(made) == 3 * 3 + 3 * 3  # each utterance and each mixture once
    assert again() == 0
    touched = next(
        u for u in utterances if u.key not in {t.key for m in mixtures for t in m.utterances}
    )
    os.utime(touched.audio, ns=(1, 1))
    assert again() == 3
    held = sorted(cache.glob("*.npz"))
    held[0].write_bytes(held[0].read_bytes()[:50])  # broken: made again
    held[1].write_bytes(b"")
    with held[2].open("wb") as file:
        np.save(file, np.zeros(3))  # an array, and no archive of them
    again()
    assert again() == 0
    assert not [each for each in cache.iterdir() if each.name.startswith(".")]


def test_what_statistics_lack_is_said(data, tmp_path):
    utterances, _ = find_utterances(data)
    mixtures, _ = draw_mixtures(utterances, 0, utterances_per_speaker=1)
    with pytest.raises(InputError, match="mixtures: got none"):
        speaker_statistics(utterances, [], cache_dir=tmp_path)
    with pytest.raises(InputError, match="utterances: got none of s2, s3"):
        speaker_statistics(utterances[:3], mixtures, cache_dir=tmp_path)


def test_a_silent_speaker_has_levels_too(tmp_path):
    for name in "ab":
        talk(tmp_path / "s1", name, waveform=np.zeros(RATE // 2))
        talk(tmp_path / "s2", name)
    utterances, _ = find_utterances(tmp_path)
    mixtures, _ = draw_mixtures(utterances, 0, mixtures_per_utterance=1)
    found = speaker_statistics(utterances, mixtures, cache_dir=tmp_path)["s1"]
    np.testing.assert_array_equal(found.speech.mean, 0)
    np.testing.assert_array_equal(found.speech.deviation, 1)
    assert (found.mixtures.mean > 0).all()
    assert np.isfinite(found.threshold()).all()
