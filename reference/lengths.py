"""Lengths of the sequences that a batch holds padded: which are taken, and what counts by them."""

from __future__ import annotations

import torch
from torch import Tensor

from sepfast.errors import InputError


def check_lengths(name: str, lengths: Tensor, batch: int) -> None:
    """Refuse what is not one integer for each sequence.

    Args:
        name: of the argument.
        lengths: (B,) integers, of any value.
        batch: B.

    Raises:
        InputError: for another type or shape.
    """
    wrong_type = lengths.is_floating_point() or lengths.dtype == torch.bool
    if tuple(lengths.shape) != (batch,) or wrong_type:
        raise InputError(
            f"{name}: got {lengths.dtype} of shape {tuple(lengths.shape)}, "
            f"takes integers of shape ({batch},)"
        )


def cut(x: Tensor, lengths: Tensor | None) -> Tensor:
    """Sequences (B, T, F) with 0 behind their lengths (B,), whatever stood there; all for None."""
    if lengths is None:
        return x
    time = torch.arange(x.shape[1], device=x.device)
    return x.masked_fill((time >= lengths.to(x.device)[:, None])[..., None], 0)
