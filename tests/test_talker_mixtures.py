"""Mixtures of talkers: who is heard beside whom, the manifest, and batches made of them."""

import pickle
from collections import Counter
from dataclasses import replace

import numpy as np
import pytest
import torch
from talking import RATE, crowd, named, people, talk
from torch.utils.data import DataLoader

from sepfast import InputError
from sepfast.data import (
    Mixture,
    draw_mixtures,
    find_utterances,
    mix,
    read_manifest,
    split_speakers,
    write_manifest,
)
from sepfast.data.speaker_statistics import speaker_statistics
from sepfast.data.talker_examples import TalkerBatch, TalkerExamples, talker_features
from sepfast.reference import FRAMINGS, stft_magnitude

FRAMING = FRAMINGS["landmarks"]


@pytest.mark.parametrize(
    ("samples", "offset"), [(1000, 0), (1500, 0), (600, 200), (601, 199), (999, 0), (998, 1)]
)
def test_others_are_padded_evenly_or_cut_at_their_end(samples, offset, tmp_path):
    target = np.random.default_rng(0).normal(0, 0.1, 1000).astype(np.float32)
    other = np.random.default_rng(1).normal(0, 0.1, samples).astype(np.float32)
    talk(tmp_path / "s1", "a", seconds=1000 / RATE, waveform=target)
    talk(tmp_path / "s2", "b", seconds=samples / RATE, waveform=other)
    a, b = find_utterances(tmp_path)[0]
    mixture = mix(a, [b])
    assert mixture.offsets == (offset,)
    sums, first, second = mixture.waveforms(tmp_path / "cache")
    np.testing.assert_array_equal(first, target)
    kept = other[: 1000 - offset]
    np.testing.assert_array_equal(second[offset : offset + len(kept)], kept)
    assert not second[:offset].any()
    assert not second[offset + len(kept) :].any()
    np.testing.assert_array_equal(sums, first + second)


def test_a_mixture_is_the_sum_of_three_as_loud_as_they_are(tmp_path):
    for s in (1, 2, 3):
        talk(tmp_path / f"s{s}", "a", waveform=np.full(8000, 0.4 * s, np.float32))
    a, b, c = find_utterances(tmp_path)[0]
    sums, *parts = mix(b, [a, c]).waveforms()
    np.testing.assert_allclose([p.max() for p in parts], [0.8, 0.4, 1.2], rtol=1e-6)
    np.testing.assert_allclose(sums, 2.4, rtol=1e-6)  # beyond full scale, and not clipped


def test_mixed_speakers_differ():
    for others in ([], [named("s1", "b")], [named("s2", "a"), named("s2", "b")]):
        with pytest.raises(InputError, match=r"interferers: got s1.*takes different speakers"):
            mix(named("s1", "a"), others)


@pytest.mark.parametrize("talkers", [2, 3])
def test_drawn_mixtures_keep_the_rules(talkers):
    utterances = people(5, 12)
    mixtures, skipped = draw_mixtures(utterances, 7, talkers=talkers, utterances_per_speaker=10)
    assert skipped == []
    assert len(mixtures) == 5 * 10 * 3
    assert Counter(m.target.speaker for m in mixtures) == dict.fromkeys(
        (f"s{s}" for s in range(5)), 30
    )
    assert set(Counter(m.target.key for m in mixtures).values()) == {3}
    for target in {m.target.key for m in mixtures}:
        others = [o.key for m in mixtures if m.target.key == target for o in m.interferers]
        assert len(others) == 3 * (talkers - 1) == len(set(others))
    for mixture in mixtures:
        assert len({u.speaker for u in mixture.utterances}) == talkers
        assert mixture.seed == 7
    assert (
        draw_mixtures(utterances[::-1], 7, talkers=talkers, utterances_per_speaker=10)[0]
        == mixtures
    )
    other, _ = draw_mixtures(utterances, 8, talkers=talkers, utterances_per_speaker=10)
    assert other != mixtures


def test_only_lengths_within_two_seconds_are_mixed():
    second = RATE
    utterances = [
        named("s1", "a", 3 * second),
        named("s2", "near", 5 * second),
        named("s2", "far", 5 * second + 1),
        named("s3", "far", 8 * second),
    ]
    mixtures, reasons = draw_mixtures(utterances, 0)
    mixed = {(m.target.key, m.interferers[0].key) for m in mixtures}
    assert mixed == {("s1/a", "s2/near"), ("s2/near", "s1/a")}
    assert len(reasons) == 4
    assert "s1/a: got 1 of 3 mixtures, since no 1 other speakers have another" in reasons[0]
    with pytest.raises(InputError, match=r"nothing can be mixed; the first because s1/a"):
        draw_mixtures(utterances[:1], 0)


