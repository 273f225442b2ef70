"""Fragments: how songs are cut, how fragments are varied, and the batches made of them."""

import pickle
import sys
from itertools import pairwise

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from test_examples import Memory

from sepfast import InputError
from sepfast.data.augmentation import Variation, Variations
from sepfast.data.examples import excerpt_framing
from sepfast.data.fragments import FragmentBatches, Fragments, SideMaker, fixed_batches
from sepfast.reference import FRAMINGS

FRAMING = excerpt_framing(FRAMINGS["informed"])
SAMPLES = FRAMING.covered(8)
RATE = 16000


def duet(samples: int, seed: int = 0, name: str = "duet") -> Memory:
    """A target and an accompaniment of noise, (2, 1, samples)."""
    parts = np.random.default_rng(seed).normal(0, 0.1, (2, 1, samples)).astype(np.float32)
    return Memory(np.stack([parts.sum(0), parts[1]]), name)


def counting(samples: int, first: int) -> Memory:
    line = np.arange(first, first + samples, dtype=np.float32)
    return Memory(np.broadcast_to(line, (2, 1, samples)).copy(), f"song {first}")


def sines(target: float, other: float, samples: int = RATE) -> np.ndarray:
    """A mixture of two sines and its target, (2, samples)."""
    time = np.arange(samples) / RATE
    high, low = (0.2 * np.sin(2 * np.pi * hertz * time) for hertz in (target, other))
    return np.stack([high + low, high]).astype(np.float32)


def energy(waveform: np.ndarray) -> float:
    return float((waveform.astype(np.float64) ** 2).sum())


def hertz(waveform: np.ndarray) -> float:
    """The frequency of a sine, from the phase between two spectra 100 samples apart."""
    window = np.hanning(8192)
    first, second = (np.fft.rfft(window * waveform[n : n + 8192]) for n in (4000, 4001))
    peak = int(np.abs(first).argmax())
    return float(np.angle(second[peak] / first[peak]) * RATE / (2 * np.pi))


# Fragments


@given(st.lists(st.integers(1, 40), min_size=1, max_size=4), st.integers(1, 12))
def test_songs_are_cut_end_to_end(lengths, samples):
    songs = [counting(length, 1 + 100 * number) for number, length in enumerate(lengths)]
    fragments = Fragments(songs, samples)
    for number, song in enumerate(songs):
        own = [n for n, place in enumerate(fragments.places) if place[0] == number]
        joined = np.concatenate([fragments[n] for n in own], axis=-1)
        assert np.array_equal(joined[:, : song.samples], song.waveforms[:, 0])
        assert not joined[:, song.samples :].any()
        assert joined.shape[-1] - song.samples < samples
        assert {fragments.name(n) for n in own} == {song.song.name}


def test_silence_is_left_out_and_a_silent_target_is_not():
    song = duet(4 * SAMPLES)
    song.waveforms[:, :, SAMPLES : 2 * SAMPLES] = 0
    song.waveforms[1, :, 2 * SAMPLES :] = 0
    assert Fragments([song], SAMPLES).places == [(0, 0), (0, 2), (0, 3)]


def test_songs_that_cannot_be_cut_are_refused():
    with pytest.raises(InputError, match="songs: got none"):
        Fragments([], SAMPLES)
    with pytest.raises(InputError, match="got 1 of nothing but silence"):
        Fragments([Memory(np.zeros((2, 1, 50), np.float32))], SAMPLES)
    with pytest.raises(InputError, match="stereo: got 5 waveforms of 2 channels"):
        Fragments([Memory(np.ones((5, 2, 50), np.float32), "stereo")], SAMPLES)
    broken = duet(3 * SAMPLES, name="broken")
    broken.waveforms[1, 0, SAMPLES + 7] = np.nan
    with pytest.raises(InputError, match=f"broken: holds NaN .* between {SAMPLES} and"):
        Fragments([broken], SAMPLES)


# Variations


