"""The STFT in blocks of frames on the CPU: the same numbers, and few frames in memory."""

import pytest
import torch
from conftest import assert_near, noise
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from sepfast import ops
from sepfast.ops.stft import istft_backward, stft_backward
from sepfast.reference import (
    FRAMINGS,
    Framing,
    Levels,
    frame_blocks,
    istft,
    masked_istft,
    stft,
    stft_magnitude,
)

FRAMING = Framing(32, 3, "hamming", window_length=30, front=7, rule="ceil+2", scale=0.3)


def _everything(framing, samples, levelled):
    """Operator -> its result, of two sources in two channels."""
    text, frames, bins = framing.to_text(), framing.frames(samples), framing.bins
    x, spectrum = noise(2, samples), noise(2, frames, bins, 2, seed=1)
    shares = noise(3, 2, 2, frames, bins, seed=2).abs()
    scale, offset = noise(2, 1, bins, seed=3), noise(bins, seed=4)
    gain = noise(2, 2, 1, bins, seed=5)
    levels = Levels(gain, scale.abs(), gain.abs()) if levelled else None
    batch = noise(3, 2, samples, seed=6)
    leaves = x, batch, shares = [t.requires_grad_() for t in (x, batch, shares)]
    power = 0.7 if levelled else 1.0
    magnitudes = ops.stft_magnitude(x, framing, power=power, scale=scale, offset=offset)
    stems = ops.masked_istft(shares, batch, framing, levels)
    loss = (magnitudes * noise(*magnitudes.shape)).sum() + (stems * noise(*stems.shape)).sum()
    of = torch.autograd.grad(loss, leaves)
    x = x.detach()
    return {
        "stft": ops.stft(x, framing),
        "stft_backward": stft_backward(spectrum, text, samples),
        "istft": ops.istft(spectrum, framing, samples),
        "istft_backward": istft_backward(x, text, frames),
        "stft_magnitude": magnitudes,
        "masked_istft": stems,
        **dict(zip(("of_samples", "of_mixture", "of_shares"), of, strict=True)),
    }


@pytest.mark.parametrize("levelled", [False, True])
@pytest.mark.parametrize("samples", [0, 1, 5, 100])
@pytest.mark.parametrize("together", [1, 30 * 2 * 4])
def test_blocks_change_nothing(monkeypatch, samples, together, levelled):
    monkeypatch.setattr(frame_blocks, "_TOGETHER", 1 << 20)
    whole = _everything(FRAMING, samples, levelled)
    monkeypatch.setattr(frame_blocks, "_TOGETHER", together)
    for name, out in _everything(FRAMING, samples, levelled).items():
        assert_near(out, whole[name], 1e-14)


def test_autograd_sees_one_block(monkeypatch):
    monkeypatch.setattr(frame_blocks, "_TOGETHER", 1)
    framing = Framing(8, 3, front=2, rule="ceil+2")
    x = noise(20).requires_grad_()
    shares = noise(2, 1, framing.frames(20), 5).requires_grad_()
    assert torch.autograd.gradcheck(lambda x: istft(stft(x, framing), framing, 20), x)
    assert torch.autograd.gradcheck(lambda x: stft_magnitude(x, framing), x)
    assert torch.autograd.gradcheck(lambda s: masked_istft(s, x.detach()[None], framing), shares)


class _Largest(TorchDispatchMode):
    """The most bytes of one tensor that is made; views of what is there do not count."""

    bytes = 0

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        out = function(*args, **(kwargs or {}))
        given, made = ({t.untyped_storage() for t in _tensors(part)} for part in (args, out))
        pointers = {storage.data_ptr() for storage in given}
        fresh = [s.nbytes() for s in made if s.data_ptr() not in pointers]
        self.bytes = max(self.bytes, *fresh, 0)
        return out


def _tensors(values):
    return [leaf for leaf in tree_leaves(values) if isinstance(leaf, torch.Tensor)]


def test_memory_is_that_of_results_and_a_block(one_thread):
    """2000 frames of 2048 are 16 MB, and their spectrum as much; 512 of them are a block."""
    framing, samples = FRAMINGS["style-transfer"], 32000
    x = noise(1, samples).float()
    with _Largest() as largest:
        levels = ops.stft_magnitude(x, framing, power=0.7)
    assert largest.bytes == levels.untyped_storage().nbytes()
    shares, spectrum = levels[None], torch.stack([levels, levels], -1)
    block = 4 * frame_blocks._TOGETHER * 2 * framing.bins // framing.n_fft
    for make in (
        lambda: ops.masked_istft(shares, x, framing),
        lambda: ops.istft(spectrum, framing, samples),
        lambda: stft_backward(spectrum, framing.to_text(), samples),
    ):
        with _Largest() as largest:
            make()
        assert largest.bytes <= block