def test_speakers_of_different_parts_never_meet():
    split = split_speakers(people(12, 3), 1, fractions=(0.5, 0.25, 0.25))
    heard = [{u.speaker for m in draw_mixtures(part, 0)[0] for u in m.utterances} for part in split]
    assert sum(map(len, heard)) == len(set.union(*heard)) == 12


@pytest.mark.parametrize(
    "options",
    [
        {"talkers": 1},
        {"utterances_per_speaker": 0},
        {"mixtures_per_utterance": 0},
        {"tolerance": -1},
    ],
)
def test_bad_numbers(options):
    with pytest.raises(InputError, match="take at least 2, 1, 1, 0 and 0"):
        draw_mixtures(people(3, 2), 0, **options)


def test_a_manifest_is_read_back_as_it_was(tmp_path):
    utterances = [*people(4, 3), named('s"x', "comma, quote", 40000)]
    two, _ = draw_mixtures(utterances, 1)
    three, _ = draw_mixtures(utterances, 2, talkers=3, mixtures_per_utterance=1)
    path = tmp_path / "new" / "train.csv"
    write_manifest(path, two + three)
    assert read_manifest(str(path), utterances) == two + three
    assert path.read_text().splitlines()[0] == (
        "target,seed,interferer 1,offset 1,interferer 2,offset 2"
    )
    assert [each.name for each in path.parent.iterdir()] == ["train.csv"]


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("s0/u0,1,s9/none,0", "line 3 names s9/none, which is not among the utterances"),
        ("s9/none,1,s1/u0,0", "line 3 names s9/none"),
        ("s0/u0,1,s1/u0,-1", "line 3 takes a target"),
        ("s0/u0,1,s1/u0,x", "line 3 takes a target"),
        ("s0/u0,x,s1/u0,0", "line 3 takes a target"),
        ("s0/u0,1,s1/u0", "line 3 takes a target"),
        ("s0/u0", "line 3 takes a target"),
    ],
)
def test_a_broken_manifest_gets_a_sentence_with_the_line(line, message, tmp_path):
    path = tmp_path / "a.csv"
    path.write_text(f"target,seed,interferer 1,offset 1\ns0/u0,1,s1/u0,0\n{line}\n")
    with pytest.raises(InputError, match=message):
        read_manifest(path, people(2, 1))


@pytest.mark.parametrize(
    ("content", "message"),
    [(None, "cannot be read"), (b"\xff\xfe", "cannot be read"), (b"a,b\n", "is no manifest"),
     (b"", "is no manifest"), (b"target,seed\n", "holds no mixtures")],
)  # fmt: skip
def test_what_is_no_manifest(content, message, tmp_path):
    path = tmp_path / "a.csv"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(InputError, match=message):
        read_manifest(path, people(2, 1))


@pytest.fixture(scope="module")
def study(tmp_path_factory):
    """Mixtures of unequal lengths with their statistics, and where audio is kept."""
    root = tmp_path_factory.mktemp("study")
    crowd(root / "data", speakers=3, utterances=2, seconds=0.5)
    talk(root / "data/s1", "long", seconds=0.72, seed=5)
    talk(root / "data/s2", "quiet", seconds=0.4, waveform=np.zeros(6400))
    utterances, _ = find_utterances(root / "data")
    mixtures, _ = draw_mixtures(utterances, 0, mixtures_per_utterance=1)
    statistics = speaker_statistics(utterances, mixtures, cache_dir=root / "cache")
    return mixtures, statistics, root / "cache"


def examples_of(study, mixtures: list[Mixture] | None = None, size: int = 3, seed=0):
    return TalkerExamples(mixtures or study[0], study[1], size, seed, study[2])


def test_every_epoch_has_every_mixture_once_in_its_own_order(study):
    examples = examples_of(study)
    assert examples.batches == 3
    orders = [[m.key for item in range(3) for m in examples.drawn(epoch, item)] for epoch in (1, 2)]
    assert orders[0] != orders[1]
    assert sorted(orders[0]) == sorted(orders[1]) == sorted(m.key for m in study[0])
    given = examples_of(study, seed=None)
    assert [m for item in range(3) for m in given.drawn(5, item)] == study[0]
    with pytest.raises(IndexError, match="item: got 3, takes 0 to 2"):
        examples[1, 3]