@pytest.mark.parametrize("decibels", [-2.0, -0.3, 1.7])
@pytest.mark.parametrize("semitones", [-2.0, 0.0, 1.37])
def test_level_and_pitch_change_by_what_is_said(decibels, semitones):
    plain = sines(880, 300)
    mixture, target = Variation(decibels, semitones).of(plain, RATE)
    rest, before = mixture - target, plain[0] - plain[1]
    ratio = energy(target) / energy(rest) / (energy(plain[1]) / energy(before))
    assert 10 * np.log10(ratio) == pytest.approx(decibels, abs=0.05)
    # A phase vocoder takes up to 0.9 dB off a sine, whatever its level.
    level = energy(mixture) / energy(Variation(0.0, semitones).of(plain, RATE)[0])
    assert abs(10 * np.log10(level)) < 0.15
    for varied, original in ((target, 880), (rest, 300)):
        shift = 12 * np.log2(hertz(varied) / original)
        assert shift == pytest.approx(semitones, abs=0.02)


def test_a_variation_leaves_silence_silent_and_its_input_alone():
    plain = sines(500, 300)
    plain[1] = 0
    before = plain.copy()
    varied = Variation(2.0, 1.0).of(plain, RATE)
    assert not varied[1].any()
    assert varied.dtype == np.float32
    assert np.array_equal(plain, before)


@settings(max_examples=20)
@given(st.integers(0, 2**40), st.integers(0, 99), st.integers(0, 99), st.integers(0, 3))
def test_what_is_drawn_follows_from_its_place_alone(seed, song, part, version):
    variations = Variations(4, seed, RATE, "unused")
    drawn = variations.variation((song, part), version)
    assert abs(drawn.decibels) <= 2
    assert abs(drawn.semitones) <= 2
    assert drawn == Variations(4, seed, RATE, "elsewhere").variation((song, part), version)
    others = [(seed + 1, song, part, version), (seed, song + 1, part, version)]
    others += [(seed, song, part + 1, version), (seed, song, part, version + 1)]
    for its_seed, *place, its_version in others:
        other = Variations(4, its_seed, RATE, "unused").variation(tuple(place), its_version)
        assert other.decibels != drawn.decibels
        assert other.semitones != drawn.semitones


def test_draws_are_spread_over_the_range():
    variations = Variations(4, 0, RATE, "unused")
    drawn = [variations.variation((song, 0), 0) for song in range(400)]
    for values in ([v.decibels for v in drawn], [v.semitones for v in drawn]):
        gaps = np.diff([-2, *sorted(values), 2])
        assert gaps.max() < 0.1


def test_a_variation_is_made_once_and_is_the_same_from_the_cache(tmp_path, monkeypatch):
    plain = duet(SAMPLES).waveforms[:, 0]
    fresh = Variations(4, 0, RATE, tmp_path).of(plain, (1, 2), 3)
    (path,) = tmp_path.rglob("*.*")
    monkeypatch.setattr(Variation, "of", lambda *args: pytest.fail("made again"))
    kept = Variations(4, 0, RATE, tmp_path).of(plain, (1, 2), 3)
    assert np.array_equal(kept, fresh)
    assert (kept.dtype, kept.shape) == (fresh.dtype, fresh.shape)
    monkeypatch.undo()
    assert np.array_equal(Variations(4, 0, RATE, tmp_path / "other").of(plain, (1, 2), 3), fresh)
    for broken in (b"", path.read_bytes()[:-4], b"no array"):
        path.write_bytes(broken)
        assert np.array_equal(Variations(4, 0, RATE, tmp_path).of(plain, (1, 2), 3), fresh)


def test_the_cache_tells_apart_what_differs(tmp_path):
    plain = duet(SAMPLES).waveforms[:, 0]
    other = plain.copy()
    other[1, 5] += 1e-3
    for fragment, seed, version in ((plain, 0, 0), (plain, 0, 1), (plain, 1, 0), (other, 0, 0)):
        Variations(2, seed, RATE, tmp_path).of(fragment, (0, 0), version)
    assert len(list(tmp_path.rglob("*.npy"))) == 4


def test_what_is_missing_or_cannot_be_written_is_said(tmp_path, monkeypatch):
    (tmp_path / "file").touch()
    with pytest.raises(InputError, match="cannot be written"):
        Variations(1, 0, RATE, tmp_path / "file").of(duet(SAMPLES).waveforms[:, 0], (0, 0), 0)
    monkeypatch.setitem(sys.modules, "librosa", None)
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(InputError, match=r"augmentation: takes librosa .*pip install"):
        Variations(1, 0, RATE, tmp_path)


# Batches


@pytest.fixture(scope="module")
def fragments() -> Fragments:
    return Fragments([duet(5 * SAMPLES, 0, "a"), duet(3 * SAMPLES - 9, 1, "b")], SAMPLES)


