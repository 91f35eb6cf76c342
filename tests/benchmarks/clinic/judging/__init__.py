"""Judges stored runs in parallel processes."""

from __future__ import annotations

import multiprocessing
from collections.abc import Sequence

from ..case import Case
from ..store import Store
from ..train import Run
from .verdict import Verdict, judge

_store: Store
_stale = False


def judge_all(cases: Sequence[Case], store: Store, workers: int, stale: bool) -> list[Verdict]:
    """The verdicts on all runs that are there."""
    there = [case for case in cases if store.find(case, stale) and (not case.sick or store.find(case.twin, stale))]
    if len(there) < len(cases):
        print(f"{len(cases) - len(there)} of {len(cases)} runs are missing or of older sources: generate them first\n")
    if workers < 2:
        _begin(str(store.folder), stale)
        return [_one(case) for case in there]
    with multiprocessing.get_context("spawn").Pool(workers, _begin, (str(store.folder), stale)) as pool:
        return pool.map(_one, there, chunksize=8)


def _begin(folder: str, stale: bool) -> None:
    global _store, _stale
    _store, _stale = Store(folder), stale


def _load(case: Case) -> Run:
    path = _store.find(case, _stale)
    assert path is not None
    return _store.load(path)


def _one(case: Case) -> Verdict:
    return judge(_load(case), _load(case.twin) if case.sick else None)
