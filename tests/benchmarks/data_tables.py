"""Tables of the benchmark of data faults, printed from its runs."""

from __future__ import annotations

import collections
import math
import statistics
from collections.abc import Callable, Iterable, Iterator
from typing import Any

Run = dict[str, Any]
_CLEAR = 0.05  # planted in as much, a fault is to be found
_TOLD = 0.02  # of the labels: where we alarm


def tables(runs: list[Run]) -> Iterator[str]:
    """Lines."""
    if not runs:
        return
    of = collections.defaultdict(list)
    for run in sorted(runs, key=lambda each: each["seed"]):  # stable: parts in the order of their lines
        of[run["part"]].append(run)
    yield f"seeds {', '.join(_spans({run['seed'] for run in runs if run['part'] != 'large'}))}"
    yield from _planted(of["planted"])
    for part in ("whole", "networks"):
        for name, each in _by(of[part], "name").items():
            missed = _counted(run["kind"] or name for run in each if not run["found"])
            yield f"{name:30}{_found(each):>32}   {missed}"
    for name in ("wrong labels", "wrong values"):
        yield from _shares(name, [run for run in of["planted"] if run["name"] == name])
    for part in ("healthy", "shifted", "healthy networks"):
        false = [f"{run['name']} ({', '.join(run['alarms'])})" for run in of[part] if run["alarms"]]
        if of[part]:
            yield f"{part}: {len(false)} of {len(of[part])} alarm: {_counted(false)}"
    if of["cleanlab"]:
        yield from _cleanlab(of["cleanlab"])
    yield from _seconds(of)


def _spans(seeds: set[int]) -> Iterator[str]:
    """Seeds in a row."""
    for first in sorted(seed for seed in seeds if seed - 1 not in seeds):
        last = next(seed for seed in range(first, first + len(seeds) + 1) if seed + 1 not in seeds)
        yield f"{first} to {last}" if last > first else str(first)


def _by(runs: Iterable[Run], field: str) -> dict[Any, list[Run]]:
    found = collections.defaultdict(list)
    for run in runs:
        found[run[field]].append(run)
    return found


def _found(runs: list[Run]) -> str:
    return f"{sum(run['found'] for run in runs)}/{len(runs)}"


def _counted(names: Iterable[str]) -> str:
    return ", ".join(f"{name} x {count}" for name, count in collections.Counter(names).items()) or "-"


def _planted(runs: list[Run]) -> Iterator[str]:
    strengths = sorted({run["share"] for run in runs})
    if runs:
        yield f"{'planted':30}{''.join(f'{share:>10.0%}' for share in strengths)}   missed at {_CLEAR:.0%} and more"
    for name, each in _by(runs, "name").items():
        cells = (_found(_by(each, "share")[share]) for share in strengths)
        missed = _counted(
            f"{run['kind']} {run['share']:.0%}" for run in each if not run["found"] and run["share"] >= _CLEAR
        )
        yield f"{name:30}{''.join(f'{cell:>10}' for cell in cells)}   {missed}"


def _shares(name: str, runs: list[Run]) -> Iterator[str]:
    """How near the estimates are, and how often the interval holds what was planted."""
    for share, each in sorted(_by(runs, "share").items()):
        told = [run["numbers"] for run in each if "share" in run["numbers"]]
        within = sum(abs(numbers["share"] - share) <= share / 3 for numbers in told)
        covered = sum(numbers["low"] <= share <= numbers["high"] for numbers in told)
        kinds = (
            f"{kind} {_mean(some, lambda run: run['numbers'].get('share', math.nan)):.3f}"
            for kind, some in _by(each, "kind").items()
        )
        yield (
            f"{name}, {share:.0%}: within a third in {within}/{len(each)}, in the interval {covered}/{len(each)}; "
            f"{', '.join(kinds)}"
        )


def _mean(runs: list[Run], of: Callable[[Run], float]) -> float:
    return statistics.fmean(map(of, runs))


def _cleanlab(runs: list[Run]) -> Iterator[str]:
    def told(run: Run) -> float:
        return float(run["numbers"]["share"])

    planted = [run for run in runs if run["share"]]
    for share, each in sorted(_by(planted, "share").items()):
        within = sum(abs(told(run) - share) <= share / 3 for run in each)
        kinds = (f"{kind} {_mean(some, told):.3f}" for kind, some in _by(each, "kind").items())
        yield f"cleanlab, {share:.0%}: within a third in {within}/{len(each)}; {', '.join(kinds)}"
    healthy = [run for run in runs if not run["share"]]
    if healthy:
        over = _counted(run["kind"] for run in healthy if told(run) >= _TOLD)
        count = sum(told(run) >= _TOLD for run in healthy)
        yield f"cleanlab, healthy: {_TOLD:.0%} and more in {count} of {len(healthy)}: {over}"


def _seconds(of: dict[str, list[Run]]) -> Iterator[str]:
    some = [run["seconds"] for run in of["planted"]]
    if some:
        yield f"seconds of a set: {statistics.fmean(some):.2f} in the mean, {max(some):.2f} at most"
    for run in of["large"]:
        yield f"{run['name']}: {run['seconds']:.1f} s, {run['processor']:.1f} s of a processor"
    whole = sum(run["processor"] for each in of.values() for run in each)
    yield f"all runs: {whole / 60:.1f} minutes of a processor"
