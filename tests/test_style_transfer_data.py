"""What system E learns from: who is in which part, and the batches that are drawn of them."""

import pickle
import shutil
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from spoken import RATE, write_pairs, write_timit
from torch.utils.data import DataLoader

from sepfast import InputError
from sepfast.data.style_transfer import Part, StyleTransferParts, find_parts
from sepfast.data.style_transfer_examples import SnippetPool, StyleTransferExamples

SAMPLES = 1600


@pytest.fixture(scope="module")
def timit(tmp_path_factory) -> Path:
    return write_timit(tmp_path_factory.mktemp("timit"), (1, 2, 3, 4), speakers=3, seconds=0.15)


@pytest.fixture(scope="module")
def pairs(tmp_path_factory) -> Path:
    return write_pairs(tmp_path_factory.mktemp("pairs"), "abcdef", seconds=0.15)


def levels(root: Path, mixtures: str, clean: str, samples: int = 40) -> Path:
    """Two folders of recordings of one value each: 1 for a, 2 for b …, clean less 1/4."""
    for folder, names, less in (("mixtures", mixtures, 0), ("clean", clean, 0.25)):
        (root / folder).mkdir(parents=True)
        for name in names:
            value = ord(name) - ord("a") + 1 - less
            path = root / folder / f"{name}.wav"
            soundfile.write(path, np.full(samples, float(value)), RATE, subtype="FLOAT")
    return root


def speakers(parts: list[Part]) -> dict[str, set[str]]:
    roles = dict.fromkeys(part.role for part in parts)
    return {role: {part.speaker for part in parts if part.role == role} for role in roles}


def keys(parts: list[Part]) -> set[str]:
    return {part.clip.key for part in parts}


# Parts


@pytest.mark.parametrize("target", ["f", "m"])
def test_timit_has_its_dialects_for_their_roles(timit, target):
    found = find_parts(timit, target=target, seed=1)
    assert found.notes == []
    wanted, other = "FM" if target == "f" else "MF"
    everyone = speakers(found.training + found.validation)
    assert everyone == {
        "target": {f"{wanted}A{c}X0" for c in "ABC"},
        "interferer": {f"{other}A{c}X0" for c in "ABC"},
        "clean": {f"{wanted}B{c}X0" for c in "ABC"},
    }
    assert {role: len(who) for role, who in speakers(found.validation).items()} == {
        "target": 1,
        "interferer": 1,
        "clean": 1,
    }
    for role, who in speakers(found.training).items():
        assert not who & speakers(found.validation)[role]
    assert len(found.training) + len(found.validation) == 3 * 3 * 2


def test_evaluation_is_of_training_speakers_and_of_another_dialect(timit):
    found = find_parts(timit, seed=1)
    assert {name: len(duets) for name, duets in found.evaluation.items()} == {
        "train": 30,
        "test": 30,
    }
    known = speakers(found.training)
    for duet in found.evaluation["train"]:
        assert duet.target.key.split("/")[2] in known["target"]
        assert duet.interferer.key.split("/")[2] in known["interferer"]
    assert all(duet.target.key.startswith("TRAIN/DR3/F") for duet in found.evaluation["test"])
    assert all(duet.interferer.key.startswith("TRAIN/DR3/M") for duet in found.evaluation["test"])


def test_parts_follow_from_the_seed_and_none_may_be_held_out(timit):
    held = [sorted(keys(find_parts(timit, seed=seed).validation)) for seed in range(3)]
    assert len({tuple(each) for each in held}) > 1
    assert find_parts(timit, seed=1) == find_parts(timit, seed=1)
    whole = find_parts(timit, validation=0)
    assert whole.validation == []
    assert len(whole.training) == 18


def test_the_supervised_system_is_not_given_other_clean_sounds(timit):
    found = find_parts(timit, paired=True)
    assert (
        set(speakers(found.training))
        == set(speakers(found.validation))
        == {
            "target",
            "interferer",
        }
    )