@pytest.fixture
def batches(fragments, tmp_path) -> FragmentBatches:
    """Eight fragments in two versions, in batches of three, with activity."""
    return varied(fragments, tmp_path)


def varied(fragments, cache, kind: str = "A1") -> FragmentBatches:
    variations = Variations(2, 5, RATE, cache)
    side = SideMaker(FRAMING, kind, 12)
    return FragmentBatches(fragments, 3, 5, side=side, variations=variations)


def test_an_epoch_is_every_version_of_every_fragment_once(fragments, batches):
    assert len(batches) == 6
    drawn = [batches[1, item] for item in range(6)]
    assert [len(waveforms) for waveforms, _ in drawn] == [3, 3, 3, 3, 3, 1]
    seen = sorted(waveform.numpy().tobytes() for batch, _ in drawn for waveform in batch)
    expected = sorted(
        batches.variations.of(fragments[n], fragments.places[n], version).tobytes()
        for n in range(8)
        for version in range(2)
    )
    assert seen == expected
    assert len(set(seen)) == 16


def test_without_variations_fragments_are_as_they_are_and_nothing_is_kept(fragments):
    batches = FragmentBatches(fragments, 8, 0)
    (waveforms,) = batches[1, 0]
    seen = sorted(waveform.numpy().tobytes() for waveform in waveforms)
    assert seen == sorted(fragments[n].tobytes() for n in range(8))
    assert not np.array_equal(waveforms, batches[2, 0][0])


def same(first, second) -> bool:
    return len(first) == len(second) and all(map(torch.equal, first, second))


def test_a_batch_follows_from_its_key_alone(fragments, batches, tmp_path):
    expected = {(epoch, item): batches[epoch, item] for epoch in (1, 2) for item in range(6)}
    again = pickle.loads(pickle.dumps(varied(fragments, tmp_path / "another")))
    for key in reversed(expected):
        assert same(again[key], expected[key])
    assert all(not same(a, b) for a, b in pairwise(expected.values()))
    assert batches.names(1, 5) == [
        name
        for name, song in (("a", 0), ("b", 1))
        if song in {fragments.places[n // 2][0] for n in batches._numbers(1, 5)}
    ]


def test_a_batch_pads_all_alike_and_the_next_another_way(batches):
    """In noise every frame is active, so that the ones stand where the padding ends."""
    fronts = []
    for item in range(5):
        side = batches[1, item][1][..., 0]
        assert side.shape == (3, 12)
        assert bool((side == side[0]).all())
        assert sorted(side[0].tolist()) == [1.0] * 8 + [100.0] * 4
        fronts.append(int(side[0].argmin()))
    assert len(set(fronts)) > 1


def test_deletions_differ_within_a_batch(fragments, tmp_path):
    side = varied(fragments, tmp_path, "A3")[1, 0][1][..., 0]
    assert len({tuple(row.tolist()) for row in side}) > 1


def test_side_information_is_of_the_target_over_its_own_maximum(fragments):
    from sepfast.reference import magnitude, stft

    waveforms, side = FragmentBatches(fragments, 8, 0, side=SideMaker(FRAMING, "M1", 12))[1, 0]
    magnitudes = magnitude(stft(waveforms[:, 1], FRAMING))
    expected = magnitudes.sum(-1) / magnitudes.amax((1, 2))[:, None]
    assert side[..., 0].numpy() == pytest.approx(expected.numpy(), rel=1e-4)


def test_fixed_batches_are_all_fragments_the_same_each_time(fragments):
    side = SideMaker(FRAMING, "M2", 12)
    batches = fixed_batches(fragments, 3, side)
    assert [len(waveforms) for waveforms, _ in batches] == [3, 3, 2]
    waveforms = torch.cat([batch[0] for batch in batches])
    assert np.array_equal(waveforms, np.stack([fragments[n] for n in range(8)]))
    assert all(map(same, batches, fixed_batches(fragments, 3, side)))
    together = fixed_batches(fragments, 8, side)[0]
    assert torch.equal(torch.cat([batch[1] for batch in batches]), together[1])
    assert len(fixed_batches(fragments, 8, None)[0]) == 1
    fronts = {int((row[:, 0] != 100).int().argmax()) for row in together[1]}
    assert len(fronts) > 1
