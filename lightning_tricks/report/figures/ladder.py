"""Mean and spread of the pre-activations, layer by layer."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from lightning_tricks.probes import Snapshot
from lightning_tricks.report.figures import depth, style

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_FAR = 30.0  # a mean or spread beyond this would flatten everything else on a linear axis


@style.drawing
def ladder(history: Sequence[Snapshot]) -> Figure:
    """Mean +- std of the pre-activations by depth, and the std alone on a log axis, at the first and the last step.

    Args:
        history: The probed steps.

    Returns:
        A figure with two axes; the lines are labelled with their step.
    """
    layers = depth.names(history, depth.trunk)
    if not layers:
        return style.note("No layer was looked at yet.")
    figure = style.new_figure(9, 6)
    style.heading(
        figure,
        "Pre-activations, layer by layer",
        "Healthy: the mean stays near 0, and the spread neither fades nor grows, from the first layer to the last.",
    )
    above, below = figure.subplots(2, 1, sharex=True, height_ratios=(3, 2))
    x = np.arange(len(layers))
    furthest = 0.0
    ends = [history[0]] if len(history) == 1 else [history[0], history[-1]]
    for i, (snapshot, colour) in enumerate(zip(ends, (style.FIRST, style.LAST), strict=False)):
        stroke = style.stroke(i, len(ends), len(layers))
        mean = depth.measure(snapshot, depth.trunk, layers, "mean")
        std = depth.measure(snapshot, depth.trunk, layers, "std")
        label = f"step {snapshot.step}"
        above.plot(x, mean, color=colour, label=label, **stroke)
        above.fill_between(x, mean - std, mean + std, color=colour, alpha=0.22, lw=0)
        if len(layers) == 1:  # a band of one layer has no width
            above.errorbar(x, mean, std, color=colour, capsize=4)
        below.plot(x, depth.positive(std), color=colour, label=label, **stroke)
        reach = np.abs(np.stack([mean - std, mean + std]))
        furthest = max(furthest, float(np.nanmax(reach, initial=0.0)))
    for axes in (above, below):
        depth.mark_nonfinite(axes, ends[-1], layers)
    above.axhline(0, color=style.GREY, lw=1, ls=":")
    if furthest > _FAR:
        above.set_yscale("symlog", linthresh=1)
        above.yaxis.get_major_locator().set_params(numticks=7)
    above.set_ylabel("mean ± std of a")
    above.legend(loc="lower right", bbox_to_anchor=(1, 1), ncols=3)
    below.axhline(1, color=style.GREY, lw=1, ls=":")
    style.log_axis(below)
    below.set_ylabel("std of a (log)")
    below.set_xlabel("layer, in the order of execution")
    style.name_layers(below, layers)
    return figure
