"""The error signal and the gradients by depth."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from lightning_tricks.probes import Snapshot
from lightning_tricks.report.figures import depth, style

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_MOST_STEPS = 5


@style.drawing
def gradient_flow(history: Sequence[Snapshot]) -> Figure:
    """The error signal and the gradient of the weights of every weighted layer by depth, at up to five steps.

    The error signal is the norm over a layer's whole output, the gradient the RMS over a weight's entries. Beside each
    step stands the least-squares slope of log10 of the error signal over depth: where it is positive, the signal fades
    by that many powers of ten per layer on its way back to the first layer.

    Args:
        history: The probed steps.

    Returns:
        A figure with two axes, error signal and gradient; one line per step.
    """
    layers = depth.names(history, depth.way_back)
    if not layers:
        return style.note("No layer was looked at yet.")
    figure = style.new_figure(9, 6.4)
    style.heading(
        figure,
        "The way back: error signal and gradient by depth",
        "Healthy: nearly flat. Lower towards the first layer: it vanishes. Higher: it explodes.",
    )
    above, below = figure.subplots(2, 1, sharex=True)
    x = np.arange(len(layers))
    shown = depth.spread_out(history, _MOST_STEPS)
    for i, (snapshot, colour) in enumerate(zip(shown, style.sequence(len(shown)), strict=True)):
        stroke = style.stroke(i, len(shown), len(layers))
        signal = depth.positive(depth.error_norms(snapshot, layers))
        label = f"step {snapshot.step}{slope_text(depth.Slope.of(signal))}"
        above.plot(x, signal, color=colour, label=label, **stroke)
        gradient = depth.positive(depth.weight_gradients(snapshot, layers))
        below.plot(x, gradient, color=colour, label=label, **stroke)
    last = depth.error_norms(shown[-1], layers)
    fit = depth.Slope.of(last)
    if fit is not None:
        along = np.flatnonzero(last > 0)[[0, -1]]
        above.plot(along, fit.at(along), "--", color=style.INK, lw=1, label=f"fitted at step {shown[-1].step}")
    depth.mark(above, np.flatnonzero(last == 0), style.GREY, f"exactly 0 at step {shown[-1].step}")
    for axes, name in ((above, "error signal\n(norm, log)"), (below, "gradient of the weights\n(RMS, log)")):
        depth.mark_nonfinite(axes, shown[-1], layers)
        style.log_axis(axes)
        axes.set_ylabel(name)
    above.legend(loc="center left", bbox_to_anchor=(1.0, 0.5), title="slope: log10 per layer")
    below.set_xlabel("layer, in the order of execution")
    style.name_layers(below, layers)
    return figure


def slope_text(fit: depth.Slope | None) -> str:
    """``": +0.79"``, or nothing where no line fits."""
    return "" if fit is None else f": {fit.per_layer:+.2f}"
