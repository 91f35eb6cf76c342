"""How well ``lt.treat`` cures: the clinic's sick trainings with seeds of their own, and its healthy ones.

Sick: the gap between the sick run and its healthy twin that is closed by a full training after the treatment, where the
twin is at least 0.1 better. Healthy: whether anything was claimed to gain. Runs are appended to a file, those that are
in it already are skipped, so that it can be run in parts.

    python -m tests.benchmarks.treatment run --set sick --every 7 --seconds 110
    python -m tests.benchmarks.treatment run --set healthy --every 9 --seconds 110
    python -m tests.benchmarks.treatment report
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import math
import time
import warnings
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import lightning.pytorch as L
import numpy as np
import torch

import lightning_tricks as lt

from .clinic import train
from .clinic.case import Case
from .clinic.cases import healthy_list, sick_cases
from .clinic.faults import planted
from .clinic.setup import Setup

SEED_SHIFT = 20
CURABLE = 0.1  # of accuracy or R^2 between the sick run and its twin
CLOSED, WORSE = 0.8, 0.05


def result_of(case: Case, setup: Setup) -> float:
    """Accuracy or R^2 after a whole training."""
    module = train.Training(setup)
    return fitted(case, setup, module)


def fitted(case: Case, setup: Setup, module: train.Training) -> float:
    error = train.fit(module, train.loaders_of(setup), case, L.Callback())
    last = module.validation[-1][2] if module.validation else 0.0
    return 0.0 if error or not math.isfinite(last) else max(last, 0.0)


def treated(case: Case, seconds: float) -> tuple[Setup, train.Training, lt.Treatment]:
    """The training after its treatment, with what is advised."""
    setup = planted(case)
    module = train.Training(setup)
    limit, algorithm = setup.clip
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        module.trainer = L.Trainer(
            accelerator="cpu",
            logger=False,
            enable_checkpointing=False,
            gradient_clip_val=limit or None,
            gradient_clip_algorithm=algorithm,
            accumulate_grad_batches=case.accumulate,
            max_epochs=-1 if case.loop == "epochs" else 1,
            max_steps=case.steps,
        )
        treatment = lt.treat(module, None, train.loaders_of(setup)[0], max_seconds=seconds)
    follow(setup, treatment.advice)
    return setup, module, treatment


def follow(setup: Setup, advice: dict[str, Any]) -> None:
    """What a person would do who reads the advice."""
    if "lr" in advice:
        setup.lr = advice["lr"]
    if "gradient_clip_val" in advice:
        setup.clip = advice["gradient_clip_val"] or 0.0, "norm"
    if "weight_decay" in advice:
        setup.decay = 0.0
    if "lr_scheduler" in advice:
        setup.factor = None
    if "zero_grad" in advice:
        setup.clears = True
    if "parameters" in advice:
        setup.spared, setup.optimized = [], None
    if "shuffle" in advice:
        setup.sorted_by = None
    if "targets" in advice:
        mean, scale = advice["targets"]
        data = setup.data
        setup.data = dataclasses.replace(data, y=(data.y - mean) / scale, y_val=(data.y_val - mean) / scale)


def examine(case: Case, seconds: float) -> dict[str, Any]:
    """One case: without treatment, its twin, and after treatment."""
    torch.set_num_threads(1)
    begun = time.perf_counter()
    setup, module, treatment = treated(case, seconds)
    row: dict[str, Any] = {
        "case": case.name,
        "seed": case.seed,
        "sick": case.sick,
        "seconds": time.perf_counter() - begun,
        "steps": treatment.steps / case.steps,
        "remedies": [remedy.action for remedy in treatment.remedies],
        "gains": [remedy.gain for remedy in treatment.remedies],
        "note": treatment.note,
        "way": (treatment.before, treatment.after),
    }
    if case.sick:
        row["before"] = result_of(case, planted(case))
        row["twin"] = result_of(case.twin, planted(case.twin))
    if case.sick or treatment.remedies:
        row["after"] = fitted(case, setup, module)
    if not case.sick and treatment.remedies:
        row["before"] = result_of(case, planted(case))
    return row


def cases_of(kind: str, every: int, offset: int, only: str) -> list[Case]:
    cases = sick_cases() if kind == "sick" else healthy_list()
    cases = [case for case in cases if only in case.name and case.architecture != "gan" and case.loop != "manual"]
    return [dataclasses.replace(case, seed=case.seed + SEED_SHIFT) for case in cases[offset::every]]


def rows_in(path: Path) -> Iterator[dict[str, Any]]:
    if path.exists():
        yield from map(json.loads, path.read_text().splitlines())


def run(options: argparse.Namespace) -> None:
    begun, known = time.perf_counter(), {(row["case"], row["seed"]) for row in rows_in(options.store)}
    options.store.parent.mkdir(parents=True, exist_ok=True)
    for case in cases_of(options.set, options.every, options.offset, options.only):
        if (case.name, case.seed) in known:
            continue
        if time.perf_counter() - begun > options.seconds:
            print("not finished: run it again")
            return
        row = examine(case, options.max_seconds)
        with options.store.open("a") as file:
            file.write(json.dumps(row) + "\n")
        print(shown(row), flush=True)


def shown(row: dict[str, Any]) -> str:
    numbers = " ".join(f"{name} {row[name]:.2f}" for name in ("before", "after", "twin") if name in row)
    remedies = ", ".join(f"{name} {gain:+.2f}" for name, gain in zip(row["remedies"], row["gains"], strict=True))
    return (
        f"{row['case']:70} {numbers} | {remedies or row['note'] or '-'} | {row['seconds']:.0f} s, {row['steps']:.1f} x"
    )


def report(options: argparse.Namespace) -> None:
    rows = list(rows_in(options.store))
    sick = [row for row in rows if row["sick"]]
    curable = [row for row in sick if row["twin"] - row["before"] >= CURABLE]
    closed = [(row["after"] - row["before"]) / (row["twin"] - row["before"]) for row in curable]
    worse = [row for row in rows if "after" in row and row["after"] < row["before"] - WORSE]
    healthy = [row for row in rows if not row["sick"]]
    claimed = [row for row in healthy if row["remedies"]]
    print(f"sick runs {len(sick)}, of them with a gap of {CURABLE} to the twin {len(curable)}")
    print(f"gap closed by {CLOSED:.0%} and more: {rate([share >= CLOSED for share in closed])}")
    print(f"made worse by more than {WORSE}: {rate([row in worse for row in rows if 'after' in row])}")
    print(f"a gain claimed on healthy runs: {rate([row in claimed for row in healthy])}")
    for name, those in (("sick", sick), ("healthy", healthy)):
        if those:
            steps, seconds = ([row[key] for row in those] for key in ("steps", "seconds"))
            print(
                f"cost, {name}: {np.median(steps):.1f} trainings at the median, {max(steps):.1f} at most; "
                f"{np.median(seconds):.0f} s, {max(seconds):.0f} s"
            )
    if options.failures:
        left = [row for row, share in zip(curable, closed, strict=True) if share < CLOSED]
        for title, those in (("not closed", left), ("worse", worse), ("claimed", claimed)):
            print(f"\n{title}:", *map(shown, those), sep="\n")


def rate(hits: Sequence[bool]) -> str:
    return f"{sum(hits)} of {len(hits)}" + (f" ({sum(hits) / len(hits):.1%})" if hits else "")


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("command", choices=["run", "report"])
    parser.add_argument("--set", choices=["sick", "healthy"], default="sick")
    parser.add_argument("--every", type=int, default=1, help="only every n-th case")
    parser.add_argument("--offset", type=int, default=0)
    parser.add_argument("--only", default="", help="part of a case's name")
    parser.add_argument("--seconds", type=float, default=math.inf, help="begin no further case after so many")
    parser.add_argument("--max-seconds", type=float, default=60.0, help="of one treatment")
    parser.add_argument("--store", type=Path, default=Path("outputs/treatment.jsonl"))
    parser.add_argument("--failures", action="store_true")
    options = parser.parse_args(arguments)
    run(options) if options.command == "run" else report(options)


if __name__ == "__main__":
    main()
