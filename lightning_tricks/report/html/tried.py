"""What was tried: experiments on copies, and trainings before and after a treatment."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

from lightning_tricks.diagnosis.experiment import Experiment
from lightning_tricks.report.html.chart import Axes, HorizontalLine, Series, chart, table
from lightning_tricks.report.html.markup import Markup, join, tag
from lightning_tricks.report.words import evidence, rounded, words

_SHARE = "share of the way"
_TOLD = 0.05  # seconds from which on it is said how many
_PICTURE = "data:image/png;base64,"
_EXAMPLES = 12
_SIDE = 64  # pixels of a picture
_LOOKS = ("l0", "l1", "l2", "l3")


@dataclass(frozen=True)
class CurveComparison:
    """Trainings before and after something was changed.

    Args:
        name: What was changed.
        curves: Of each training, by what was changed in it, pairs of a step and a number; the first is before.
        outcome: What came of it, in a sentence.
        measure: What the numbers are: ``"loss"``, ``"share of the way"`` ...
        guess: The number of a guess, drawn as a line; NaN for none.
    """

    name: str
    curves: Mapping[str, Sequence[tuple[float, float]]]
    outcome: str = ""
    measure: str = "loss"
    guess: float = math.nan


class Treated(Protocol):
    """What a treatment tells: its curves in shares of the way, what was tried, and the whole of it by ``str``."""

    @property
    def trials(self) -> Sequence[Experiment]: ...

    @property
    def curves(self) -> Mapping[str, Sequence[tuple[float, float]]]: ...

    @property
    def summary(self) -> str: ...


def experiments(made: Sequence[Experiment], proofs: Sequence[tuple[Experiment, int]] = ()) -> list[Markup]:
    """Each with its question, the answer, numbers and curves; those without an answer together at the end.

    Args:
        made: The experiments.
        proofs: Those that are shown with a finding, with its number: here they are told in a line.
    """
    answered = [each for each in made if each.conclusive]
    open_ones = [each for each in made if not each.conclusive]
    found = [next((number for proof, number in proofs if proof == each), None) for each in answered]
    parts = [_folded(each, number) for each, number in zip(answered, found, strict=True)]
    if open_ones:
        lines = [tag("li", tag("b", f"{words(each.name)}: "), each.answer) for each in open_ones]
        parts.append(tag("details", tag("summary", f"Asked without an answer: {len(open_ones)}"), tag("ul", lines)))
    return parts


def _folded(made: Experiment, finding: int | None) -> Markup:
    """Question and answer in a line; what was measured behind it, or with the finding that it proves."""
    name = tag("b", f"{words(made.name)}: ")
    if finding is not None:
        link = tag("a", f"the proof of finding {finding}", href=f"#finding-{finding}")
        return tag("p", name, f"{made.question} {made.answer} (", link, ")", class_="experiment")
    said = tag("summary", name, f"{made.question} {made.answer}")
    return tag("details", said, _measured(made), class_="experiment", open=bool(made.curves))


def experiment(made: Experiment) -> Markup:
    """One experiment, whole."""
    answer = f"Answer: {made.answer}" if made.conclusive else f"Not answered: {made.answer}"
    head = tag("p", tag("b", f"{words(made.name)}: "), made.question)
    return tag("div", head, tag("p", answer), _measured(made), class_="experiment")


def _measured(made: Experiment) -> list[Markup]:
    numbers = "; ".join(_numbers(made))
    parts = [tag("p", f"Measured: {numbers}.")] if numbers else []
    parts += _curves(made.curves, made.name) if made.curves else []
    if made.reading:
        said = [tag("p", _names_as_code(line)) for line in made.reading.splitlines()]
        parts.append(tag("details", tag("summary", "What the numbers are, and how to read them"), said))
    return [*parts, *_examples(made), tag("p", _effort(made), class_="quiet")]


def _numbers(made: Experiment) -> list[str]:
    """What was measured, without what was not; of trainings that are compared all shares in percent."""
    known = {key: value for key, value in made.numbers.items() if not math.isnan(value)}
    if "unchanged" in known:
        shares = {key for key in known if key in {*made.curves, "unchanged", "share"} or key.startswith("gain of ")}
        told = {key: f"{words(key)} {rounded(known.pop(key))}" for key in made.numbers if key in shares}
        return [*told.values(), *evidence(known)]
    return evidence({key: int(v) if math.isfinite(v) and v == int(v) else v for key, v in known.items()})


def _effort(made: Experiment) -> str:
    """Whose numbers these are: none of the training that the page is of."""
    took = f", {made.seconds:.1f} s" if made.seconds >= _TOLD else ""
    if not made.steps:
        return f"Asked of network and data as they were given, without a training{took}."
    return f"Measured{made.on}{took}: not the training whose loss this page shows."


def _names_as_code(text: str) -> Markup:
    """The names of numbers as they stand among them."""
    return join(tag("code", words(part)) if i % 2 else part for i, part in enumerate(text.split("`")))


def _examples(made: Experiment) -> list[Markup]:
    """Patterns of the data, each with its number and, of images, a picture."""
    if not made.examples:
        return []
    shown = []
    for each in made.examples[:_EXAMPLES]:
        name = f"{each.part} {each.index}"
        # The words are of a data set that someone else made; only a picture of one's own is shown.
        picture = each.picture if each.picture.startswith(_PICTURE) else ""
        image = tag("img", src=picture, alt=f"{name}: {each.text}", width=_SIDE, height=_SIDE) if picture else None
        shown.append(tag("li", image, tag("span", tag("b", name), f" {each.text}")))
    left = len(made.examples) - len(shown)
    said = f"Examples, {left} more in experiment.examples:" if left else "Examples:"
    return [tag("p", said), tag("ul", shown, class_="examples")]


def trials(made: Sequence[CurveComparison | Treated]) -> list[Markup]:
    """Each with its curves in one picture."""
    return [_trial(each) for each in made]


def _trial(made: CurveComparison | Treated) -> Markup:
    lines: list[Markup] = []
    whole, seeds = None, ""
    if not isinstance(made, CurveComparison):
        changes, *_ = str(made).split("\n\n")  # behind them stands the table of all that was tried
        lines = [tag("li", line.strip()) for line in changes.splitlines()[1:]]
        title, seeds = "All that was tried", " Of two seeds the first is drawn, and a gain is the smaller one."
        text = tag("pre", str(made), tabindex=0, role="region", aria_label=title)
        whole = tag("details", tag("summary", title), text)
        made = CurveComparison("Treatment", _best_first(made), made.summary, _SHARE)
    items = [(key, run) for key, run in made.curves.items() if run][: len(_LOOKS)]
    series = [
        Series(words(key), [step for step, _ in run], [value for _, value in run], look)
        for (key, run), look in zip(items, ("l1", "l0", "l2", "l3"), strict=False)
    ]
    levels = [] if math.isnan(made.guess) else [HorizontalLine("a guess", made.guess)]
    about = f"{made.outcome} Drawn: the {made.measure} over the steps.{seeds}".strip() if series else made.outcome
    parts = [tag("p", about) if about else None, tag("ul", lines) if lines else None]
    label = f"{made.name}: the {made.measure} over the steps. {made.outcome}"
    parts += _drawn(series, label, made.measure, levels) if series else []
    parts.append(whole)
    return tag("div", tag("h3", made.name), parts, class_="experiment")


def _best_first(made: Treated) -> dict[str, Sequence[tuple[float, float]]]:
    """The unchanged training, then what was changed in the order that it was made, then what gained most."""
    tried = {each.name: each.numbers for each in sorted(made.trials, key=lambda each: -each.numbers.get("gain", 0.0))}
    proven = sorted((name for name in tried if tried[name].get("proven")), key=lambda name: tried[name]["round"])
    order = list(dict.fromkeys([*(name for name in made.curves if name not in tried), *proven, *tried]))
    return {name: made.curves[name] for name in order if name in made.curves}


def _curves(curves: Mapping[str, Sequence[float]], name: str) -> list[Markup]:
    items = list(curves.items())[: len(_LOOKS)]
    series = [Series(words(key), range(len(run)), list(run), _LOOKS[k]) for k, (key, run) in enumerate(items)]
    label = f"Curves of the experiment {words(name)}: {', '.join(key for key, _ in items)}"
    if "unchanged" in curves:  # trainings that are compared are told in shares, each time that they were evaluated
        return _drawn(series, label, _SHARE, x="evaluation")
    return _drawn(series, label, "loss")


def _drawn(
    series: Sequence[Series], label: str, measure: str, levels: Sequence[HorizontalLine] = (), x: str = "optimiser step"
) -> list[Markup]:
    """The picture and its numbers."""
    percent = measure == _SHARE
    numbers = table(series, f"The {measure} at some steps", percent)
    return [
        chart(series, label, levels, axes=Axes(measure, x, percent=percent)),
        tag("details", tag("summary", f"The numbers: {measure}"), numbers),
    ]
