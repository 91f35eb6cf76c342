"""How long a problem has held, and what that makes of a finding."""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from lightning_tricks.diagnosis import Finding, Remedy, Trait
from lightning_tricks.diagnosis.history.persistence import HYSTERESIS, first_of, leading, persistence
from lightning_tricks.probes import Snapshot


def history(losses: Sequence[float]) -> list[Snapshot]:
    return [Snapshot(2 * step, loss=loss) for step, loss in enumerate(losses)]


def high(snapshot: Snapshot) -> bool:
    return snapshot.loss > 1.0


def test_it_counts_the_unbroken_run_up_to_the_last_step() -> None:
    found = persistence(history([2, 0, 2, 2, 2]), high)
    assert found is not None
    assert (found.since, found.run, found.at.step) == (4, 3, 8)
    assert persistence(history([2, 2, 2, 0]), high) is None


def test_from_the_start_it_counts_where_the_training_came_to_nothing() -> None:
    ruined, learned = history([2.0, 2.0, 2.0, 1.0, 2.1, 0.99]), history([2.0, 2.0, 2.0, 0.5, 0.4, 0.3])
    for snapshots in (ruined, learned):
        begun = leading(snapshots, high)
        assert begun is not None
        assert (begun.since, begun.run, begun.at.step) == (0, 3, 4)
    assert persistence(learned, high, from_start=True) is None
    ruined = history([2.0, 2.0, 2.0, 1.0, 1.9, 1.9, 0.99])
    assert persistence(ruined, high) is None
    assert persistence(ruined, high, from_start=True) == leading(ruined, high)
    assert leading(history([0, 2]), high) is None


@pytest.mark.parametrize(("steps", "severity"), [(2, "info"), (HYSTERESIS, "warning")])
def test_a_finding_is_information_until_it_has_held(steps: int, severity: str) -> None:
    found = persistence(history([2] * steps), high)
    assert found is not None
    assert found.severity() == severity
    remedies = [Remedy("wait", "wait")]
    finding = found.finding("high_loss", None, found.severity(), {}, "", remedies, (), [Trait.LOUD], "0")
    assert (finding.step, finding.severity, finding.remedies) == (0, severity, tuple(remedies))
    assert (finding.traits, finding.related) == ({Trait.LOUD}, "0")
    assert [criterion.value for criterion in finding.decided_by] == ([] if severity == "info" else [steps])
    assert all(criterion.holds for criterion in finding.decided_by)


def test_of_several_layers_the_surest_then_the_oldest_is_kept() -> None:
    findings = [Finding("p", "0", "info", 0), Finding("p", "1", "warning", 5), Finding("p", "2", "critical", 4)]
    assert [finding.layer for finding in first_of(findings)] == ["2"]
    assert first_of([]) == []
