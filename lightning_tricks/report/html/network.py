"""The network in the order of execution as a strip of its layers, those with a finding marked."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple

from lightning_tricks.diagnosis.diagnosis import Diagnosis
from lightning_tricks.diagnosis.finding import Finding
from lightning_tricks.report.html.findings import MOST, badge, heading, tree
from lightning_tricks.report.html.grid import Grid
from lightning_tricks.report.html.markup import Markup, tag
from lightning_tricks.report.layers import Row

_ALL_NAMED = 32  # layers up to which each has its name
_MOST_OF_A_LAYER, _MOST_ELSEWHERE = 3, 20  # findings in a box, and of those in none


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
        found = sorted((each for name in row.names for each in named.get(name, ())), key=_first)
        broken = any(at == j for at, _ in grid.broken)
        if not found and not broken and len(grid.layers) > _ALL_NAMED:
            plain.append(j)
            continue
        items += _together(grid, plain)
        plain = []
        items.append(_layer(row, grid.labels[j], found, broken))
    items += _together(grid, plain)
    under = f" Full names begin with “{grid.under}.”" if grid.under else ""
    count = sum(len(row.names) for row in grid.layers)
    said = f"{count} layers in {len(grid.layers)} rows, from input to output: a weighted operation and the activation "
    said += "behind it are in one row, and here in one box. A frame and a sign mark those that findings name, the "
    said += f"worst first.{under}"
    return [tag("p", said), tag("ol", items, class_="strip"), *_elsewhere(diagnosis, grid)]


def layers_of(diagnosis: Diagnosis) -> dict[str, list[Named]]:
    """The findings that name a layer, with the number of the article that each is in."""
    found: dict[str, list[Named]] = {}
    for each in _all(diagnosis):
        if each.finding.layer:
            found.setdefault(each.finding.layer, []).append(each)
    return found


def _all(diagnosis: Diagnosis) -> Iterator[Named]:
    """All findings of the page."""
    for i, root in enumerate(diagnosis.findings[:MOST], 1):
        yield from (Named(i, finding, finding is root) for finding in tree([root]))


def _elsewhere(diagnosis: Diagnosis, grid: Grid) -> list[Markup]:
    """The findings that are in no box: of the whole model, or of what is no layer that was seen."""
    boxes = {name for row in grid.layers for name in row.names}
    others = [each for each in _all(diagnosis) if each.finding.layer not in boxes]
    if not others:
        return []
    links = [tag("li", _link(each)) for each in sorted(others, key=_first)[:_MOST_ELSEWHERE]]
    left = len(others) - len(links)
    more = tag("p", f"And {left} more, among the findings above.") if left else None
    return [tag("p", "In none of the boxes:"), tag("ul", links, class_="elsewhere"), *([more] if more else [])]


def _first(named: Named) -> tuple[int, bool, int]:
    """By severity; of one severity causes before what follows from them, in the order of the page."""
    return -named.finding.rank, not named.is_cause, named.article


def _link(named: Named) -> Markup:
    finding = named.finding
    return tag("a", badge(finding.severity), f" {heading(finding)}", href=f"#finding-{named.article}")


def _layer(row: Row, label: str, found: Sequence[Named], broken: bool) -> Markup:
    name = tag("b", label, title=", ".join(row.names))
    parts: list[Markup] = [name, tag("span", row.function, class_="quiet")]
    if broken:
        parts.append(tag("span", "NaN or Inf", class_="badge critical"))
    parts += map(_link, found[:_MOST_OF_A_LAYER])
    left = len(found) - _MOST_OF_A_LAYER
    if left > 0:
        articles = sorted({each.article for each in found[_MOST_OF_A_LAYER:]})
        said = "finding" if len(articles) == 1 else "findings"
        parts.append(tag("span", f"and {left} more, in {said} {', '.join(map(str, articles))}"))
    return tag("li", parts, class_=found[0].finding.severity if found else None)


def _together(grid: Grid, places: Sequence[int]) -> list[Markup]:
    if not places:
        return []
    first, last = grid.labels[places[0]], grid.labels[places[-1]]
    names = first if first == last else f"{first} to {last}"
    ticks = tag("span", class_="ticks", style=f"width:{4 * len(places)}px", aria_hidden="true")
    count = f"{len(places)} rows" if len(places) > 1 else grid.layers[places[0]].function
    return [tag("li", tag("b", names), ticks, tag("span", count, class_="quiet"), class_="many")]
