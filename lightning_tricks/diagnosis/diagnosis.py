"""A diagnosis: what was found, and the history it was found in. Its views stand above and are entered here."""

from __future__ import annotations

import dataclasses
import functools
import pathlib
import sys
from collections.abc import Callable, Iterator, Sequence
from typing import Any, Literal, TextIO, TypeVar

from lightning_tricks.diagnosis.coverage import Coverage, count, coverage, doubt, looked_at
from lightning_tricks.diagnosis.experiment import Experiment
from lightning_tricks.diagnosis.finding import Finding, Trait, plain
from lightning_tricks.diagnosis.history.learning import TOLD_AFTER
from lightning_tricks.diagnosis.registry import RULES, wording
from lightning_tricks.probes import Snapshot

ViewName = Literal["text", "rich", "show", "csv", "html", "notebook"]
State = Literal["healthy", "sick", "not_learning", "unknown"]
View = TypeVar("View", bound=Callable[..., Any])
_views: dict[str, Callable[..., Any]] = {}


def view(name: ViewName) -> Callable[[View], View]:
    """Enter a function of a diagnosis as one of its views.

    ``text(diagnosis)`` is what ``print`` shows, ``rich(diagnosis, width)`` what rich does, ``show(diagnosis, file)``
    prints, ``csv(diagnosis, path)`` writes the history, ``html(diagnosis, path, trials)`` the page,
    ``notebook(diagnosis)`` is the HTML that a notebook shows.
    """

    def enter(function: View) -> View:
        _views[name] = function
        return function

    return enter


