"""A picture of runs of numbers over steps: lines in SVG, words beside it in HTML, so that these keep their size."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from lightning_tricks.report.figures.style import ticks
from lightning_tricks.report.html.markup import Markup, number, tag
from lightning_tricks.report.words import number as spelt
from lightning_tricks.report.words import rounded

_WIDTH, _HEIGHT = 1000, 300  # of the coordinates; the picture is as wide as its place
_MOST_POINTS = 400
_FURTHEST = 1e300  # so that a difference of two is still a number
_DECADES = 1.0  # from where on the numbers need a log axis
_FEW_DECADES = 2.5  # of which 2 and 5 times a power of ten are named too
_LETTERS = 34  # below a picture, on a phone
_MOST_ROWS = 12  # of a table
_NEAR = 0.07  # of the height, which a word takes


class Series(NamedTuple):
    """A run of numbers; ``look`` is the class of its line: l0, l1, l2 or dots."""

    name: str
    x: Sequence[float]
    y: Sequence[float]
    look: str = "l0"


class HorizontalLine(NamedTuple):
    """A horizontal line with its name."""

    name: str
    y: float


class Mark(NamedTuple):
    """A vertical line with its sign."""

    sign: str
    x: float
    about: str


class Axes(NamedTuple):
    """What stands along the axes: the name of the numbers, of the steps, and of what is told on the right."""

    y: str = ""
    x: str = "optimiser step"
    right: str = ""
    percent: bool = False  # whether the numbers are shares


def chart(
    series: Sequence[Series],
    label: str,
    levels: Sequence[HorizontalLine] = (),
    marks: Sequence[Mark] = (),
    right: Callable[[float, float], Sequence[HorizontalLine]] | None = None,
    axes: Axes = Axes(),  # noqa: B008, it is a tuple
) -> Markup:
    """Lines over steps with their axes; of a long run the lowest and the highest of each piece.

    Args:
        series: The runs of numbers.
        label: What the picture shows, for who does not see it.
        levels: Lines across; on an axis of logarithms one at 0 or below is named only.
        marks: Lines downwards.
        right: Of the lowest and the highest number of the picture, what some heights are called on the right.
        axes: The names of the axes.
    """
    series = [_thinned(each) for each in series]
    known = [y for each in series for y in each.y if math.isfinite(y)]
    reach = [x for each in series for x in each.x] or [0.0]
    if not known:
        return tag("p", "No number is known.", class_="quiet")
    levels = [level for level in levels if math.isfinite(level.y)]
    axis = _Axis.of([*known, *axes.percent * (0.0, 1.0)], [level.y for level in levels])
    low, high = min(reach), max(max(reach), min(reach) + 1)

    def across(x: float) -> float:
        return (x - low) / (high - low)

    shapes = [_line(each, axis, across) for each in series]
    shapes += [_stroke(f"M0 {_y(axis, level.y)}H{_WIDTH}", "level") for level in levels if axis.holds(level.y)]
    shapes += [_stroke(f"M{number(across(mark.x) * _WIDTH, 2)} 0V{_HEIGHT}", "mark") for mark in marks]
    shapes += [_stroke(f"M0 {_y(axis, y)}H{_WIDTH}", "grid") for y in axis.ticks]
    drawn = tag(
        "svg",
        shapes[::-1],
        view_box=f"0 0 {_WIDTH} {_HEIGHT}",
        preserve="none",
        role="img",
        aria_label=label,
        data_x=f"{low:g} {high:g}",
        data_y=f"{axis.low:g} {axis.high:g} {'log' * axis.log}{'%' * axes.percent}".rstrip(),
    )
    at = [tag("span", text, style=f"top:{100 * axis.down(y):.1f}%") for y, text in axis.named(axes.percent)]
    below = [x for x in even(low, high, _room(high)) if x % 1 == 0]  # there is no half step
    steps = [tag("span", f"{x:g}", style=f"left:{100 * across(x):.1f}%") for x in below]
    signs = [
        tag("span", mark.sign, style=f"left:{100 * across(mark.x):.1f}%", title=f"step {mark.x:g}: {mark.about}")
        for mark in marks
    ]
    within = [each for each in (right(*axis.limits) if right else ()) if axis.holds(each.y)]
    beside = [tag("span", each.name, style=f"top:{100 * axis.down(each.y):.1f}%") for each in within]
    names = [tag("li", tag("i", class_=f"line {each.look}"), each.name) for each in series if each.name]
    names += [tag("li", tag("i", class_="line level"), _named(level, axis, axes.percent)) for level in levels]
    upwards = ", ".join(filter(None, (axes.y, "logarithmic" * axis.log)))
    titles = [tag("span", upwards), tag("span", axes.right if within else "")]
    return tag(
        "div",
        tag("div", titles, class_="titles", aria_hidden="true"),
        tag("div", signs, class_="marks", aria_hidden="true"),
        tag("div", at, class_="heights", aria_hidden="true"),
        drawn,
        tag("div", beside, class_="rights", aria_hidden="true") if beside else None,
        tag("div", _on_the_lines(levels, axis, known), class_="levels", aria_hidden="true") if levels else None,
        tag("div", steps, class_="steps", aria_hidden="true"),
        tag("div", axes.x, class_="across", aria_hidden="true"),
        tag("ul", names, class_="key", aria_label="Lines"),
        class_="chart",
    )


def table(series: Sequence[Series], caption: str, percent: bool = False) -> Markup:
    """Some of the numbers, the first and the last among them: a row a step, a column a line."""
    known = [dict(zip(each.x, each.y, strict=True)) for each in series]
    steps = sorted({x for each in known for x in each})
    chosen = [steps[i] for i in ticks(len(steps), _MOST_ROWS)]
    head = tag("tr", [tag("th", name, scope="col") for name in ("step", *(each.name for each in series))])
    rows = [
        tag("tr", tag("th", f"{x:g}", scope="row"), [tag("td", _cell(each.get(x), percent)) for each in known])
        for x in chosen
    ]
    whole = tag("table", tag("caption", caption), tag("thead", head), tag("tbody", rows))
    return tag("div", whole, class_="scroll", tabindex=0, role="region", aria_label=caption)


def _cell(value: float | None, percent: bool) -> str:
    return "" if value is None else rounded(value) if percent and math.isfinite(value) else spelt(value)


class _Axis(NamedTuple):
    low: float
    high: float
    log: bool

    @classmethod
    def of(cls, values: Sequence[float], levels: Sequence[float] = ()) -> _Axis:
        """As the numbers ask for, with room for the levels; of logarithms for those over 0."""
        log = min(values) > 0 and math.log10(max(values)) - math.log10(min(values)) > _DECADES
        whole = [*values, *(level for level in levels if level > 0 or not log)]
        low, high = max(min(whole), -_FURTHEST), min(max(whole), _FURTHEST)
        if log:
            return cls(math.log10(low) - 0.05, math.log10(high) + 0.05, True)
        room = 0.06 * (high - low) or abs(high) * 0.1 or 1.0
        return cls(low - room, high + room, False)

    @property
    def limits(self) -> tuple[float, float]:
        """The lowest and the highest number of the picture."""
        return (10.0**self.low, 10.0**self.high) if self.log else (self.low, self.high)

    def down(self, y: float) -> float:
        """Share of the height from above."""
        height = (math.log10(y) if y > 0 else self.low) if self.log else y
        return min(max(1 - (height - self.low) / (self.high - self.low), 0.0), 1.0)

    def holds(self, y: float) -> bool:
        """Whether it is within the picture."""
        return not (self.log and y <= 0) and self.low <= (math.log10(y) if self.log else y) <= self.high

    @property
    def ticks(self) -> list[float]:
        if not self.log:
            return even(self.low, self.high)
        apart = max(1, math.ceil((self.high - self.low) / 5))
        decades = range(math.floor(self.low), math.floor(self.high) + 1, apart)
        steps = (1, 2, 5) if self.high - self.low < _FEW_DECADES else (1,)
        return [y for k in decades for step in steps if self.holds(y := step * 10.0**k)]

    def named(self, percent: bool) -> list[tuple[float, str]]:
        """Heights and what stands there: numbers of an even axis with as many digits each."""
        ticks = self.ticks
        if percent:
            return [(y, rounded(y)) for y in ticks]
        texts = [f"{y:.3g}" for y in ticks]
        if not self.log and not any("e" in text for text in texts):
            digits = max((len(text.partition(".")[2]) for text in texts), default=0)
            texts = [rounded(y, f".{digits}f") for y in ticks]
        return list(zip(ticks, texts, strict=True))


def even(low: float, high: float, count: int = 7) -> list[float]:
    """Round numbers, about as many."""
    apart = (high - low) / count
    base = 10.0 ** math.floor(math.log10(apart))
    step = next(base * k for k in (1, 2, 5, 10) if base * k >= apart * 0.999)
    first = math.ceil(low / step - 1e-9)
    return [float(f"{k * step:.12g}") for k in range(first, math.floor(high / step + 1e-9) + 1)]


def _room(high: float) -> int:
    """How many steps can stand below a picture that is as narrow as a phone."""
    return max(3, _LETTERS // (len(f"{high:g}") + 1))


def _on_the_lines(levels: Sequence[HorizontalLine], axis: _Axis, numbers: Sequence[float]) -> list[Markup]:
    """The names of levels right above their lines; below, where the numbers or another name stand there."""
    names: list[Markup] = []
    taken = [axis.down(y) for y in numbers]
    for level in levels:
        if axis.holds(level.y):
            down = axis.down(level.y)
            near = sum(0 < down - other < _NEAR for other in taken) > sum(0 < other - down < _NEAR for other in taken)
            taken.append(down + _NEAR / 2 if near else down - _NEAR / 2)
            names.append(tag("span", level.name, style=f"top:{100 * down:.1f}%", class_="below" if near else None))
    return names


def _named(level: HorizontalLine, axis: _Axis, percent: bool) -> str:
    below = "" if axis.holds(level.y) else " (below the picture)"
    return f"{level.name}: {rounded(level.y) if percent else spelt(level.y)}{below}"


def _y(axis: _Axis, y: float) -> str:
    return number(axis.down(y) * _HEIGHT, 2)


def _stroke(path: str, look: str, name: str | None = None) -> Markup:
    return tag("path", d=path, class_=look, vector_effect="non-scaling-stroke", data_name=name)


def _line(series: Series, axis: _Axis, across: object) -> Markup:
    place = across  # a function of x
    assert callable(place)
    parts, pen = [], "M"
    for x, y in zip(series.x, series.y, strict=True):
        if not math.isfinite(y):
            pen = "M"
            continue
        at = f"{number(place(x) * _WIDTH, 2)} {_y(axis, y)}"
        parts.append(f"M{at}h0" if series.look == "dots" else f"{pen}{at}")
        pen = "L"
    return _stroke("".join(parts) + ("h0" if len(parts) == 1 else ""), series.look, series.name)


def _thinned(series: Series) -> Series:
    """At most so many points: of every piece the lowest and the highest, so that no peak is lost."""
    count = len(series.y)
    if count <= _MOST_POINTS:
        return series
    y: NDArray[np.float64] = np.asarray(series.y, np.float64)
    kept = {0, count - 1}
    for piece in np.array_split(np.arange(count), _MOST_POINTS // 2):
        known = piece[np.isfinite(y[piece])]
        if known.size:
            kept |= {int(known[y[known].argmin()]), int(known[y[known].argmax()])}
        else:
            kept.add(int(piece[0]))
    order = sorted(kept)
    return series._replace(x=[series.x[i] for i in order], y=[float(y[i]) for i in order])
