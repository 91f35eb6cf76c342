"""The page of a diagnosis: one self-contained HTML file."""

from lightning_tricks.report.html.page import html, write_html
from lightning_tricks.report.html.tried import CurveComparison

__all__ = ["CurveComparison", "html", "write_html"]
