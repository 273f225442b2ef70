"""Separating tracks: waveforms, streams and files."""

from sepfast.separation.alignment import Alignment
from sepfast.separation.files import Job, Written, find_jobs, find_sides, separate_file
from sepfast.separation.separator import Separator

__all__ = [
    "Alignment",
    "Job",
    "Separator",
    "Written",
    "find_jobs",
    "find_sides",
    "separate_file",
]
