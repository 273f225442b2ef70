"""Samples to a device and stems back, in order and whole, whatever overlaps."""

import pytest
import torch

from sepfast import Separator, create_model
from sepfast.separation import deepconvsep, transfer
from sepfast.separation.transfer import to_device, to_host

CPU = torch.device("cpu")


def test_on_a_cpu_all_is_passed_on_as_it_is():
    blocks = [torch.rand(2, 5), torch.rand(2, 3).double(), torch.rand(2, 0)]
    moved = list(to_device(blocks, CPU))
    assert moved[0] is blocks[0]
    assert [block.dtype for block in moved] == [torch.float32] * 3
    assert torch.equal(moved[1], blocks[1].float())
    assert all(a is b for a, b in zip(to_host(iter(moved)), moved, strict=True))


def test_nothing_is_asked_for_ahead_of_time_on_a_cpu():
    asked = []

    def pieces():
        for number in range(3):
            asked.append(number)
            yield torch.full((1, 2), float(number))

    fetched = to_host(pieces())
    next(fetched)
    assert asked == [0]


@pytest.mark.gpu
class TestOnGpu:
    def test_pieces_come_back_in_order_and_whole(self, monkeypatch):
        monkeypatch.setattr(transfer, "_BLOCK", 1000)
        line = torch.rand(3, 2, 100_003)
        pieces = (piece.cuda()[..., 1:] for piece in line.split(20_001, -1))  # views, rows apart
        expected = torch.cat([piece[..., 1:] for piece in line.split(20_001, -1)], -1)
        fetched = list(to_host(pieces))
        assert not any(piece.is_cuda for piece in fetched)
        assert max(piece.shape[-1] for piece in fetched) == 1000
        assert torch.equal(torch.cat(fetched, -1), expected)

    def test_blocks_are_there_when_they_are_taken(self):
        blocks = [torch.rand(2, 100_000) for _ in range(20)]
        sums = [block.double().sum() for block in to_device(blocks, torch.device("cuda"))]
        for total, block in zip(sums, blocks, strict=True):
            assert total.cpu() == pytest.approx(float(block.double().sum()))

    @pytest.mark.parametrize("name", ["deepconvsep", "deepconvsep-stereo"])
    def test_a_track_in_chunks_is_the_cpus(self, monkeypatch, name):
        monkeypatch.setattr(deepconvsep, "_GPU_FRAMES", 120)
        monkeypatch.setattr(transfer, "_BLOCK", 10_000)
        torch.manual_seed(0)
        model = create_model(name)
        for source in model.sources:
            torch.nn.init.constant_(model.decoder[source][1].bias, 3)
        x = torch.randn(2, 300_000)
        expected = Separator(model)(x, 44100)
        separator = Separator(model, device="cuda")
        for given in (x, x.cuda()):
            stems = separator(given, 44100)
            for source, stem in stems.items():
                assert stem.device == given.device
                torch.testing.assert_close(stem.cpu(), expected[source], atol=1e-4, rtol=1e-3)
