"""Scores, reports and figures of separated songs."""

from sepfast.evaluation.alignment import alignment_figure
from sepfast.evaluation.compare import compare_plots, medians_table
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
    "alignment_figure",
    "box_plots",
    "colours",
    "compare_plots",
    "loss_curve",
    "medians_table",
    "score_song",
    "spectrograms",
    "table",
]
