"""Remixed examples and dropped sources: what is in them, how they are scaled, how they come."""

import itertools
import pickle
from collections import Counter
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from learning import QUICK, SONGS, Recorder, fresh, losses
from test_examples import FRAMING, Memory, noise
from torch.utils.data import DataLoader

from sepfast import InputError, create_model
from sepfast.data.augmented_examples import Augmentation, Draw, remixed_extrema
from sepfast.data.examples import (
    Examples,
    Excerpts,
    SilenceFilter,
    batch_features,
    excerpt_framing,
    statistics,
)
from sepfast.data.shared_places import HandedOver, SharedPlaces
from sepfast.training import TrainingOptions, train
from sepfast.training.course_deepconvsep import ExampleBatches
from sepfast.training.courses import course_for

SAMPLES = excerpt_framing(FRAMING).covered(4)
BOTH = Augmentation(remix=0.5, source_drop=0.5)

pytestmark = pytest.mark.usefixtures("one_thread")


def told_apart(samples: int, number: int) -> Memory:
    """A song in which every sample of a source tells the song, the source and the time."""
    time = np.arange(samples, dtype=np.float32)
    rows = [1e6 * source + 1e5 * number + time for source in range(5)]
    return Memory(np.array(rows, np.float32)[:, None], f"song {number}")


def stereo(songs: list[Memory]) -> torch.nn.Module:
    model = create_model("deepconvsep-stereo", context=4, n1=2, n2=2, units=2)
    model.set_statistics(*statistics(songs, FRAMING))
    return model


# What is drawn


@pytest.mark.parametrize("threshold", [0, 0.02])
def test_without_augmentation_the_draws_are_those_of_one_number_each(threshold):
    songs = [noise(20_000), noise(9000, 1), Memory(np.zeros((5, 2, 30_000), np.float32))]
    model = stereo(songs)
    keep = SilenceFilter.of(model, threshold) if threshold else None
    excerpts = Excerpts(songs, SAMPLES)
    random, expected = np.random.default_rng((3, 2, 7)), []
    while len(expected) < 6:
        waveform = excerpts[int(random.integers(len(excerpts)))][1]
        if keep is None or keep(waveform[0]):
            expected.append(waveform)
    found = Examples(excerpts, 6, 3, keep, Augmentation())
    assert torch.equal(found[2, 7], torch.stack(expected))
    assert bool((found[2, 7] == 0).all((1, 2, 3)).any()) is (keep is None)


@settings(max_examples=60, deadline=None)
@given(seed=st.integers(0, 2**32), sources=st.integers(2, 6))
def test_what_is_dropped_is_some_and_never_all_but_the_last(seed, sources):
    draw = Augmentation(source_drop=1.0).draw(np.random.default_rng(seed), 100, sources)
    assert not draw.remixed
    assert 0 < len(draw.kept) < sources
    assert draw.kept != (sources - 1,)
    assert list(draw.kept) == sorted({*draw.kept} & {*range(sources)})


def test_every_set_that_may_be_kept_is_and_every_number_as_often():
    random = np.random.default_rng(0)
    drawn = Counter(Augmentation(source_drop=1.0).draw(random, 9, 4).kept for _ in range(6000))
    allowed = {
        kept
        for count in (1, 2, 3)
        for kept in itertools.combinations(range(4), count)
        if kept != (3,)
    }
    assert set(drawn) == allowed
    for count in (1, 2, 3):
        each = [drawn[kept] for kept in allowed if len(kept) == count]
        assert sum(each) == pytest.approx(2000, abs=150)
        assert max(each) - min(each) < 0.25 * np.mean(each)


