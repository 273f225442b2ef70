"""The order in which an LSTM's directions walk through the steps of padded sequences.

B batch, T steps, D directions. Direction 0 takes a sequence of length n from time 0 to n - 1,
direction 1 from n - 1 to 0; behind its length a sequence rests.
"""

from __future__ import annotations

import torch
from torch import Tensor


class Order:
    """At which times the steps of each sequence lie, in both directions.

    Args:
        lengths: (B,) integers, or None.
        steps: T.
    """

    def __init__(self, lengths: Tensor | None, steps: int) -> None:
        self._ended = self._turned = None
        if lengths is not None:
            counts = lengths.long().clamp(0, steps)
            time = torch.arange(steps, device=lengths.device)[:, None]  # (T, 1)
            ended = time >= counts  # (T, B)
            self._ended = ended[:, None, :, None]
            self._turned = torch.where(ended, time, counts - 1 - time)[..., None]

    def steps(self, x: Tensor) -> Tensor:
        """Of (B, T, D, n), in the order of time, (T, D, B, n) in that of steps."""
        return self._silent(self._walked(x.permute(1, 2, 0, 3)))

    def times(self, x: Tensor) -> Tensor:
        """The other way; 0 behind the lengths, as in `steps`."""
        return self._silent(self._walked(x)).permute(2, 0, 1, 3)

    def heard(self, x: Tensor) -> Tensor:
        """(B, T, n) with 0 behind the lengths."""
        return x if self._ended is None else x.masked_fill(self._ended[:, 0].transpose(0, 1), 0)

    def first(self, x: Tensor) -> Tensor:
        """What (B, T, D, n), in the order of time, has at the first step: (D, B, n)."""
        second = x[:, :, -1]
        if self._turned is None:
            second = second[:, -1]
        else:
            at = self._turned[0, :, None].expand(-1, 1, x.shape[3])
            second = second.gather(1, at)[:, 0]
        return torch.stack((x[:, 0, 0], second)[: x.shape[2]])

    def earlier(self, states: Tensor, initial: Tensor | None) -> Tensor:
        """States one step before, in the order of time, which costs less than there and back.

        Args:
            states: (B, T, D, n), 0 behind the lengths.
            initial: (D, B, n), those before the first step; None for 0.

        Returns:
            The same shape; what stands behind the lengths is finite and means nothing.
        """
        earlier = torch.zeros_like(states)
        earlier[:, 1:, 0] = states[:, :-1, 0]
        earlier[:, :-1, 1:] = states[:, 1:, 1:]
        if initial is None or not states.shape[1]:
            return earlier
        earlier[:, 0, 0] = initial[0]
        if len(initial) == 1:
            return earlier
        if self._turned is None:
            earlier[:, -1, 1] = initial[1]
        else:
            at = self._turned[0, :, None].expand(-1, 1, states.shape[3])
            earlier[:, :, 1].scatter_(1, at, initial[1, :, None].to(states.dtype))
        return earlier

    def rest(self, s: int, old: Tensor, new: Tensor) -> Tensor:
        """States (D, B, H) at a step: the new ones, but the old ones where a sequence has ended."""
        return new if self._ended is None else torch.where(self._ended[s], old, new)

    def _silent(self, x: Tensor) -> Tensor:
        return x if self._ended is None else x.masked_fill(self._ended, 0)

    def _walked(self, x: Tensor) -> Tensor:
        """Direction 1 from its end, which undoes itself."""
        if x.shape[1] == 1:
            return x
        first, second = x.unbind(1)
        if self._turned is None:
            second = second.flip(0)
        else:
            second = second.gather(0, self._turned.expand(second.shape))
        return torch.stack((first, second), 1)
