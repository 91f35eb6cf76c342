"""One look for all figures, defined here only: colours, type, axes of layers and steps."""

from __future__ import annotations

import functools
import math
import pathlib
import textwrap
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, TypeVar, cast

import numpy as np

from lightning_tricks.report.files import replaced
from lightning_tricks.report.names import distinct

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.colors import Colormap
    from matplotlib.figure import Figure

# Okabe & Ito 2008: told apart with every kind of colour blindness.
BLUE, VERMILLION, GREEN, ORANGE, SKY, PURPLE = "#0072B2", "#D55E00", "#009E73", "#E69F00", "#56B4E9", "#CC79A7"
INK, GREY, FAINT = "#222222", "#777777", "#DDDDDD"
FIRST, LAST = ORANGE, BLUE
_STYLE = {
    "figure.facecolor": "white",
    "axes.facecolor": "white",
    "savefig.facecolor": "white",
    "font.size": 10,
    "axes.titlesize": 11,
    "axes.titlelocation": "left",
    "axes.titleweight": "bold",
    "axes.titlepad": 8,
    "axes.labelsize": 10,
    "axes.labelcolor": INK,
    "axes.edgecolor": GREY,
    "axes.linewidth": 0.8,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": "#E6E6E6",
    "grid.linewidth": 0.7,
    "xtick.color": GREY,
    "ytick.color": GREY,
    "xtick.labelcolor": INK,
    "ytick.labelcolor": INK,
    "xtick.labelsize": 8.5,
    "ytick.labelsize": 8.5,
    "legend.frameon": False,
    "legend.fontsize": 9,
    "lines.linewidth": 1.8,
    "lines.markersize": 4,
    "text.color": INK,
    "image.interpolation": "nearest",
}
_DPI = 150
_MOST_LETTERS = 22
_MOST_MARKERS = 40
D = TypeVar("D", bound=Callable[..., Any])


def drawing(draw: D) -> D:
    """A function that draws, given the common look; a clear error where matplotlib is missing."""

    @functools.wraps(draw)
    def drawn(*args: Any, **kwargs: Any) -> Any:
        try:
            import matplotlib
        except ImportError as error:
            raise ImportError(
                f"{draw.__name__} needs matplotlib, which is not installed: pip install 'lightning-tricks[plots]'"
            ) from error
        history = args[0] if args else kwargs.get("history")
        if isinstance(getattr(history, "history", None), list):
            kind = type(history).__name__
            raise TypeError(f"{draw.__name__} draws a list of snapshots, got {kind}: give its history")
        with matplotlib.rc_context(cast("dict[Any, Any]", _STYLE)):
            return draw(*args, **kwargs)

    return cast(D, drawn)


def save(figure: Figure, path: pathlib.Path) -> None:
    """Write a figure as PNG: drawn once, where ``Figure.savefig`` draws what has a layout twice."""
    import matplotlib.image
    from matplotlib.backends.backend_agg import FigureCanvasAgg

    with matplotlib.rc_context(cast("dict[Any, Any]", _STYLE)):
        canvas = FigureCanvasAgg(figure)
        canvas.draw()
        with replaced(path) as part:
            matplotlib.image.imsave(part, np.asarray(canvas.buffer_rgba()), dpi=figure.dpi)


def new_figure(width: float, height: float) -> Figure:
    """An empty figure that belongs to no window and to no global state, in inches."""
    from lightning_tricks.report.figures.shown import ShownFigure

    return ShownFigure(figsize=(width, height), dpi=_DPI, layout="constrained")


def heading(figure: Figure, title: str, subtitle: str) -> None:
    """What the figure is, and below it what to look for."""
    from matplotlib.transforms import ScaledTranslation

    # The layout keeps room for the title only, so the title has empty lines below, which the subtitle is put on.
    width = figure.get_figwidth()
    title = textwrap.fill(title, int(9.5 * width))
    subtitle = textwrap.fill(subtitle, int(13.5 * width))
    empty = "\n " * (subtitle.count("\n") + 1)
    figure.suptitle(f"{title}{empty}", x=0.008, ha="left", fontsize=13, fontweight="bold")
    below = figure.transFigure + ScaledTranslation(0, -(6 + 16 * (title.count("\n") + 1)) / 72, figure.dpi_scale_trans)
    figure.text(0.008, 1, subtitle, transform=below, va="top", fontsize=10, color="#555555", in_layout=False)


