"""The clinic's commands for this set."""

from __future__ import annotations

import argparse
import dataclasses
import fnmatch

from lightning_tricks.checkup import diagnose

from ..generate import generate
from ..judging.verdict import replay
from .case import HealthyCase
from .cases import all_cases, all_kinds
from .judging import failures, judge_all, markdown
from .store import HealthyStore
from .train import train


def run(options: argparse.Namespace) -> None:
    cases = [case for case in all_cases() if _chosen(case, options.only)][:: options.every]
    cases = [dataclasses.replace(case, seed=case.seed + options.seed_shift) for case in cases]
    store = HealthyStore(options.store)
    if options.command == "list":
        kinds = all_kinds()
        print("\n".join(f"{case.name}: {kinds[case.kind].measure} >= {kinds[case.kind].at_least:g}" for case in cases))
    elif options.command == "generate":
        generate(cases, store, options.workers, train)
    elif options.command == "show":
        for case in cases:
            path = store.find(case, options.stale)  # type: ignore[arg-type]
            if path is not None:
                *_, (_, _, history) = replay(store.load(path))
                print(f"\n=== {case.name}\n{diagnose(history)}")
    else:
        verdicts = judge_all(cases, store, options.workers, options.stale)
        print(markdown(verdicts))
        if options.failures:
            print()
            print("\n".join(failures(verdicts)))


def _chosen(case: HealthyCase, only: str | None) -> bool:
    return only is None or only in case.name or fnmatch.fnmatch(case.name, only)
