"""What rules and experiments call the cause."""

from __future__ import annotations

import dataclasses
import warnings
from collections.abc import Sequence
from typing import Any

import lightning_tricks as lt
from lightning_tricks.diagnosis.finding import Finding
from lightning_tricks.experiments.arms import ARMS
from lightning_tricks.experiments.arms.arm import problem_of
from lightning_tricks.probes import Snapshot

from ..clinic import train
from ..clinic.case import Case
from ..clinic.faults import KINDS
from .cured import begun


def checkup_of(case: Case, seconds: float) -> lt.Diagnosis:
    """With validation data and all that it tries."""
    setup, module = begun(case)
    loader, validation = train.loaders_of(setup)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return lt.checkup(module, loader, val_data=validation, max_seconds=seconds, progress=False)


def loud(findings: Sequence[Finding]) -> list[Finding]:
    """The findings above info, the cause first; what follows from one is part of it."""
    return [finding for finding in findings if finding.rank]


def is_right(case: Case, problem: str) -> bool:
    kind = KINDS[case.faults[0].kind]
    return problem in (kind.problem, *kind.also)


def of_experiments(diagnosis: lt.Diagnosis) -> list[str]:
    """Problems that experiments show: what they brought or proved, and what the proven changes stand for."""
    found = [finding.problem for finding in loud(diagnosis.findings) if finding.proof is not None]
    changes = next((each for each in diagnosis.experiments if each.name == "changes" and each.conclusive), None)
    proven = [] if changes is None else [name for name in changes.numbers if name.startswith("gain of ")]
    actions = {arm.name: arm.action for arm in ARMS}
    names = [name.removeprefix("gain of ") for name in proven]
    return list(dict.fromkeys([*found, *(problem_of(actions.get(name, name)) for name in names)]))


def names(case: Case, looks: Sequence[Snapshot], diagnosis: lt.Diagnosis) -> dict[str, Any]:
    """Who names the cause of a sick case, first or at all: from the history of its whole training, and a checkup."""
    rules = loud(lt.diagnose(looks).findings) if looks else []
    together, tried = loud(diagnosis.findings), of_experiments(diagnosis)
    alone = loud(lt.diagnose(diagnosis.history).findings)
    return {
        "rules": first_and_any(case, [finding.problem for finding in rules]),
        "rules of the first steps": first_and_any(case, [finding.problem for finding in alone]),
        "experiments": first_and_any(case, tried),
        "checkup": first_and_any(case, [finding.problem for finding in together]),
        "together": first_and_any(case, [f.problem for f in rules[:1]] or [f.problem for f in together]),
        "named": {"rules": [f.problem for f in rules], "checkup": [f.problem for f in together], "tried": tried},
    }


def first_and_any(case: Case, problems: Sequence[str]) -> tuple[bool, bool]:
    right = [is_right(case, problem) for problem in problems]
    return bool(right[:1] == [True]), any(right)


def brought(diagnosis: lt.Diagnosis) -> list[str]:
    """What experiments claim that the rules do not."""
    known = {finding.problem for finding in lt.diagnose(diagnosis.history).findings if finding.rank}
    return [finding.problem for finding in loud(diagnosis.findings) if finding.problem not in known]


def with_seed(case: Case, shift: int) -> Case:
    return dataclasses.replace(case, seed=case.seed + shift)