def note(message: str) -> Figure:
    """A figure that says why there is nothing to draw."""
    figure = new_figure(6, 2)
    figure.text(0.5, 0.5, message, ha="center", va="center", color=GREY)
    return figure


def sequence(count: int) -> list[Any]:
    """So many colours from early (light) to late (dark): the end of training is what counts."""
    from matplotlib import colormaps

    return [colormaps["viridis_r"](0.12 + 0.8 * i / max(count - 1, 1)) for i in range(count)]


def stroke(i: int, count: int, layers: int) -> dict[str, Any]:
    """Line ``i`` of ``count``: earlier ones broader, to be seen below later ones on top; markers for few layers."""
    earlier = (count - 1 - i) / max(count - 1, 1)
    marked = layers <= _MOST_MARKERS
    return {"linewidth": 1.6 + 2.6 * earlier, "marker": "o" if marked else "", "markersize": 3.5 + 3.5 * earlier}


def share_map() -> Colormap:
    """For shares from 0 (pale) to 1 (dark): its lightness falls steadily, so it also reads in grey."""
    from matplotlib.colors import LinearSegmentedColormap

    colours = ["#F7F4EF", "#FBD9A5", "#F0A35E", VERMILLION, "#8C2D04", "#3F1200"]
    return LinearSegmentedColormap.from_list("share", colours).with_extremes(bad="#E3E7EA", over="#000000")


def name_layers(axes: Axes, names: Sequence[str], along: str = "x", room: int = 26) -> None:
    """At most ``room`` layer names as ticks, the first and the last among them; turned where they are long."""
    at = ticks(len(names), room)
    labels = distinct([names[i] for i in at], _MOST_LETTERS)
    if along == "x":
        crowded = max(map(len, labels), default=0) * len(labels) > 3.5 * room
        axes.set_xticks(at, labels, rotation=90 if crowded else 0)
        axes.set_xlim(-0.6, max(len(names) - 0.4, 0.6))
    else:
        axes.set_yticks(at, labels)


def ticks(count: int, room: int) -> list[int]:
    """Positions among ``count`` at an even distance, at most ``room``, with the first and the last.

    >>> ticks(5, 10), ticks(100, 4), ticks(20, 12)
    ([0, 1, 2, 3, 4], [0, 33, 66, 99], [0, 2, 4, 6, 8, 10, 12, 14, 16, 19])
    """
    if count <= room:
        return list(range(count))
    apart = math.ceil((count - 1) / (room - 1))
    even = list(range(0, count, apart))
    if even[-1] != count - 1:
        # the last takes the place of its neighbour where both would not be legible
        even = [*(even[:-1] if count - 1 - even[-1] < 0.7 * apart else even), count - 1]
    return even


def name_steps(axes: Axes, steps: Sequence[int], room: int = 8) -> None:
    """Probed steps as ticks; they lie side by side, however far apart they were."""
    at = ticks(len(steps), room)
    axes.set_xticks(at, [str(steps[i]) for i in at])


def log_axis(*shared: Axes) -> None:
    """A log axis upwards for axes that share it, of at least two decades; a note where nothing was measured."""
    for axes in shared:
        if not _heights(axes):
            axes.text(0.5, 0.5, "not measured", transform=axes.transAxes, ha="center", va="center", color=GREY)
    values = [y for axes in shared for y in _heights(axes)]
    if not values:
        shared[0].set_yticks([])
        return
    low, high = min(values), max(values)
    middle = float(np.sqrt(low) * np.sqrt(high))
    shared[0].set_yscale("log")
    shared[0].set_ylim(min(low / 1.7, middle / 10), max(high * 1.7, middle * 10))


def _heights(axes: Axes) -> list[float]:
    lines = [
        np.asarray(line.get_ydata(), np.float64)
        for line in axes.get_lines()
        if not str(line.get_label()).startswith("_")
    ]
    return [float(y) for line in lines for y in line if y > 0 and np.isfinite(y)]
