"""How long something has been so: the persistence of a problem over the probed steps."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence, Set
from dataclasses import dataclass
from typing import Any

from lightning_tricks.diagnosis.finding import Criterion, Finding, Remedy, Severity, Trait
from lightning_tricks.diagnosis.history.progress import is_stuck
from lightning_tricks.probes import Snapshot

# Optimiser steps within which a start that is faint or linear, as torch's default gives deeper networks, mends itself.
# Weights grow by updates, so it is counted in these and neither in patterns nor as a share of the training: of 76
# healthy ones that began faint Adam's were over it by step 8 with batches of 32, 32 with 64, 4 with 256, plain gradient
# descent's by 32 with 16 and with 32, momentum's by 100; three took longer. Shorter trainings get information only.
RECOVERY = 100
HYSTERESIS = 3  # probed steps over which a problem has to hold before it is more than information
_Holds = Callable[[Snapshot], bool]
_Named = Callable[[Snapshot], Set[str]]


@dataclass(frozen=True)
class Persistence:
    """A problem that holds at the last probed step."""

    since: int  # the optimiser step of the first snapshot of the unbroken run in which it holds
    run: int  # the number of snapshots in that run
    at: Snapshot  # the last of them

    @classmethod
    def over(cls, snapshots: Sequence[Snapshot]) -> Persistence:
        """Of what holds in all of these snapshots, the oldest first."""
        return cls(snapshots[0].step, len(snapshots), snapshots[-1])

    def severity(self, *, critical: bool = False) -> Severity:
        """Info until the problem has held long enough."""
        return "info" if self.run < HYSTERESIS else "critical" if critical else "warning"

    def finding(
        self,
        problem: str,
        layer: str | None,
        severity: Severity,
        evidence: Mapping[str, Any],
        explanation: str,
        remedies: Iterable[Remedy] = (),
        why: Iterable[Criterion] = (),
        traits: Iterable[Trait] = (),
        related: str | None = None,
    ) -> Finding:
        """The finding of this problem: since when it holds, and for how long, is known; decided by what holds."""
        long = [Criterion("probed steps that show it", self.run, ">=", HYSTERESIS)] if severity != "info" else []
        decided = tuple(criterion for criterion in (*why, *long) if criterion.holds)
        todo, kind = tuple(remedies), frozenset(traits)
        return Finding(problem, layer, severity, self.since, evidence, explanation, todo, (), kind, related, decided)


def persistence(history: Sequence[Snapshot], holds: _Holds, *, from_start: bool = False) -> Persistence | None:
    """The persistence of a problem, or None where it does not hold at the last probed step.

    Args:
        history: The snapshots, the oldest first.
        holds: Whether the problem shows in a snapshot.
        from_start: Whether it also counts where it held over the first HYSTERESIS snapshots and the training has come
            to nothing since: what ruined a training need not show in its ruins.
    """
    return persistences(history, _whole(holds), from_start=from_start).get("")


def leading(history: Sequence[Snapshot], holds: _Holds) -> Persistence | None:
    """The persistence of a problem from the first probed step on, if not until the last."""
    return leading_in(history, _whole(holds)).get("")


def persistences(history: Sequence[Snapshot], named: _Named, *, from_start: bool = False) -> dict[str, Persistence]:
    """As :func:`persistence`, of all layers in one walk: ``named`` gives those in which the problem shows."""
    found = {name: Persistence.over(history[-run:]) for name, run in _runs(reversed(history), named)}
    if from_start and named(history[0]) - found.keys() and is_stuck(history):
        first = {name: start for name, start in leading_in(history, named).items() if start.run >= HYSTERESIS}
        return first | found
    return found


def leading_in(history: Sequence[Snapshot], named: _Named) -> dict[str, Persistence]:
    """As :func:`leading`, of all layers in one walk."""
    return {name: Persistence.over(history[:run]) for name, run in _runs(history, named)}


def _whole(holds: _Holds) -> _Named:
    """What shows in the whole model, as if in a layer without a name."""
    return lambda snapshot: frozenset([""] if holds(snapshot) else ())


def _runs(snapshots: Iterable[Snapshot], named: _Named) -> Iterator[tuple[str, int]]:
    """Every layer that the first of these snapshots names, with the number of those in a row that do."""
    left: Set[str] | None = None
    run = 0
    for snapshot in snapshots:
        names = named(snapshot)
        left = names if left is None else left
        if not left <= names:
            yield from ((name, run) for name in left - names)
            left &= names
        if not left:
            return
        run += 1
    yield from ((name, run) for name in left or ())


def first_of(findings: Iterable[Finding]) -> list[Finding]:
    """Of one problem in several layers, given in the order of execution: the one that is surest, then the oldest."""
    return sorted(findings, key=lambda finding: (finding.rank == 0, finding.step))[:1]
