"""GradientFlowMonitor: how the error signal comes back, and what the updates do."""

from __future__ import annotations

import math
import statistics
from pathlib import Path
from typing import Any

from lightning_tricks import report
from lightning_tricks.callbacks.monitoring.monitor import Monitor
from lightning_tricks.diagnosis.history.error_signal import ErrorSignalByLayer
from lightning_tricks.probes import Snapshot


class GradientFlowMonitor(Monitor):
    """Logs error signals, gradients, transmission, update ratio, update coherence and mean drift of every layer.

    Gradients are read once per optimiser step: after accumulation, reduction over ranks and unscaling, before
    clipping. Error signals have the scale of the joint batch. Summaries of the whole model,
    ``gradients/first_over_last`` and so on, are in ``trainer.callback_metrics``; with ``log_per_layer`` those of a
    layer are logged as ``gradients.{measure}/{layer}``, all at the step that they are of. At the end a picture and
    ``history.csv`` are written beside the logger's files.

    Args:
        every_n_steps: Probe optimiser steps 0, 1, 2, 4, 8, ... up to this number, then at every multiple of it; None
            for the Trainer's ``log_every_n_steps``.
        layers: A glob, or several, of the names to show, such as ``"encoder.*"``.
        max_patterns: The most patterns (batch x space x time) per unit that are read; None for all.
        log_per_layer: Whether every layer's measures go to the loggers, beside the summaries of the whole model.

    Attributes:
        history: The snapshots of the probed steps, the oldest first.

    >>> GradientFlowMonitor(layers=["encoder.*", "head"]).history
    []
    """

    files = True
    prefix = "gradients"

    def summary(self, snapshot: Snapshot) -> dict[str, float]:
        """The ladder's first over last error signal and its slope; the extremes of transmission, update and drift."""
        signal = ErrorSignalByLayer.of(snapshot)
        gradients = [(r.gradient, math.prod(r.shape)) for r in snapshot.parameters if not math.isnan(r.gradient)]
        ratios = [r.update_ratio for r in snapshot.parameters if r.update_ratio > 0]
        return {
            "first_over_last": signal.ratio,
            "decades_lost_per_layer": signal.slope,
            "norm": math.sqrt(sum(rms * rms * count for rms, count in gradients)) if gradients else math.nan,
            "transmission": min((r.transmission for r in snapshot.activations), default=math.nan),
            "update_ratio": statistics.median(ratios) if ratios else math.nan,
            "mean_drift": max((r.mean_drift for r in snapshot.parameters if r.mean_drift >= 0), default=math.nan),
        }

    def per_layer(self, snapshot: Snapshot) -> dict[str, float]:
        values: dict[str, float] = {}
        for record in (*snapshot.weighted, *snapshot.activations, *snapshot.parameters):
            values.update((f"{key}/{record.name}", value) for key, value in record.logged("gradients").items())
        return {key: value for key, value in values.items() if not math.isnan(value)}

    def show(self, trainer: Any, folder: Path | None) -> None:
        if folder is not None:
            figures = {"gradient_flow": report.gradient_flow}
            self.files_of_fit.save_pictures(trainer, figures, self.history, folder, self.shown)
            self.to_csv(folder / "history.csv")
