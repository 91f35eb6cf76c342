"""A picture of runs of numbers over steps: lines in SVG, words beside it in HTML, so that these keep their size."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from lightning_tricks.report.html.markup import Markup, number, tag
from lightning_tricks.report.words import number as spelt

_WIDTH, _HEIGHT = 1000, 300  # of the coordinates; the picture is as wide as its place
_MOST_POINTS = 400
_FURTHEST = 1e300  # so that a difference of two is still a number
_DECADES = 1.0  # from where on the numbers need a log axis


class Series(NamedTuple):
    """A run of numbers; ``look`` is the class of its line: l0, l1, l2 or dots."""

    name: str
    x: Sequence[float]
    y: Sequence[float]
    look: str = "l0"


class Level(NamedTuple):
    """A horizontal line with its name."""

    name: str
    y: float


class Mark(NamedTuple):
    """A vertical line with its sign."""

    sign: str
    x: float
    about: str


def chart(
    series: Sequence[Series],
    label: str,
    levels: Sequence[Level] = (),
    marks: Sequence[Mark] = (),
    right: Sequence[Level] = (),
) -> Markup:
    """Lines over steps with their axes; of a long run the lowest and the highest of each piece.

    Args:
        series: The runs of numbers.
        label: What the picture shows, for who does not see it.
        levels: Lines across.
        marks: Lines downwards.
        right: What some heights are called on the right, where they lie within the picture.
    """
    series = [_thinned(each) for each in series]
    known = [y for each in series for y in each.y if math.isfinite(y)]
    reach = [x for each in series for x in each.x] or [0.0]
    if not known:
        return tag("p", "No number is known.", class_="quiet")
    axis = _Axis.of([*known, *(level.y for level in levels if math.isfinite(level.y))])
    low, high = min(reach), max(max(reach), min(reach) + 1)

    def across(x: float) -> float:
        return (x - low) / (high - low)

    shapes = [_line(each, axis, across) for each in series]
    shapes += [_stroke(f"M0 {_y(axis, level.y)}H{_WIDTH}", "level") for level in levels if math.isfinite(level.y)]
    shapes += [_stroke(f"M{number(across(mark.x) * _WIDTH, 2)} 0V{_HEIGHT}", "mark") for mark in marks]
    shapes += [_stroke(f"M0 {_y(axis, y)}H{_WIDTH}", "grid") for y in axis.ticks]
    drawn = tag(
        "svg",
        shapes[::-1],
        view_box=f"0 0 {_WIDTH} {_HEIGHT}",
        preserve="none",
        role="img",
        aria_label=label,
    )
    at = [tag("span", f"{y:.3g}", style=f"top:{100 * axis.down(y):.1f}%") for y in axis.ticks]
    steps = [tag("span", f"{x:g}", style=f"left:{100 * across(x):.1f}%") for x in _even(low, high)]
    signs = [
        tag("span", mark.sign, style=f"left:{100 * across(mark.x):.1f}%", title=f"step {mark.x:g}: {mark.about}")
        for mark in marks
    ]
    within = [each for each in right if axis.holds(each.y)]
    beside = [tag("span", each.name, style=f"top:{100 * axis.down(each.y):.1f}%") for each in within]
    names = [tag("li", tag("i", class_=f"line {each.look}"), each.name) for each in series if each.name]
    names += [tag("li", tag("i", class_="line level"), f"{level.name}: {spelt(level.y)}") for level in levels]
    return tag(
        "div",
        tag("div", signs, class_="marks", aria_hidden="true"),
        tag("div", at, class_="heights", aria_hidden="true"),
        drawn,
        tag("div", beside, class_="rights", aria_hidden="true") if beside else None,
        tag("div", steps, class_="steps", aria_hidden="true"),
        tag("ul", names, class_="key", aria_label="Lines"),
        class_="chart",
    )


class _Axis(NamedTuple):
    low: float
    high: float
    log: bool

    @classmethod
    def of(cls, values: Sequence[float]) -> _Axis:
        low, high = max(min(values), -_FURTHEST), min(max(values), _FURTHEST)
        if low > 0 and math.log10(high) - math.log10(low) > _DECADES:
            return cls(math.log10(low) - 0.05, math.log10(high) + 0.05, True)
        room = 0.06 * (high - low) or max(abs(high) * 0.1, 1e-12)
        return cls(low - room, high + room, False)

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
            return _even(self.low, self.high)
        apart = max(1, math.ceil((self.high - self.low) / 5))
        whole = [10.0**k for k in range(math.ceil(self.low), math.floor(self.high) + 1, apart)]
        return whole if len(whole) > 1 else [10.0**k for k in np.linspace(self.low, self.high, 4).tolist()]


def _even(low: float, high: float) -> list[float]:
    """Round numbers, about five."""
    apart = (high - low) / 5
    base = 10.0 ** math.floor(math.log10(apart))
    step = next(base * k for k in (1, 2, 5, 10) if base * k >= apart * 0.999)
    first = math.ceil(low / step - 1e-9)
    return [float(f"{k * step:.12g}") for k in range(first, math.floor(high / step + 1e-9) + 1)]


def _y(axis: _Axis, y: float) -> str:
    return number(axis.down(y) * _HEIGHT, 2)


def _stroke(path: str, look: str) -> Markup:
    return tag("path", d=path, class_=look, vector_effect="non-scaling-stroke")


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
    return _stroke("".join(parts) + ("h0" if len(parts) == 1 else ""), series.look)


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
