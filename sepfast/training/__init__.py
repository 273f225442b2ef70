"""Training, from a folder of songs, talkers or other recordings to a model."""

from sepfast.training.course_audiovisual import Talk
from sepfast.training.history import Epoch, History, Report
from sepfast.training.options import TrainingOptions, defaults_for
from sepfast.training.run import train_folder
from sepfast.training.trainer import train

__all__ = [
    "Epoch",
    "History",
    "Report",
    "Talk",
    "TrainingOptions",
    "defaults_for",
    "train",
    "train_folder",
]
