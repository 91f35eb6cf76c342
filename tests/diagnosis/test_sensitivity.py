"""The benchmark of the thresholds' room: what it changes holds where it is read, moves verdicts, and is undone."""

from __future__ import annotations

from pathlib import Path

import pytest

from lightning_tricks.diagnosis.history import persistence
from lightning_tricks.diagnosis.rules import bias_shift, linearity
from lightning_tricks.probes import Snapshot
from tests.benchmarks import sensitivity
from tests.benchmarks.clinic.case import Case
from tests.benchmarks.clinic.store import Store
from tests.benchmarks.clinic.train import Run
from tests.benchmarks.sensitivity import Judge
from tests.benchmarks.variants import Variant, branches, constants
from tests.diagnosis.rules.test_bias_shift import history, layer


@pytest.fixture(scope="module")
def variants() -> dict[str, Variant]:
    return {variant.name: variant for variant in (*constants(), *branches())}


@pytest.fixture
def shifting() -> list[Snapshot]:
    return history(*[[layer("0", 1.0, drift, 0.5)] for drift in (6.0, 4.0, 1.0, 0.5, 0.3, 0.3)])


def test_every_number_with_a_name_is_there_and_holds_wherever_it_is_read(variants: dict[str, Variant]) -> None:
    assert "rules.bias_shift LIMITS.alike 0.6 -> 1.2" in variants
    recovery = variants["history.persistence RECOVERY 100 -> 50"]
    with recovery.made():
        assert persistence.RECOVERY == linearity.RECOVERY == 50
    assert persistence.RECOVERY == linearity.RECOVERY == 100
    assert {"linearity", "dead_units", "learning_rate_too_high"} <= recovery.rules
    assert variants["rules.bias_shift LIMITS.alike 0.6 -> 1.2"].rules == {"bias_shift"}


def test_a_verdict_moves_by_what_it_hangs_on_alone(variants: dict[str, Variant], shifting: list[Snapshot]) -> None:
    judge = Judge([shifting[:looks] for looks in range(1, len(shifting) + 1)])
    assert judge.plain == ["bias_shift", "0", ["bias_shift"]]
    moved = {name: judge.moved(variants[name]) for name in variants if name.startswith(("rules.bias", "rules.dead"))}
    assert moved["rules.bias_shift LIMITS.alike 0.6 -> 1.2"] == ["first", "alarms"]
    assert moved["rules.bias_shift LIMITS.alike 0.6 -> 0.3"] == []
    assert not any(what for name, what in moved.items() if name.startswith("rules.dead_units"))
    assert judge.verdict(frozenset({"bias_shift"})) == judge.plain
    assert bias_shift.LIMITS.alike == 0.6


def test_a_branch_is_left_out_for_as_long_as_asked(variants: dict[str, Variant], shifting: list[Snapshot]) -> None:
    (left_out,) = (v for name, v in variants.items() if "if layer.mean_energy >= LIMITS.alike and " in name)
    settled = history(*[[layer("0", 1.0, 0.3, 0.1)]] * 6)
    assert Judge([settled]).moved(left_out) == ["first", "alarms"]
    assert Judge([settled]).plain[0] == "bias_shift"


def test_what_was_found_out_is_kept(variants: dict[str, Variant], shifting: list[Snapshot], tmp_path: Path) -> None:
    path = Store(tmp_path).save(Run(Case("mlp3", "relu"), tuple(shifting), (), ()))
    some = [v for v in variants.values() if "LIMITS.alike 0.6" in v.name]
    measured = sensitivity.measure(path, some, tmp_path / "cache")
    assert measured == {"rules.bias_shift LIMITS.alike 0.6 -> 1.2": ["first", "alarms"]}
    path.unlink()
    assert sensitivity.measure(path, some, tmp_path / "cache") == measured
    assert sensitivity.table(some, [measured, {}]).splitlines()[1].split()[:3] == ["1", "1", "rules.bias_shift"]
