"""What a doctor says of the history that it keeps, and what of it is new."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any, Literal, get_args

from lightning_tricks.diagnosis import PROBLEMS, Finding, Rule, diagnose
from lightning_tricks.diagnosis.diagnosis import Diagnosis
from lightning_tricks.diagnosis.registry import as_ignored
from lightning_tricks.diagnosis.rule import RuleError
from lightning_tricks.probes import Snapshot
from lightning_tricks.watch.errors import say

OnProblem = Literal["warn", "stop", "raise", "log"]


class TrainingProblemError(RuntimeError):
    """A training that was to stop at its first problem has met one; ``finding`` says which."""

    def __init__(self, finding: Finding) -> None:
        super().__init__(str(finding))
        self.finding = finding

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (self.finding,)


def check_on_problem(on_problem: Any) -> None:
    if on_problem not in get_args(OnProblem):
        raise ValueError(f"on_problem must be one of {', '.join(get_args(OnProblem))}, got {on_problem!r}")


class Judge:
    """Asks the rules about a history, once for every change of it, and remembers which findings were told.

    Args:
        ignore: Problems that are not to be found.
        rules: Rules of the user's own; one that fails is left out from there on.
        shown: Globs of the layers to show.

    Raises:
        ValueError: A name in ``ignore`` is unknown, or there is a rule for a problem already.

    >>> Judge().diagnosis([]).state
    'unknown'
    """

    def __init__(
        self,
        ignore: Sequence[str] = (),
        rules: Rule | Sequence[Rule] = (),
        shown: tuple[str, ...] = ("*",),
    ) -> None:
        self.ignore = as_ignored(ignore)
        self.rules = (rules,) if isinstance(rules, Rule) else tuple(rules)
        self.shown = shown
        diagnose([], ignore=self.ignore, rules=self.rules)  # what is wrong is an error at once
        self._told: set[tuple[str, str | None]] = set()
        self._diagnosis: Diagnosis | None = None

    def diagnosis(self, history: Sequence[Snapshot]) -> Diagnosis:
        """What the rules say; what they said before unless the history has changed since."""
        while self._diagnosis is None:
            known = {*PROBLEMS, *(rule.problem for rule in self.rules)}
            ignore = [problem for problem in self.ignore if problem.partition(":")[0] in known]
            try:
                found = diagnose(history, ignore=ignore, rules=self.rules)
                self._diagnosis = dataclasses.replace(found, layers=self.shown)
            except RuleError as error:
                if error.rule not in self.rules:
                    raise
                self.rules = tuple(rule for rule in self.rules if rule is not error.rule)
                say(f"{error}. It is left out from here on, the others go on.")
        return self._diagnosis

    def changed(self) -> None:
        """The history is another one than before."""
        self._diagnosis = None

    def news(self, history: Sequence[Snapshot]) -> list[Finding]:
        """The findings above info that were not told before; of a training that has begun anew all are new."""
        if len(history) == 1:
            self._told.clear()
        new = []
        for finding in self.diagnosis(history).findings:
            if finding.rank > 0 and (finding.problem, finding.layer) not in self._told:
                self._told.add((finding.problem, finding.layer))
                new.append(finding)
        return new

    def own_state(self) -> dict[str, Any]:
        """Which findings were told, as plain data."""
        return {"reported": [list(pair) for pair in sorted(self._told, key=str)]}

    def restore(self, state: Mapping[str, Any]) -> None:
        told = state.get("reported") or state.get("told", [])  # its name in version 0.1
        self._told = {(problem, layer) for problem, layer in told}
        self.changed()
