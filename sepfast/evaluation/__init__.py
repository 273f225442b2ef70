"""Scores, reports and figures of separated songs."""

from sepfast.evaluation.plots import box_plots, colours, loss_curve, spectrograms
from sepfast.evaluation.report import Report, ScoreTable, SourceSummary, table
from sepfast.evaluation.score import METRICS, SongScores, SourceScores, score_song

__all__ = [
    "METRICS",
    "Report",
    "ScoreTable",
    "SongScores",
    "SourceScores",
    "SourceSummary",
    "box_plots",
    "colours",
    "loss_curve",
    "score_song",
    "spectrograms",
    "table",
]