def test_what_timit_lacks_is_said(tmp_path):
    write_timit(tmp_path, [1], speakers=1, seconds=0.05, sentences=1)
    with pytest.raises(
        InputError, match=r"no female speakers in DR2 for the role clean, takes DR2"
    ):
        find_parts(tmp_path, validation=0)
    with pytest.raises(InputError, match=r"validation: got 0\.2 for 1 female speakers in DR1"):
        find_parts(tmp_path, paired=True)
    found = find_parts(tmp_path, validation=0, paired=True)
    assert set(found.evaluation) == {"train"}
    assert len(found.notes) == 1
    assert found.notes[0].endswith(
        "DR3 has no female and no male speakers, so that there are no test mixtures"
    )
    shutil.rmtree(tmp_path / "TRAIN/DR1/MAAX0")
    with pytest.raises(InputError, match="no male speakers in DR1 for the role interferer"):
        find_parts(tmp_path, validation=0)


def test_folders_of_recordings_that_need_not_be_pairs(tmp_path):
    levels(tmp_path, "abcdefghij", "ijklmnopqrstuvwxyz")
    (tmp_path / "clean/k.wav").write_bytes(b"no audio")
    found = find_parts(tmp_path, validation=0.3)
    assert found.evaluation == {}
    assert len(found.notes) == 1
    assert "k.wav: is corrupt" in found.notes[0]
    assert {role: len(names) for role, names in speakers(found.validation).items()} == {
        "mixture": 3,
        "clean": 5,
    }
    everything = {f"mixtures/{n}" for n in "abcdefghij"} | {
        f"clean/{n}" for n in "ijlmnopqrstuvwxyz"
    }
    assert keys(found.training) | keys(found.validation) == everything
    assert find_parts(tmp_path, validation=0).validation == []


@settings(max_examples=25, deadline=None)
@given(
    st.sets(st.sampled_from("abcdefgh"), min_size=2),
    st.sets(st.sampled_from("abcdefgh"), min_size=2),
    st.floats(0.01, 0.5),
    st.integers(0, 9),
)
def test_equal_names_are_in_one_part_and_no_role_is_empty(
    tmp_path_factory, mixtures, clean, validation, seed
):
    root = tmp_path_factory.mktemp("any")
    levels(root, "".join(mixtures), "".join(clean), samples=1)
    found = find_parts(root, validation=validation, seed=seed)
    kept, held = speakers(found.training), speakers(found.validation)
    assert set(kept) == set(held) == {"mixture", "clean"}
    for role, names in (("mixture", mixtures), ("clean", clean)):
        assert len(held[role]) == max(1, round(validation * len(names)))
        assert kept[role] | held[role] == names
    assert not (kept["mixture"] | kept["clean"]) & (held["mixture"] | held["clean"])
    shutil.rmtree(root)


def test_paired_folders_have_only_pairs(tmp_path):
    levels(tmp_path, "abcde", "bcdefg")
    soundfile.write(tmp_path / "clean/c.wav", np.ones(7), RATE)
    found = find_parts(tmp_path, paired=True, validation=0.3)
    assert keys(found.training + found.validation) == {
        f"{folder}/{name}" for folder in ("mixtures", "clean") for name in "bde"
    }
    assert len(found.validation) == 2
    assert len({part.speaker for part in found.validation}) == 1
    assert len(found.notes) == 2
    assert "a.wav has no clean/a" in found.notes[0]
    assert "c.wav has 40 samples" in found.notes[1]
    shutil.rmtree(tmp_path / "clean")
    levels(tmp_path / "new", "", "xyz")
    (tmp_path / "new/clean").rename(tmp_path / "clean")
    with pytest.raises(InputError, match="holds no pairs"):
        find_parts(tmp_path, paired=True)


def test_what_folders_lack_is_said(tmp_path):
    with pytest.raises(InputError, match="there is no such folder"):
        find_parts(tmp_path / "none")
    with pytest.raises(InputError, match="holds no utterances of TIMIT"):
        find_parts(tmp_path)
    (tmp_path / "clean").mkdir()
    with pytest.raises(InputError, match=r"holds clean/ but no mixtures/ beside it, takes both"):
        find_parts(tmp_path)
    (tmp_path / "clean").rmdir()
    levels(tmp_path, "ab", "")
    with pytest.raises(InputError, match="clean: holds no audio files"):
        find_parts(tmp_path)
    (tmp_path / "clean/x.wav").write_bytes(b"no audio")
    with pytest.raises(InputError, match=r"clean: holds no audio files that can .*x\.wav: is corr"):
        find_parts(tmp_path)
    levels(tmp_path / "other", "ab", "a")
    with pytest.raises(InputError, match=r"validation: got 0\.2 for 1 recordings in clean/"):
        find_parts(tmp_path / "other")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"target": "x"}, "target: got 'x', takes 'f' or 'm'"),
        ({"validation": 1}, "validation, seed: got 1, 0"),
        ({"seed": -1}, "validation, seed: got 0.2, -1"),
    ],
)
def test_arguments_out_of_range(tmp_path, options, message):
    with pytest.raises(InputError, match=message):
        find_parts(tmp_path, **options)


