"""What the rules, and the peers', say to one stored run at every look."""

from __future__ import annotations

import dataclasses
import traceback
from collections.abc import Iterator
from typing import Any

from lightning_tricks.diagnosis import Finding, find
from lightning_tricks.probes import Snapshot
from lightning_tricks.watch import selection

from ..case import Case
from ..faults import KINDS
from ..train import Run
from . import peers
from .harm import is_fit, is_harmed
from .truth import layers_of


@dataclasses.dataclass(frozen=True)
class Named:
    """A finding, small."""

    problem: str
    layer: str | None
    severity: str
    step: int
    evidence: dict[str, Any]
    consequences: tuple[str, ...] = ()

    @classmethod
    def of(cls, finding: Finding) -> Named:
        folded = tuple(each.problem for each in finding.consequences)
        return cls(finding.problem, finding.layer, finding.severity, finding.step, dict(finding.evidence), folded)

    @property
    def loud(self) -> bool:
        return self.severity != "info"

    def __str__(self) -> str:
        numbers = ", ".join(f"{key} {_short(value)}" for key, value in self.evidence.items())
        return f"{self.severity} {self.problem} at {self.layer or 'the model'} since {self.step} ({numbers})"


@dataclasses.dataclass(frozen=True)
class Truth:
    """What is right to say about a planted fault."""

    kind: str
    problem: str
    also: tuple[str, ...]
    layers: frozenset[str | None]


@dataclasses.dataclass(frozen=True)
class Verdict:
    """A run, judged.

    Args:
        case: The run.
        group: ``"healthy"``, ``"unfit"`` (no fault, but it did not learn), ``"sick"``, ``"harmless"``, ``"double"``.
        truths: One for each fault.
        final: All findings of the last look.
        alarms: (step of the look, finding) for every problem and layer when first raised above info, at any look.
        peers: What each peer raised.
        accuracy, loss, twin_accuracy, twin_loss: The end of the run and of its twin.
        error: Where training, monitor or rules failed.
    """

    case: Case
    group: str
    truths: tuple[Truth, ...]
    final: tuple[Named, ...]
    alarms: tuple[tuple[int, Named], ...]
    peers: dict[str, list[str]]
    accuracy: float
    loss: float
    twin_accuracy: float
    twin_loss: float
    error: str = ""

    @property
    def loud(self) -> list[Named]:
        """Findings above info at the end, the cause first."""
        return [named for named in self.final if named.loud]

    @property
    def first(self) -> Named | None:
        return self.loud[0] if self.loud else None

    @property
    def named_first(self) -> bool:
        """The right problem first, strictly."""
        return self.first is not None and self.first.problem == self.truths[0].problem

    @property
    def named_acceptably(self) -> bool:
        """The right problem first, or another name that is honestly the same."""
        truth = self.truths[0]
        return self.first is not None and self.first.problem in (truth.problem, *truth.also)

    @property
    def named_anywhere(self) -> bool:
        named = {problem for top in self.loud for problem in (top.problem, *top.consequences)}
        return self.truths[0].problem in named

    @property
    def layer_right(self) -> bool:
        return self.first is not None and self.first.layer in self.truths[0].layers


def histories(run: Run) -> Iterator[list[Snapshot]]:
    """The history as a callback has it at every look and after every validation: one list, which grows."""
    history: list[Snapshot] = []
    events: list[tuple[float, Snapshot | float]] = [(snapshot.step + 0.5, snapshot) for snapshot in run.snapshots]
    events += [(batches // run.case.accumulate, loss) for batches, loss, _ in run.validation]
    for _, event in sorted(events, key=lambda event: event[0]):
        if isinstance(event, Snapshot):
            selection.append(history, event)
        elif not history:
            continue
        else:
            selection.set_validation_loss(history, event)
        yield history


def replay(run: Run) -> Iterator[tuple[int, tuple[Finding, ...], list[Snapshot]]]:
    """The findings at every look and after every validation, with the history as it is then."""
    for history in histories(run):
        yield history[-1].step, find(history), history


def heard(run: Run) -> tuple[tuple[Named, ...], tuple[tuple[int, Named], ...], str]:
    """The findings of the last look, the alarms at any look as in Verdict, and where something failed."""
    error = run.error
    final: tuple[Finding, ...] = ()
    alarms: dict[tuple[str, str | None], tuple[int, Named]] = {}
    try:
        for step, final, _ in replay(run):
            for finding in final:
                if finding.rank > 0:
                    alarms.setdefault((finding.problem, finding.layer), (step, Named.of(finding)))
    except Exception:
        error += traceback.format_exc()
    return tuple(map(Named.of, final)), tuple(alarms.values()), error


def judge(run: Run, twin: Run | None) -> Verdict:
    """The verdict on a run; ``twin`` is None for runs without a fault."""
    final, alarms, error = heard(run)
    if twin is None:
        group = "healthy" if is_fit(run) else "unfit"
    elif len(run.case.faults) > 1:
        group = "double"
    else:
        group = "sick" if is_harmed(run, twin) else "harmless"
    return Verdict(
        run.case,
        group,
        tuple(
            Truth(fault.kind, KINDS[fault.kind].problem, KINDS[fault.kind].also, layers_of(run.case, fault))
            for fault in run.case.faults
        ),
        final,
        alarms,
        dict(peers.raised(run)),
        run.accuracy,
        run.final_loss,
        twin.accuracy if twin else run.accuracy,
        twin.final_loss if twin else run.final_loss,
        error,
    )


def _short(value: Any) -> str:
    return f"{value:.3g}" if isinstance(value, float) else str(value)
