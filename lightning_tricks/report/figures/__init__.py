"""Figures of a history (matplotlib, imported when one is drawn): each is a function from snapshots to a Figure."""

from __future__ import annotations

import pathlib
from collections.abc import Sequence
from typing import TYPE_CHECKING

from lightning_tricks.probes import Snapshot
from lightning_tricks.report.figures.comparison import comparison
from lightning_tricks.report.figures.gradient_flow import gradient_flow
from lightning_tricks.report.figures.histograms import histogram_over_time, histograms_over_time
from lightning_tricks.report.figures.ladder import ladder
from lightning_tricks.report.figures.shares import dead_and_linear
from lightning_tricks.report.figures.style import drawing, save

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = [
    "all_figures",
    "comparison",
    "dead_and_linear",
    "gradient_flow",
    "histogram_over_time",
    "histograms_over_time",
    "ladder",
    "save_all",
]


@drawing
def all_figures(history: Sequence[Snapshot]) -> dict[str, Figure]:
    """Every figure of a history by its name, for a logger; none where nothing was looked at."""
    if not any(snapshot.activations or snapshot.weighted for snapshot in history):
        return {}
    figures = {"ladder": ladder(history), "gradient_flow": gradient_flow(history)}
    if any(snapshot.activations for snapshot in history):
        figures["histograms"] = histograms_over_time(history)
        figures["dead_and_linear"] = dead_and_linear(history)
    return figures


def save_all(history: Sequence[Snapshot], folder: str | pathlib.Path) -> list[pathlib.Path]:
    """Write every figure as ``{name}.png`` into a folder, which is made if need be.

    Returns:
        The files: ``ladder.png``, ``gradient_flow.png``, ``histograms.png``, ``dead_and_linear.png``.
    """
    folder = pathlib.Path(folder)
    paths = []
    for name, figure in all_figures(history).items():
        folder.mkdir(parents=True, exist_ok=True)
        paths.append(folder / f"{name}.png")
        save(figure, paths[-1])
    return paths