# Examples


def examples(
    parts: list[Part], *, paired: bool = False, seed: int | None = 0, size: int = 4
) -> StyleTransferExamples:
    return StyleTransferExamples(SnippetPool(parts, SAMPLES), size, seed, paired)


def test_drawn_mixtures_are_of_both_at_equal_power(timit):
    found = find_parts(timit)
    pool = SnippetPool(found.training, SAMPLES)
    assert pool.paired
    random = np.random.default_rng(0)
    drawn = [pool.draw_mixture(random) for _ in range(20)]
    for (mixture, target), (heard, other) in drawn:
        rest = mixture - target
        np.testing.assert_allclose((rest**2).sum(), (target**2).sum(), rtol=1e-4)
        whole = soundfile.read(heard.audio, dtype="float32")[0]
        windows = np.lib.stride_tricks.sliding_window_view(whole, SAMPLES)
        assert (windows == target).all(1).any()
        assert (heard.key.split("/")[2][0], other.key.split("/")[2][0]) == ("F", "M")
    assert {each.clips[0] for each in drawn} == {
        part.clip for part in found.training if part.role == "target"
    }


def test_a_batch_of_either_system(timit):
    found = find_parts(timit)
    free, tied = examples(found.training), examples(found.training, paired=True)
    for mixtures, clean in (free[1, 0], tied[1, 0]):
        assert mixtures.shape == clean.shape == (4, SAMPLES)
        assert mixtures.dtype == clean.dtype == torch.float32
    assert torch.equal(free[1, 0][0], tied[1, 0][0])
    mixtures, targets = tied[1, 0]
    powers = (mixtures - targets).square().sum(1) / targets.square().sum(1)
    torch.testing.assert_close(powers, torch.ones(4), rtol=1e-4, atol=0)
    clean = {part.clip.key for part in found.training if part.role == "clean"}
    assert set(free.names(1, 0)) & clean
    assert not set(tied.names(1, 0)) & clean


def test_a_batch_follows_from_its_key_in_any_process(timit, pairs):
    for data in (timit, pairs):
        given_ = examples(find_parts(data).training)
        again = pickle.loads(pickle.dumps(given_))
        wanted = [(2, 1), (1, 2)]
        loaded = DataLoader(given_, batch_size=None, sampler=wanted, num_workers=1)
        for key, batch in zip(wanted, loaded, strict=True):
            for mine, theirs, third in zip(given_[key], again[key], batch, strict=True):
                assert torch.equal(mine, theirs)
                assert torch.equal(mine, third)


def test_epochs_items_and_seeds_differ_and_validation_does_not(timit):
    parts = find_parts(timit).training
    one, other, fixed = examples(parts), examples(parts, seed=1), examples(parts, seed=None)
    drawn = [one[1, 0], one[1, 1], one[2, 0], other[1, 0], fixed[1, 0], fixed[1, 1]]
    for i in range(2):
        assert len({each[i].numpy().tobytes() for each in drawn}) == len(drawn)
        assert torch.equal(fixed[1, 3][i], fixed[9, 3][i])
    assert fixed.names(1, 3) == fixed.names(9, 3)


def test_names_are_what_is_in_a_batch(tmp_path):
    levels(tmp_path, "abcdef", "abcdefgh", samples=SAMPLES)
    parts = find_parts(tmp_path, validation=0).training
    for paired in (False, True):
        drawn = examples(parts, paired=paired)
        mixtures, clean = drawn[3, 1]
        named = {chr(ord("a") + int(value) - 1) for value in mixtures[:, 0]}
        heard = {chr(ord("a") + int(value + 0.25) - 1) for value in clean[:, 0]}
        names = drawn.names(3, 1)
        assert len(names) == len(set(names))
        assert set(names) == {f"mixtures/{n}" for n in named} | {f"clean/{n}" for n in heard}
        assert names == [clip.key for clip in drawn.drawn(3, 1)]
        assert not paired or torch.equal(mixtures - clean, torch.full((4, SAMPLES), 0.25))


