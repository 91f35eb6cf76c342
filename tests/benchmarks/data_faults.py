"""Faults planted in data of many kinds, and healthy data beside them: what the experiments with the data find.

    python -m tests.benchmarks.data_faults [--seeds 3] [--seed-shift 0] [--only GLOB] [--workers N] [--out FILE]
    python -m tests.benchmarks.data_faults --oracle     # cleanlab too, where that is installed
    python -m tests.benchmarks.data_faults --tables FILE...

Each fault is planted in 1, 5 and 20 % of the patterns; a column that gives the target away is wrong in as many. A run
is a line of JSON in FILE, and those that are there already are not made again. From these the tables are printed: the
runs in which the fault was found, the healthy ones that alarmed, the seconds, and the estimated shares of wrong labels
and values.
"""

from __future__ import annotations

import argparse
import concurrent.futures
import dataclasses
import fnmatch
import itertools
import json
import multiprocessing
import os
import pathlib
import time
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import torch
from torch import Generator, nn
from torch.utils.data import DataLoader, TensorDataset

import lightning_tricks as lt
from lightning_tricks.experiments.asking.registry import Subject, entries
from tests.benchmarks import data_networks as networks
from tests.benchmarks import data_oracle as oracle
from tests.benchmarks import data_sets as sets
from tests.benchmarks import data_shifts as shifts
from tests.benchmarks.data_sets import ALL, CLASSES, VALUES, Split
from tests.benchmarks.data_tables import tables
from tests.benchmarks.machine import describe

STRENGTHS = (0.01, 0.05, 0.2)
NO_TOKENS = {name: make for name, make in ALL.items() if name != "tokens"}
FAULTS = {
    "wrong labels": (sets.wrong_labels, "wrong_labels", CLASSES),
    "wrong values": (sets.wrong_values, "wrong_values", VALUES),
    "copies with another label": (sets.contradicting, "duplicates", CLASSES),
    "validation copied": (sets.copies, "duplicates", ALL),
    "validation nearly copied": (sets.near_copies, "duplicates", NO_TOKENS),
    "target in a column": (sets.leak, "leaking_features", ALL),
    "another unit": (sets.unit, "scales", NO_TOKENS),
    "a class lost": (sets.class_lost, "classes", CLASSES),
}


def alarms(train: Any, validation: Any = None) -> tuple[set[str], dict[str, lt.Experiment]]:
    """The experiments whose findings are above info, as a checkup makes them; and all of these."""
    diagnosis = lt.Diagnosis([], [lt.Snapshot()])
    subject = Subject(nn.Identity(), None, None, train, [train], diagnosis, None, validation)
    made, found = dict[str, lt.Experiment](), set[str]()
    for entry in entries():
        if entry.name in lt.experiments.data.__all__ and entry.wanted(subject):
            made[entry.name] = entry.run(subject)
            if made[entry.name].conclusive and any(each.rank for each in entry.brings(subject, made[entry.name])):
                found.add(entry.name)
    return found, made


def of(data: Split) -> tuple[set[str], dict[str, lt.Experiment]]:
    return alarms((data.x, data.y), (data.x_val, data.y_val))


Found = tuple[set[str], dict[str, lt.Experiment]]


def _all_of(plant: Callable[[Split, Generator], Split], make: Any) -> Callable[[int], Found]:
    def run(seed: int) -> Found:
        data = sets.split(*make(Generator().manual_seed(seed)), seed)
        return of(plant(data, Generator().manual_seed(seed)))

    return run


def _left_behind(kind: str, share: float) -> Callable[[int], Found]:
    return lambda seed: alarms(sets.Moving(sets.images(Generator().manual_seed(seed))[0], share, kind=kind))


def _windows(seed: int) -> Found:
    return of(sets.split(*sets.windows(Generator().manual_seed(seed)), seed))