def test_each_befalls_an_example_with_a_probability_of_its_own():
    random = np.random.default_rng(1)
    draws = [Augmentation(0.25, 0.5).draw(random, 1000, 4) for _ in range(4000)]
    remixed, dropped = (np.array([f(d) for d in draws]) for f in (_remixed, _dropped))
    assert remixed.mean() == pytest.approx(0.25, abs=0.03)
    assert dropped.mean() == pytest.approx(0.5, abs=0.03)
    assert (remixed & dropped).mean() == pytest.approx(0.125, abs=0.025)


def _remixed(draw: Draw) -> bool:
    return draw.remixed


def _dropped(draw: Draw) -> bool:
    return draw.kept is not None


# What is in an example


def test_a_mixture_is_the_sum_of_the_sources_that_are_kept():
    songs = [noise(12_000, seed, name=str(seed)) for seed in range(3)]
    songs[1].waveforms[0] = 9  # whose mixture is no sum
    examples = Examples(Excerpts(songs, SAMPLES), 24, 0, None, BOTH)
    drawn = examples.drawn((1, 0))
    plain = 0
    for waveforms, draw in zip(drawn.waveforms, drawn.draws, strict=True):
        kept = range(4) if draw.kept is None else draw.kept
        for source in range(4):
            assert bool(waveforms[1 + source].any()) is (source in kept)
        if draw.plain:
            plain += 1
            assert torch.equal(waveforms, examples.excerpts[draw.excerpts[0]][1])
        else:
            torch.testing.assert_close(waveforms[0], waveforms[1:].sum(0))
    assert 0 < plain < 24
    assert drawn.remixed.tolist() == [draw.remixed for draw in drawn.draws]
    assert 0 < int(drawn.remixed.sum()) < 24


def test_sources_of_a_remix_come_from_any_song_and_any_time():
    songs = [told_apart(3000, number) for number in range(4)]
    drawn = Examples(Excerpts(songs, 100), 50, 0, None, Augmentation(remix=1.0)).drawn((1, 1))
    first = drawn.waveforms[:, 1:, 0, 0].double()
    source, rest = first // 1e6, first % 1e6
    assert torch.equal(source, torch.arange(1.0, 5).double().expand(50, 4))
    song, time = rest // 1e5, rest % 1e5
    for row in range(4):
        assert set(song[:, row].tolist()) == {0, 1, 2, 3}
        assert time[:, row].max() - time[:, row].min() > 2000
    places = zip(song.tolist(), time.tolist(), strict=True)
    assert min(len(set(zip(*place, strict=True))) for place in places) > 1


def test_a_drop_alone_stays_in_its_song():
    songs = [told_apart(3000, number) for number in range(4)]
    drawn = Examples(Excerpts(songs, 100), 20, 0, None, Augmentation(source_drop=1.0)).drawn((1, 1))
    assert not drawn.remixed.any()
    for waveforms, draw in zip(drawn.waveforms, drawn.draws, strict=True):
        kept = waveforms[1:, 0, 0][list(draw.kept)].double() % 1e6
        assert len(set(kept.tolist())) == 1


def test_names_are_all_songs_that_a_batch_has_something_of():
    songs = [noise(5000, seed, name=f"song {seed}") for seed in range(8)]
    examples = Examples(Excerpts(songs, SAMPLES), 2, 0, None, Augmentation(remix=1.0))
    numbers = [number for draw in examples.drawn((1, 0)).draws for number in draw.excerpts]
    expected = {examples.excerpts[number][0].song.name for number in numbers}
    assert examples.names(1, 0) == sorted(expected)
    assert len(expected) > 2


# How it is scaled


