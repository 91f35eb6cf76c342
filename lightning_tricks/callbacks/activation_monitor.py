"""ActivationMonitor: what the units of every layer do with the patterns."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

from lightning_tricks import report
from lightning_tricks.callbacks.monitoring.monitor import Monitor
from lightning_tricks.diagnosis.history.layers import hidden_activations
from lightning_tricks.probes import Snapshot


class ActivationMonitor(Monitor):
    """Logs linearity, pre-activation ladder, saturation, activity and mean energy of every activation.

    Every activation is seen, modules and function calls alike. Summaries of the whole model, ``activations/linearity``
    and so on, are in ``trainer.callback_metrics``; with ``log_per_layer`` those of a layer are logged as
    ``activations.{measure}/{layer}`` (see :class:`lightning_tricks.ActivationRecord` for the measures), all at the
    step that they are of. At the end pictures and ``history.csv`` are written beside the logger's files, and the
    pictures to TensorBoard, W&B, MLflow, Comet and Neptune.

    Args:
        every_n_steps: Probe optimiser steps 0, 1, 2, 4, 8, ... up to this number, then at every multiple of it; None
            for the Trainer's ``log_every_n_steps``.
        layers: A glob, or several, of the names to show, such as ``"encoder.*"``.
        max_patterns: The most patterns (batch x space x time) per unit that are read; None for all.
        log_per_layer: Whether every layer's measures go to the loggers, beside the summaries of the whole model.

    Attributes:
        history: The snapshots of the probed steps, the oldest first.

    >>> ActivationMonitor(every_n_steps=100).history
    []
    """

    files = True
    prefix = "activations"

    def summary(self, snapshot: Snapshot) -> dict[str, float]:
        """Mean linearity, worst saturation, dead share and mean energy, and the ladder's last over first std.

        Where no unit saturates or dies, those shares are 0; the others have no value without hidden activations.
        """
        hidden = hidden_activations(snapshot)
        if "*" not in self.globs:  # chosen by hand: which of them are hidden, their weights cannot tell
            hidden = [record for record in snapshot.activations if record.patterns and not record.gate]
        known = [record.std for record in hidden if record.std > 0]
        return {
            "linearity": _mean([record.linearity for record in hidden]),
            "saturation": max(_known([record.saturation for record in hidden]), default=0.0),
            "dead_share": max(_known([record.dead_share for record in hidden]), default=0.0),
            "mean_energy": _largest([record.mean_energy for record in hidden]),
            "std_last_over_first": known[-1] / known[0] if known else math.nan,
        }

    def per_layer(self, snapshot: Snapshot) -> dict[str, float]:
        values: dict[str, float] = {}
        for record in snapshot.activations:
            values.update((f"{key}/{record.name}", value) for key, value in record.logged("activations").items())
        return {key: value for key, value in values.items() if not math.isnan(value)}

    def show(self, trainer: Any, folder: Path | None) -> None:
        if folder is None:
            return
        figures = {name: getattr(report, name) for name in ("ladder", "histograms_over_time", "dead_and_linear")}
        self.files_of_fit.save_pictures(trainer, figures, self.history, folder, self.shown)
        self.to_csv(folder / "history.csv")


def _known(values: list[float]) -> list[float]:
    return [value for value in values if not math.isnan(value)]


def _mean(values: list[float]) -> float:
    known = _known(values)
    return sum(known) / len(known) if known else math.nan


def _largest(values: list[float]) -> float:
    return max(_known(values), default=math.nan)
