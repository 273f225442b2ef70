"""System C over whole recordings: fragments, what they are told, alignments, files, the program."""

import csv
from dataclasses import replace

import numpy as np
import pytest
import torch

from sepfast import InputError, Separator, create_model
from sepfast.data import SideInformation, SideLine, TrueLine
from sepfast.data.side_information import PADDING
from sepfast.reference import FRAMINGS, stft_magnitude
from sepfast.separation import Alignment, informed

RATE, HOP = 16000, 512
CONTEXT, STEPS = 8, 12
FRAMING = replace(FRAMINGS["informed"], front=512, rule="pad-end")
FALLING = [0.9, 0.4, 0.7, 0.1]


def small(**options):
    """A small network with preferences."""
    torch.manual_seed(0)
    options = {"hidden": 3, "context": CONTEXT, "side_steps": STEPS} | options
    model = create_model("informed", **options)
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.5)
    return model


def hearing(forward, **options) -> Separator:
    """A separator whose network is a function of scaled mixtures and side information."""
    separator = Separator(small(**options))
    separator._track.model.forward = forward
    return separator


def looking(shift: int, padding: int = 2) -> Separator:
    """A network that gives back the mixture, and looks `shift` frames ahead in the line."""

    def forward(mixture, side):
        places = (torch.arange(CONTEXT) + shift).clamp(0, CONTEXT - 1) + padding
        weights = torch.nn.functional.one_hot(places, STEPS).float()
        return mixture, weights.expand(len(mixture), -1, -1)

    return hearing(forward)


def stacked(stems) -> torch.Tensor:
    return torch.stack(list(stems.values()))


def table(path) -> list[dict[str, str]]:
    return list(csv.DictReader(path.read_text().splitlines()))


def noise(*shape, seed=0) -> torch.Tensor:
    return torch.rand(shape, generator=torch.Generator().manual_seed(seed)) - 0.5


