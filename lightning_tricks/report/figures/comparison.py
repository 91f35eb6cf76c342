"""Two trainings side by side."""

from __future__ import annotations

import math
import textwrap
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from lightning_tricks.probes import Snapshot
from lightning_tricks.report.figures import depth, style
from lightning_tricks.report.figures.gradient_flow import slope_text
from lightning_tricks.report.words import rounded

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_MOST_STEPS = 2


@style.drawing
def comparison(
    before: Sequence[Snapshot],
    after: Sequence[Snapshot],
    accuracy_before: Sequence[float] = (),
    accuracy_after: Sequence[float] = (),
    *,
    names: tuple[str, str] = ("first", "second"),
    title: str = "Two trainings side by side",
    chance: float | None = None,
) -> Figure:
    """Two trainings side by side: error signal by depth, spread of the pre-activations by depth, accuracy by epoch.

    Both columns share their axes, so heights can be compared across; layers are numbered in the order of execution.

    Args:
        before: The probed steps of the first network, drawn on the left.
        after: Those of the second.
        accuracy_before: Validation accuracy of the first network after each epoch, in [0, 1].
        accuracy_after: That of the second.
        names: What the two networks are called.
        title: The heading of the figure.
        chance: The accuracy of a guess, drawn as a line; None for none.
    """
    curves = [np.asarray(curve, np.float64) for curve in (accuracy_before, accuracy_after)]
    with_accuracy = any(curve.size for curve in curves)
    figure = style.new_figure(12.5 if with_accuracy else 9, 6)
    style.heading(
        figure,
        title,
        "Above: the error signal on its way back. Below: the spread of the pre-activations. Healthy and plain: flat.",
    )
    grid: Any = figure.add_gridspec(
        2, 3 if with_accuracy else 2, width_ratios=[1, 1, 0.95][: 3 if with_accuracy else 2]
    )
    ladders: list[list[Any]] = [[], []]
    for column, (history, name, colour) in enumerate(
        zip((before, after), names, (style.VERMILLION, style.BLUE), strict=True)
    ):
        for row, label in enumerate(_ROWS):
            shared = ladders[row][0] if column else None
            axes = figure.add_subplot(grid[row, column], sharey=shared)
            ladders[row].append(axes)
            (_error_signals if row == 0 else _spreads)(axes, history, colour)
            if row == 0:
                axes.set_title(_wrapped(name), color=colour, fontsize=12)
            if row == 0:
                axes.tick_params(labelbottom=False)
            if column == 0:
                axes.set_ylabel(label)
            else:
                axes.tick_params(labelleft=False)
    for shared_axes in ladders:
        style.log_axis(*shared_axes)
    if with_accuracy:
        _accuracies(figure.add_subplot(grid[:, 2]), curves, names, chance)
    return figure


_ROWS = ("error signal (over the last layer's)", "std of the pre-activations")


def _error_signals(axes: Any, history: Sequence[Snapshot], colour: str) -> None:
    layers = depth.names(history, depth.way_back)
    plain = any(map(depth.is_plain, history[-1:]))
    for snapshot, look in _shades(history, colour):
        signal = depth.positive(depth.error_signals(snapshot, layers))
        slope = slope_text(depth.Slope.of(signal)) if plain else ""
        axes.plot(np.arange(len(layers)), signal, label=f"step {snapshot.step}{slope}", **look)
    _finish(axes, history, layers, "slope: log10 per layer" if plain else None)


def _spreads(axes: Any, history: Sequence[Snapshot], colour: str) -> None:
    layers = depth.names(history, depth.trunk)
    for snapshot, look in _shades(history, colour):
        std = depth.positive(depth.measure(snapshot, depth.trunk, layers, "std"))
        axes.plot(np.arange(len(layers)), std, label=f"step {snapshot.step}", **look)
    axes.axhline(1, color=style.GREY, lw=1, ls=":")
    axes.set_xlabel("layer, from input to output")
    _finish(axes, history, layers, None)


def _shades(history: Sequence[Snapshot], colour: str) -> Iterator[tuple[Snapshot, dict[str, Any]]]:
    shown = depth.spread_out(history, _MOST_STEPS)
    for i, snapshot in enumerate(shown):
        last = i == len(shown) - 1
        yield (
            snapshot,
            {
                "color": colour,
                "alpha": 0.3 + 0.7 * (i + 1) / len(shown),
                "linewidth": 2.2 if last else 1.4,
                "marker": "o" if last else "",
            },
        )


def _finish(axes: Any, history: Sequence[Snapshot], layers: list[str], title: str | None) -> None:
    if history:
        depth.mark_nonfinite(axes, history[-1], layers)
        axes.legend(loc="best", fontsize=8, title=title, title_fontsize=8)
    step = max(1, math.ceil(len(layers) / 11))
    axes.set_xticks(range(0, len(layers), step), [str(k + 1) for k in range(0, len(layers), step)])
    axes.set_xlim(-0.6, max(len(layers), 1) - 0.4)


def _accuracies(axes: Any, curves: list[Any], names: tuple[str, str], chance: float | None) -> None:
    from matplotlib.ticker import MaxNLocator, PercentFormatter

    for curve, name, colour in zip(curves, names, (style.VERMILLION, style.BLUE), strict=True):
        if not curve.size:
            continue
        epochs = np.arange(1, curve.size + 1)
        known = np.flatnonzero(np.isfinite(curve))
        outcome = f"\n{rounded(curve[known[-1]], '.1%')} after epoch {epochs[known[-1]]}" if known.size else ""
        axes.plot(epochs, curve, "o-", color=colour, lw=2.2, label=_wrapped(name) + outcome)
    if chance is not None:
        axes.axhline(chance, color=style.GREY, lw=1.2, ls=":", label=f"a guess: {rounded(chance)}")
    axes.set_ylim(0, 1.02)
    axes.set_xlim(0.5, max(curve.size for curve in curves) + 0.5)
    if axes.get_legend_handles_labels()[0]:
        axes.legend(loc="best", fontsize=9.5, labelspacing=1)
    axes.set_title("validation accuracy", fontsize=12)
    axes.set_xlabel("epoch")
    axes.yaxis.set_major_formatter(PercentFormatter(1.0, decimals=0))
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))


def _wrapped(name: str) -> str:
    return textwrap.fill(name, 36)
