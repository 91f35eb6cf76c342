"""A picture of layers by looks: coloured cells in SVG, a key to the colours, and the numbers as a table."""

from __future__ import annotations

import bisect
import dataclasses
import math
from collections.abc import Callable, Sequence

from lightning_tricks.report.figures.style import ticks
from lightning_tricks.report.html.grid import Grid
from lightning_tricks.report.html.markup import Markup, join, tag

_TALLEST, _ROW, _NARROWEST = 420, 18, 1.4  # pixels: of a picture, of a layer at most, and at least
_MOST_NAMES = 24


@dataclasses.dataclass(frozen=True)
class Scale:
    """How numbers become colours: bounds between levels, and whether the middle level is the pale one.

    Args:
        bounds: Of the levels, rising.
        kind: ``"s"``: the first level is pale, the last dark; ``"d"``: pale in the middle, blue below, orange above;
            ``"r"``: as s, the other way round.
    """

    bounds: tuple[float, ...]
    kind: str = "s"

    def level(self, value: float) -> str:
        """The class of the colour of a number."""
        return f"{self._kind}{self._turned(bisect.bisect_right(self.bounds, value))}"

    @property
    def _kind(self) -> str:
        return "d" if self.kind == "d" else "s"

    def _turned(self, index: int) -> int:
        return len(self.bounds) - index if self.kind == "r" else index

    def key(self, write: Callable[[float], str]) -> Markup:
        """Every colour with the numbers that it stands for."""
        ends = [f"under {write(self.bounds[0])}"]
        ends += [f"to {write(bound)}" for bound in self.bounds[1:]]
        ends += [f"{write(self.bounds[-1])} and more"]
        colours = [tag("li", tag("i", class_=f"{self._kind}{self._turned(k)}"), text) for k, text in enumerate(ends)]
        return tag("ul", colours, class_="key", aria_label="Colours")


def picture(grid: Grid, values: Sequence[Sequence[float]], scale: Scale, name: str, marks: Sequence[int]) -> Markup:
    """The coloured cells, with names of layers beside and steps below."""
    rows, columns = len(values), len(grid.steps)
    height = max(min(_TALLEST / max(rows, 1), _ROW), _NARROWEST) * rows
    paths = [tag("path", class_=level, d=path) for level, path in sorted(_paths(grid, values, scale).items())]
    drawn = tag(
        "svg",
        paths,
        view_box=f"0 0 {columns} {rows}",
        preserve="none",
        role="img",
        aria_label=_described(grid, values, name),
        style=f"height:{height:.0f}px",
    )
    room = max(min(_MOST_NAMES, int(height / 14)), 1)
    sick = [j for j in range(rows) if j in set(marks)]
    named = sorted({*ticks(rows, room)}) if rows else []
    beside = [
        tag("span", grid.labels[j], style=f"top:{100 * (j + 0.5) / rows:.2f}%", class_="sick" if j in sick else None)
        for j in named
    ]
    signs = [tag("i", style=f"top:{100 * (j + 0.5) / rows:.2f}%", title="a finding names this layer") for j in sick]
    below = [
        tag("span", grid.steps[i], style=f"left:{100 * (i + 0.5) / columns:.2f}%") for i in ticks(columns, min(6, columns))
    ]
    return tag(
        "div",
        tag("div", beside, class_="names", aria_hidden="true"),
        tag("div", signs, class_="signs", aria_hidden="true"),
        drawn,
        tag("div", below, class_="steps", aria_hidden="true"),
        class_="heat",
    )


def table(grid: Grid, values: Sequence[Sequence[float]], write: Callable[[float], str], caption: str) -> Markup:
    """The same numbers, with a heading for every row and column; closing tags that HTML does without are left out."""
    head = "".join(f"<th scope=col>{step}" for step in grid.steps)
    lines = []
    for j, numbers in enumerate(values):
        cells = "".join(
            f"<td>{'NaN' if (j, i) in grid.broken and math.isnan(v) else '' if math.isnan(v) else write(v).strip()}"
            for i, v in enumerate(numbers)
        )
        lines.append(f"<tr><th scope=row>{join([grid.labels[j]])}{cells}")
    whole = Markup(
        f"<table>{tag('caption', caption)}<thead><tr><th scope=col>layer{head}<tbody>{''.join(lines)}</table>"
    )
    return tag("div", whole, class_="scroll", tabindex=0, role="region", aria_label=caption)


def _paths(grid: Grid, values: Sequence[Sequence[float]], scale: Scale) -> dict[str, str]:
    """Of every colour one path of horizontal strokes: neighbours in a row that share a colour are one stroke."""
    found: dict[str, list[str]] = {}
    for j, numbers in enumerate(values):
        levels = ["nan" if (j, i) in grid.broken else _level(v, scale) for i, v in enumerate(numbers)]
        start = 0
        for i in range(1, len(levels) + 1):
            if i == len(levels) or levels[i] != levels[start]:
                if levels[start]:
                    found.setdefault(levels[start], []).append(f"M{start} {j}.5h{i - start}")
                start = i
    return {level: "".join(strokes) for level, strokes in found.items()}


def _level(value: float, scale: Scale) -> str:
    return "" if math.isnan(value) else scale.level(value)


def _described(grid: Grid, values: Sequence[Sequence[float]], name: str) -> str:
    known = [v for row in values for v in row if math.isfinite(v)]
    reach = f", from {min(known):.3g} to {max(known):.3g}" if known else ", no number"
    return f"{name}: {len(values)} layers by {len(grid.steps)} looks{reach}; the same numbers are in the table below"
