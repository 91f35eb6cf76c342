"""Files at the end of a training: where they go, and the pictures among them."""

from __future__ import annotations

import importlib.util
import re
import shutil
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from lightning_tricks._compat.lightning import rank_zero_warn, warn_once
from lightning_tricks.callbacks.monitoring.output.images import log_image
from lightning_tricks.diagnosis.diagnosis import Diagnosis
from lightning_tricks.probes import Snapshot
from lightning_tricks.report.figures.style import save

_RUNS = "lightning_logs"  # as Lightning's own loggers name it, and most lists of what git is to ignore
_IGNORED = "# made by lightning_tricks\n*\n"
SECONDS, SHARE = 10.0, 0.05  # of the training's time: drawing takes the larger of both, and the picture begun
Figures = Mapping[str, Callable[[list[Snapshot]], Any]]


class FitFiles:
    """What the monitors of a Trainer write in one fit: into one folder, each picture drawn once, one row a step."""

    def __init__(self) -> None:
        self._run: Path | None = None
        self._drawn: dict[Any, Path] = {}
        self._began = time.monotonic()  # the fit
        self._drawing = 0.0  # seconds up to now
        self.row: dict[str, float] = {}  # of the log, of a step after which the Trainer writes none
        self._step = 0

    def add_to_row(self, values: Mapping[str, float], step: int) -> None:
        """Numbers of one monitor, to be written with those of the others."""
        self.row.update(values)
        self._step = step

    def take_row(self) -> tuple[dict[str, float], int]:
        """All of them, and their step; a new row begins."""
        row, self.row = self.row, {}
        return row, self._step

    @property
    def _has_time(self) -> bool:
        """Whether another picture is to be drawn: all together, a short training waits for seconds at most."""
        training = time.monotonic() - self._began - self._drawing
        return self._drawing < max(SECONDS, SHARE * training)

    def folder_of(self, trainer: Any, name: str) -> Path | None:
        """Where files of a callback go: beside the logger's, else in a version of its own under default_root_dir.

        None in a ``fast_dev_run``, which leaves no files.
        """
        if getattr(trainer, "fast_dev_run", False):
            return None
        if self._run is None:
            self._run = _folder_of_logger(trainer) or _next_version(Path(trainer.default_root_dir) / _RUNS)
        return self._run / name

    def save_pictures(
        self, trainer: Any, figures: Figures, history: list[Snapshot], folder: Path, shown: tuple[str, ...]
    ) -> list[Path]:
        """Draw each figure of a history, write it as PNG and hand it to the loggers; the paths written.

        What another monitor of the same fit has drawn of the same layers and steps is copied, and not logged again.
        Without matplotlib one warning says so and nothing is drawn. A figure that fails is a warning too: it is the end
        of a training that may have taken days. Once pictures have taken ``SECONDS``, and ``SHARE`` of the training's
        time, those left are not drawn, and one warning says how to.
        """
        if importlib.util.find_spec("matplotlib") is None:
            warn_once("no pictures: install matplotlib, or pip install 'lightning-tricks[plots]'")
            return []
        written, left = [], []
        for name, draw in figures.items():
            path, key = folder / f"{name}.png", (name, shown, tuple(snapshot.step for snapshot in history))
            try:
                if key in self._drawn:
                    shutil.copyfile(self._drawn[key], path)
                elif not self._has_time:
                    left.append(name)
                    continue
                else:
                    began = time.monotonic()
                    save(draw(history), path)
                    self._drawing += time.monotonic() - began
                    self._drawn[key] = path
                    for logger in trainer.loggers:
                        log_image(logger, f"{folder.name}/{name}", path, history[-1].step)
                written.append(path)
            except OSError:
                raise  # nor can the next one be written
            except Exception as error:
                rank_zero_warn(f"the picture {name} could not be made: {type(error).__name__}: {error}")
        if left:
            rank_zero_warn(
                f"not drawn, as pictures took {self._drawing:.0f} s already: {', '.join(left)}. "
                f"lightning_tricks.report.{left[0]}(history) draws it"
            )
        return written


def save_page(diagnosis: Diagnosis, path: Path) -> None:
    """Write the page of a diagnosis; one that fails is a warning: it is the end of a training."""
    try:
        diagnosis.to_html(path)
    except OSError:
        raise
    except Exception as error:
        rank_zero_warn(f"the page could not be made: {type(error).__name__}: {error}")


def make_folder(trainer: Any, folder: Path) -> None:
    """Make a folder of a callback; git is to ignore what stands in none of a logger's."""
    folder.mkdir(parents=True, exist_ok=True)
    if not trainer.loggers:
        (folder.parent / ".gitignore").write_text(_IGNORED, encoding="utf-8")


def _folder_of_logger(trainer: Any) -> Path | None:
    """The first logger's folder of this run; on rank zero only.

    No process waits for another one here (``trainer.log_dir`` does): it is also asked for after an exception on one.
    """
    if not trainer.loggers:
        return None
    logger = trainer.loggers[0]
    own = getattr(logger, "log_dir", None)
    if own:
        return Path(own)
    parts = [str(part) for part in (logger.name, logger.version) if part not in (None, "")]
    return Path(logger.save_dir or trainer.default_root_dir).joinpath(*parts)


def _next_version(runs: Path) -> Path:
    """The folder of the next run: ``version_0``, ``version_1``, ... as Lightning's own loggers count them."""
    found = [re.fullmatch(r"version_(\d+)", each.name) for each in (runs.iterdir() if runs.is_dir() else ())]
    return runs / f"version_{max((int(name[1]) for name in found if name), default=-1) + 1}"
