"""Separating tracks: waveforms, streams and files."""

from sepfast.separation.files import Job, Written, find_jobs, separate_file
from sepfast.separation.separator import Separator

__all__ = ["Job", "Separator", "Written", "find_jobs", "separate_file"]
