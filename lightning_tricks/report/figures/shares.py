"""Dead, linear and saturated units by layer and step."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from lightning_tricks.probes import ActivationRecord, Snapshot
from lightning_tricks.report.figures import depth, style
from lightning_tricks.report.layers import is_constant

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_PANELS = {
    "dead_share": "dead units\n(on < 1 % of patterns, or constant)",
    "linear_share": "linear units\n(linearity > 0.99)",
    "saturation": "saturation\n(patterns on a flat side)",
}
_SUBTITLE = "Linear units are normal up to a point: only whole layers near 100 % matter. The others: pale is healthy."
_BROKEN = 2.0  # over every share: NaN or Inf in the layer


@style.drawing
def dead_and_linear(history: Sequence[Snapshot]) -> Figure:
    """Share of dead units, of linear units, and saturation: images of layers by probed steps.

    Units that give the same for every pattern are dead, whatever their activation, and as linear as any; a layer with
    NaN or Inf is black. Rectifiers are flat on one side by design, so their saturation is left out, as in the text
    table, and a measure that applies to no layer has no panel.

    Args:
        history: The probed steps.
    """
    activations = {record.name: record.order for snapshot in history for record in snapshot.activations}
    layers = [name for name in depth.names(history, depth.trunk) if name in activations]
    images: dict[str, Any] = {}
    for field in _PANELS:
        columns = [[_share(snapshot.activation(name), field) for name in layers] for snapshot in history]
        image = np.array(columns, np.float64).reshape(len(columns), len(layers)).T
        if np.isfinite(image).any():
            images[field] = image
    if not images:
        return style.note("No activation was looked at yet.")
    figure = style.new_figure(max(3.1 * len(images) + 2.2, 7), min(max(2.6 + 0.17 * len(layers), 3.4), 8))
    style.heading(figure, "Dead, linear and saturated units", _SUBTITLE)
    grid = figure.subplots(1, len(images), squeeze=False, sharey=True)[0]
    drawn: Any = None
    for axes, (field, image) in zip(grid, images.items(), strict=True):
        drawn = axes.imshow(image, cmap=style.share_map(), vmin=0, vmax=1, aspect="auto", origin="upper")
        axes.set_title(_PANELS[field], fontsize=10)
        axes.set_xlabel("probed step")
        axes.grid(visible=False)
        style.name_steps(axes, [snapshot.step for snapshot in history], room=6)
    style.name_layers(grid[0], layers, along="y")
    grid[0].set_ylabel("layer, the first on top")
    broken = "; black: NaN or Inf" if any((image == _BROKEN).any() for image in images.values()) else ""
    figure.colorbar(drawn, ax=grid, label=f"share (grey: does not apply{broken})")
    return figure


def _share(record: ActivationRecord | None, field: str) -> float:
    """What is drawn of a layer: the sicker it is, the fuller its colour."""
    if record is None:
        return math.nan
    if record.nonfinite:
        return _BROKEN
    if field == "saturation" and not math.isnan(record.activity):
        return math.nan
    value = float(getattr(record, field))
    constant = is_constant(record)
    if field == "dead_share" and math.isnan(value) and not math.isnan(record.variation):
        return float(constant)
    return 1.0 if field == "linear_share" and math.isnan(value) and constant else value
