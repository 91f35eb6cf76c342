"""The clinic's commands: ``generate``, ``judge``, ``report``, ``show``."""

from __future__ import annotations

import argparse
import dataclasses
import fnmatch
import os
from collections.abc import Sequence

os.environ.setdefault("OMP_NUM_THREADS", "1")

from lightning_tricks.checkup import diagnose

from .adversarial import commands
from .case import Case
from .cases import all_cases, whole_cases
from .generate import generate
from .judging import judge_all
from .judging.table import failures, markdown
from .judging.verdict import replay
from .store import Store


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="python -m tests.benchmarks.clinic", description=__doc__)
    parser.add_argument("command", choices=["list", "generate", "judge", "report", "show"])
    parser.add_argument(
        "--set",
        choices=["planted", "whole", "adversarial"],
        default="planted",
        help="planted: faults and twins; whole: of them those of the whole training",
    )
    parser.add_argument("--store", default="outputs/clinic", help="folder of the runs (git ignores outputs/)")
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--only", help="glob or part of the names, such as 'mlp3-*' or 'huge weights'")
    parser.add_argument("--every", type=int, default=1, help="only every n-th run, for a first impression")
    parser.add_argument("--half", choices=["A", "B"])
    parser.add_argument("--seed-shift", type=int, default=0, help="the same runs from other seeds: an even number")
    parser.add_argument("--failures", action="store_true", help="judge: every wrong one, with the evidence")
    parser.add_argument("--stale", action="store_true", help="judge runs of older sources where there are no newer")
    options = parser.parse_args(arguments)
    if options.set == "adversarial":
        commands.run(options)
        return

    every = whole_cases() if options.set == "whole" else all_cases()
    cases = [case for case in every if _chosen(case, options)][:: options.every]
    cases = [dataclasses.replace(case, seed=case.seed + options.seed_shift) for case in cases]
    twins = [case.twin for case in cases if case.sick]
    store = Store(options.store)
    if options.command == "list":
        print("\n".join(f"[{case.half}] {'sick   ' if case.sick else 'healthy'} {case.name}" for case in cases))
        return
    if options.command == "generate":
        generate(list(dict.fromkeys([*twins, *cases])), store, options.workers)
        return
    if options.command == "show":
        for case in cases:
            path = store.find(case, options.stale)
            if path is not None:
                *_, (_, _, history) = replay(store.load(path))
                print(f"\n=== [{case.half}] {case.name}\n{diagnose(history)}")
        return
    verdicts = judge_all(cases, store, options.workers, options.stale)
    print(markdown(verdicts))
    if options.failures:
        print()
        print("\n".join(failures(verdicts)))


def _chosen(case: Case, options: argparse.Namespace) -> bool:
    if options.half not in (None, case.half):
        return False
    return options.only is None or options.only in case.name or fnmatch.fnmatch(case.name, options.only)


if __name__ == "__main__":
    main()
