"""How the distribution of the pre-activations moves in training."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from lightning_tricks.diagnosis.diagnosis import called
from lightning_tricks.probes import Snapshot
from lightning_tricks.report.figures import depth, style
from lightning_tricks.report.names import distinct

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_INTERVALS = 34  # two open ends and 32 of width 1/4 between -4 and 4
_LEAST = 1e-3  # shares below are drawn as the faintest colour: one pattern in a thousand


@style.drawing
def histogram_over_time(history: Sequence[Snapshot], layer: str) -> Figure:
    """The histogram of one layer's pre-activations as an image: a column per probed step, a row per interval.

    Args:
        history: The probed steps.
        layer: The recorded name of an activation.

    Raises:
        ValueError: No activation of that name was recorded.
    """
    image = histogram_image(history, layer)
    if not np.isfinite(image).any():
        known = list(dict.fromkeys(record.name for snapshot in history for record in snapshot.activations))
        raise ValueError(f"no histogram of an activation named {layer!r}; recorded are: {', '.join(known) or 'none'}")
    figure = style.new_figure(8, 4.2)
    style.heading(
        figure,
        f"Pre-activations of {called(layer)} in training",
        "Share of patterns (colour, log) by a less its unit's mean.",
    )
    axes = figure.subplots()
    drawn = _draw(axes, image, [snapshot.step for snapshot in history], room=12)
    axes.set_ylabel("a − mean of the unit")
    axes.set_xlabel("probed step")
    figure.colorbar(drawn, ax=axes, label="share of patterns", extend="min")
    return figure


@style.drawing
def histograms_over_time(history: Sequence[Snapshot], layers: Sequence[str] | None = None, most: int = 12) -> Figure:
    """The same image for several layers, in the order of execution.

    Args:
        history: The probed steps.
        layers: Recorded names; None takes at most ``most`` evenly over the depth, the first and the last among them.
        most: The most layers when none are named.
    """
    if layers is None:
        every = [
            name for name in depth.names(history, depth.trunk) if np.isfinite(histogram_image(history, name)).any()
        ]
        layers = [every[i] for i in style.ticks(len(every), most)]
    if not layers:
        return style.note("No activation was looked at yet.")
    columns = min(len(layers), 4 if len(layers) > 6 else 3)
    rows = math.ceil(len(layers) / columns)
    figure = style.new_figure(max(2.7 * columns + 1.2, 7), 1.9 * rows + 1.1)
    style.heading(
        figure,
        "Pre-activations in training, by layer",
        "Less each unit's mean. Colour: share of patterns (log). Healthy: a band that does not collapse.",
    )
    grid = figure.subplots(rows, columns, squeeze=False, sharex=True, sharey=True)
    drawn: Any = None
    titles = distinct([called(layer) for layer in layers], 28)
    for axes, layer, title in zip(grid.flat, layers, titles, strict=False):
        drawn = _draw(axes, histogram_image(history, layer), [snapshot.step for snapshot in history])
        axes.set_title(title, fontsize=9.5)
    for axes in grid.flat[len(layers) :]:
        axes.set_visible(False)
    for axes in grid[:, 0]:
        axes.set_ylabel("a − mean")
    for i in range(columns):  # the lowest visible image of each column carries the steps
        lowest = grid[(len(layers) - 1 - i) // columns, i]
        lowest.set_xlabel("probed step")
        lowest.tick_params(labelbottom=True)
    figure.colorbar(drawn, ax=grid, label="share of patterns", extend="min", aspect=30)
    return figure


def histogram_image(history: Sequence[Snapshot], layer: str) -> depth.Values:
    """Shares ``[34 intervals, snapshots]`` of centred pre-activations; a column of NaN where the layer did not run."""
    image = np.full((_INTERVALS, len(history)), np.nan)
    for column, snapshot in enumerate(history):
        record = snapshot.activation(layer)
        shares = () if record is None else record.centred or record.histogram  # the latter of an older history
        if len(shares) == _INTERVALS:
            image[:, column] = shares
    return image


def _draw(axes: Axes, image: depth.Values, steps: Sequence[int], room: int = 5) -> Any:
    from matplotlib.colors import LogNorm

    shown = np.where(np.isnan(image), np.nan, np.maximum(image, _LEAST))
    drawn = axes.imshow(
        shown,
        cmap=style.share_map(),
        norm=LogNorm(_LEAST, 1.0),
        aspect="auto",
        origin="lower",
        extent=(-0.5, len(steps) - 0.5, -4.25, 4.25),
    )
    axes.set_yticks([-4.12, -2, 0, 2, 4.12], ["< −4", "−2", "0", "2", "> 4"])
    style.name_steps(axes, steps, room)
    axes.grid(visible=False)
    return drawn
