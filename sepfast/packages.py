"""Parts of packages that refuse to be imported whole.

`museval` imports `stempeg`, and `stempeg` raises where no program `ffmpeg` is installed, which
neither scores nor its example song need: files are read through PyAV, which brings its own.
"""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from types import ModuleType

from sepfast.errors import InputError


def museval_metrics() -> ModuleType:
    """The module `museval.metrics`, without the package around it.

    Raises:
        InputError: where museval is not installed.
    """
    name = "museval.metrics"
    if name in sys.modules:
        return sys.modules[name]
    spec = importlib.util.spec_from_file_location(name, _folder("museval") / "metrics.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    sys.modules[name] = module  # not before: what fails halfway is not to be found the next time
    return module


def example_song() -> Path:
    """The recording with its stems that the package `stempeg` carries: 6 s, stereo, 44.1 kHz.

    Raises:
        InputError: where stempeg is not installed.
    """
    return next((_folder("stempeg") / "data").glob("*.stem.mp4"))


def _folder(package: str) -> Path:
    """Where a package lies, without importing it."""
    spec = importlib.util.find_spec(package)
    if spec is None or not spec.submodule_search_locations:
        raise InputError(f"{package}: is not installed, takes `pip install {package}`")
    return Path(spec.submodule_search_locations[0])
