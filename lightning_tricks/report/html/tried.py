"""What was tried: experiments on copies, and trainings before and after a treatment."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import NamedTuple

from lightning_tricks.diagnosis.experiment import Experiment
from lightning_tricks.report.html.chart import Level, Series, chart
from lightning_tricks.report.html.markup import Markup, tag
from lightning_tricks.report.words import evidence

_LOOKS = ("l0", "l1", "l2", "l3")


class Trial(NamedTuple):
    """A training before and after something was changed.

    Args:
        name: What was changed.
        before, after: Losses, one per step.
        outcome: What came of it, in a sentence.
        guess: The loss of a guess; NaN where it is not known.
    """

    name: str
    before: Sequence[float]
    after: Sequence[float]
    outcome: str = ""
    guess: float = math.nan


def experiments(made: Sequence[Experiment], proofs: Sequence[tuple[Experiment, int]] = ()) -> list[Markup]:
    """Each with its question, the answer, numbers and curves; those without an answer together at the end.

    Args:
        made: The experiments.
        proofs: Those that are shown with a finding, with its number: here they are told in a line.
    """
    answered = [each for each in made if each.conclusive]
    open_ones = [each for each in made if not each.conclusive]
    parts = []
    for each in answered:
        finding = next((number for proof, number in proofs if proof == each), None)
        parts.append(experiment(each) if finding is None else _proof(each, finding))
    if open_ones:
        lines = [tag("li", tag("b", f"{each.name.replace('_', ' ')}: "), each.answer) for each in open_ones]
        parts.append(tag("details", tag("summary", f"Asked without an answer: {len(open_ones)}"), tag("ul", lines)))
    return parts


def _proof(made: Experiment, finding: int) -> Markup:
    link = tag("a", f"the proof of finding {finding}", href=f"#finding-{finding}")
    return tag("p", tag("b", f"{made.name.replace('_', ' ')}: "), f"{made.question} {made.answer} (", link, ")")


def experiment(made: Experiment) -> Markup:
    """One experiment."""
    effort = f"{made.steps} optimiser steps" if made.steps else "forwards and backwards only"
    effort += f", {made.seconds:.1f} s" if made.seconds else ""
    answer = f"Answer: {made.answer}" if made.conclusive else f"Not answered: {made.answer}"
    numbers = "; ".join(evidence(made.numbers))
    parts = [
        tag("p", tag("b", f"{made.name.replace('_', ' ')}: "), made.question),
        tag("p", answer),
        tag("p", f"Measured: {numbers}.") if numbers else None,
        _curves(made.curves, made.name) if made.curves else None,
        tag("p", f"Made on a copy of the network: {effort}.", class_="quiet"),
    ]
    return tag("div", parts, class_="experiment")


def trials(made: Sequence[Trial]) -> list[Markup]:
    """Each with both losses in one picture."""
    return [_trial(each) for each in made]


def _trial(made: Trial) -> Markup:
    series = [
        Series(name, range(len(losses)), list(losses), look)
        for name, losses, look in (("before", made.before, "l1"), ("after", made.after, "l0"))
    ]
    levels = [] if math.isnan(made.guess) else [Level("a guess", made.guess)]
    label = f"{made.name}: the loss before and after. {made.outcome}"
    return tag(
        "div",
        tag("h3", made.name),
        tag("p", made.outcome) if made.outcome else None,
        chart(series, label, levels),
        class_="experiment",
    )


def _curves(curves: Mapping[str, Sequence[float]], name: str) -> Markup:
    items = list(curves.items())[: len(_LOOKS)]
    series = [Series(key, range(len(run)), list(run), _LOOKS[k]) for k, (key, run) in enumerate(items)]
    return chart(series, f"Curves of the experiment {name.replace('_', ' ')}: {', '.join(key for key, _ in items)}")
