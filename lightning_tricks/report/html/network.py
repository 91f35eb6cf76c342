"""The network in the order of execution as a strip of its layers, those with a finding marked."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from lightning_tricks.diagnosis.diagnosis import Diagnosis
from lightning_tricks.diagnosis.finding import Finding
from lightning_tricks.report.html.findings import badge, heading, tree
from lightning_tricks.report.html.grid import Grid
from lightning_tricks.report.html.markup import Markup, tag
from lightning_tricks.report.layers import Row

_ALL_NAMED = 32  # layers up to which each has its name


class Named(NamedTuple):
    """A finding that names a layer, the number of the article that it is in, and whether that is about it."""

    article: int
    finding: Finding
    is_cause: bool


def section(diagnosis: Diagnosis, grid: Grid) -> list[Markup]:
    """The strip; in a long network, layers without a finding stand together."""
    if not grid.layers:
        return [tag("p", "No layer was seen.", class_="quiet")]
    named = layers_of(diagnosis)
    items: list[Markup] = []
    plain: list[int] = []
    for j, row in enumerate(grid.layers):
        found = min((named[name] for name in row.names if name in named), key=_first, default=None)
        broken = any(at == j for at, _ in grid.broken)
        if found is None and not broken and len(grid.layers) > _ALL_NAMED:
            plain.append(j)
            continue
        items += _together(grid, plain)
        plain = []
        items.append(_layer(row, grid.labels[j], found, broken))
    items += _together(grid, plain)
    under = f" Full names begin with “{grid.under}.”" if grid.under else ""
    count = sum(len(row.names) for row in grid.layers)
    said = f"{count} layers in {len(grid.layers)} rows, from input to output: a weighted operation and the activation "
    said += f"behind it share a row. A frame and a sign mark those that a finding names.{under}"
    return [tag("p", said), tag("ol", items, class_="strip")]


def layers_of(diagnosis: Diagnosis) -> dict[str, Named]:
    """The finding to begin with that names a layer, with the number of the article that it is in."""
    found: dict[str, Named] = {}
    for i, root in enumerate(diagnosis.findings, 1):
        for finding in tree([root]):
            if finding.layer:
                each = Named(i, finding, finding is root)
                found[finding.layer] = min(found.get(finding.layer, each), each, key=_first)
    return found


def _first(named: Named) -> tuple[int, bool, int]:
    """By severity; of one severity causes before what follows from them, in the order of the page."""
    return -named.finding.rank, not named.is_cause, named.article


def _layer(row: Row, label: str, found: Named | None, broken: bool) -> Markup:
    name = tag("b", label, title=", ".join(row.names))
    parts: list[Markup] = [name, tag("span", row.function, class_="quiet")]
    if broken:
        parts.append(tag("span", "NaN or Inf", class_="badge critical"))
    if found is not None:
        finding = found.finding
        parts.append(tag("a", badge(finding.severity), f" {heading(finding)}", href=f"#finding-{found.article}"))
    return tag("li", parts, class_=None if found is None else found.finding.severity)


def _together(grid: Grid, places: Sequence[int]) -> list[Markup]:
    if not places:
        return []
    first, last = grid.labels[places[0]], grid.labels[places[-1]]
    names = first if first == last else f"{first} to {last}"
    ticks = tag("span", class_="ticks", style=f"width:{4 * len(places)}px", aria_hidden="true")
    count = f"{len(places)} rows" if len(places) > 1 else grid.layers[places[0]].function
    return [tag("li", tag("b", names), ticks, tag("span", count, class_="quiet"), class_="many")]
