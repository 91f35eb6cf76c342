"""Faults planted in data of many kinds, and healthy data beside them: what the experiments with the data find.

    python tests/benchmarks/data_faults.py [--seeds 3] [--only GLOB] [--oracle]

Each fault is planted in 1, 5 and 20 % of the patterns; a column that gives the target away is wrong in as many. Printed
are the runs in which it was found, the healthy ones that alarmed, the seconds, and for wrong labels the share that was
estimated; with --oracle also the share by cleanlab, where that is installed.
"""

from __future__ import annotations

import argparse
import collections
import fnmatch
import math
import statistics
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Generator, Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

import lightning_tricks as lt
from lightning_tricks.experiments.asking.registry import Subject, entries
from tests.benchmarks import data_networks as networks
from tests.benchmarks import data_sets as sets
from tests.benchmarks.data_sets import ALL, CLASSES, VALUES, Split
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


def oracle(x: Tensor, y: Tensor) -> float:
    """cleanlab's share of wrong labels, by out-of-fold predictions of a logistic regression; NaN without it."""
    try:
        from cleanlab.filter import find_label_issues
        from sklearn.linear_model import LogisticRegression
        from sklearn.model_selection import cross_val_predict
    except ImportError:
        return math.nan
    z = np.array(x.flatten(1), float)
    z = (z - z.mean(0)) / np.maximum(z.std(0), 1e-6)
    said = cross_val_predict(LogisticRegression(max_iter=200), z, y.numpy(), cv=5, method="predict_proba")
    return float(find_label_issues(y.numpy(), said).mean())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--only", default="*", help="faults, 'networks' or 'healthy'")
    parser.add_argument("--oracle", action="store_true")
    given = parser.parse_args()
    print(describe())
    seconds, shares = list[float](), collections.defaultdict(list)
    print(f"{'planted':30}{'1 %':>10}{'5 %':>10}{'20 %':>10}   missed at 5 % and more")
    for name in FAULTS:
        if fnmatch.fnmatch(name, given.only):
            row, missed = _planted(name, given, seconds, shares)
            print(f"{name:30}{''.join(f'{each:>10}' for each in row)}   {', '.join(missed) or '-'}", flush=True)
    for name, data in WHOLE.items():
        if fnmatch.fnmatch(name, given.only):
            hits = [EXPECTED[name] in data(seed)[0] for seed in range(given.seeds)]
            print(f"{name:30}{f'{sum(hits)}/{len(hits)}':>10}", flush=True)
    if fnmatch.fnmatch("networks", given.only):
        _networks(given.seeds)
    for (name, share), told in shares.items():
        _shares(name, share, told, given.oracle and name == "wrong labels")
    if fnmatch.fnmatch("healthy", given.only):
        _healthy(given.seeds)
    whole = f"{large():.1f} for 20,000 x 64"
    print(f"seconds: {statistics.fmean(seconds or [0]):.2f} in the mean, {max(seconds or [0]):.2f} at most; {whole}")


def _planted(name: str, given: Any, seconds: list[float], shares: Any) -> tuple[list[str], list[str]]:
    plant, expected, kinds = FAULTS[name]
    row, missed = [], list[str]()
    for share in STRENGTHS:
        hits = []
        for kind, make in kinds.items():
            for seed in range(given.seeds):
                data = sets.split(*make(Generator().manual_seed(seed)), seed)
                data = plant(data, share, Generator().manual_seed(1000 + seed))
                begun = time.perf_counter()
                found, made = of(data)
                seconds.append(time.perf_counter() - begun)
                hits.append(expected in found)
                if not hits[-1] and share >= 0.05:
                    missed.append(f"{kind} {share:.0%}")
                if name in ("wrong labels", "wrong values"):
                    told = oracle(data.x, data.y) if given.oracle and name == "wrong labels" else math.nan
                    shares[name, share].append((kind, made[expected].numbers.get("share", math.nan), told))
        row.append(f"{sum(hits)}/{len(hits)}")
    return row, [f"{each} x {missed.count(each)}" for each in dict.fromkeys(missed)]


