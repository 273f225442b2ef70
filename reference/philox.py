"""Random bits from a counter and a seed, the same on every device and in every kernel.

Philox4x32-10 turns four words of 32 bits, the counter, and two, the key, into four random ones by
ten rounds of two products. Words are held in int64 here, so that nothing depends on how a type
wraps around.

Source: Salmon, Moraes, Dror and Shaw, "Parallel random numbers: as easy as 1, 2, 3", 2011.
"""

from __future__ import annotations

import torch
from torch import Tensor

_WORD = 0xFFFFFFFF
_HALF = 0xFFFF
_FACTORS = 0xD2511F53, 0xCD9E8D57
_STEPS = 0x9E3779B9, 0xBB67AE85
_ROUNDS = 10

#: Frames that share one counter: eight halves of its four words.
_SHARED = 8

Words = tuple[Tensor, Tensor, Tensor, Tensor]


def philox(counter: Words, key: tuple[Tensor, Tensor]) -> Words:
    """Four random words for a counter and a key.

    Args:
        counter: four tensors of int64, 0 to 2^32 - 1, that broadcast.
        key: two, likewise.

    Returns:
        Four tensors of int64, 0 to 2^32 - 1.
    """
    a, b, c, d = counter
    low, high = key
    for _ in range(_ROUNDS):
        high_a, low_a = _product(a, _FACTORS[0])
        high_c, low_c = _product(c, _FACTORS[1])
        a, b, c, d = high_c ^ b ^ low, low_c, high_a ^ d ^ high, low_a
        low, high = (low + _STEPS[0]) & _WORD, (high + _STEPS[1]) & _WORD
    return a, b, c, d


def draw_seed(device: torch.device) -> Tensor:
    """A seed from a device's default generator: int64, (1,).

    It is a tensor so that the replays of a captured CUDA graph draw one each.
    """
    return torch.randint(2**63 - 1, (1,), device=device)


def threshold(dropout: float) -> int:
    """Halves of words below this one drop an element: 65536 `dropout`, rounded."""
    return int(dropout * (_HALF + 1) + 0.5)


def kept(shape: tuple[int, int, int], dropout: float, seed: Tensor) -> Tensor:
    """What dropout leaves, the same for every implementation.

    Element (b, c, t) has half t mod 8 of the words of counter (t div 8, low and high word of
    b C + c, 0), low halves before high ones, and the key is the seed. It is kept where that half
    is at least 65536 p: what is dropped is p to 2^-17.

    Args:
        shape: (B, C, T).
        dropout: p, 0 to below 1.
        seed: (1,) of integers.

    Returns:
        Booleans (B, C, T), on the device of the seed.
    """
    batch, channels, frames = shape
    seed = seed.long()
    line = torch.arange(batch * channels, device=seed.device)[:, None]
    eighth = torch.arange((frames + _SHARED - 1) // _SHARED, device=seed.device)
    counter = eighth, line & _WORD, line >> 32, torch.zeros_like(eighth)
    words = torch.stack(philox(counter, (seed & _WORD, (seed >> 32) & _WORD)), -1)
    halves = torch.stack((words & _HALF, words >> 16), -1).flatten(1)
    return (halves[:, :frames] >= threshold(dropout)).view(shape)


def dropped(x: Tensor, dropout: float, seed: Tensor) -> Tensor:
    """Dropout of (B, C, T): 0 where not `kept`, elsewhere x / (1 - dropout)."""
    return torch.where(kept((*x.shape,), dropout, seed), x * (1 / (1 - dropout)), 0)


def _product(word: Tensor, factor: int) -> tuple[Tensor, Tensor]:
    """The high and the low word of a product, by halves: no step of it reaches 2^63."""
    low = (word & _HALF) * factor
    high = (word >> 16) * factor + (low >> 16)
    return high >> 16, ((high & _HALF) << 16) | (low & _HALF)
