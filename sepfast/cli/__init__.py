"""The command line."""

from sepfast.cli.app import main

__all__ = ["main"]
