"""Fast audio source separation in PyTorch."""

from sepfast import metrics, modules, ops, reference
from sepfast.checkpoint import load, save
from sepfast.errors import InputError
from sepfast.fusion import FuseReport, fuse, unfuse
from sepfast.models import create_model, list_models
from sepfast.ops import use_backend
from sepfast.separation import Separator

__version__ = "0.1.0"
__all__ = [
    "FuseReport",
    "InputError",
    "Separator",
    "create_model",
    "fuse",
    "list_models",
    "load",
    "metrics",
    "modules",
    "ops",
    "reference",
    "save",
    "unfuse",
    "use_backend",
]
