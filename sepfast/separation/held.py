"""What of a mixture has come in and not gone out yet."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator

import torch
from torch import Tensor


class Held:
    """Samples of a mixture that wait for the estimate that is taken off them."""

    def __init__(self) -> None:
        self._blocks: deque[Tensor] = deque()

    def passing(self, blocks: Iterable[Tensor]) -> Iterator[Tensor]:
        """Pass blocks on, and hold a copy of each: whoever made them may use them again."""
        for block in blocks:
            self._blocks.append(block.detach().clone())
            yield block

    def with_rest(self, target: Tensor) -> Tensor:
        """An estimate, and what the next as many samples of the mixture are without it.

        Args:
            target: (1, channels, samples), no more samples than are held.

        Returns:
            (2, channels, samples).
        """
        mixture = self._take(target.shape[-1], target[0])
        return torch.stack([target[0], mixture - target[0]])

    def _take(self, samples: int, like: Tensor) -> Tensor:
        """The next samples, (channels, samples), in the type and on the device of `like`."""
        taken = [like[:, :0]]
        while samples:
            block = self._blocks.popleft()
            taken.append(block[:, :samples].to(like))
            if block.shape[-1] > samples:
                self._blocks.appendleft(block[:, samples:])
            samples -= taken[-1].shape[-1]
        return torch.cat(taken, -1)
