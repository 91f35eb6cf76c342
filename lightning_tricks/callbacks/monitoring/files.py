"""Files at the end of a training: where they go, and the pictures among them."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from lightning_tricks._compat.lightning import rank_zero_warn, warn_once
from lightning_tricks.probes import Snapshot


def folder_of(trainer: Any, name: str) -> Path | None:
    """Where files of a callback go: beside the logger's, else under the Trainer's default_root_dir; on rank zero only.

    None in a ``fast_dev_run``, which leaves no files. No process waits for another one here (``trainer.log_dir`` does):
    it is also asked for after an exception on one of them.
    """
    if getattr(trainer, "fast_dev_run", False):
        return None
    logger = trainer.loggers[0] if trainer.loggers else None
    if logger is None:
        return Path(trainer.default_root_dir) / name
    own = getattr(logger, "log_dir", None)
    if own:
        return Path(own) / name
    parts = [str(part) for part in (logger.name, logger.version) if part not in (None, "")]
    return Path(logger.save_dir or trainer.default_root_dir).joinpath(*parts, name)


def save_pictures(
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
        warn_once("no pictures: install matplotlib, or pip install 'lightning-tricks[examples]'")
        return []
    folder.mkdir(parents=True, exist_ok=True)
    written = []
    for name, draw in figures.items():
        try:
            figure = draw(history)
            figure.savefig(folder / f"{name}.png")
            written.append(folder / f"{name}.png")
            for logger in trainer.loggers:
                if _shows_figures(logger):
                    logger.experiment.add_figure(f"{prefix}/{name}", figure, global_step=history[-1].step)
        except OSError:
            raise  # nor can the next one be written
        except Exception as error:
            rank_zero_warn(f"the picture {name} could not be made: {type(error).__name__}: {error}")
    return written


def _shows_figures(logger: Any) -> bool:
    """Whether ``logger.experiment.add_figure`` is TensorBoard's."""
    return any(cls.__name__ == "TensorBoardLogger" for cls in type(logger).__mro__)
