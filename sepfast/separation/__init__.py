"""Separating tracks: waveforms, streams and files."""

from sepfast.separation.alignment import Alignment
from sepfast.separation.denoised import load_denoisers
from sepfast.separation.enhancer import Enhancer, Recording
from sepfast.separation.files import Job, Written, find_jobs, find_sides, has_stems, separate_file
from sepfast.separation.recording_statistics import (
    RecordingStatistics,
    read_statistics,
    write_statistics,
)
from sepfast.separation.separator import Separator

__all__ = [
    "Alignment",
    "Enhancer",
    "Job",
    "Recording",
    "RecordingStatistics",
    "Separator",
    "Written",
    "find_jobs",
    "find_sides",
    "has_stems",
    "load_denoisers",
    "read_statistics",
    "separate_file",
    "write_statistics",
]