def test_a_remixed_mixture_is_scaled_by_the_sums_of_its_sources_extrema():
    model = create_model("deepconvsep-stereo", context=4, n1=2, n2=2, units=2)
    low = torch.rand(10, 513, generator=torch.Generator().manual_seed(0))
    high = low + 0.1 + low.flip(1)
    model.set_statistics(low, high)
    waveforms = torch.from_numpy(np.stack([noise(SAMPLES, seed).waveforms for seed in (0, 1)]))
    plain, targets = batch_features(model, waveforms)
    mixed, same = batch_features(model, waveforms, remixed=torch.tensor([False, True]))
    assert torch.equal(targets, same)
    assert torch.equal(mixed[0], plain[0])
    levels = plain[1] * (high - low)[8:, None] + low[8:, None]  # (2, T, 513)
    floor, peak = (rows[:8].view(4, 2, 513).sum(0)[:, None] for rows in (low, high))
    torch.testing.assert_close(mixed[1], (levels - floor) / (peak - floor))


def test_where_one_factor_scales_all_it_scales_a_remixed_mixture_too():
    model = create_model("deepconvsep", context=4, scale_factor=0.3)
    waveforms = torch.from_numpy(noise(SAMPLES, channels=1).waveforms)[None]
    plain, _ = batch_features(model, waveforms)
    assert torch.equal(batch_features(model, waveforms, remixed=torch.tensor([True]))[0], plain)
    floor, span = remixed_extrema(model)
    assert not floor.any()
    torch.testing.assert_close(span, torch.full((1, 1, 513), 1 / 0.3))


def test_the_silence_filter_hears_a_mixture_as_the_model_is_given_it():
    songs = [noise(9000, seed) for seed in range(2)]
    model = stereo(songs)
    waveforms = torch.from_numpy(np.stack([song.waveforms[..., :SAMPLES] for song in songs]))
    remixed = torch.tensor([False, True])
    mixture, _ = batch_features(model, waveforms, remixed=remixed)
    means = mixture[..., :425].mean((1, 2, 3)).tolist()
    assert abs(means[0] - means[1]) > 0.01
    for place, mean in enumerate(means):
        for threshold, passes in ((mean - 1e-4, True), (mean + 1e-4, False)):
            found = SilenceFilter.of(model, threshold).passed(waveforms[:, 0], remixed.numpy())
            assert bool(found[place]) is passes


def test_what_is_left_too_quiet_by_a_drop_is_drawn_again():
    song = noise(9000)
    song.waveforms[1:4] = 0  # what is heard is in the last source, which is never alone
    song.waveforms[0] = song.waveforms[4]
    model = stereo([noise(9000)])
    excerpts, keep = Excerpts([song], SAMPLES), SilenceFilter.of(model, 0.02)
    drawn = Examples(excerpts, 12, 0, keep, Augmentation(source_drop=1.0)).drawn((1, 0))
    assert all(3 in draw.kept for draw in drawn.draws)


# What it follows from


@pytest.mark.parametrize("augmentation", [Augmentation(), Augmentation(1, 0), BOTH])
def test_workers_make_the_batches_of_this_process(augmentation):
    songs = [noise(9000), noise(12_000, 1)]
    keep = SilenceFilter.of(stereo(songs), 0.02)
    examples = Examples(Excerpts(songs, SAMPLES), 3, 5, keep, augmentation)
    keys = [(epoch, item) for epoch in (1, 2) for item in range(9)]
    own = [ExampleBatches(pickle.loads(pickle.dumps(examples)), 0)[key] for key in reversed(keys)]
    loader = DataLoader(ExampleBatches(examples, 2), batch_size=None, sampler=keys, num_workers=2)
    theirs = [tuple(batch) for batch in loader]  # all at once, more than there are places
    assert len({float(batch[0].sum()) for batch in theirs}) == len(keys)
    for here, there in zip(reversed(own), theirs, strict=True):
        assert len(here) == len(there) == (2 if augmentation.remix else 1)
        assert all(torch.equal(a, b) for a, b in zip(here, there, strict=True))


AUGMENTED = replace(QUICK, epochs=2, remix=0.5, source_drop=0.5)


