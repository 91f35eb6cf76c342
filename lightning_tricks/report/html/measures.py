"""Ten measures of every layer over the looks: what each is, how it is read, its picture and its table."""

from __future__ import annotations

import math
from collections.abc import Collection
from typing import NamedTuple

from lightning_tricks.report.glossary import WORDS
from lightning_tricks.report.html import heat
from lightning_tricks.report.html.grid import Grid
from lightning_tricks.report.html.heat import Scale
from lightning_tricks.report.html.markup import Markup, tag
from lightning_tricks.report.layers import COLUMNS
from lightning_tricks.report.words import number, rounded

_SHARES = Scale((0.1, 0.25, 0.5, 0.75, 0.9, 0.99))  # strong from where a finding begins: half of the patterns or units


class Shown(NamedTuple):
    """A picture: its measure, its word in the glossary, its colours, what they say."""

    measure: str
    term: str
    scale: Scale
    colours: str


# The bounds are those of the rules where there are any, so that what no rule names is faint.
PICTURES = (
    Shown("std", "std a", Scale((1e-3, 0.01, 0.03, 0.1, 3, 10, 30, 100), "d"), "Blue: small. Orange: large."),
    Shown("mean", "mean a", Scale((-10, -3, -1, -0.3, 0.3, 1, 3, 10), "d"), "Blue: below zero. Orange: above."),
    Shown("linearity", "linearity", Scale((0.98, 0.99, 0.995, 0.998, 0.999, 0.9999)), "Strong colour: bends nothing."),
    Shown("saturation", "saturation", _SHARES, "Strong colour: most patterns are on a flat side."),
    Shown("dead_share", "dead units", _SHARES, "Strong colour: most units are never active."),
    Shown(
        "signal",
        "signal",
        Scale((1e-9, 1e-6, 1e-3, 0.05, 10, 100, 1e4, 1e6), "d"),
        "Blue: lost on its way back. Orange: grown.",
    ),
    Shown(
        "transmission",
        "transmission",
        Scale((1e-3, 0.01, 0.03, 0.0626, 0.1, 0.2), "r"),
        "Strong colour: lets nothing back.",
    ),
    Shown(
        "update_ratio",
        "update ratio",
        Scale((1e-7, 3e-6, 3e-5, 1.5e-4, 0.03, 0.1, 0.3, 1), "d"),
        "Blue: hardly moves. Orange: thrown about.",
    ),
    Shown("update_coherence", "update coherence", Scale((0.4, 0.8, 0.97)), "Strong colour: all one way."),
    Shown("mean_drift", "mean drift", Scale((0.2, 0.5, 1, 2, 5, 20)), "Strong colour: the mean is thrown."),
)


def section(grid: Grid, faulty: Collection[str]) -> list[Markup]:
    """A figure for every measure that applies to some layer; a sentence for those that apply to none."""
    marks = [j for j, row in enumerate(grid.layers) if any(name in faulty for name in row.names)]
    drawn, without = [], []
    for shown in PICTURES:
        values = grid.values.get(shown.measure, [])
        if any(not math.isnan(v) for row in values for v in row):
            drawn.append(_figure(grid, shown, values, marks))
        else:
            without.append(shown.term)
    parts = [tag("div", drawn, class_="multiples")]
    if without:
        parts.append(tag("p", f"Measured at no layer here: {', '.join(without)}.", class_="quiet"))
    return parts


def write(measure: str, value: float) -> str:
    """A number as the text table writes it."""
    if not math.isfinite(value):
        return "inf" if value > 0 else "-inf"
    return COLUMNS[measure].write(value).strip() if measure in COLUMNS else number(value)


def _figure(grid: Grid, shown: Shown, values: list[list[float]], marks: list[int]) -> Markup:
    word = WORDS[shown.term]
    caption = f"{word.term}, by layer and step"
    cells = heat.Cells(grid, values, shown.scale, lambda v: write(shown.measure, v), shown.measure == "linearity")
    broken = tag("p", tag("i", class_="nan"), " NaN or Inf", class_="key") if grid.broken else None
    return tag(
        "figure",
        tag(
            "figcaption",
            tag("h3", word.term),
            tag("p", f"{word.meaning[:1].upper()}{word.meaning[1:]}. How to read it: {word.reading}. {shown.colours}"),
        ),
        heat.picture(cells, word.term, marks),
        tag("div", shown.scale.key(lambda bound: _bound(shown.measure, bound)), broken),
        tag("details", tag("summary", f"The numbers: {word.term}"), heat.table(cells, caption)),
        id=f"m-{shown.measure.replace('_', '-')}",
    )


def _bound(measure: str, value: float) -> str:
    whole = measure in ("saturation", "dead_share")
    return rounded(value) if whole else f"{value:g}"
