"""Dead, linear and saturated units by layer and step."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from lightning_tricks.probes import Snapshot
from lightning_tricks.report.figures import depth, style

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_PANELS = {
    "dead_share": "dead units\n(active on < 1 % of patterns)",
    "linear_share": "linear units\n(linearity > 0.99)",
    "saturation": "saturation\n(patterns on a flat side)",
}
_SUBTITLE = "Linear units are normal up to a point: only whole layers near 100 % matter. The others: pale is healthy."


@style.drawing
def dead_and_linear(history: Sequence[Snapshot]) -> Figure:
    """Share of dead units, of linear units, and saturation: images of layers by probed steps.

    A measure that applies to no layer (dead units without a hard zero) has no panel. Rectifiers are flat on one side by
    design, so their saturation is left out, as in the text table.

    Args:
        history: The probed steps.
    """
    activations = {record.name: record.order for snapshot in history for record in snapshot.activations}
    layers = [name for name in depth.names(history, depth.trunk) if name in activations]
    images: dict[str, Any] = {}
    for field in _PANELS:
        columns = [depth.measure(snapshot, depth.trunk, layers, field) for snapshot in history]
        if field == "saturation":
            rectifiers = [np.isfinite(depth.measure(snapshot, depth.trunk, layers, "activity")) for snapshot in history]
            columns = [np.where(r, np.nan, c) for r, c in zip(rectifiers, columns, strict=True)]
        image = np.stack(columns, axis=1) if columns else np.empty((0, 0))
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
    figure.colorbar(drawn, ax=grid, label="share (grey: not measurable or does not apply)")
    return figure
