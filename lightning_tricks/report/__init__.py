"""Shows what a diagnosis found: a text table, a page, a tidy CSV, figures (matplotlib and rich are optional)."""

from lightning_tricks.diagnosis.diagnosis import Diagnosis
from lightning_tricks.report import notebook, table  # enters the views of a diagnosis
from lightning_tricks.report.figures import (
    all_figures,
    comparison,
    dead_and_linear,
    gradient_flow,
    histogram_over_time,
    histograms_over_time,
    ladder,
    save_all,
)
from lightning_tricks.report.folder import write_folder
from lightning_tricks.report.glossary import explain
from lightning_tricks.report.history import write_csv
from lightning_tricks.report.html import CurveComparison, write_html

__all__ = [
    "Diagnosis",
    "CurveComparison",
    "all_figures",
    "comparison",
    "dead_and_linear",
    "explain",
    "gradient_flow",
    "histogram_over_time",
    "histograms_over_time",
    "ladder",
    "save_all",
    "write_csv",
    "write_folder",
    "write_html",
]