def test_an_augmented_run_is_the_same_interrupted_or_from_workers(tmp_path):
    straight = train(fresh(), SONGS, SONGS[:1], AUGMENTED, tmp_path / "straight")
    others = train(fresh(), SONGS, SONGS[:1], replace(AUGMENTED, workers=2), tmp_path / "workers")
    assert losses(others) == losses(straight)
    with pytest.raises(KeyboardInterrupt):
        train(fresh(), SONGS, SONGS[:1], AUGMENTED, tmp_path / "cut", report=Recorder(5))
    again = train(fresh(), SONGS, SONGS[:1], AUGMENTED, tmp_path / "cut", resume=True)
    assert losses(again) == losses(straight)
    plain = train(fresh(), SONGS, SONGS[:1], replace(QUICK, epochs=1), tmp_path / "plain")
    assert plain.epochs[0].training_loss != straight.epochs[0].training_loss
    with pytest.raises(InputError, match=r"remix is 0\.5 there and 0\.0 here"):
        train(fresh(), SONGS, SONGS[:1], QUICK, tmp_path / "cut", resume=True)


def test_runs_from_before_there_was_augmentation_go_on():
    assert not {"remix", "source_drop"} & set(QUICK.resumable())
    assert AUGMENTED.resumable()["source_drop"] == 0.5


# What is wrong


@pytest.mark.parametrize("name", ["remix", "source_drop"])
def test_what_cannot_be_is_refused(name):
    for value in (-0.1, 1.1, float("nan")):
        with pytest.raises(InputError, match=rf"{name}: got {value}, takes"):
            Augmentation(**{name: value})
        with pytest.raises(InputError, match=rf"{name}: got {value}, takes 0\.0 to 1\.0"):
            TrainingOptions(**{name: value})
    alone = Memory(np.zeros((2, 1, 9000), np.float32))
    with pytest.raises(InputError, match=rf"{name}: got 0\.5, takes 0 with fewer than 2 sources"):
        Examples(Excerpts([alone], 100), 2, 0, None, Augmentation(**{name: 0.5}))
    with pytest.raises(InputError, match=rf"{name}: got 0\.5, Informed is trained with 0\.0"):
        course_for(create_model("informed"), TrainingOptions(**{name: 0.5}))


def test_songs_of_other_sources_are_named():
    excerpts = Excerpts([noise(9000), noise(9000, channels=1, name="mono")], 100)
    with pytest.raises(InputError, match=r"mono: got \(5, 1\) sources and channels.*\(5, 2\)"):
        _ = excerpts[len(excerpts) - 1]


# Places


@pytest.fixture
def worker(monkeypatch):
    """Makes this process a loader's only worker."""
    info = SimpleNamespace(id=0)
    monkeypatch.setattr("sepfast.data.shared_places.get_worker_info", lambda: info)


def test_a_place_is_free_again_once_its_batch_has_arrived(worker):
    places = SharedPlaces((2, 3), 1)
    made = [places.filled(lambda out, n=n: [out.fill_(n)[0, :1].bool()]) for n in range(6)]
    assert [isinstance(batch, HandedOver) for batch in made] == [True] * 2 + [False] * 4
    for number, batch in enumerate(made):
        waveforms, flags = pickle.loads(pickle.dumps(batch))
        assert waveforms.tolist() == [[number] * 3] * 2
        assert flags.tolist() == [number > 0]
    assert isinstance(places.filled(lambda out: []), HandedOver)


def test_two_in_one_place_are_found_out(worker):
    places = SharedPlaces((2,), 1)
    sent = pickle.dumps(places.filled(lambda out: []))
    places._holders[0] = 1  # somebody else's
    with pytest.raises(RuntimeError, match="two loaders have read them at once"):
        pickle.loads(sent)


def test_a_batch_that_cannot_be_made_leaves_its_place(worker):
    places = SharedPlaces((2,), 1)

    def fail(out):
        raise InputError("no")

    for _ in range(5):
        with pytest.raises(InputError, match="no"):
            places.filled(fail)
    assert isinstance(places.filled(lambda out: []), HandedOver)
