"""What all models have in common: a name and options, by which a file can bring them back."""

from __future__ import annotations

from typing import Any

from torch import nn


class Model(nn.Module):
    """A model that `create_model` builds.

    Attributes:
        model_name: its name there; empty where it was built otherwise.
        model_options: the options that it was given.
    """

    model_name: str = ""
    model_options: dict[str, Any]
