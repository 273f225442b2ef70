"""The Triton kernels and their launchers, one file for each operator."""

from sepfast.kernels._catalog import catalog

__all__ = ["catalog"]
