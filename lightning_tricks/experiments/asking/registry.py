"""What a checkup can try: every experiment enters itself here, with what it shows of a diagnosis."""

from __future__ import annotations

import dataclasses
import functools
import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any, Literal

from torch import nn

from lightning_tricks.diagnosis.diagnosis import Diagnosis
from lightning_tricks.diagnosis.experiment import Experiment
from lightning_tricks.diagnosis.finding import Finding
from lightning_tricks.diagnosis.history.progress import recent_loss
from lightning_tricks.experiments.asking.asks import LossFunction, copied
from lightning_tricks.experiments.asking.sampling import is_plain, spread_batches
from lightning_tricks.experiments.preflight.patterns import NotAskedError
from lightning_tricks.experiments.training import Training
from lightning_tricks.experiments.training.deadline import Deadline
from lightning_tricks.experiments.training.plan import planned_steps
from lightning_tricks.model.arguments import unknown_name

LEARNED = 0.85  # share of the way from a guess to the floor at which no training has to be tried
DRAWN = 4  # batches that are read from all over the data
Cost = Literal["forwards", "trainings"]


@dataclasses.dataclass
class Subject:
    """A training that experiments are made with, and what is known of it; nothing of it is changed.

    Args:
        model, loss_fn, optimizer: As they were given: copied before anything is run.
        data: What the batches came from.
        batches: Those that the steps of the diagnosis were made on.
        diagnosis: What the rules say to these steps.
        after: The model of the diagnosis after its last step; None where that is not at hand.
        val_data: Batches of validation, or None.
        deadline: When to end; copies compute no loss after it.
    """

    model: nn.Module
    loss_fn: LossFunction | None
    optimizer: Any
    data: Any
    batches: Sequence[Any]
    diagnosis: Diagnosis
    after: nn.Module | None = None
    val_data: Any = None
    deadline: Deadline = dataclasses.field(default_factory=lambda: Deadline(math.inf))
    done: dict[str, Experiment] = dataclasses.field(default_factory=dict)
    notes: dict[str, Any] = dataclasses.field(default_factory=dict)  # what an experiment keeps for what it brings

    @functools.cached_property
    def training(self) -> Training:
        """A copy from before the first step; an experiment makes its own of it.

        Raises:
            NotAskedError: It is no training that can be copied.
        """
        training = copied(self.model, self.loss_fn, self.optimizer)
        training.deadline, training.planned_steps = self.deadline, planned_steps(self.model, self.data)
        return training

    @functools.cached_property
    def trained(self) -> Training:
        """A copy from after the last step.

        Raises:
            NotAskedError: As ``training``, or there is none.
        """
        if self.after is None:
            raise NotAskedError("the model after the steps is not at hand")
        training = copied(self.after, self.loss_fn)
        training.deadline = self.deadline
        return training

    @functools.cached_property
    def drawn(self) -> list[Any]:
        """Batches with patterns from all over the data, read once; where these cannot be had, the first ones."""
        return spread_batches(self.data, DRAWN) if is_plain(self.data) else list(self.batches[:DRAWN])

    @property
    def batch(self) -> Any:
        """One batch of those: the first ones that came may be of one kind."""
        return self.drawn[0]

    @property
    def way(self) -> Mapping[str, float]:
        """``guess`` and ``floor`` where these are known."""
        tried = self.done.get("free_outputs")
        return tried.numbers if tried is not None and tried.conclusive else {}

    @property
    def share(self) -> float:
        """How much of the way from a guess to the floor the loss of the last steps has gone; NaN where not known."""
        way, history = self.way, self.diagnosis.history
        length = way.get("guess", math.nan) - way.get("floor", math.nan)
        return (way["guess"] - recent_loss(history)) / length if history and length > 0 else math.nan

    @property
    def asks_for_trainings(self) -> bool:
        """Whether a finding waits for its proof, or the loss is not near its floor, as that of few steps never is.

        The first that is tried is the training itself, for longer: where it learns, that is all.
        """
        waiting = any(finding.rank and finding.proof is None for finding in self.diagnosis.findings)
        return waiting or self.share < LEARNED  # not where the way is not known: then no training has a measure

    @property
    def is_unexplained(self) -> bool:
        """Whether it is not known to learn, and no change was found that makes it."""
        return not self.notes.get("learned", False) and self.notes.get("changes") is None

    def knows(self, *problems: str) -> bool:
        """Whether one of these problems is among the findings above info, folded ones included."""
        return any(finding.problem in problems and finding.rank for finding in self.findings)

    @property
    def findings(self) -> list[Finding]:
        """All so far, folded ones included."""
        return list(_all(self.diagnosis.findings))

    @property
    def seconds_left(self) -> float:
        return self.deadline.left


def _all(findings: Iterable[Finding]) -> Iterator[Finding]:
    for finding in findings:
        yield finding
        yield from _all(finding.consequences)


@dataclasses.dataclass(frozen=True)
class RegisteredExperiment:
    """An experiment as a checkup makes it.

    Args:
        name: The experiment's.
        run: From a subject to what came of it.
        cost: ``"forwards"``: a few forwards and backwards; ``"trainings"``: short ones, made only where they are asked
            for (``Subject.asks_for_trainings``).
        order: Its place among those of one cost.
        wanted: Whether it can be asked of a subject at all, such as one with validation data.
        brings: Findings that the rules cannot see.
        proves: Whether it shows what a finding says.
        refutes: Whether it shows that what a finding says does no harm: then it is no more than information.
    """

    name: str
    run: Callable[[Subject], Experiment]
    cost: Cost = "forwards"
    order: int = 0
    wanted: Callable[[Subject], bool] = lambda subject: True
    brings: Callable[[Subject, Experiment], Iterable[Finding]] = lambda subject, tried: ()
    proves: Callable[[Experiment, Finding], bool] = lambda tried, finding: False
    refutes: Callable[[Experiment, Finding], bool] = lambda tried, finding: False


_ENTRIES: dict[str, RegisteredExperiment] = {}
Run = Callable[[Subject], Experiment]


def tried(name: str, cost: Cost = "forwards", order: int = 0, **more: Any) -> Callable[[Run], Run]:
    """Enter the function under it as the way in which a checkup makes an experiment; as in ``RegisteredExperiment``."""

    def enter(run: Run) -> Run:
        _ENTRIES[name] = RegisteredExperiment(name, run, cost, order, **more)
        return run

    return enter


def entries() -> tuple[RegisteredExperiment, ...]:
    """All that can be tried, in the order in which they are: those without a training first."""
    return tuple(sorted(_ENTRIES.values(), key=lambda entry: (entry.cost != "forwards", entry.order, entry.name)))


def chosen(experiments: str | Iterable[str]) -> tuple[RegisteredExperiment, ...]:
    """The entries that ``experiments`` stands for: "auto" and "all" for every one, "none" for none, or names.

    Raises:
        TypeError: Neither a name nor a collection of names.
        ValueError: An unknown name.
    """
    if experiments in ("auto", "all", "none"):
        return () if experiments == "none" else entries()
    names = [experiments] if isinstance(experiments, str) else experiments
    if not isinstance(names, Iterable) or not all(isinstance(name, str) for name in names):
        raise TypeError(f"experiments must be 'auto', 'all', 'none' or names of experiments, got {experiments!r}")
    for name in (names := tuple(names)):
        if name not in _ENTRIES:
            raise ValueError(unknown_name("experiment", name, (*_ENTRIES, "auto", "all", "none")))
    return tuple(entry for entry in entries() if entry.name in names)
