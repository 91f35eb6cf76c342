"""The loss over the steps, with what happened when."""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Iterator, Sequence
from typing import NamedTuple

from lightning_tricks.diagnosis.diagnosis import Diagnosis, at
from lightning_tricks.diagnosis.history.learning import losses_by_step
from lightning_tricks.diagnosis.history.progress import recent_loss
from lightning_tricks.diagnosis.registry import wording
from lightning_tricks.probes import Snapshot
from lightning_tricks.report.html.chart import Axes, HorizontalLine, Mark, Series, chart, even
from lightning_tricks.report.html.markup import Markup, tag
from lightning_tricks.report.way import Way
from lightning_tricks.report.words import number, percent, rounded

_CHANGED = 1.5  # factor of a learning rate that is an event
_MOST_RATES, _MOST_LINES = 4, 12
_SHARES = (0.0, 0.5, 0.75, 0.9, 0.99, 0.999)  # of the way, on the right of a picture of many decades
_MANY = 10.0  # of a guess over the lowest loss


class Event(NamedTuple):
    """What happened at a step; with a sign where it is marked in the picture."""

    step: int
    what: str
    sign: str = ""
    link: str = ""


def section(diagnosis: Diagnosis) -> list[Markup]:
    """The picture, what happened when, and the loss at some probed steps as a table."""
    history = diagnosis.history
    steps, values = losses_by_step(history)
    validations = [(s.step, s.validation_loss) for s in history if not math.isnan(s.validation_loss)]
    way = Way.of(diagnosis)
    if not len(values) and not validations:
        return [tag("p", "No loss was seen.", class_="quiet")]
    series = [Series("loss in training", steps.tolist(), values.tolist())]
    if validations:
        series.append(Series("loss in validation", [s for s, _ in validations], [v for _, v in validations], "dots"))
    happened = sorted(events(diagnosis, way.guess), key=lambda event: event.step)
    marks = _marks([event for event in happened if event.sign])
    functions = dict.fromkeys(record.function for record in history[-1].losses)
    axes = Axes(", ".join(["loss", *functions]), right="share of the way")
    return [
        tag("p", _in_words(history, way)),
        chart(series, _described(history, way), _levels(way), marks, _ways(way), axes),
        tag("h3", "What happened when"),
        tag("ul", [*map(_line, happened)], class_="events"),
        tag("details", tag("summary", "The numbers: loss"), _table(history, way, {event.step for event in happened})),
    ]


def events(diagnosis: Diagnosis, guess: float) -> Iterator[Event]:
    """Findings, half of the loss of a guess, changes of the rate, the best validation, the first NaN, the end."""
    history = diagnosis.history
    for i, finding in enumerate(diagnosis.findings, 1):
        what = f"{finding.severity}: {wording(finding.problem).heading}{at(finding.layer)}"
        yield Event(finding.step, what, f"{i}", f"#finding-{i}")
    better = next((s.step for s in history if s.loss < 0.5 * guess), None)
    if better is not None:
        yield Event(better, "the loss is under half of a guess's at this probed step")
    yield from _rates(history)
    validated = [s for s in history if not math.isnan(s.validation_loss)]
    if validated:
        best = min(validated, key=lambda s: s.validation_loss)
        yield Event(best.step, f"the lowest loss in validation: {number(best.validation_loss)}")
    broken = next((s.step for s in history if s.suspicious), None)
    if broken is not None:
        yield Event(broken, "the first NaN or Inf", "NaN")
    yield Event(history[-1].step, "the training ended" if history[-1].ended else "the latest probed step")


def _marks(happened: Sequence[Event]) -> list[Mark]:
    """One mark per step, with the signs of all that happened there."""
    at = {event.step: [each for each in happened if each.step == event.step] for event in happened}
    return [Mark(", ".join(e.sign for e in es), step, "; ".join(e.what for e in es)) for step, es in at.items()]


def _levels(way: Way) -> list[HorizontalLine]:
    """The ends of the way, and what the outputs can reach of it."""
    named = {"a guess": way.guess, "the floor": way.floor}
    if way.reachable > way.end:
        named["the least that these outputs can reach"] = way.reachable
    return [HorizontalLine(name, y) for name, y in named.items() if math.isfinite(y)]


