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
_LETTERS = 27  # below a picture, on a phone
_BROAD = 6  # columns up to which each has room for its step


@dataclasses.dataclass(frozen=True)
class Scale:
    """How numbers become colours: bounds between levels, and which level is the faint one.

    Args:
        bounds: Of the levels, rising.
        kind: ``"s"``: from faint to strong; ``"d"``: faint in the middle, blue below, orange above;
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


@dataclasses.dataclass(frozen=True)
class Cells:
    """The numbers of a measure, and of each cell without one what is said instead."""

    grid: Grid
    values: Sequence[Sequence[float]]
    scale: Scale
    write: Callable[[float], str]
    constant: bool  # whether the measure has no number where an output is the same for every pattern

    def level(self, j: int, i: int) -> str:
        """The class of a cell's colour; empty where the measure does not apply."""
        if not math.isnan(self.values[j][i]):
            return self.scale.level(self.values[j][i])
        said = self.text(j, i)
        return {"": "", "NaN": "nan"}.get(said, f"s{len(self.scale.bounds)}")

    def text(self, j: int, i: int) -> str:
        """The number."""
        if not math.isnan(self.values[j][i]):
            return self.write(self.values[j][i])
        if (j, i) in self.grid.broken:
            return "NaN"
        return "const" if self.constant and (j, i) in self.grid.constant else ""


def picture(cells: Cells, name: str, marks: Sequence[int], why: str = "a finding names this layer") -> Markup:
    """The coloured cells, with names of layers beside, those to look at with a sign, and steps below."""
    grid, values = cells.grid, cells.values
    rows, columns = len(values), len(grid.steps)
    height = max(min(_TALLEST / max(rows, 1), _ROW), _NARROWEST) * rows
    paths = [tag("path", class_=level, d=path) for level, path in sorted(_paths(cells).items())]
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
    named = _named(rows, room, sick)
    beside = [
        tag("span", grid.labels[j], style=f"top:{100 * (j + 0.5) / rows:.2f}%", class_="sick" if j in sick else None)
        for j in named
    ]
    signs = [tag("i", style=f"top:{100 * (j + 0.5) / rows:.2f}%", title=why) for j in sick]
    fit = max(_LETTERS // (max(len(str(step)) for step in grid.steps) + 1), 2)
    below = [_step(grid.steps[i], i, columns) for i in ticks(columns, fit)]
    return tag(
        "div",
        tag("div", "layer", class_="down", aria_hidden="true"),
        tag("div", beside, class_="names", aria_hidden="true"),
        tag("div", signs, class_="signs", aria_hidden="true"),
        drawn,
        tag("div", below, class_="steps", aria_hidden="true"),
        tag("div", "probed step", class_="across", aria_hidden="true"),
        class_="heat",
    )


def _step(step: int, i: int, columns: int) -> Markup:
    """Below its column; the last of many columns, which are narrower than a number, ends with the picture."""
    if columns > _BROAD and i == columns - 1:
        return tag("span", step, class_="end")
    return tag("span", step, style=f"left:{100 * (i + 0.5) / columns:.2f}%")


def table(cells: Cells, caption: str) -> Markup:
    """The same numbers, with a heading for every row and column; closing tags that HTML does without are left out."""
    head = "".join(f"<th scope=col>{step}" for step in cells.grid.steps)
    lines = []
    for j, label in enumerate(cells.grid.labels):
        numbers = "".join(f"<td>{join([cells.text(j, i)])}" for i in range(len(cells.grid.steps)))
        lines.append(f"<tr><th scope=row>{join([label])}{numbers}")
    whole = Markup(
        f"<table>{tag('caption', caption)}<thead><tr><th scope=col>layer{head}<tbody>{''.join(lines)}</table>"
    )
    return tag("div", whole, class_="scroll", tabindex=0, role="region", aria_label=caption)


def _paths(cells: Cells) -> dict[str, str]:
    """Of every colour one path of horizontal strokes: neighbours in a row that share a colour are one stroke."""
    found: dict[str, list[str]] = {}
    for j in range(len(cells.values)):
        levels = [cells.level(j, i) for i in range(len(cells.grid.steps))]
        start = 0
        for i in range(1, len(levels) + 1):
            if i == len(levels) or levels[i] != levels[start]:
                if levels[start]:
                    found.setdefault(levels[start], []).append(f"M{start} {j}.5h{i - start}")
                start = i
    return {level: "".join(strokes) for level, strokes in found.items()}


def _named(rows: int, room: int, sick: Sequence[int]) -> list[int]:
    """Which layers have their name beside: those with a finding first, then the others evenly, where there is room."""
    named: list[int] = []
    for j in [*sick, *ticks(rows, max(room, 2))]:
        if all(abs(j - other) >= rows / room * 0.95 for other in named):
            named.append(j)
    return sorted(named)


def _described(grid: Grid, values: Sequence[Sequence[float]], name: str) -> str:
    known = [v for row in values for v in row if math.isfinite(v)]
    reach = f", from {min(known):.3g} to {max(known):.3g}" if known else ", no number"
    size = f"{len(values)} rows by {len(grid.steps)} probed steps"
    return f"{name}: {size}{reach}; the same numbers are in the table below"
