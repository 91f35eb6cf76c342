"""Figures to files and to every logger that shows pictures."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from lightning_tricks._compat import lightning as _lightning
from lightning_tricks.probes import Snapshot


def save(
    trainer: Any,
    figures: Mapping[str, Callable[[list[Snapshot]], Any]],
    history: list[Snapshot],
    folder: Path,
    prefix: str,
) -> list[Path]:
    """Draw each figure of a history, write it as PNG and hand it to the loggers; the paths written.

    Without matplotlib one warning says so and nothing is drawn. A figure that fails is a warning too: it is the end of
    a training that may have taken days.
    """
    if importlib.util.find_spec("matplotlib") is None:
        _lightning.warn_once("no pictures: install matplotlib, or pip install 'lightning-tricks[examples]'")
        return []
    folder.mkdir(parents=True, exist_ok=True)
    written = []
    for name, draw in figures.items():
        try:
            figure = draw(history)
            figure.savefig(folder / f"{name}.png")
            written.append(folder / f"{name}.png")
            for logger in trainer.loggers:
                if _lightning.shows_figures(logger):
                    logger.experiment.add_figure(f"{prefix}/{name}", figure, global_step=history[-1].step)
        except Exception as error:
            _lightning.rank_zero_warn(f"the picture {name} could not be made: {type(error).__name__}: {error}")
    return written
