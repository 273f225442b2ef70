"""Devices by name."""

from __future__ import annotations

import torch

from sepfast.errors import InputError


def pick_device(name: str | None) -> torch.device:
    """The device of a name; without one, a GPU where there is one and the CPU elsewhere.

    Raises:
        InputError: for a name that PyTorch does not know or a device that is not there.
    """
    if name is None:
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError) as error:
        reason = str(error).splitlines()[0]
        raise InputError(f"device: got {name!r}, which cannot be used ({reason})") from error
    return device