IN_ALL: dict[str, tuple[Callable[[Split, Generator], Split], str, dict[str, Any]]] = {  # of validation
    "classes renumbered": (sets.renumbered, "classes", CLASSES),
    "classes begin at 1": (sets.shifted, "classes", CLASSES),
    "validation not prepared": (sets.unprepared, "scales", NO_TOKENS),
}
WHOLE: dict[tuple[str, str], tuple[str, Callable[[int], Found]]] = {
    **{
        (name, kind): (expected, _all_of(plant, make))
        for name, (plant, expected, kinds) in IN_ALL.items()
        for kind, make in kinds.items()
    },
    ("windows split at random", "windows"): ("duplicates", _windows),
    **{
        (f"{kind} left behind", f"{share:.0%}"): ("paired_transforms", _left_behind(kind, share))
        for kind in ("masks", "boxes", "points")
        for share in (0.05, 0.2)
    },
}


@dataclasses.dataclass(frozen=True)
class Job:
    """One run: of which part, what is planted in or asked of which data, how much of it, with which seed."""

    part: str
    name: str
    kind: str
    share: float
    seed: int


def jobs(seeds: Iterable[int]) -> Iterator[Job]:
    for seed in seeds:
        for (name, (_, _, kinds)), share in itertools.product(FAULTS.items(), STRENGTHS):
            yield from (Job("planted", name, kind, share, seed) for kind in kinds)
        yield from (Job("whole", name, kind, 1.0, seed) for name, kind in WHOLE)
        yield from (Job("networks", name, "", 1.0, seed) for name, _, _ in networks.faulty(seed))
        yield from (Job("healthy networks", name, "", 0.0, seed) for name, _ in networks.healthy(seed))
        yield from (Job("healthy", name, "", 0.0, seed) for name, _ in sets.healthy(seed))
        yield from (Job("shifted", name, "", 0.0, seed) for name, _ in shifts.shifted(seed))
        yield from (Job("cleanlab", "wrong labels", kind, share, seed) for kind in CLASSES for share in STRENGTHS)
        yield from (Job("cleanlab", "healthy", name, 0.0, seed) for name in oracle.HEALTHY)
    yield Job("large", "20,000 x 64", "", 0.0, 0)


def made(job: Job) -> dict[str, Any]:
    """The run, as a line of the file."""
    torch.set_num_threads(1)
    torch.manual_seed(job.seed)
    begun, spent = time.perf_counter(), time.process_time()
    record = RUNS[job.part](job)
    seconds = {"seconds": time.perf_counter() - begun, "processor": time.process_time() - spent}
    return {**dataclasses.asdict(job), **record, **seconds}


def _planted(job: Job) -> dict[str, Any]:
    plant, expected, kinds = FAULTS[job.name]
    data = sets.split(*kinds[job.kind](Generator().manual_seed(job.seed)), job.seed)
    found, made = of(plant(data, job.share, Generator().manual_seed(1000 + job.seed)))
    return {"found": expected in found, "alarms": sorted(found), "numbers": made[expected].numbers}


def _whole(job: Job) -> dict[str, Any]:
    expected, run = WHOLE[job.name, job.kind]
    found, _ = run(job.seed)
    return {"found": expected in found, "alarms": sorted(found)}


def _networks(job: Job) -> dict[str, Any]:
    expected, make = next(rest for name, *rest in networks.faulty(job.seed) if name == job.name)
    found = networks.alarms(make())
    return {"found": expected in found, "alarms": sorted(found)}


def _healthy_networks(job: Job) -> dict[str, Any]:
    return {"alarms": sorted(networks.alarms(dict(networks.healthy(job.seed))[job.name]()))}


def _healthy(job: Job) -> dict[str, Any]:
    found, made = alarms(*dict(sets.healthy(job.seed))[job.name]())
    told = {name: made[name].numbers for name in ("wrong_labels", "wrong_values") if name in made}
    return {"alarms": sorted(found), "numbers": told}


