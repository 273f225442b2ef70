"""Samples to a GPU and stems back, while it computes.

Copies go through pinned memory on streams of their own: what the host sends or fetches waits for no
kernel but those that made it. On other devices everything is passed on as it is.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import torch
from torch import Tensor

#: Samples that are fetched at once: 32 MB of four stereo stems, of which two are on their way.
_BLOCK = 1 << 20


def to_device(blocks: Iterable[Tensor], device: torch.device) -> Iterator[Tensor]:
    """Blocks in float32 on a device; the stream that takes them waits for their copies alone.

    Args:
        blocks: of any shape, on any device.
        device: where they are wanted.
    """
    copies = torch.cuda.Stream(device) if device.type == "cuda" else None
    for block in blocks:
        if copies is None or block.is_cuda:
            yield block.to(device, torch.float32)
            continue
        with torch.cuda.stream(copies):
            moved = block.to(torch.float32).pin_memory().to(device, non_blocking=True)
        taking = torch.cuda.current_stream(device)
        taking.wait_stream(copies)
        moved.record_stream(taking)
        yield moved


def to_host(pieces: Iterable[Tensor]) -> Iterator[Tensor]:
    """Pieces in the host's memory, those of a GPU in smaller ones; in order, none left out.

    A piece is fetched when the one behind it has been asked for, that is while that is computed.

    Args:
        pieces: (..., samples), on any device.
    """
    waiting: tuple[Tensor, torch.cuda.Event] | None = None
    for piece in pieces:
        if not piece.is_cuda:
            yield piece
            continue
        made = torch.cuda.current_stream(piece.device).record_event()
        if waiting is not None:
            yield from _fetched(*waiting)
        waiting = piece, made
    if waiting is not None:
        yield from _fetched(*waiting)


def _fetched(piece: Tensor, made: torch.cuda.Event) -> Iterator[Tensor]:
    """A piece block by block; one is fetched while the one before is worked on."""
    copies = torch.cuda.Stream(piece.device)
    copies.wait_event(made)
    piece.record_stream(copies)
    before: tuple[Tensor, torch.cuda.Event] | None = None
    for block in piece.split(_BLOCK, dim=-1):
        host = torch.empty(block.shape, dtype=block.dtype, pin_memory=True)
        with torch.cuda.stream(copies):
            # Rows of a view lie apart: gathered there, they are one copy.
            host.copy_(block.contiguous(), non_blocking=True)
        if before is not None:
            before[1].synchronize()
            yield before[0]
        before = host, copies.record_event()
    if before is not None:
        before[1].synchronize()
        yield before[0]
