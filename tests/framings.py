"""Framings at random, for what must hold for all of them, and what of a line their frames see."""

import pytest
import torch
import torch.nn.functional as F
from hypothesis import strategies as st

from sepfast.reference import Framing
from sepfast.reference.overlap_add import squared_window_sum

#: Frames that see a part of their transform's samples, by a window that is never 0.
HOLES = Framing(256, 100, "hamming", window_length=180, front=128)

#: Leading axes, some of them empty, and hardly any samples.
HARDLY_ANY = pytest.mark.parametrize(
    ("lead", "samples"), [((), 0), ((2,), 0), ((), 1), ((2, 3), 1), ((0,), 0), ((2, 0), 200)]
)


def framings(hops):
    """Framings that the kernels take, of a size that the interpreter bears.

    Args:
        hops: the longest hop; above 256 there are some that leave samples out.
    """
    return st.builds(
        Framing,
        n_fft=st.sampled_from([256, 512]),
        hop=st.integers(1, hops),
        window=st.sampled_from(["hann", "hamming", "blackman-harris", "rectangular"]),
        window_length=st.integers(0, 256),
        symmetric=st.booleans(),
        front=st.integers(0, 300),
        rule=st.sampled_from(["ceil+2", "pad-end", "valid"]),
        scale=st.floats(0.01, 10),
    )


def spans(framing, samples):
    """Which of the samples lie under the window of each frame, (frames, samples)."""
    start = torch.arange(framing.frames(samples))[:, None] * framing.hop - framing.front
    at = torch.arange(samples)
    return (at >= start) & (at < start + framing.span)


def window_weight(framing, frames, samples):
    """The summed squared windows at each sample, (samples,): next to 0, rounding is magnified."""
    if frames == 0:
        return torch.ones(samples)
    window = framing.window_on(torch.zeros(0, dtype=torch.float64))
    line = squared_window_sum(window, frames, framing.hop)[framing.front :]
    return F.pad(line, (0, samples - len(line)))
