"""A diagnosis as a folder of files: the page, the history as a table, pictures where matplotlib is installed."""

from __future__ import annotations

import importlib.util
import pathlib

from lightning_tricks.diagnosis.diagnosis import Diagnosis
from lightning_tricks.report.figures import save_all

PAGE, TABLE = "diagnosis.html", "history.csv"


def write_folder(diagnosis: Diagnosis, folder: str | pathlib.Path) -> list[pathlib.Path]:
    """Write ``diagnosis.html``, ``history.csv`` and the pictures into a folder, which is made if need be.

    Returns:
        The files.

    Raises:
        OSError: One cannot be written; what was there of it stays whole.
    """
    folder = pathlib.Path(folder)
    written = [diagnosis.to_html(folder / PAGE), diagnosis.to_csv(folder / TABLE)]
    if importlib.util.find_spec("matplotlib") is not None:
        written += save_all([snapshot.matching(diagnosis.layers) for snapshot in diagnosis.history], folder)
    return written
