"""How samples become frames: the configuration of the STFT and its inverse, and the papers' own.

Source: the "audio" and "STFT" rows of the five systems. A window is a sum of cosines,
w[n] = sum_m (-1)^m a_m cos(2 pi m n / D), with D = L - 1 where it is symmetric (`numpy.hanning`)
and D = L where it is periodic (`torch.hann_window`).
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field, fields
from functools import lru_cache
from typing import Any, Literal, get_args

import numpy as np
import torch
from torch import Tensor

from sepfast.errors import InputError

FrameRule = Literal["ceil+2", "pad-end", "valid"]

_COSINES = {
    "hann": (0.5, 0.5),
    "hamming": (0.54, 0.46),
    "blackman-harris": (0.35875, 0.48829, 0.14128, 0.01168),
    "rectangular": (1.0,),
}


@dataclass(frozen=True)
class Framing:
    """The framing of an STFT; hashable, so that it can be a key and a constant of a kernel.

    Attributes:
        n_fft: length of the transform, in samples; bins = n_fft // 2 + 1.
        hop: samples from one frame to the next.
        window: "hann", "hamming", "blackman-harris" or "rectangular".
        window_length: samples a frame spans; the rest of n_fft is zeros behind it. 0: n_fft.
        symmetric: whether the window ends on the value it starts on (`numpy.hanning`).
        front: zeros in front of the first sample; they are dropped again by the inverse.
        rule: how many frames L samples make. "ceil+2": ceil(L / hop) + 2, the tail zero-padded.
            "pad-end": a frame wherever one can start, the tail zero-padded. "valid": whole
            frames only; the samples behind the last one are lost.
        scale: what the spectrum is multiplied by.

    Raises:
        InputError: for values that it cannot take.
    """

    n_fft: int = 1024
    hop: int = 256
    window: str = "hann"
    window_length: int = 0
    symmetric: bool = True
    front: int = 0
    rule: FrameRule = "pad-end"
    scale: float = 1.0
    _text: str = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        if self.window not in _COSINES:
            raise InputError(f"window: got {self.window!r}, takes one of {', '.join(_COSINES)}")
        if self.rule not in get_args(FrameRule):
            rules = ", ".join(get_args(FrameRule))
            raise InputError(f"rule: got {self.rule!r}, takes one of {rules}")
        if self.n_fft < 2 or self.hop < 1 or self.front < 0:
            raise InputError(
                f"n_fft, hop, front: got {self.n_fft}, {self.hop}, {self.front}, "
                "take at least 2, 1 and 0"
            )
        if not 0 <= self.window_length <= self.n_fft:
            raise InputError(
                f"window_length: got {self.window_length}, takes 1 to n_fft = {self.n_fft}, or 0"
            )
        # Made here: under torch.compile an attribute's number may be a symbol, which has no text.
        values = (str(getattr(self, each.name)) for each in fields(self) if each.init)
        object.__setattr__(self, "_text", " ".join(values))

    @property
    def bins(self) -> int:
        """Bins of a real spectrum, from 0 Hz to half the sample rate."""
        return self.n_fft // 2 + 1

    @property
    def span(self) -> int:
        """Samples that a frame spans: the length of the window."""
        return self.window_length or self.n_fft

    def frames(self, samples: int) -> int:
        """Frames that `samples` samples make."""
        if self.rule == "ceil+2":
            return -(-samples // self.hop) + 2
        if self.rule == "valid":
            return max(0, (self.front + samples - self.span) // self.hop + 1)
        return -(-(self.front + samples) // self.hop)

    def covered(self, frames: int) -> int:
        """Samples, zeros in front included, that `frames` frames span."""
        return (frames - 1) * self.hop + self.span if frames else 0

    def window_on(self, like: Tensor) -> Tensor:
        """The window, (span,), in the type and on the device of `like`."""
        return torch.from_numpy(_window(self)).to(like)

    def to_text(self) -> str:
        """All attributes in one line, as the operators carry them; `from_text` reads it."""
        return self._text

    @staticmethod
    def from_text(text: str) -> Framing:
        """The framing that `to_text` wrote.

        Raises:
            InputError: for any other text.
        """
        return _from_text(text)

    def check_invertible(self) -> None:
        """Raise `InputError` where some samples lie under no frame, or under zeros alone."""
        if not _covers(self):
            raise InputError(
                f"framing: got a {self.window} window of {self.span} with hop {self.hop}, which "
                "leaves samples that no frame weighs and cannot be inverted, takes one that can"
            )


@lru_cache(maxsize=64)
def _from_text(text: str) -> Framing:
    words = text.split()
    flags = {"True": True, "False": False}
    read: dict[str, Callable[[str], Any]]
    read = {"int": int, "float": float, "bool": flags.__getitem__}
    types = [str(each.type) for each in fields(Framing) if each.init]
    try:
        values = [read.get(kind, str)(word) for kind, word in zip(types, words, strict=True)]
    except (KeyError, ValueError) as error:
        raise InputError(f"framing: got {text!r}, takes what Framing.to_text gives") from error
    return Framing(*values)


@lru_cache(maxsize=64)
def _window(framing: Framing) -> np.ndarray:
    """The window in float64, (span,); read-only because it is shared."""
    length = framing.span
    period = max(1, length - 1 if framing.symmetric else length)
    phase = 2 * math.pi * np.arange(length) / period
    terms = enumerate(_COSINES[framing.window])
    window = np.sum([(-1) ** m * a * np.cos(m * phase) for m, a in terms], axis=0)
    return window if length > 1 else np.ones(1)


@lru_cache(maxsize=64)
def _covers(framing: Framing) -> bool:
    """Whether the squared windows, one hop apart, leave no sample without weight."""
    squared = np.zeros(-(-framing.span // framing.hop) * framing.hop)
    squared[: framing.span] = _window(framing) ** 2
    return bool(squared.reshape(-1, framing.hop).sum(axis=0).min() > 1e-12)


def _deepconvsep(hop: int, window: str) -> Framing:
    return Framing(1024, hop, window, front=512, rule="ceil+2", scale=1 / math.sqrt(1024))


#: The framings of the papers, by the names that `create_model(..., framing=...)` takes.
FRAMINGS = {
    "deepconvsep": _deepconvsep(256, "hann"),
    "deepconvsep-512": _deepconvsep(512, "blackman-harris"),
    "informed": Framing(1024, 512, "hamming", symmetric=False, rule="valid"),
    "landmarks": Framing(512, 160, "hann", window_length=400, symmetric=False, front=256),
    "style-transfer": Framing(2048, 16, "hann", symmetric=False, front=1024),
}


def published_framing(name: str) -> Framing:
    """The framing of a paper.

    Raises:
        InputError: for a name that is not in `FRAMINGS`.
    """
    if name not in FRAMINGS:
        raise InputError(f"framing: got {name!r}, takes one of {', '.join(FRAMINGS)}")
    return FRAMINGS[name]
