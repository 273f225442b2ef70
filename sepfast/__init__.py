"""Fast audio source separation in PyTorch."""

from sepfast import metrics, reference
from sepfast.checkpoint import load, save
from sepfast.errors import InputError
from sepfast.models import create_model, list_models
from sepfast.separation import Separator

__version__ = "0.1.0"
__all__ = [
    "InputError",
    "Separator",
    "create_model",
    "list_models",
    "load",
    "metrics",
    "reference",
    "save",
]
