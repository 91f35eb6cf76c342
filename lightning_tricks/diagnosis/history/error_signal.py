"""The error signal on its way back, from the last layer to the first."""

from __future__ import annotations

import functools
import math
from dataclasses import dataclass

import numpy as np

from lightning_tricks.diagnosis.history.remembered import remembered
from lightning_tricks.probes import Snapshot

# What a table and a picture show of it, and how it is to be read.
RELATIVE = (
    "norm of the error signal over that at the last layer",
    "at the first layer, a finding begins under 0.001 or over 100",
)
_INFINITE = math.inf
SUDDEN = 0.5  # share of the whole loss, in decades, at one layer: then that layer is the place


@dataclass(frozen=True)
class ErrorSignalByLayer:
    """Norm of the error signal of every weighted layer, in the order of execution.

    The norm over the whole output, not the mean over its elements: an early convolution spreads the same signal over a
    thousand positions. A call whose signal is exactly zero while another of the same weights has one leads into no
    loss by its values: a gradient penalty goes back through its slopes alone.
    """

    names: tuple[str, ...]
    norms: tuple[float, ...]

    @staticmethod
    @remembered
    def of(snapshot: Snapshot) -> ErrorSignalByLayer:
        layers = [record for record in snapshot.weighted if record.operation not in {"embedding", "embedding_bag"}]
        if len([record for record in layers if 0.0 < record.error_signal < _INFINITE]) < len(layers):
            layers = [record for record in layers if math.isfinite(record.error_signal)]
            reached = {record.weight for record in layers if record.weight is not None and record.error_signal > 0}
            layers = [record for record in layers if record.error_signal > 0 or record.weight not in reached]
        norms = tuple([record.error_signal * math.sqrt(record.elements) for record in layers])
        return ErrorSignalByLayer(tuple([record.name for record in layers]), norms)

    @functools.cached_property
    def ratio(self) -> float:
        """First layer over last layer; NaN for a single layer."""
        if len(self.norms) < 2 or not self.norms[-1] > 0:
            return math.nan
        return self.norms[0] / self.norms[-1]

    @functools.cached_property
    def relative(self) -> dict[str, float]:
        """Every layer over the last one, by name; empty where nothing comes to that one."""
        last = self.norms[-1] if self.norms else 0.0
        return {name: norm / last for name, norm in zip(self.names, self.norms, strict=True)} if last > 0 else {}

    @functools.cached_property
    def slope(self) -> float:
        """Decades the signal loses per layer on its way back (least squares over depth); negative where it grows."""
        norms = np.array(self.norms)
        depths = np.flatnonzero(norms > 0)
        if len(depths) < 2:
            return math.nan
        apart = depths - depths.sum() / len(depths)
        return float(apart @ np.log10(norms[depths]) / (apart @ apart))

    @property
    def place(self) -> str:
        """The layer at which more than half of the change happens, seen from the loss; else the first layer."""
        logs = [math.log10(max(norm, 1e-300)) for norm in self.norms]
        whole = logs[0] - logs[-1]
        layers = zip(self.names, logs, logs[1:], strict=False)
        sudden = [name for name, log, behind in layers if whole and (log - behind) / whole > SUDDEN]
        return [self.names[0], *sudden][-1]