class TestTrack:
    @pytest.mark.parametrize("samples", [0, 1, 511, 513, 4096, 30_001])
    @pytest.mark.parametrize("channels", [1, 3])
    def test_a_network_that_hears_only_vocals_gives_back_the_mixture(self, samples, channels):
        separator = hearing(lambda mixture: (mixture, None), attention=False)
        x = noise(channels, samples)
        x[:, 9000:14_000] = 0  # whole fragments and frames of silence
        kept = x.clone()
        stems = separator(x, RATE)
        assert list(stems) == ["vocals", "accompaniment"]
        torch.testing.assert_close(stems["vocals"], x, atol=2e-6, rtol=0)
        assert stems["accompaniment"].shape == x.shape
        assert torch.equal(x, kept)

    def test_fragments_are_scaled_by_their_own_maximum(self):
        seen = []

        def forward(mixture):
            seen.append(mixture)
            return torch.full_like(mixture, 0.5), None

        x = noise(1, 20_000) * torch.linspace(0.01, 1, 20_000)
        vocals = hearing(forward, attention=False)(x, RATE)["vocals"]
        assert [float(each.max()) for each in seen[0]] == pytest.approx([1] * len(seen[0]))
        rms = [float(part.square().mean().sqrt()) for part in vocals[0].split(5000)]
        assert rms[-1] > 3 * rms[0]  # brought back by the same factor

    def test_silent_bins_have_the_phase_of_one(self):
        """Where nothing is heard, an estimate of all bins is a click where each frame starts."""
        separator = hearing(lambda mixture: (torch.ones_like(mixture), None), attention=False)
        out = separator(torch.zeros(1, 5000), RATE)["vocals"]
        assert out.isfinite().all()
        assert out[0, ::HOP].min() > 0.07  # what a Hamming window begins with
        assert out[0, HOP // 2 :: HOP].abs().max() < 1e-3

    @pytest.mark.parametrize("rate", [RATE, 22_050])
    def test_blocks_do_not_matter(self, monkeypatch, rate):
        """Bit for bit, stems and alignment, in several spans."""
        monkeypatch.setattr(informed, "_CPU_FRAMES", 16)
        separator, x = Separator(small(side="A3")), noise(2, 60_000)
        whole, pieces = Alignment(), Alignment()
        stems = stacked(separator(x, rate, side=FALLING, alignment=whole))
        for size in (777, 25_000):
            blocks = (block.numpy() for block in x.split(size, -1))
            options = {"side": FALLING, "samples": 60_000, "alignment": pieces}
            out = list(separator.stream(blocks, rate, 2, **options))
            assert len(out) > 5
            assert torch.equal(torch.cat(out, -1), stems)
            np.testing.assert_array_equal(pieces.values, whole.values)
            np.testing.assert_array_equal(pieces.positions, whole.positions)
            for a, b in zip(pieces.picture(), whole.picture(), strict=True):
                np.testing.assert_array_equal(a, b)

    def test_spans_do_not_matter(self, monkeypatch):
        x, whole = noise(1, 60_000), Alignment()
        stems = stacked(Separator(small())(x, RATE, side=FALLING, alignment=whole))
        monkeypatch.setattr(informed, "_CPU_FRAMES", 8)
        monkeypatch.setattr(informed, "_CPU_BATCH", 3)
        parts = Alignment()
        out = stacked(Separator(small())(x, RATE, side=FALLING, alignment=parts))
        torch.testing.assert_close(out, stems, atol=1e-5, rtol=0)
        np.testing.assert_allclose(parts.values, whole.values, atol=1e-5)
        np.testing.assert_allclose(parts.picture().weights, whole.picture().weights, atol=1e-5)

    def test_channels_are_separated_on_their_own(self):
        separator, x = Separator(small()), noise(2, 20_000)
        both = stacked(separator(x, RATE, side=FALLING))
        for channel in (0, 1):
            alone = stacked(separator(x[channel : channel + 1], RATE, side=FALLING))
            torch.testing.assert_close(both[:, channel : channel + 1], alone, atol=1e-5, rtol=0)

    @pytest.mark.parametrize("rate", [8000, RATE, 44_100])
    def test_stems_add_up_to_the_mixture(self, rate):
        x = noise(2, 40_000)
        stems = Separator(small())(x.double().numpy(), rate, side=FALLING)
        assert stems["vocals"].abs().max() > 0.01
        torch.testing.assert_close(sum(stems.values()), x, atol=1e-6, rtol=0)

    def test_accompaniment_keeps_what_the_model_cannot_hear(self):
        turns = 2 * torch.pi * torch.arange(44_100, dtype=torch.float64) / 44_100
        x = torch.stack([torch.sin(f * turns) for f in (1000, 12_000)]).float()
        stems = hearing(lambda mixture: (mixture, None), attention=False)(x, 44_100)
        inner = slice(6000, -6000)  # a tone's beginning and end are heard at all frequencies
        assert stems["accompaniment"][0, inner].abs().max() < 1e-3
        torch.testing.assert_close(stems["accompaniment"][1, inner], x[1, inner], atol=1e-3, rtol=0)

    @pytest.mark.parametrize("rate", [RATE, 48_000])
    def test_what_is_held_does_not_grow(self, monkeypatch, rate):
        monkeypatch.setattr(informed, "_CPU_FRAMES", 16)
        separator = hearing(lambda mixture: (mixture, None), attention=False)
        lags = {}
        for samples in (60_000, 300_000):
            sent = received = lag = 0

            def blocks(samples=samples):
                nonlocal sent
                buffer = np.empty((1, 1000), np.float32)  # used again for every block
                for start in range(0, samples, 1000):
                    buffer[:] = np.sin(np.arange(start, start + 1000) / 20)
                    sent += 1000
                    yield buffer.copy() if rate == RATE else buffer

            for piece in separator.stream(blocks(), rate, 1):
                mixture = np.sin(np.arange(received, received + piece.shape[-1]) / 20)
                np.testing.assert_allclose(piece.sum(0)[0], mixture, atol=1e-6)
                received += piece.shape[-1]
                lag = max(lag, sent - received)
            assert received == samples
            lags[samples] = lag
        assert lags[300_000] <= lags[60_000] + 2000

    def test_ones_are_what_bl2_is_told(self):
        sides = []

        def forward(mixture, side):
            sides.append(side)
            return mixture, torch.ones(len(mixture), CONTEXT, CONTEXT) / CONTEXT

        alignment = Alignment()
        hearing(forward, side="BL2")(noise(1, 9000), RATE, alignment=alignment)
        assert sides[0].shape[1:] == (CONTEXT, 1)
        assert (sides[0] == 1).all()
        np.testing.assert_allclose(alignment.values, 1)

    @pytest.mark.gpu
    def test_on_a_gpu_it_is_the_same(self):
        x, model = noise(2, 60_000), small()
        expected = stacked(Separator(model)(x, 44_100, side=FALLING))
        out = stacked(Separator(model, device="cuda")(x, 44_100, side=FALLING))
        torch.testing.assert_close(out, expected, atol=1e-4, rtol=0)


class TestAlignment:
    @pytest.mark.parametrize("shift", [0, 3])
    def test_points_where_the_network_looks(self, shift):
        """Ahead of time, but for what a fragment cannot see, as far as its share goes."""
        alignment, samples = Alignment(), 40_000
        side = SideInformation(np.arange(79) * HOP / RATE, np.sqrt(np.arange(79.0))[:, None])
        looking(shift)(noise(2, samples), RATE, side=side, alignment=alignment)
        frames = np.arange(-(-(512 + samples) // HOP))
        np.testing.assert_allclose(alignment.times, frames * HOP / RATE)
        if shift == 0:
            np.testing.assert_allclose(alignment.positions, alignment.times, atol=1e-6)
            values = np.sqrt(np.minimum(frames, 78))
            np.testing.assert_allclose(alignment.values[:, 0], values, rtol=1e-5)
            np.testing.assert_allclose(alignment.picture().weights, np.eye(len(frames)), atol=1e-6)
        else:
            ahead = (alignment.positions - alignment.times) * RATE / HOP
            assert ahead[:5] == pytest.approx([3, 3, 3, 3, 3])
            assert (ahead[:-1] > 0.9).all()
            assert ahead[-1] == pytest.approx(0)  # no further than the end
            weights = alignment.picture().weights
            np.testing.assert_allclose(weights.sum(1), 1, atol=1e-6)
            assert not np.tril(weights[:-1], -1).any()

    def test_padding_counts_for_nothing(self):
        def forward(mixture, side):
            weights = (side[..., 0] == PADDING).float() * 0.2  # 4 steps of 12
            weights[:, 2] = 0.1
            weights[:, 5] = 0.1
            return mixture, weights[:, None].expand(-1, CONTEXT, -1)

        alignment, side = Alignment(), np.arange(8.0)
        samples = 7 * HOP  # a single fragment
        separator = hearing(forward)
        separator(noise(1, samples), RATE, side=side, alignment=alignment)
        told = separator._track._fragments
        line = SideLine(side).steps(replace(told, length=samples / RATE), 0).line[:, 0]
        np.testing.assert_allclose(alignment.values[:, 0], (line[0] + line[3]) / 2, rtol=1e-6)
        np.testing.assert_allclose(alignment.positions, 1.5 * HOP / RATE, rtol=1e-6)
        np.testing.assert_allclose(alignment.picture().weights.sum(1), 0.2, rtol=1e-6)

    def test_a_frame_that_looks_at_padding_alone_looks_everywhere(self):
        alignment = Alignment()
        weights = torch.eye(STEPS)[:1].expand(1, CONTEXT, -1)
        nowhere = hearing(lambda mixture, side: (mixture, weights))
        nowhere(noise(1, 7 * HOP), RATE, side=FALLING, alignment=alignment)
        np.testing.assert_allclose(alignment.positions, 3.5 * HOP / RATE)
        np.testing.assert_allclose(alignment.values[:, 0], alignment.picture().side.mean())
        assert not alignment.picture().weights.any()

    def test_long_tracks_are_drawn_in_cells(self):
        alignment, samples = Alignment(), 1100 * HOP
        x = noise(1, samples)
        looking(0)(x, RATE, side=FALLING, alignment=alignment)
        drawn = alignment.picture()
        assert drawn.weights.shape == (551, 551)
        np.testing.assert_allclose(drawn.weights, np.eye(551), atol=1e-5)
        assert drawn.side[[0, 150, 300, 500], 0] == pytest.approx(FALLING)
        expected = stft_magnitude(x[0], FRAMING)[:1100].reshape(550, 2, 513).mean(1)
        np.testing.assert_allclose(drawn.magnitudes[:550], expected, rtol=1e-4, atol=1e-4)
        assert drawn.seconds == pytest.approx(1102 * HOP / RATE)

    def test_starts_anew(self):
        separator, alignment = looking(0), Alignment()
        for samples in (30_000, 5000):
            separator(noise(1, samples), RATE, side=FALLING, alignment=alignment)
        assert len(alignment.times) == len(alignment.values) == -(-5512 // HOP)

    def test_several_features_are_columns(self, tmp_path):
        alignment = Alignment()
        separator = Separator(small(side_features=2, side="M1"))
        separator(noise(1, 3000), RATE, side=[[1, 2], [3, 4]], alignment=alignment)
        alignment.write_csv(tmp_path / "alignment.csv")
        rows = table(tmp_path / "alignment.csv")
        assert list(rows[0]) == ["time", "value", "value_2", "position"]
        assert [float(r["value_2"]) for r in rows] == pytest.approx(
            list(alignment.values[:, 1]), rel=1e-4
        )


@pytest.mark.parametrize(
    ("options", "side", "message"),
    [
        ({}, None, r"side: got None, takes side information .* \(kind A1\)"),
        ({"side": "BL2"}, FALLING, r"this model was trained with ones alone \(BL2\)"),
        ({"attention": False}, FALLING, r"this model has no attention \(BL1\)"),
        ({"side_features": 3}, FALLING, "side: holds 1 values a step, takes 3"),
        ({"side_features": 2}, TrueLine(np.zeros((1, 5)), RATE), "holds 1 value a step, takes 2"),
        ({}, [], r"side: got shape \(0,\), takes \(steps,\) or"),
        ({}, [0, np.nan], "side: holds NaN"),
        ({}, [0, 1e39], "side: holds NaN or infinite"),
        ({}, ["a"], "side: got a list, takes an array of numbers"),
        ({}, SideInformation(np.array([0, 2.1]), np.ones(2)), "goes to 2.1 s, the recording lasts"),
        ({}, SideInformation(np.array([1.0, 0]), np.ones(2)), "its times go back"),
        ({}, SideInformation(np.array([0.0]), np.ones(2)), "takes 2 finite times"),
    ],
)
def test_side_information_that_cannot_be_used_is_named(options, side, message):
    with pytest.raises(InputError, match=message) as error:
        Separator(small(**options))(noise(1, RATE), RATE, side=side)
    assert "\n" not in str(error.value)


def test_what_only_a_stream_or_another_model_refuses():
    separator, blocks = Separator(small()), [noise(1, RATE)]
    with pytest.raises(InputError, match="side: has no times, takes `samples`"):
        list(separator.stream(blocks, RATE, 1, side=FALLING))
    late = SideInformation(np.array([0, 2.1]), np.ones((2, 1)))
    with pytest.raises(InputError, match=r"goes to 2.1 s, the recording lasts 1.0 s"):
        list(separator.stream(blocks, RATE, 1, side=late))
    assert separator.takes_side
    other = Separator(create_model("deepconvsep"))
    assert not other.takes_side
    with pytest.raises(InputError, match="takes None: DeepConvSep is told nothing"):
        other(noise(1, 100), RATE, side=FALLING)
    with pytest.raises(InputError, match="alignment: got one, takes None"):
        other(noise(1, 100), RATE, alignment=Alignment())
    with pytest.raises(InputError, match="alignment: got one, takes None"):
        Separator(small(attention=False))(noise(1, 100), RATE, alignment=Alignment())
    with pytest.raises(InputError, match="vocals: got shape"):
        TrueLine(np.zeros(5), RATE)
    with pytest.raises(InputError, match="overlap: got 8, takes 0 to 7"):
        Separator(small(), overlap=8)
