"""Examples: what is drawn, what of it is heard, and the features and statistics made of it."""

import pickle
from dataclasses import dataclass, field

import numpy as np
import pytest
import torch

from sepfast import InputError, create_model
from sepfast.data.examples import (
    Examples,
    Excerpts,
    SilenceFilter,
    batch_features,
    excerpt_framing,
    statistics,
    validation_batches,
)
from sepfast.data.songs import Song
from sepfast.reference import FRAMINGS, magnitude, stft, stft_magnitude

FRAMING = FRAMINGS["deepconvsep"]


@dataclass
class Memory:
    """A song in memory: (1 + N, C, samples)."""

    waveforms: np.ndarray
    name: str = "song"
    reads: list[tuple[int, int]] = field(default_factory=list)

    @property
    def song(self) -> Song:
        return Song(self.name, None, None, {})

    @property
    def samples(self) -> int:
        return self.waveforms.shape[-1]

    def read(self, start: int, stop: int) -> np.ndarray:
        assert 0 <= start <= stop
        self.reads.append((start, stop))
        part = self.waveforms[..., start:stop]
        return np.pad(part, [(0, 0), (0, 0), (0, stop - start - part.shape[-1])])


def noise(samples: int, seed: int = 0, channels: int = 2, name: str = "noise") -> Memory:
    sources = np.random.default_rng(seed).normal(0, 0.1, (4, channels, samples)).astype(np.float32)
    return Memory(np.concatenate([sources.sum(0, keepdims=True), sources]), name)


def counting(samples: int, first: int) -> Memory:
    """A song whose every sample is its number, from `first` on."""
    line = np.arange(first, first + samples, dtype=np.float32)
    return Memory(np.broadcast_to(line, (5, 1, samples)).copy(), f"song {first}")


def test_excerpts_are_all_those_that_fit_and_no_others():
    excerpts = Excerpts([counting(10, 0), counting(3, 100), counting(7, 200)], 6)
    starts = [int(excerpts[number][1][0, 0, 0]) for number in range(len(excerpts))]
    assert starts == [0, 1, 2, 3, 4, 100, 200, 201]
    assert all(excerpts[number][1].shape == (5, 1, 6) for number in range(len(excerpts)))


def test_a_song_shorter_than_an_excerpt_ends_in_silence():
    _, waveform = Excerpts([counting(3, 1)], 6)[0]
    assert waveform[0, 0].tolist() == [1, 2, 3, 0, 0, 0]


def test_no_songs_are_an_error():
    with pytest.raises(InputError, match="songs: got none"):
        Excerpts([], 6)
    with pytest.raises(InputError, match="songs: got none"):
        statistics([], FRAMING)


def test_a_batch_follows_from_seed_epoch_and_item_alone():
    excerpts = Excerpts([noise(9000), noise(12000, 1)], 4000)
    examples = Examples(excerpts, 3, seed=5)
    batch = examples[2, 7]
    assert batch.shape == (3, 5, 2, 4000)
    assert batch.dtype == torch.float32
    again = pickle.loads(pickle.dumps(Examples(excerpts, 3, seed=5)))
    _ = again[0, 0]
    assert torch.equal(again[2, 7], batch)
    for other in (examples[2, 8], examples[3, 7], Examples(excerpts, 3, seed=6)[2, 7]):
        assert not torch.equal(other, batch)


def test_longer_songs_are_drawn_more_often():
    examples = Examples(Excerpts([counting(1099, 0), counting(399, 5000)], 100), 400, seed=0)
    from_long = (examples[1, 0][:, 0, 0, 0] < 5000).float().mean()
    assert from_long == pytest.approx(1000 / 1300, abs=0.07)


def test_validation_lies_evenly_over_the_songs():
    batches = validation_batches(Excerpts([counting(70, 0), counting(50, 1000)], 11), 5, 2)
    starts = torch.cat(batches)[:, 0, 0, 0].tolist()
    assert [batch.shape for batch in batches] == [(5, 5, 1, 11)] * 2
    assert starts == [5, 15, 25, 35, 45, 55, 1005, 1015, 1025, 1035]


def silent_but(loud: slice, samples: int = 40_000) -> Memory:
    song = noise(samples)
    quiet = np.ones(samples, bool)
    quiet[loud] = False
    song.waveforms[..., quiet] = 0
    return song


def test_the_silence_filter_keeps_what_is_loud():
    model = create_model("deepconvsep-stereo", context=8, n1=2, n2=2, units=2)
    song = silent_but(slice(20_000, 24_000))
    model.set_statistics(*statistics([song], FRAMING))
    samples = excerpt_framing(FRAMING).covered(8)
    examples = Examples(Excerpts([song], samples), 16, 0, SilenceFilter.of(model, 0.02))
    mixture, _ = batch_features(model, examples[1, 0])
    assert (mixture[..., :425].mean(dim=(1, 2, 3)) > 0.02).all()
    unfiltered, _ = batch_features(model, Examples(Excerpts([song], samples), 16, 0)[1, 0])
    assert (unfiltered[..., :425].mean(dim=(1, 2, 3)) <= 0.02).any()


def test_the_silence_filter_hears_nothing_above_bin_424():
    model = create_model("deepconvsep", context=4, n1=2, n2=2, units=2, scale_factor=1.0)
    time = np.arange(excerpt_framing(FRAMING).covered(4)) / 44100
    keep = SilenceFilter.of(model, 0.01)
    tones = {
        hertz: torch.from_numpy(np.sin(2 * np.pi * hertz * time, dtype=np.float32))[None]
        for hertz in (1000, 20_000)
    }
    assert keep(tones[1000])
    assert not keep(tones[20_000])


