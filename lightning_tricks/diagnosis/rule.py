"""A rule: a function from snapshots to findings, with all that is known of its problem."""

from __future__ import annotations

import dataclasses
import importlib
import operator
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any, Literal, NamedTuple, TypeVar, get_args

from lightning_tricks.diagnosis.finding import Finding, Remedy, Trait
from lightning_tricks.diagnosis.history.persistence import first_of
from lightning_tricks.probes import Snapshot

# Where a problem stands in the order of causes: what lies in the code or the data comes first, what came of it last.
Stage = Literal["code", "depth", "start", "first gradient", "first loss", "learning rate", "units", "gradient", "end"]
STAGES: tuple[str, ...] = get_args(Stage)
# Which snapshots a rule is given: those before the first NaN or Inf; the same, thinned where they are many; with the
# losses on the way to the first NaN or Inf; or every snapshot.
Reads = Literal["finite", "thinned", "last losses", "whole"]
# What has to have been seen for a rule to judge.
Need = Literal[
    "layers", "activations", "error signals", "gradients", "updates", "losses", "validation", "batch norms", "preflight"
]
ANY = "*"  # in follows_from: of whatever is more than information
T = TypeVar("T")
Judge = Callable[[Sequence[Snapshot]], Iterable[Finding]]
KNOWN: dict[str, Rule] = {}  # every rule that was made, by its problem


class Words(NamedTuple):
    """A problem as a heading, as a clause that can follow "the network is sick:", and as a row of a table."""

    heading: str
    clause: str
    row: int = 99
    cure: str = ""
    clauses: Mapping[Trait, str] = {}

    def clause_of(self, finding: Finding) -> str:
        """The clause that fits the finding's traits."""
        return next((text for trait, text in self.clauses.items() if trait in finding.traits), self.clause)


class RuleError(RuntimeError):
    """A rule failed, or gave what is no finding of its problem; ``rule`` is that rule."""

    def __init__(self, rule: Rule, what: str) -> None:
        super().__init__(f"the rule of {rule.problem} {what}")
        self.rule = rule


@dataclasses.dataclass(frozen=True, eq=False)
class Rule:
    """A function that finds one problem, called as that function; made by :func:`rule`, whose arguments are its fields.

    Args:
        judge: The function; the first line of its docstring says what the problem means.
    """

    judge: Judge
    problem: str
    stage: Stage
    brings_about: frozenset[str]
    words: Words
    remedies: tuple[Remedy, ...]
    follows_from: frozenset[str]
    at_start: Stage
    order: int
    first_only: bool
    reads: Reads
    needs: frozenset[str]

    def __call__(self, history: Sequence[Snapshot]) -> list[Finding]:
        try:
            found = list(self._as_far_as_needed(history))
        except Exception as error:
            raise RuleError(self, f"failed: {type(error).__name__}: {error}") from error
        wrong = [each for each in found if not isinstance(each, Finding) or each.problem != self.problem]
        if wrong:
            raise RuleError(self, f"has to give findings of that problem, and gave {wrong[0]!r}")
        found = first_of(found) if self.first_only else found
        return [each if each.remedies else dataclasses.replace(each, remedies=self.remedies) for each in found]

    def _as_far_as_needed(self, history: Sequence[Snapshot]) -> Iterator[Finding]:
        """Where only the first is kept, none comes before one that is sure and began with the first look."""
        for finding in self.judge(history):
            yield finding
            known = self.first_only and isinstance(finding, Finding)
            if known and finding.rank and finding.step == history[0].step:
                return

    def __reduce__(self) -> tuple[Any, ...]:
        return _named, (self.judge.__module__, self.judge.__qualname__)  # the function's name is the rule's

    @property
    def means(self) -> str:
        """What the problem is, as a cell of a table."""
        lines = (self.judge.__doc__ or self.words.clause).strip().splitlines()
        return lines[0][:1].lower() + lines[0][1:].rstrip(".")