@dataclasses.dataclass(frozen=True)
class Diagnosis:
    """Findings, the cause first, and the snapshots behind them.

    ``print(diagnosis)`` shows it as aligned text, ``diagnosis.show()`` in colour where rich is installed.

    Args:
        findings: The findings, the cause first; what follows from one is folded under it.
        history: The probed steps, the oldest first.
        layers: Globs of the names to show; judged are all.
        experiments: What was tried on copies, in that order.
        treatment: What was changed in the model, where a checkup ended with a treatment.

    >>> print(Diagnosis())
    Unknown: nothing was looked at yet.
    >>> finding = Finding("vanishing_gradient", "net.38", "critical", 4, {"slope": -0.51})
    >>> diagnosis = Diagnosis([finding])
    >>> diagnosis.healthy, diagnosis.verdict
    (False, 'Sick: the gradient vanishes at net.38.')
    """

    findings: list[Finding] = dataclasses.field(default_factory=list)
    history: list[Snapshot] = dataclasses.field(default_factory=list)
    layers: tuple[str, ...] = ("*",)
    experiments: list[Experiment] = dataclasses.field(default_factory=list)
    treatment: Any = dataclasses.field(default=None, compare=False)

    def __post_init__(self) -> None:
        # Lists of its own: the history that it was made from grows while the training goes on.
        object.__setattr__(self, "findings", list(self.findings))
        object.__setattr__(self, "history", list(self.history))
        object.__setattr__(self, "experiments", list(self.experiments))

    @property
    def state(self) -> State:
        """One word for it.

        ``"healthy"``: layers, gradients and updates were seen, the loss is not known to stand at that of a guess, and
        no finding, folded ones included, is at "warning" or "critical". ``"sick"``: one is. ``"not_learning"``: the
        only one is that the loss stays at that of a guess. ``"unknown"``: there is none, and what was seen is not
        enough to call it healthy.
        """
        problems = {finding.problem for root in self.findings for finding in _tree(root) if finding.rank}
        if problems:
            return "not_learning" if problems == {"not_learning"} else "sick"
        return "healthy" if self._doubt is None else "unknown"

    @property
    def healthy(self) -> bool:
        """Whether the state is "healthy"."""
        return self.state == "healthy"

    @functools.cached_property
    def coverage(self) -> Coverage:
        """How much of the training was seen."""
        return coverage(self.history, {rule.problem: rule.needs for rule in RULES})

    @property
    def verdict(self) -> str:
        """The diagnosis in one sentence; it begins with the state."""
        sick = [root for root in self.findings if any(finding.rank for finding in _tree(root))]
        if sick:
            name = "Not learning" if self.state == "not_learning" else "Sick"
            return f"{name}: {_cause(sick[0])}{_and_more(len(sick) - 1)}."
        if self._doubt is not None:
            return f"Unknown: {self._doubt}."
        steps = self.history[-1].step - self.history[0].step + 1
        if steps < TOLD_AFTER:
            return f"Healthy so far: no fault found in {count(steps, 'step')}, too early to tell whether it learns."
        slow = next((root for root in self.findings if Trait.SLOW in root.traits), None)
        if slow is not None:
            return f"Healthy: it learns, but slowly: {_cause(slow)}."
        return f"Healthy: no warnings in {looked_at(self.history)}."

    @functools.cached_property
    def _doubt(self) -> str | None:
        return doubt(self.history) or next((each.doubt for each in self.experiments if each.doubt), None)

    def __repr__(self) -> str:
        counts = count(len(self.findings), "finding"), count(len(self.history), "snapshot")
        return f"Diagnosis({', '.join((self.state, *counts))})"

    def __str__(self) -> str:
        return str(_views["text"](self))

    def __rich_console__(self, console: Any, options: Any) -> Iterator[Any]:
        yield from _views["rich"](self, options.max_width)

    def _repr_html_(self) -> str:
        return str(_views["notebook"](self))

    def show(self, file: TextIO | None = None) -> None:
        """Print the table, in colour where rich is installed and the terminal has colours."""
        _views["show"](self, sys.stdout if file is None else file)

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON: state, verdict, coverage, findings, experiments, history, and the treatment if there was one."""
        whole = {
            "healthy": self.healthy,
            "state": self.state,
            "verdict": self.verdict,
            "coverage": dataclasses.asdict(self.coverage),
            "findings": self.findings,
            "experiments": self.experiments,
            "history": [snapshot.to_dict() for snapshot in self.history],
            **({} if self.treatment is None else {"treatment": self.treatment.to_dict()}),
        }
        return {name: plain(part) for name, part in whole.items()}

    def to_csv(self, path: str | pathlib.Path) -> pathlib.Path:
        """Write the history as a tidy table; see :func:`lightning_tricks.report.write_csv`."""
        return pathlib.Path(_views["csv"](self, path))

    def to_html(self, path: str | pathlib.Path, trials: Sequence[Any] = ()) -> pathlib.Path:
        """Write one page that holds all of it and loads nothing; see :func:`lightning_tricks.report.write_html`."""
        return pathlib.Path(_views["html"](self, path, trials))


def at(layer: str | None) -> str:
    """Where a problem is, to go behind it in a sentence; empty for the whole model.

    >>> at("net.2"), at("2"), at(None)
    (' at net.2', ' at layer 2', '')
    """
    return f" at {called(layer)}" if layer else ""


def called(layer: str) -> str:
    """A layer's name by which it can be told from a number.

    >>> called("net.2"), called("2")
    ('net.2', 'layer 2')
    """
    return f"layer {layer}" if layer.isdigit() else layer


# Of consequences of one severity, these say most about why the network does not learn.
_STOPS_LEARNING = ("non_finite", "exploding_gradient", "vanishing_gradient")


def _tree(finding: Finding) -> Iterator[Finding]:
    yield finding
    for consequence in finding.consequences:
        yield from _tree(consequence)


def _cause(root: Finding) -> str:
    cause = f"{_clause(root)}{at(root.layer)}"
    following = [finding for finding in list(_tree(root))[1:] if finding.rank >= max(root.rank, 1)]
    if not following:
        return cause
    symptom = max(following, key=lambda finding: (finding.rank, finding.problem in _STOPS_LEARNING))
    return f"{_clause(symptom)} because {cause}"


def _clause(finding: Finding) -> str:
    return wording(finding.problem).clause_of(finding)


def _and_more(count: int) -> str:
    return "" if count < 1 else f" (and {count} more finding{'s' if count > 1 else ''})"
