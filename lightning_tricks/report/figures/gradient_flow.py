"""The error signal and the gradients by depth."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from lightning_tricks.diagnosis.rules import exploding_gradient, vanishing_gradient
from lightning_tricks.probes import Snapshot
from lightning_tricks.report.figures import depth, healthy, style
from lightning_tricks.report.words import rounded

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_MOST_STEPS = 5


@style.drawing
def gradient_flow(history: Sequence[Snapshot]) -> Figure:
    """The error signal and the gradient of the weights of every weighted layer by depth, at up to five steps.

    The error signal is the norm over a layer's whole output, over that at the last layer: the number that table and
    findings tell. The gradient is the RMS over a weight's entries. Shaded is where nine in ten healthy networks of this
    kind lie (``healthy.py``), as far as any was measured; beyond the dotted lines a finding begins. In a plain stack of
    layers lines join them, and each step has the least-squares slope of log10 of the error signal over depth beside it:
    where it is positive, the signal fades by that many powers of ten per layer on its way back to the first layer.

    Args:
        history: The probed steps.

    Returns:
        A figure with two axes, error signal and gradient; one line, or row of points, per step.
    """
    layers = depth.names(history, depth.way_back)
    if not layers:
        return style.note("No layer was looked at yet.")
    shown = depth.spread_out(history, _MOST_STEPS)
    kind = next((each for each in map(healthy.kind_of, shown) if each == "plain"), healthy.kind_of(shown[-1]))
    plain = kind == "plain"
    figure = style.new_figure(9, 6.4)
    style.heading(
        figure,
        "The way back: error signal and gradient by depth",
        f"Green: 9 in 10 healthy {healthy.NAMES[kind]}. Below the lower dots the signal vanishes, above the upper "
        "one it explodes."
        if len(layers) > 1
        else "Of one layer: nothing is lost on a way to it.",
    )
    above, below = figure.subplots(2, 1, sharex=True)
    x = np.arange(len(layers))
    for i, (snapshot, colour) in enumerate(zip(shown, style.sequence(len(shown)), strict=True)):
        stroke = style.stroke(i, len(shown), len(layers))
        if not plain:  # what follows in the order of execution, as q, k and v, need not follow in the network
            stroke |= {"linestyle": "", "marker": "o"}
        signal = depth.positive(depth.error_signals(snapshot, layers))
        label = f"step {snapshot.step}{slope_text(depth.Slope.of(signal)) if plain else ''}"
        above.plot(x, signal, color=colour, label=label, **stroke)
        gradient = depth.positive(depth.weight_gradients(snapshot, layers))
        below.plot(x, gradient, color=colour, label=label, **stroke)
    last = depth.error_signals(shown[-1], layers)
    fit = depth.Slope.of(last) if plain else None
    if fit is not None:
        along = np.flatnonzero(last > 0)[[0, -1]]
        above.plot(along, fit.at(along), "--", color=style.INK, lw=1, label=f"fitted at step {shown[-1].step}")
    depth.mark(above, np.flatnonzero(last == 0), style.GREY, f"exactly 0 at step {shown[-1].step}")
    for axes, name in (
        (above, "error signal\n(over the last layer's, log)"),
        (below, "gradient of the weights\n(RMS, log)"),
    ):
        depth.mark_nonfinite(axes, shown[-1], layers)
        style.log_axis(axes)
        axes.set_ylabel(name)
    if np.isfinite(last).any() and len(layers) > 1:
        _bounds(above, kind, len(layers))
    above.legend(loc="center left", bbox_to_anchor=(1.0, 0.5), title="slope: log10 per layer" if plain else None)
    below.set_xlabel("layer, in the order of execution")
    style.name_layers(below, layers)
    return figure


def _bounds(axes: Axes, kind: healthy.Kind, layers: int) -> None:
    """What healthy networks show, and from where on it is a finding."""
    x, bounds = np.arange(layers), axes.get_ylim()
    low, high = healthy.band(kind, layers)
    axes.fill_between(x, low, high, color=style.GREEN, alpha=0.15, lw=0, label="9 in 10 healthy")
    least, most = no_finding(layers)
    for line in (least, most):
        label = "a finding begins" if line is least else None
        axes.plot(x, line, ":", color=style.GREY, lw=1.2, marker="", label=label)
    axes.set_ylim(min(bounds[0], least[0] / 3), max(bounds[1], most[0] * 3))


def no_finding(layers: int) -> tuple[depth.Values, depth.Values]:
    """Between what bounds the error signal of every layer, over that at the last one, is no finding.

    The rules ask for a change of a size and for a slope, so that a deep network may lose more on the whole.

    >>> low, high = no_finding(60)
    >>> [f"{low[0]:.1g}", f"{low[-1]:.1g}", f"{high[0]:.1g}", f"{high[-1]:.1g}"]
    ['1e-06', '0.001', '8e+05', '1e+02']
    """
    way = np.arange(layers - 1, -1, -1.0)
    low = np.minimum(vanishing_gradient.LIMITS.vanished, 10.0 ** (-vanishing_gradient.LIMITS.steep * way))
    return low, np.maximum(exploding_gradient.LIMITS.exploded, 10.0 ** (exploding_gradient.LIMITS.steep * way))


def slope_text(fit: depth.Slope | None) -> str:
    """``": +0.79"``, or nothing where no line fits."""
    return "" if fit is None else f": {rounded(fit.per_layer, '+.2f')}"
