"""A treatment: what was tried, what was proven, what was changed in the model, and the way back."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any

from lightning_tricks._compat.messages import ShownAsText
from lightning_tricks.diagnosis.experiment import Experiment
from lightning_tricks.diagnosis.finding import Remedy, plain
from lightning_tricks.report.words import rounded

_MOST_SHOWN = 8  # trials of a round in the table
_NOTES = (
    "of the way: from the loss of a guess, 0 %, to the floor, 100 %",
    "unchanged: the best in up to four times as many steps",
    "* proven on two seeds; the gain is the smaller one of both",
)


@dataclasses.dataclass(frozen=True)
class Proven(Remedy):
    """A remedy that was tried.

    Args:
        gain: What it gained, in shares of the way from the loss of a guess to the lowest one.
        in_model: Whether it is a change of the model; else it stands among the advice.
    """

    gain: float = 0.0
    in_model: bool = True

    def __str__(self) -> str:
        return self.text


@dataclasses.dataclass
class Treatment(ShownAsText):
    """What a treatment did.

    ``print(treatment)`` shows the table "changed one thing, share of the way".

    Args:
        remedies: What was proven, in the order in which one was put on top of the other.
        applied: Those of them that were made in the model; none in a dry run, and none after ``undo()``.
        advice: What is not in the model: values by name, ready to be used.
        gains: What each of these brought.
        trials: All that was tried, also what did not help.
        curves: Shares of the way over steps, by what was changed: pairs (step, share).
        before, after: Shares of the way, the best without the remedies and with them: the latter after fewer steps.
        steps: Optimiser steps of all trials together.
        note: Why nothing was tried, or what was cut short.
        dry_run: Whether the model was to stay as it is.
    """

    remedies: list[Proven] = dataclasses.field(default_factory=list)
    applied: list[Proven] = dataclasses.field(default_factory=list)
    advice: dict[str, Any] = dataclasses.field(default_factory=dict)
    gains: dict[str, float] = dataclasses.field(default_factory=dict)
    trials: list[Experiment] = dataclasses.field(default_factory=list)
    curves: dict[str, list[tuple[int, float]]] = dataclasses.field(default_factory=dict)
    before: float = float("nan")
    after: float = float("nan")
    steps: int = 0
    note: str = ""
    dry_run: bool = False
    _put_back: Callable[[], None] | None = dataclasses.field(default=None, repr=False)

    def undo(self) -> None:
        """The model as it was before the treatment, bit for bit: also what it has learned since is gone."""
        put_back, self._put_back = self._put_back, None
        if put_back is not None:
            put_back()
        self.applied = []

    @property
    def summary(self) -> str:
        """One sentence."""
        if not self.remedies:
            return f"Nothing gained: nothing changed{f' ({self.note})' if self.note else ''}."
        count = len([remedy for remedy in self.remedies if remedy.in_model])
        changed = "the model stays"
        if count:
            were = "would be" if self.dry_run else "was" if count == 1 else "were"
            changed = f"{count} thing{'s' if count != 1 else ''} {were} changed in the model"
        note = f" ({self.note})" if self.note else ""
        way = f"From {rounded(self.before)} to {rounded(self.after)} of the way"
        return f"{way}, on copies of the network as it was given: {changed}{note}."

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON."""
        known = {field.name: getattr(self, field.name) for field in dataclasses.fields(self) if field.repr}
        return {"summary": self.summary} | {name: plain(value) for name, value in known.items()}

    def __str__(self) -> str:
        lines = [self.summary]
        for remedy in self.remedies:
            where = f" at {remedy.layer}" if remedy.layer else ""
            kind, gain = "changed" if remedy.in_model else "advice ", rounded(remedy.gain, "+.0%")
            lines.append(f"  {kind}: {remedy.text}{where}  (gain {gain})")
        if self.advice:
            lines.append("  use: " + ", ".join(f"{name}={_shown(value)}" for name, value in self.advice.items()))
        tried = [trial for trial in self.trials if trial.conclusive]
        if tried:
            lines += ["", *_table(tried)]
        return "\n".join(lines)


def _shown(value: Any) -> str:
    if isinstance(value, tuple):
        return f"({', '.join(map(_shown, value))})"
    return f"{value:.4g}" if isinstance(value, float) else repr(value)


def _table(trials: Sequence[Experiment]) -> list[str]:
    """Round after round, in each the best first; of a learning rate's steps the best in each direction."""
    rows, more = list[list[str]](), 0
    rows.append(["changed one thing", "share of the way", "unchanged", "gain", "after steps"])
    for number in sorted({trial.numbers["round"] for trial in trials}):
        ranked = sorted((t for t in trials if t.numbers["round"] == number), key=lambda t: -t.numbers["gain"])
        best = list({trial.name: trial for trial in reversed(ranked)}.values())[::-1]
        best = sorted(best, key=lambda trial: -trial.numbers["gain"])
        if number > 1:
            rows.append(["then, on top of it", *[""] * 4])
        for trial in best[:_MOST_SHOWN]:
            numbers, mark = trial.numbers, " *" if trial.numbers["proven"] else ""
            shares = rounded(numbers["share"]), rounded(numbers["unchanged"]), rounded(numbers["gain"], "+.0%")
            rows.append([trial.name + mark, *shares, f"{numbers['after']:.0f}"])
        more += len(ranked) - len(best[:_MOST_SHOWN])
    widths = [max(len(row[k]) for row in rows) for k in range(len(rows[0]))]
    lines = []
    for name, *cells in rows:
        columns = [text.rjust(width) for text, width in zip(cells, widths[1:], strict=True)]
        lines.append("  ".join([name.ljust(widths[0]), *columns]).rstrip())
    return [*lines, *_NOTES, *([f"and {more} more, which gained less"] if more > 0 else [])]