def test_short_recordings_lie_in_silence(tmp_path):
    parts = find_parts(levels(tmp_path, "a", "b", samples=SAMPLES - 5), validation=0).training
    pool = SnippetPool(parts, SAMPLES)
    expected = np.pad(np.ones(SAMPLES - 5, np.float32), (2, 3))
    random = np.random.default_rng(0)
    np.testing.assert_array_equal(pool.mixture(random)[0], expected)
    np.testing.assert_array_equal(pool.clean(random), 1.75 * expected)
    assert not pool.paired
    assert not pool.mixture(random)[1].any()


def test_silence_is_left_out_and_a_silent_target_is_not(tmp_path):
    levels(tmp_path, "abc", "abc", samples=2 * SAMPLES)
    for name in ("mixtures/b", "clean/b", "clean/c"):
        soundfile.write(tmp_path / f"{name}.wav", np.zeros(2 * SAMPLES), RATE)
    parts = find_parts(tmp_path, validation=0).training
    names = {name for item in range(8) for name in examples(parts, paired=True).names(1, item)}
    assert names == {"mixtures/a", "clean/a", "mixtures/c", "clean/c"}
    names = {name for item in range(8) for name in examples(parts).names(1, item)}
    assert names == {"mixtures/a", "clean/a", "mixtures/c"}
    silent = [part for part in parts if part.speaker == "b"]
    with pytest.raises(InputError, match=r"mixtures/b\.wav: is silent from .*99 snippets drawn"):
        examples(silent)[1, 0]


def test_pairs_are_read_at_one_place_at_any_rate(tmp_path):
    write_pairs(tmp_path, "ab", seconds=0.4, rate=8000)
    parts = find_parts(tmp_path, validation=0).training
    pool = SnippetPool(parts, SAMPLES, tmp_path / "cache")
    assert pool.paired
    mixture, target = pool.mixture(np.random.default_rng(0))
    heard, known = pool.draw_mixture(np.random.default_rng(0)).clips
    assert known.key == heard.key.replace("mixtures", "clean")
    places = []
    for clip, piece in ((heard, mixture), (known, target)):
        whole = clip.read(0, clip.samples, tmp_path / "cache")
        windows = np.lib.stride_tricks.sliding_window_view(whole, SAMPLES)
        places.append(np.flatnonzero((windows == piece).all(1)).tolist())
    assert len(places[0]) == 1
    assert places[0] == places[1]
    assert len(list((tmp_path / "cache").iterdir())) <= 4


def test_what_examples_lack_is_said(timit, tmp_path):
    found: StyleTransferParts = find_parts(timit, paired=True)
    pool = SnippetPool(found.training, SAMPLES)
    with pytest.raises(InputError, match="pool: holds no clean sounds"):
        StyleTransferExamples(pool, 4, 0, paired=False)
    with pytest.raises(InputError, match="parts: got no clean ones"):
        pool.clean(np.random.default_rng(0))
    with pytest.raises(InputError, match="batch_size, seed: got 0, 0"):
        StyleTransferExamples(pool, 0, 0, paired=True)
    alone = [part for part in found.training if part.role == "target"]
    with pytest.raises(InputError, match="parts: got target, takes mixtures, or targets and int"):
        SnippetPool(alone, SAMPLES)
    with pytest.raises(InputError, match="clips, samples: got"):
        SnippetPool(found.training, 0)
    free = find_parts(levels(tmp_path, "ab", "bc"), validation=0).training
    with pytest.raises(InputError, match="pool: holds mixtures whose targets are not known"):
        examples(free, paired=True)
    soundfile.write(tmp_path / "clean/a.wav", np.ones(42), RATE)  # two samples longer
    unlike = find_parts(tmp_path, validation=0).training
    assert not SnippetPool([part for part in unlike if part.speaker == "a"], SAMPLES).paired
    assert SnippetPool([part for part in unlike if part.speaker == "b"], SAMPLES).paired
    for name in "ab":
        (tmp_path / f"mixtures/{name}.wav").unlink()
    with pytest.raises(InputError, match=r"mixtures/[ab]\.wav: there is no such file"):
        examples(free)[1, 0]