def _shares(name: str, share: float, told: list[tuple[str, float, float]], with_oracle: bool) -> None:
    kinds = dict.fromkeys(kind for kind, *_ in told)
    means = (f"{kind} {statistics.fmean(each for k, each, _ in told if k == kind):.3f}" for kind in kinds)
    within = [abs(each - share) <= share / 3 for _, each, _ in told]
    print(f"{name}, {share:.0%}: within a third in {sum(within)}/{len(within)}; {', '.join(means)}")
    if with_oracle:
        others = [abs(each - share) <= share / 3 for *_, each in told]
        mean = statistics.fmean(each for *_, each in told)
        print(f"   cleanlab: within a third in {sum(others)}/{len(others)}, {mean:.3f} in the mean")


def _networks(seeds: int) -> None:
    hits, count, false = collections.defaultdict(list), 0, list[str]()
    for seed in range(seeds):
        for name, expected, make in networks.faulty(seed):
            torch.manual_seed(seed)
            hits[name].append(expected in networks.alarms(make()))
        for name, other in networks.healthy(seed):
            torch.manual_seed(seed)
            found = networks.alarms(other())
            count += 1
            false += [f"{name} ({', '.join(sorted(found))})"] if found else []
    for name, each in hits.items():
        print(f"{name:30}{f'{sum(each)}/{len(each)}':>10}", flush=True)
    print(f"healthy networks: {len(false)} of {count} alarm: {', '.join(false) or '-'}", flush=True)


def _healthy(seeds: int) -> None:
    count, false = 0, list[str]()
    for seed in range(seeds):
        for name, train, validation in sets.healthy(seed):
            found = alarms(train, validation)[0]
            count += 1
            false += [f"{name} ({', '.join(sorted(found))})"] if found else []
    print(f"healthy: {len(false)} of {count} alarm: {', '.join(false) or '-'}", flush=True)


def _all_of(plant: Callable[[Split, Generator], Split], make: Any) -> Callable[[int], Any]:
    def run(seed: int) -> Any:
        data = sets.split(*make(Generator().manual_seed(seed)), seed)
        return of(plant(data, Generator().manual_seed(seed)))

    return run


def _left_behind(kind: str, make: Any, share: float) -> Callable[[int], Any]:
    return lambda seed: alarms(sets.Moving(make(Generator().manual_seed(seed))[0], share, kind=kind))


IN_ALL = {  # of validation
    "classes renumbered": (sets.renumbered, "classes", CLASSES),
    "classes begin at 1": (sets.shifted, "classes", CLASSES),
    "validation not prepared": (sets.unprepared, "scales", NO_TOKENS),
}
WHOLE = {
    **{
        f"{name}, {kind}": _all_of(plant, make)
        for name, (plant, _, kinds) in IN_ALL.items()
        for kind, make in kinds.items()
    },
    "windows split at random": lambda seed: of(sets.split(*sets.windows(Generator().manual_seed(seed)), seed)),
    **{
        f"{kind} left behind, {share:.0%}": _left_behind(kind, sets.images, share)
        for kind in ("masks", "boxes", "points")
        for share in (0.05, 0.2)
    },
}
EXPECTED = {name: "paired_transforms" if "left behind" in name else "duplicates" for name in WHOLE} | {
    f"{name}, {kind}": expected for name, (_, expected, kinds) in IN_ALL.items() for kind in kinds
}


def large() -> float:
    """Seconds of all of it on 20,000 patterns of 64 features, read from a loader."""
    generator = Generator().manual_seed(0)
    y = torch.arange(24_000) % 10
    x = 3 * torch.randn(10, 64, generator=generator)[y] + torch.randn(24_000, 64, generator=generator)
    whole = [TensorDataset(x[part], y[part]) for part in (slice(0, 20_000), slice(20_000, 24_000))]
    train, validation = (DataLoader(each, 128, shuffle=True) for each in whole)
    begun = time.perf_counter()
    alarms(train, validation)
    return time.perf_counter() - begun


if __name__ == "__main__":
    main()
