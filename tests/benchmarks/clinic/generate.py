"""Trains what is missing in the store, in parallel processes of one thread each."""

from __future__ import annotations

import logging
import multiprocessing
import os
import time
import traceback
from collections.abc import Callable, Sequence
from typing import Any

from .store import Store
from .train import Run, train

Train = Callable[[Any], Run]


def generate(cases: Sequence[Any], store: Store, workers: int, train: Train = train) -> int:
    """The number of runs trained; interrupted and started again it goes on where it was."""
    missing = store.missing(cases)
    print(f"{len(cases)} runs, {len(missing)} to train, {workers} workers", flush=True)
    if not missing:
        return 0
    begun = time.perf_counter()
    context = multiprocessing.get_context("spawn")
    with context.Pool(workers, _begin, (store, train), maxtasksperchild=100) as pool:
        for done, (name, seconds, error) in enumerate(pool.imap_unordered(_one, missing), 1):
            if error:
                print(f"FAILED {name}: {error.strip().splitlines()[-1]}", flush=True)
            if done % 25 == 0 or done == len(missing):
                passed = time.perf_counter() - begun
                left = passed / done * (len(missing) - done)
                print(
                    f"{done}/{len(missing)} in {passed:.0f} s, about {left:.0f} s left ({name}: {seconds:.1f} s)",
                    flush=True,
                )
    return len(missing)


_store: Store
_train: Train


def _begin(store: Store, train: Train) -> None:
    global _store, _train
    os.environ["OMP_NUM_THREADS"] = "1"
    logging.disable(logging.WARNING)
    _store, _train = store, train


def _one(case: Any) -> tuple[str, float, str]:
    try:
        run = _train(case)
    except Exception:  # of the clinic itself: said, and the others go on
        return case.name, 0.0, traceback.format_exc()
    _store.save(run)
    return case.name, run.seconds, run.error
