"""How far the error signal of healthy networks is from that at the last layer: the bands of ``gradient_flow``.

    python -m tests.benchmarks.clinic generate --folder FOLDER --workers 2     # or any store that is there
    python -m tests.benchmarks.healthy_signals FOLDER ...

Prints ``QUANTILES`` of ``lightning_tricks/report/figures/healthy.py``, and how many runs each kind has.
"""

from __future__ import annotations

import argparse
import math
from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np

from lightning_tricks.diagnosis.history.error_signal import ErrorSignalByLayer
from lightning_tricks.report.figures.healthy import Kind, kind_of

from .clinic.store import Store

SHARE = 0.9  # of the looks between the two lines
FEWEST = 10  # runs behind a number
KNOTS = (1, 2, 3, 4, 6, 8, 10, 12, 16, 20, 24, 28, 32, 48, 64)
Weighted = list[tuple[float, float]]  # log10 of a relative signal, and its weight


def measured(folders: Sequence[str]) -> Iterator[list[tuple[Kind, list[float]]]]:
    """Of each healthy run: the kind, and log10 of the relative signals from the last layer on, at every look."""
    for folder in folders:
        store = Store(folder)
        for path in sorted(Path(folder).glob("*.pkl.z")):
            run = store.load(path)
            if run.case.faults or run.error:
                continue
            looks = []
            for snapshot in run.snapshots:
                relative = list(ErrorSignalByLayer.of(snapshot).relative.values())[::-1]
                if len(relative) > 1:
                    looks.append((kind_of(snapshot), [math.log10(v) if v > 0 else -math.inf for v in relative]))
            if looks:
                yield looks


def quantile(values: Weighted, share: float) -> float:
    """Of weighted numbers."""
    numbers, weights = np.array(sorted(values)).T
    return float(numbers[min(np.searchsorted(np.cumsum(weights) / weights.sum(), share), len(numbers) - 1)])


def table(away: dict[int, Weighted]) -> list[tuple[int, float, float]]:
    """At each knot the lowest and the highest so far: a band that never narrows."""
    rows, low, high = [], 0.0, 0.0
    for distance in sorted(away):
        if sum(weight for _, weight in away[distance]) < FEWEST:
            break
        low = min(low, quantile(away[distance], (1 - SHARE) / 2))
        high = max(high, quantile(away[distance], (1 + SHARE) / 2))
        rows.append((distance, round(low, 2), round(high, 2)))
    return [row for row in rows if row[0] in KNOTS or row == rows[-1]]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folders", nargs="+")
    found: dict[Kind, dict[int, Weighted]] = defaultdict(lambda: defaultdict(list))
    runs: Counter[Kind] = Counter()
    for looks in measured(parser.parse_args().folders):
        runs[looks[0][0]] += 1
        for kind, logs in looks:
            for distance, log in enumerate(logs[1:], 1):
                found[kind][distance].append((log, 1 / len(looks)))
    for kind, away in found.items():
        print(f'    "{kind}": {tuple(table(away))},  # {runs[kind]} runs')


if __name__ == "__main__":
    main()
