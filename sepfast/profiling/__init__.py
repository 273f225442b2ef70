"""Where the time of a training step goes."""

from sepfast.profiling.run import Profile, profile
from sepfast.profiling.shares import Row
from sepfast.profiling.subject import Subject

__all__ = ["Profile", "Row", "Subject", "profile"]