def _shifted(job: Job) -> dict[str, Any]:
    return {"alarms": sorted(alarms(*dict(shifts.shifted(job.seed))[job.name]())[0])}


def _cleanlab(job: Job) -> dict[str, Any]:
    if job.name == "healthy":
        (x, y), _ = dict(sets.healthy(job.seed))[job.kind]()
    else:
        data = sets.split(*CLASSES[job.kind](Generator().manual_seed(job.seed)), job.seed)
        x, y, *_ = sets.wrong_labels(data, job.share, Generator().manual_seed(1000 + job.seed))
    return {"numbers": {"share": oracle.share_of_wrong(x, y)}}


def _large(job: Job) -> dict[str, Any]:
    """All of it on 20,000 patterns of 64 features, read from a loader."""
    generator = Generator().manual_seed(job.seed)
    y = torch.arange(24_000) % 10
    x = 3 * torch.randn(10, 64, generator=generator)[y] + torch.randn(24_000, 64, generator=generator)
    whole = [TensorDataset(x[part], y[part]) for part in (slice(0, 20_000), slice(20_000, 24_000))]
    train, validation = (DataLoader(each, 128, shuffle=True) for each in whole)
    return {"alarms": sorted(alarms(train, validation)[0])}


RUNS: dict[str, Callable[[Job], dict[str, Any]]] = {
    "planted": _planted,
    "whole": _whole,
    "networks": _networks,
    "healthy networks": _healthy_networks,
    "healthy": _healthy,
    "shifted": _shifted,
    "cleanlab": _cleanlab,
    "large": _large,
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--seed-shift", type=int, default=0, help="the first seed")
    parser.add_argument("--only", default="*", help="faults, or parts: whole, networks, healthy, shifted, large")
    parser.add_argument("--oracle", action="store_true", help="ask cleanlab too")
    parser.add_argument("--workers", type=int, default=1, help="processes")
    parser.add_argument("--out", default="outputs/data_faults.jsonl", help="where runs are kept, a line each")
    parser.add_argument("--tables", nargs="+", help="print those of these files, and run nothing")
    given = parser.parse_args()
    if not given.tables:
        if given.oracle and oracle.is_missing():
            print("cleanlab is not installed", flush=True)
        _run(given)
    print("\n".join(tables(_lines(given.tables or [given.out]))))


def _run(given: argparse.Namespace) -> None:
    out = pathlib.Path(given.out)
    out.parent.mkdir(parents=True, exist_ok=True)
    there = {tuple(line[name] for name in _FIELDS) for line in _lines([out])}
    wanted = [job for job in jobs(range(given.seed_shift, given.seed_shift + given.seeds)) if _is_wanted(job, given)]
    left = [job for job in wanted if dataclasses.astuple(job) not in there]
    print(f"{describe()}\n{len(left)} of {len(wanted)} runs, {given.workers} workers, to {out}", flush=True)
    os.environ["OMP_NUM_THREADS"] = "1"
    context = multiprocessing.get_context("spawn")
    with out.open("a") as file, concurrent.futures.ProcessPoolExecutor(given.workers, context) as pool:
        for done in concurrent.futures.as_completed([pool.submit(made, job) for job in left]):
            file.write(json.dumps(done.result()) + "\n")
            file.flush()


def _is_wanted(job: Job, given: argparse.Namespace) -> bool:
    if job.part == "cleanlab":
        return bool(given.oracle) and not oracle.is_missing()
    return any(fnmatch.fnmatch(each, given.only) for each in (job.part, job.name))


def _lines(files: Iterable[str | pathlib.Path]) -> list[dict[str, Any]]:
    found = [pathlib.Path(file) for file in files]
    return [json.loads(line) for file in found if file.exists() for line in file.read_text().splitlines()]


_FIELDS = [field.name for field in dataclasses.fields(Job)]


if __name__ == "__main__":
    main()
