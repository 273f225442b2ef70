"""What all models have in common: a name and options, by which a file can bring them back."""

from __future__ import annotations

import hashlib
from typing import Any

import torch
from torch import nn


class Model(nn.Module):
    """A model that `create_model` builds.

    Attributes:
        model_name: its name there; empty where it was built otherwise.
        model_options: the options that it was given.
    """

    model_name: str = ""
    model_options: dict[str, Any]

    def digest(self) -> str:
        """Sixteen digits that follow from all weights and statistics, wherever they are."""
        digest = hashlib.sha256()
        for name, value in self.state_dict().items():
            numbers = value.detach().cpu().contiguous().flatten().view(torch.uint8)
            digest.update(name.encode() + numbers.numpy().tobytes())
        return digest.hexdigest()[:16]