def _ways(way: Way) -> Callable[[float, float], list[HorizontalLine]] | None:
    """Shares of the way at their losses: even ones, or of a picture of many decades those near its end."""
    if not way.known:
        return None

    def lines(low: float, high: float) -> list[HorizontalLine]:
        ends = max(way.share(high), 0.0), min(way.share(low), 1.0)
        many = low > way.end and (way.guess - way.end) / (low - way.end) > _MANY
        shares = _SHARES if many or not ends[0] < ends[1] else even(*ends)
        return [HorizontalLine(rounded(share), way.loss(share)) for share in shares]

    return lines


def _rates(history: Sequence[Snapshot]) -> Iterator[Event]:
    rate, told = math.nan, 0
    for snapshot in history:
        new = snapshot.learning_rate
        if math.isnan(new):
            continue
        changed = rate > 0 and new > 0 and not 1 / _CHANGED < new / rate < _CHANGED
        if math.isnan(rate):
            yield Event(snapshot.step, f"the learning rate is {number(new)}")
        elif changed and told < _MOST_RATES:
            told += 1
            yield Event(snapshot.step, f"the learning rate is {number(new)}, before {number(rate)}")
        rate = new if changed or math.isnan(rate) else rate


def _line(event: Event) -> Markup:
    said = tag("a", f"finding {event.sign}, {event.what}", href=event.link) if event.link else event.what
    return tag("li", tag("b", f"step {event.step}"), " ", said)


def _in_words(history: Sequence[Snapshot], way: Way) -> str:
    known = [s for s in history if math.isfinite(s.loss)]
    if not known:
        return "No loss is a number."
    first, last, now = known[0], known[-1], recent_loss(known)
    said = f"From {number(first.loss)} at step {first.step} to {number(now)}, the median at the end (step {last.step})."
    if way.known:
        gone = way.share(now)
        far = f"that is {percent(gone)} of {way} (on the right of the picture)"
        far = far if gone > 0 else "it is no better than that"
        said += f" An answer that does not look at the input (a guess) has {number(way.guess)}: {far}."
    later = next((s.step for s in history if s.step > last.step and s.nonfinite_loss), None)
    return said if later is None else f"{said} From step {later} on it is NaN or infinite."


def _described(history: Sequence[Snapshot], way: Way) -> str:
    return f"The loss over the steps. {_in_words(history, way)}"


def _table(history: Sequence[Snapshot], way: Way, named: Collection[int]) -> Markup:
    apart = max(1, math.ceil(len(history) / _MOST_LINES))
    chosen = [s for i, s in enumerate(history) if i % apart == 0 or s.step in named or i == len(history) - 1]
    columns = {
        "loss": ["NaN" if math.isnan(s.loss) and s.nonfinite_loss else _spelt(s.loss) for s in chosen],
        "share of the way": [_percent(way.share(s.loss)) for s in chosen],
        "loss in validation": [_spelt(s.validation_loss) for s in chosen],
        "learning rate": [_spelt(s.learning_rate) for s in chosen],
    }
    columns = {name: cells for name, cells in columns.items() if any(cells)}
    head = ["step", *columns]
    lines = [[str(s.step), *(cells[i] for cells in columns.values())] for i, s in enumerate(chosen)]
    said = f"The loss at one probed step of {apart}, at the last, and at those at which something happened"
    caption = "The loss" if apart == 1 else said
    return tag(
        "div",
        tag(
            "table",
            tag("caption", caption),
            tag("thead", tag("tr", [tag("th", each, scope="col") for each in head])),
            tag("tbody", [tag("tr", tag("th", row[0], scope="row"), [tag("td", v) for v in row[1:]]) for row in lines]),
        ),
        class_="scroll",
        tabindex=0,
        role="region",
        aria_label=caption,
    )


def _spelt(value: float) -> str:
    return "" if math.isnan(value) else number(value)


def _percent(value: float) -> str:
    return "" if math.isnan(value) else rounded(value)