def rule(
    problem: str,
    stage: Stage,
    brings_about: str | Iterable[str] = (),
    heading: str = "",
    remedies: Iterable[Remedy] = (),
    *,
    clause: str = "",
    clauses: Mapping[Trait, str] | None = None,
    follows_from: str | Iterable[str] = (),
    at_start: Stage | None = None,
    order: int | None = None,
    table: tuple[int, str] = (99, ""),
    first_only: bool = False,
    reads: Reads = "finite",
    needs: Need | Iterable[Need] = (),
) -> Callable[[Judge], Rule]:
    """Make a rule of a function from snapshots, the oldest first, to findings of one problem.

    Args:
        problem: Its name, the findings' ``problem``.
        stage: Where it stands in the order of causes: ``"code"`` (which hardly follows from anything), ``"start"``,
            ``"learning rate"``, ``"units"`` (while it trains), ``"gradient"`` or ``"end"``; what is between them is in
            ``STAGES``.
        brings_about: Problems that follow from it and are folded under it; names in a string are parted by spaces.
        heading: The problem in the table, such as ``"dead units"``.
        remedies: What to do, for findings that bring no remedies of their own.
        clause: The problem as a clause, ``"units are dead"``.
        clauses: Other clauses, for findings of some trait.
        follows_from: Problems under which it is folded, though their own rules do not say so; ``"*"`` for all.
        at_start: The stage of findings that began with the first step.
        order: Its place among those of one stage and layer; the first if it brings anything about, else the last.
        table: Its place in the README's table, and the first remedy in a few words; without, it shares the row before.
        first_only: Whether of several findings only the first is kept, of those above info if there are any.
        reads: Which snapshots it is given: ``"finite"``, those before the first NaN or Inf; ``"thinned"``, the same,
            fewer where they are many; ``"last losses"``, also the losses up to the NaN; ``"whole"``, all.
        needs: What has to have been seen for it to judge, ``"updates"`` or several of such; the coverage counts by it.

    Raises:
        ValueError: ``problem`` is no name or has a rule elsewhere, or a stage is unknown.

    >>> @rule("high_loss", "end", heading="high loss", remedies=[Remedy("wait", "train for longer")])
    ... def find_high_loss(history):
    ...     \"\"\"The loss is over 9.\"\"\"
    ...     return [Finding("high_loss", None, "info", s.step) for s in history if s.loss > 9][-1:]
    >>> print(find_high_loss([Snapshot(3, loss=10.0)])[0])
    info: high_loss, since step 3.  What to do: train for longer.
    """
    if not problem.isidentifier():
        raise ValueError(f"problem must be a name such as 'dead_units', got {problem!r}")
    todo, begun = tuple(remedies), at_start or stage
    for name in (stage, begun):
        if name not in STAGES:
            raise ValueError(f"unknown stage {name!r}; known are {', '.join(STAGES)}")
    if reads not in get_args(Reads):
        raise ValueError(f"reads must be one of {', '.join(get_args(Reads))}, got {reads!r}")
    needed = frozenset([needs] if isinstance(needs, str) else needs)
    if not needed <= set(get_args(Need)):
        raise ValueError(f"needs must be of {', '.join(get_args(Need))}, got {needs!r}")
    heading, causes, follows = heading or problem.replace("_", " "), _names(brings_about), _names(follows_from)
    words = Words(heading, clause or heading, *table, clauses or {})
    place = (0 if causes else 9) if order is None else order

    def make(judge: Judge) -> Rule:
        if problem in KNOWN and KNOWN[problem].judge.__module__ != judge.__module__:  # not a notebook's cell run again
            raise ValueError(f"there is a rule for {problem} already: give the problem of yours another name")
        KNOWN[problem] = Rule(
            judge, problem, stage, causes, words, todo, follows, begun, place, first_only, reads, needed
        )
        return KNOWN[problem]

    return make


def thresholds(numbers: type[T]) -> T:
    """The one frozen record of a rule's thresholds, each with its source or its calibration.

    >>> @thresholds
    ... class LIMITS:
    ...     dead: float = 0.5  # share of units
    >>> dataclasses.replace(LIMITS, dead=0.25).dead
    0.25
    """
    return dataclasses.dataclass(frozen=True)(numbers)()


def _named(module: str, name: str) -> Any:
    return operator.attrgetter(name)(importlib.import_module(module))


def _names(names: str | Iterable[str]) -> frozenset[str]:
    return frozenset(names.split() if isinstance(names, str) else names)