def test_a_batch_follows_from_its_key_in_any_process(study):
    examples = examples_of(study)
    again = pickle.loads(pickle.dumps(examples))
    keys = [(2, 1), (1, 2)]
    loaded = DataLoader(examples, batch_size=None, sampler=keys, num_workers=1)
    for key, batch in zip(keys, loaded, strict=True):
        assert isinstance(batch, TalkerBatch)
        for mine, theirs, third in zip(examples[key], again[key], batch, strict=True):
            assert torch.equal(mine, theirs)
            assert torch.equal(mine, third)


def test_unequal_lengths_in_a_batch_are_those_alone_and_zero_behind(study):
    mixtures = study[0]
    batch = examples_of(study, size=len(mixtures), seed=None)[1, 0]
    assert batch.lengths.tolist() == [m.target.frames for m in mixtures]
    assert len(set(batch.lengths.tolist())) == 3
    features = talker_features(batch)
    frames = int(batch.lengths.max())
    for i, mixture in enumerate(mixtures):
        alone = talker_features(examples_of(study, [mixture])[1, 0])
        n = mixture.target.frames
        assert alone.mixture.shape == (1, n, 257)
        assert alone.motion.shape == (1, n, 136)
        for name in ("mixture", "heard", "target", "binary_mask", "motion"):
            together = getattr(features, name)[i]
            assert len(together) == frames
            torch.testing.assert_close(together[:n], getattr(alone, name)[0], msg=name)
            assert not together[n:].any(), name


def test_features_are_compressed_and_normalised_by_the_targets_speaker(study):
    mixture = next(m for m in study[0] if m.target.name == "long")
    statistics = study[1]["s1"]
    out = talker_features(examples_of(study, [mixture])[1, 0])
    waveforms = torch.from_numpy(mixture.waveforms()).double()
    true = stft_magnitude(waveforms, FRAMING).float() ** 0.3
    torch.testing.assert_close(out.mixture[0], true[0], rtol=1e-3, atol=1e-3)
    torch.testing.assert_close(out.target[0], true[1], rtol=1e-3, atol=1e-3)
    mean, deviation = map(torch.from_numpy, statistics.mixtures)
    torch.testing.assert_close(out.heard[0], (out.mixture[0] - mean) / deviation)
    mean, deviation = map(torch.from_numpy, statistics.motion)
    moved = torch.from_numpy(mixture.target.motion())
    torch.testing.assert_close(out.motion[0], (moved - mean) / deviation)
    # The sound is as loud as the mouth is open, so that mask and motion have a rhythm in common.
    above = out.target[0] >= torch.from_numpy(statistics.threshold())
    assert torch.equal(out.binary_mask[0], above.float())
    assert 0.1 < above.float().mean() < 0.6
    # A plain tuple, as a trainer hands it on, is taken too.
    assert torch.equal(talker_features((*examples_of(study, [mixture])[1, 0],)).heard, out.heard)


def test_a_silent_target_has_no_mask_and_no_nan(study):
    mixture = next(m for m in study[0] if m.target.name == "quiet")
    out = talker_features(examples_of(study, [mixture])[1, 0])
    assert not out.target.any()
    assert not out.binary_mask.any()
    assert out.mixture.any()
    assert all(part.isfinite().all() for part in out)


def test_what_examples_lack_is_said(study):
    mixtures, statistics, cache = study
    with pytest.raises(InputError, match="mixtures, batch_size: got 0, 3"):
        TalkerExamples([], statistics, 3, 0, cache)
    with pytest.raises(InputError, match="statistics: got none of s1, s2"):
        TalkerExamples(mixtures, {"s3": statistics["s3"]}, 3, 0, cache)
    batch = examples_of(study)[1, 0]
    with pytest.raises(InputError, match="motion: got 3 frames, takes"):
        talker_features(batch._replace(motion=batch.motion[:, :3]))
    lost = replace(mixtures[0], target=replace(mixtures[0].target, landmarks=cache / "no.txt"))
    with pytest.raises(InputError, match=r"no\.txt: there is no such file"):
        examples_of(study, [lost])[1, 0]
