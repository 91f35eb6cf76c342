"""Two runs side by side as one HTML file: where they part, both losses, how far they are apart by layer and step."""

from __future__ import annotations

import math
import pathlib
from collections.abc import Iterator, Mapping, Sequence
from typing import Protocol

import numpy as np

from lightning_tricks.comparison.measured import Compared, MeasuredSeries
from lightning_tricks.comparison.parting import Parting, distances
from lightning_tricks.diagnosis.history.learning import losses_by_step
from lightning_tricks.probes import Snapshot
from lightning_tricks.report.figures.style import ticks
from lightning_tricks.report.html import chart, heat
from lightning_tricks.report.html.grid import Grid
from lightning_tricks.report.html.markup import Markup, tag
from lightning_tricks.report.html.page import Section, frame, written
from lightning_tricks.report.names import distinct
from lightning_tricks.report.words import number

_MOST_LOOKS, _MOST_LAYERS = 48, 300
_TIMES = {"factor": (1, 2, 3, 4), "share": (1, 1.5, 2, 3), "guess": (1, 1.5, 2, 3), "flag": (1,)}  # of the threshold
Both = tuple[Compared, Mapping[str | None, MeasuredSeries], Mapping[str | None, MeasuredSeries]]


class Found(Protocol):
    """What a comparison found."""

    @property
    def names(self) -> tuple[str, str]: ...

    @property
    def partings(self) -> Sequence[Parting]: ...

    @property
    def first(self) -> Parting | None: ...

    @property
    def layers(self) -> int: ...

    @property
    def steps(self) -> tuple[int, int] | None: ...

    @property
    def histories(self) -> Sequence[Sequence[Snapshot]]: ...

    @property
    def verdict(self) -> str: ...

    def notes(self) -> Iterator[str]: ...


def write_page(found: Found, measured: Sequence[Both], guess: float, path: str | pathlib.Path) -> pathlib.Path:
    """Write the page; a file that is there stays whole until the new one is."""
    one, other = found.names
    said, state, sign = "They part", "sick", "≠"
    if found.first is None:
        compared = found.steps is not None and found.layers
        said, state, sign = ("They do not part", "healthy", "=") if compared else ("Not compared", "unknown", "?")
    badge = tag("span", tag("span", sign, aria_hidden="true"), f" {said}", class_=f"badge {state}")
    header = tag(
        "header",
        tag("p", f"{other} compared with {one}", class_="quiet"),
        tag("h1", badge, f" {found.verdict[0].upper()}{found.verdict[1:]}"),
    )
    sections = [
        Section("parting", "Where they part", _partings(found)),
        Section("loss", "The loss", _losses(found)),
        Section("layers", "Layer by layer", _layers(found, measured, guess)),
    ]
    return written(frame(f"{said}: {one}, {other}", header, sections), path)


def _partings(found: Found) -> list[Markup]:
    said = "Of each measure the first step and layer, the earliest first: look there for what differs."
    head = [tag("th", each, scope="col") for each in ("measure", "parts at", "layer", *found.names, "difference")]
    rows = [
        tag("tr", tag("th", cells[0], scope="row"), [tag("td", cell) for cell in cells[1:]])
        for cells in map(row_of, found.partings)
    ]
    table = tag("table", tag("caption", said), tag("thead", tag("tr", head)), tag("tbody", rows))
    shown = tag("div", table, class_="scroll", tabindex=0, role="region", aria_label="Where they part")
    return [*([shown] if rows else []), *(tag("p", line) for line in found.notes())]


def row_of(each: Parting) -> tuple[str, ...]:
    """A parting as cells: measure, step, layer, both values, the difference."""
    flag = each.scale == "flag"
    values = ["" if flag else number(value) for value in (each.first, each.second)]
    return each.measure, f"step {each.step}", each.layer or "(whole model)", *values, each.difference


def _losses(found: Found) -> list[Markup]:
    runs = []
    for name, history, look in zip(found.names, found.histories, ("l0", "l1"), strict=True):
        steps, values = losses_by_step(history)
        runs.append(chart.Series(f"loss of {name}", steps.tolist(), values.tolist(), look))
    marks = [] if found.first is None else [chart.Mark("they part", found.first.step, str(found.first))]
    known = [run for run in runs if len(run.y)]
    if not known:
        return []
    label = f"The losses of both runs over the steps. {found.verdict}"
    return [chart.chart(known, label, marks=marks, axes=chart.Axes("loss"))]


def _layers(found: Found, measured: Sequence[Both], guess: float) -> list[Markup]:
    if found.steps is None:
        return [tag("p", "They were looked at at no step in common.")]
    steps = _looks(found)
    one, other = found.names
    said = f"What {other} has of {one}, by layer and step. Faint: no further apart than two seeds of one training are. "
    said += f"Orange: {other} has more. Blue: less. Hatched: not measured at both."
    figures = [figure for each in measured for figure in _figure(found, each, steps, guess)]
    return [tag("p", said), tag("div", figures, class_="multiples")]


def _looks(found: Found) -> list[int]:
    """Steps at which either was looked at, in the time that both cover; those of partings always."""
    assert found.steps is not None
    steps = sorted({snapshot.step for history in found.histories for snapshot in history})
    steps = [step for step in steps if found.steps[0] <= step <= found.steps[1]]
    asked = {each.step for each in found.partings}
    return sorted({*(steps[i] for i in ticks(len(steps), _MOST_LOOKS)), *asked})


def _figure(found: Found, both: Both, steps: Sequence[int], guess: float) -> Iterator[Markup]:
    measure, ours, their = both
    layers = sorted((layer for layer in ours if layer in their and layer), key=lambda layer: ours[layer].place)
    named = next((each for each in found.partings if each.measure == measure.name), None)
    shown = [layers[i] for i in ticks(len(layers), _MOST_LAYERS)]
    if not shown or (measure.scale == "flag" and named is None):
        return
    values = [_told(measure, distances(np.array(steps), measure, ours[e], their[e], guess).tolist()) for e in shown]
    labels = distinct(shown, 26, 26)
    grid = Grid([], labels, "", list(steps), {}, frozenset(), frozenset(), len(steps), len(shown))
    ratio = measure.scale == "factor"
    bounds = [measure.threshold * times for times in _TIMES[measure.scale]]
    both_ways = [*(-bound for bound in reversed(bounds)), *bounds]
    scale = heat.Scale(tuple(_told(measure, both_ways)), "d" if len(both_ways) == 8 else "s")
    unit = " x" if ratio else ""
    cells = heat.Cells(grid, values, scale, lambda value: f"{number(value)}{unit}" if value else "0", False)
    what = "how many times as much" if ratio else "how much more"
    part = f" They part {named}." if named else " They do not part in it."
    said = f"{what[:1].upper()}{what[1:]} {found.names[1]} has.{part}"
    caption = f"{measure.name}: {what} {found.names[1]} has"
    marks = [shown.index(named.layer)] if named and named.layer in shown else []
    yield tag(
        "figure",
        tag("figcaption", tag("h3", measure.name), tag("p", said)),
        heat.picture(cells, caption, marks, "here they part"),
        scale.key(lambda value: f"{number(value)}{unit}"),
        tag("details", tag("summary", f"The numbers: {measure.name}"), heat.table(cells, caption)),
    )


def _told(measure: Compared, scaled: Sequence[float]) -> list[float]:
    """Distances as they are told: a ratio of factors, else a difference."""
    return [math.exp(min(each, 700.0)) if measure.scale == "factor" else float(each) for each in scaled]
