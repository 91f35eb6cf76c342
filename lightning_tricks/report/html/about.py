"""What the page rests on: coverage, what was not seen, settings, versions, the machine, the words."""

from __future__ import annotations

import importlib.metadata
import math
import os
import platform
import sys
from collections.abc import Iterator, Sequence

import torch

from lightning_tricks.diagnosis.coverage import Coverage
from lightning_tricks.diagnosis.diagnosis import Diagnosis
from lightning_tricks.diagnosis.registry import wording
from lightning_tricks.probes import LossRecord, Snapshot
from lightning_tricks.report.glossary import WORDS
from lightning_tricks.report.html.markup import Markup, tag
from lightning_tricks.report.words import number

_MOST_MISSED = 100
_CHOOSING = ("cross_entropy", "nll_loss", "multi_margin_loss")  # one of several classes


def coverage(seen: Coverage) -> list[Markup]:
    """What the verdict rests on, and what could not be judged."""
    parts = [tag("p", f"Seen: {seen}, at {seen.looks} probed steps.")]
    if seen.not_judged:
        names = ", ".join(wording(problem).heading for problem in seen.not_judged)
        parts.append(tag("p", f"Not judged, as what it takes was not seen: {names}.", class_="quiet"))
    if seen.without_gradient:
        parts.append(tag("p", f"Without a gradient so far: {', '.join(seen.without_gradient[:20])}.", class_="quiet"))
    return parts


def not_seen(history: Sequence[Snapshot]) -> list[Markup]:
    """Places of which nothing is known, and why; None of them where all was seen."""
    missed = {name: why for snapshot in history for name, why in snapshot.not_seen.items()}
    if not missed:
        return [tag("p", "Everything that ran was seen.")]
    items = [tag("li", tag("b", name), f": {why}") for name, why in list(missed.items())[:_MOST_MISSED]]
    more = len(missed) - _MOST_MISSED
    said = tag("p", f"And {more} more, in diagnosis.history[-1].not_seen.") if more > 0 else None
    return [tag("p", "Nothing is said about these, neither good nor bad:"), tag("ul", items), *([said] if said else [])]


def settings(diagnosis: Diagnosis) -> list[Markup]:
    """How the training was set and what was looked at."""
    return [_facts("The training", _training(diagnosis)), _facts("Versions and machine of this page", _machine())]


def vocabulary() -> list[Markup]:
    """The words of the page, from the glossary."""
    terms = [part for word in WORDS.values() for part in (tag("dt", word.term), tag("dd", str(word)))]
    return [tag("details", tag("summary", f"{len(WORDS)} words"), tag("dl", terms), class_="print")]


def _training(diagnosis: Diagnosis) -> Iterator[tuple[str, str]]:
    history = diagnosis.history
    if not history:
        return
    first, last = history[0], history[-1]
    yield "probed steps", f"{len(history)}, from step {first.step} to {last.step}"
    if "*" not in diagnosis.layers:
        yield "layers shown", f"{', '.join(diagnosis.layers)} (judged are all)"
    if not math.isnan(last.epoch):
        yield "epochs", number(last.epoch)
    losses = dict.fromkeys(_call(record) for snapshot in history for record in snapshot.losses)
    if losses:
        yield "loss", ", ".join(losses)
        weights = _weights([record for snapshot in history for record in snapshot.losses])
        if weights:
            yield "weights of the classes", weights
    rates = [s.learning_rate for s in history if not math.isnan(s.learning_rate)]
    if rates:
        yield (
            "learning rate",
            number(rates[0]) if min(rates) == max(rates) else f"{number(rates[0])} to {number(rates[-1])}",
        )
    training = next((s.training for s in reversed(history) if s.training is not None), None)
    if training is not None:
        yield "optimisers", str(training.optimizers)
        decays = [decay for decay in training.decays if not math.isnan(decay)]
        if decays:
            yield "weight decay", ", ".join(dict.fromkeys(map(number, decays)))
    if first.loss_scale != 1.0:
        yield "loss scale", number(first.loss_scale)


def _call(record: LossRecord) -> str:
    """A loss as it was called; of an old record as far as that is known."""
    known = [f"label_smoothing={record.smoothing:g}"] * (record.smoothing > 0)
    known += [f"reduction={record.reduction!r}"] * (record.reduction not in ("", "mean"))
    given = record.arguments or ", ".join(known)
    return f"{record.function}({given})" if given else record.function


def _weights(records: Sequence[LossRecord]) -> str:
    """What the classes weigh; where outputs say yes or no, what either does. Empty without weights."""
    known = [record for record in records if all(map(math.isfinite, record.class_weights)) and record.class_weights]
    if not known:
        return ""
    weights = known[-1].class_weights
    if known[-1].function not in _CHOOSING:
        return f"no {number(weights[0])}, yes {number(weights[-1])}"
    return f"{number(min(weights))} to {number(max(weights))}"


def _machine() -> Iterator[tuple[str, str]]:
    for name in ("lightning-tricks", "torch", "lightning", "numpy"):
        try:
            yield name, importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    yield "Python", sys.version.split()[0]
    yield "system", f"{platform.system()} {platform.machine()}, {os.cpu_count()} processors"
    if torch.cuda.is_available():
        yield "GPU", torch.cuda.get_device_name()


def _facts(caption: str, facts: Iterator[tuple[str, str]]) -> Markup:
    rows = [tag("tr", tag("th", name, scope="row"), tag("td", value)) for name, value in facts]
    return tag("table", tag("caption", caption), tag("tbody", rows), class_="facts")
