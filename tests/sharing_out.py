"""Shares of a mixture, levels, and framings to put them in."""

import pytest
from conftest import noise

from sepfast.reference import Framing, Levels

SMALL = Framing(256, 100, "hamming", front=128, rule="ceil+2")


def shares_of(framing, *lead, samples, seed=3):
    """Of sources and channels, from 0 to 1."""
    return noise(*lead, framing.frames(samples), framing.bins, seed=seed).sigmoid().float().double()


def levels_of(place, kind, sources, channels, bins):
    """Levels in float64, and the same numbers for an implementation."""
    if kind == "none":
        return None, None
    made = Levels(noise(sources, channels, 1, bins).abs() + 0.5)
    if kind == "floor":
        floor, base = noise(channels, 1, bins, seed=1), noise(sources, channels, 1, bins, seed=2)
        made = Levels(made.gain, floor.abs(), base.abs())
    return made, Levels(*(None if part is None else place.put(part) for part in made))


KINDS = pytest.mark.parametrize("kind", ["none", "gain", "floor"])
