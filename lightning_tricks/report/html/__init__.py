"""The page of a diagnosis: one self-contained HTML file."""

from lightning_tricks.report.html.page import html, write_html
from lightning_tricks.report.html.tried import Trial

__all__ = ["Trial", "html", "write_html"]
