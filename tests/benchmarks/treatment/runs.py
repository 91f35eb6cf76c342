"""Runs: which, in parts, and what is kept of each."""

from __future__ import annotations

import argparse
import json
import time
import traceback
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import lightning.pytorch as L
import torch

import lightning_tricks as lt

from ..clinic import faults, train
from ..clinic.adversarial.case import HealthyCase
from ..clinic.adversarial.cases import all_cases, all_kinds
from ..clinic.adversarial.train import seed_all
from ..clinic.case import Case
from ..clinic.cases import healthy_list, sick_cases
from .cured import fitted, result_of, score_of, treated
from .named import brought, checkup_of, names, with_seed

# What a change of the model or of a setting cures; the others ask for other data or other code.
CURABLE = {
    *faults.LAYER_FAULTS,
    *faults.TRAINING_FAULTS,
    *faults.REGULARIZATION_FAULTS,
    *("softmax before cross entropy", "sigmoid before logits loss", "relu on output", "huge output weights"),
    *("not in optimizer", "infinite weight", "sorted by class", "sorted by target", "sorted by source"),
    *("rate of zero", "optimizer of a copy", "gradients not cleared", "everything dropped"),
} - {"few noisy patterns", "nan in data"}


def cases_of(options: argparse.Namespace) -> list[Case] | list[HealthyCase]:
    part = slice(options.offset, None, options.every)
    if options.set == "adversarial":
        return [case for case in all_cases() if options.only in case.name][part]
    cases = sick_cases() if options.set == "sick" else healthy_list()
    cases = [case for case in cases if case.architecture != "gan" and case.loop != "manual"]
    return [with_seed(case, options.seed_shift) for case in cases if options.only in case.name][part]


def examine(case: Case | HealthyCase, seconds: float) -> dict[str, Any]:
    torch.set_num_threads(1)
    begun = time.perf_counter()
    row = _odd(case, seconds) if isinstance(case, HealthyCase) else _of_clinic(case, seconds)
    return {"case": case.name, "seed": case.seed, **row, "seconds": time.perf_counter() - begun}


def _of_clinic(case: Case, seconds: float) -> dict[str, Any]:
    diagnosis = checkup_of(case, seconds)
    setup, module, treatment = treated(case, seconds, diagnosis)
    row: dict[str, Any] = {"set": "sick" if case.sick else "healthy", **_shown(treatment, diagnosis, case.steps)}
    if case.sick:
        row["kind"], row["curable"] = case.faults[0].kind, case.faults[0].kind in CURABLE
        recorder = train.Recorder(case.look)
        row["before"], row["twin"] = result_of(case, recorder), result_of(case.twin)
        row |= names(case, recorder.history, diagnosis)
    elif treatment.remedies:
        row["before"] = result_of(case)
    if case.sick or treatment.remedies:
        row["after"] = fitted(case, setup, module) if treatment.remedies else row["before"]
    return row


def _shown(treatment: lt.Treatment, diagnosis: lt.Diagnosis, steps: int) -> dict[str, Any]:
    return {
        "remedies": [remedy.action for remedy in treatment.remedies],
        "gains": [remedy.gain for remedy in treatment.remedies],
        "note": treatment.note,
        "way": (treatment.before, treatment.after),
        "brought": brought(diagnosis),
        "healthy": diagnosis.healthy,
        "cost": {
            "treat": treatment.steps / steps,
            "checkup": sum(each.steps for each in diagnosis.experiments) / steps,
        },
    }


def _odd(case: HealthyCase, seconds: float) -> dict[str, Any]:
    """A healthy training that looks odd; how long it is meant to be its Trainer tells."""
    plan = _plan(case)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        diagnosis = lt.checkup(plan.module, plan.train, val_data=plan.val, max_seconds=seconds, progress=False)
        plan = _plan(case)
        treatment = lt.treat(plan.module, diagnosis, plan.train, max_seconds=seconds)
    steps = plan.epochs * len(plan.train) if hasattr(plan.train, "__len__") else 300
    row: dict[str, Any] = {"set": "adversarial", **_shown(treatment, diagnosis, steps)}
    if treatment.remedies:
        row["before"], row["after"] = score_of(_plan(case), case.seed), score_of(plan, case.seed, treatment.advice)
    return row


def _plan(case: HealthyCase) -> Any:
    seed_all(case.seed)
    plan = all_kinds()[case.kind].build(case.seed)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        plan.module.trainer = L.Trainer(
            accelerator="cpu", logger=False, max_epochs=plan.epochs, enable_checkpointing=False, **plan.options
        )
    return plan


def rows_in(path: Path) -> Iterator[dict[str, Any]]:
    if path.exists():
        yield from map(json.loads, path.read_text().splitlines())


def run(options: argparse.Namespace) -> None:
    begun, known = time.perf_counter(), {(row["case"], row["seed"]) for row in rows_in(options.store)}
    options.store.parent.mkdir(parents=True, exist_ok=True)
    for case in cases_of(options):
        if (case.name, case.seed) in known:
            continue
        if time.perf_counter() - begun > options.seconds:
            print("not finished: run it again")
            return
        try:
            row = examine(case, options.max_seconds)
        except Exception as error:  # counted: nothing may fail here
            row = {"set": options.set, "case": case.name, "seed": case.seed, "error": traceback.format_exc()}
            print(f"{case.name}: {type(error).__name__}: {error}")
        with options.store.open("a") as file:
            file.write(json.dumps(row) + "\n")
        print(shown(row), flush=True)


def shown(row: dict[str, Any]) -> str:
    if "error" in row:
        return f"{row['case']:70} failed"
    numbers = " ".join(f"{name} {row[name]:.2f}" for name in ("before", "after", "twin") if name in row)
    remedies = ", ".join(f"{name} {gain:+.2f}" for name, gain in zip(row["remedies"], row["gains"], strict=True))
    cost = ", ".join(f"{name} {steps:.1f} x" for name, steps in row["cost"].items())
    said = row["named"]["checkup"][:2] if "named" in row else row["brought"]
    return f"{row['case']:70} {numbers} | {remedies or row['note'] or '-'} | {cost} | {', '.join(said)}"
