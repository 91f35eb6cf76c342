"""One HTML file that holds a diagnosis: it opens without a network, prints, and needs no library."""

from __future__ import annotations

import base64
import hashlib
import importlib.resources
import pathlib
from collections.abc import Iterator, Sequence
from datetime import datetime
from typing import NamedTuple

from lightning_tricks.diagnosis.diagnosis import Diagnosis, view
from lightning_tricks.report.files import replaced
from lightning_tricks.report.html import about, findings, loss, measures, network, tried
from lightning_tricks.report.html.grid import Grid, grid_of
from lightning_tricks.report.html.markup import Markup, join, tag
from lightning_tricks.report.html.tried import CurveComparison, Treated

_STATES = {
    "healthy": ("✓", "Healthy"),
    "sick": ("✕", "Sick"),
    "not_learning": ("✕", "Not learning"),
    "unknown": ("?", "Unknown"),
}


class Section(NamedTuple):
    """A part of a page, with the anchor that leads to it."""

    name: str
    title: str
    content: Sequence[Markup]


def write_html(
    diagnosis: Diagnosis, path: str | pathlib.Path, trials: Sequence[CurveComparison | Treated] = ()
) -> pathlib.Path:
    """Write a diagnosis as one page of HTML, with its pictures and numbers in it; it loads nothing else.

    Args:
        diagnosis: What to show.
        path: The file; its folder is made if need be. A file that is there stays whole until the new one is.
        trials: Trainings before and after a change, or treatments, beside that of the diagnosis.

    Raises:
        OSError: It cannot be written.
    """
    return written(html(diagnosis, trials), path)


view("html")(write_html)


def html(diagnosis: Diagnosis, trials: Sequence[CurveComparison | Treated] = ()) -> str:
    """The page as a string."""
    treated = [] if diagnosis.treatment is None else [diagnosis.treatment]
    trials = [*treated, *(each for each in trials if each is not diagnosis.treatment)]
    state = _STATES[diagnosis.state][1]
    return frame(f"{state}: diagnosis of a training", _header(diagnosis), list(_sections(diagnosis, trials)))


def frame(title: str, header: Markup, sections: Sequence[Section]) -> str:
    """A whole page: it loads nothing, and runs the one script whose hash its policy names."""
    style, script = _asset("style.css"), _asset("hover.js")
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    policy = f"default-src 'none'; style-src 'unsafe-inline'; img-src data:; script-src 'sha256-{digest}'"
    links = [tag("li", tag("a", each.title, href=f"#{each.name}")) for each in sections]
    head = tag(
        "head",
        tag("meta", charset="utf-8"),
        tag("meta", name="viewport", content="width=device-width, initial-scale=1"),
        tag("meta", http_equiv="Content-Security-Policy", content=policy),
        tag("meta", name="color-scheme", content="light dark"),
        tag("title", title),
        tag("style", Markup(style)),
    )
    body = tag(
        "body",
        tag("a", f"Skip to: {sections[0].title}", href=f"#{sections[0].name}", class_="skip"),
        header,
        tag("nav", tag("ul", links), aria_label="Sections"),
        tag("main", [_section(each) for each in sections]),
        tag("footer", tag("p", f"Written by lightning_tricks on {datetime.now():%Y-%m-%d %H:%M}.")),
        tag("div", id="tip", aria_hidden="true", hidden=True),
        tag("script", Markup(script)),
    )
    return f"<!doctype html>\n{tag('html', head, body, lang='en')}\n"


def written(whole: str, path: str | pathlib.Path) -> pathlib.Path:
    """Put a page into a file, which stays as it was until all of it is there."""
    with replaced(path) as part:
        part.write_text(whole, encoding="utf-8")
    return pathlib.Path(path)


def _header(diagnosis: Diagnosis) -> Markup:
    sign = _STATES[diagnosis.state][0]
    name, _, said = diagnosis.verdict.partition(": ")
    return tag(
        "header",
        tag("p", "Diagnosis of a training", class_="quiet"),
        tag(
            "h1",
            tag("span", tag("span", sign, aria_hidden="true"), f" {name}", class_=f"badge {diagnosis.state}"),
            " ",
            said[:1].upper() + said[1:],
        ),
        about.coverage(diagnosis.coverage) if diagnosis.history else None,
    )


def _sections(diagnosis: Diagnosis, trials: Sequence[CurveComparison | Treated]) -> Iterator[Section]:
    grid = _grid(diagnosis)
    yield Section("findings", "Findings", findings.section(diagnosis))
    if trials:
        yield Section("trials", "Before and after", tried.trials(trials))
    if diagnosis.experiments:
        yield Section("tried", "What was tried", tried.experiments(diagnosis.experiments, findings.proofs(diagnosis)))
    if diagnosis.history:
        yield Section("network", "The network", network.section(diagnosis, grid))
        yield Section("loss", "The loss", loss.section(diagnosis))
        yield Section("layers", "Layer by layer", _layers(diagnosis, grid))
        yield Section("not-seen", "What was not seen", about.not_seen(diagnosis.history))
    yield Section("settings", "Settings, versions, machine", about.settings(diagnosis))
    yield Section("words", "The words", about.vocabulary())


def _layers(diagnosis: Diagnosis, grid: Grid) -> list[Markup]:
    said = "Layers from top to bottom in the order of execution, probed steps from left to right, side by side however "
    said += "far apart they were. Faint is what no rule names, hatched where a measure does not apply; a colour is a "
    said += "place to look at, and no finding by itself."
    parts = [tag("p", said)]
    if grid.thinned:
        parts.append(tag("p", grid.thinned, class_="thinned"))
    return [*parts, *measures.section(grid, set(network.layers_of(diagnosis)))]


def _grid(diagnosis: Diagnosis) -> Grid:
    named = [*diagnosis.findings, *findings.tree(diagnosis.findings)]  # causes before what follows from them
    layers = [finding.layer for finding in named if finding.layer]
    return grid_of(diagnosis.history, diagnosis.layers, [finding.step for finding in named], layers)


def _section(each: Section) -> Markup:
    heading = tag("h2", each.title, id=f"{each.name}-title")
    return tag("section", heading, join(each.content), id=each.name, aria_labelledby=f"{each.name}-title")


def _asset(name: str) -> str:
    return importlib.resources.files("lightning_tricks.report.html").joinpath(name).read_text(encoding="utf-8")