def test_the_silence_filter_hears_what_the_model_is_given():
    model = create_model("deepconvsep-stereo", context=4, n1=2, n2=2, units=2)
    rows = torch.rand(10, 513, generator=torch.Generator().manual_seed(0))
    model.set_statistics(rows, rows + rows.flip(1))
    waveforms = torch.from_numpy(noise(1792).waveforms) * 5
    mixture, _ = batch_features(model, waveforms[None])
    mean = float(mixture[..., :425].mean())
    assert SilenceFilter.of(model, mean - 1e-3)(waveforms[0])
    assert not SilenceFilter.of(model, mean + 1e-3)(waveforms[0])


def test_silent_data_is_an_error_and_not_an_endless_search():
    song = Memory(np.zeros((5, 1, 20_000), np.float32))
    model = create_model("deepconvsep", context=4)
    examples = Examples(Excerpts([song], 2000), 2, 0, SilenceFilter.of(model, 0.02))
    with pytest.raises(InputError, match="nearly silent, only 0 of 200"):
        _ = examples[1, 0]
    assert sum(stop > start for start, stop in song.reads) == 200


def test_features_are_scaled_magnitudes_by_hand():
    model = create_model("deepconvsep-stereo", context=4, n1=2, n2=2, units=2)
    rows = torch.rand(10, 513, generator=torch.Generator().manual_seed(0))
    model.set_statistics(rows, rows + 0.5)
    song = noise(1024 + 3 * 256)
    waveforms = torch.from_numpy(song.waveforms)[None]
    mixture, targets = batch_features(model, waveforms, target_slope=0.5)
    assert (mixture.shape, targets.shape) == ((1, 2, 4, 513), (1, 4, 2, 4, 513))
    window = np.hanning(1024)
    slope = np.linspace(1, 0.5, 513)
    for frame in range(4):
        piece = song.waveforms[:, :, frame * 256 : frame * 256 + 1024].astype(np.float64) * window
        levels = np.abs(np.fft.rfft(piece)) / 32
        expected = (levels[0] - rows[8:].numpy()) / 0.5
        np.testing.assert_allclose(mixture[0, :, frame], expected, atol=1e-5)
        expected = (levels[1:] - rows[:8].numpy().reshape(4, 2, 513)) / 0.5 * slope
        np.testing.assert_allclose(targets[0, :, :, frame], expected, atol=1e-5)


def test_features_of_a_constant_factor_have_no_slope_unless_asked_for():
    model = create_model("deepconvsep", context=4)
    waveforms = torch.from_numpy(noise(1792, channels=1).waveforms)[None]
    mixture, targets = batch_features(model, waveforms)
    levels = 0.3 * stft_magnitude(waveforms, excerpt_framing(FRAMING))
    torch.testing.assert_close(mixture, levels[:, 0])
    torch.testing.assert_close(targets, levels[:, 1:])


def test_features_of_other_channels_are_an_error():
    model = create_model("deepconvsep-stereo")
    with pytest.raises(InputError, match=r"got shape \(1, 5, 1, 2000\).*\(batch, 5, 2, samples\)"):
        batch_features(model, torch.zeros(1, 5, 1, 2000))


@pytest.mark.parametrize("framing", ["deepconvsep", "deepconvsep-512", "landmarks"])
@pytest.mark.parametrize("block", [1, 3, 7, 1000])
def test_statistics_in_blocks_are_those_of_the_whole(monkeypatch, framing, block):
    monkeypatch.setattr("sepfast.data.examples._BLOCK", block)
    framing = FRAMINGS[framing]
    songs = [noise(7000), noise(5001, 1), noise(100, 2)]
    songs[0].waveforms[..., :300] *= 30  # the loudest frames reach over the start
    seen = []
    low, high = statistics(songs, framing, lambda done, total: seen.append((done, total)))
    whole = [magnitude(stft(torch.from_numpy(song.waveforms), framing)) for song in songs]
    for found, extremum in ((low, torch.amin), (high, torch.amax)):
        expected = extremum(torch.cat(whole, dim=-2), -2)  # (5, C, F)
        assert found.shape == (10, framing.bins)
        torch.testing.assert_close(found[:8], expected[1:].flatten(0, 1), rtol=1e-5, atol=1e-6)
        torch.testing.assert_close(found[8:], expected[0], rtol=1e-5, atol=1e-6)
    total = sum(framing.frames(song.samples) for song in songs)
    assert seen[-1] == (total, total)
    assert [done for done, _ in seen] == sorted(done for done, _ in seen)


def test_statistics_read_in_pieces(monkeypatch):
    monkeypatch.setattr("sepfast.data.examples._BLOCK", 10)
    song = noise(50_000)
    statistics([song], FRAMING)
    assert max(stop - start for start, stop in song.reads) <= FRAMING.covered(10)


def test_statistics_bring_features_into_zero_to_one():
    model = create_model("deepconvsep-stereo", context=8)
    song = noise(FRAMING.covered(30))
    model.set_statistics(*statistics([song], FRAMING))
    mixture, targets = batch_features(model, torch.from_numpy(song.waveforms)[None])
    for features in (mixture, targets):
        assert features.min() >= -1e-6
        assert features.max() <= 1 + 1e-6
