"""The figures of the runs that are stored."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from .runs import rows_in, shown

GAP = 0.1  # of accuracy or R^2 between the sick run and its twin
CLOSED, WORSE = 0.8, 0.05
WAYS = ("rules", "rules of the first steps", "experiments", "checkup", "together")


def report(store: Path, failures: bool) -> None:
    rows = list(rows_in(store))
    failed = [row for row in rows if "error" in row]
    rows = [row for row in rows if "error" not in row]
    sick = [row for row in rows if row["set"] == "sick"]
    print(f"runs that failed: {rate([row in failed for row in [*rows, *failed]])}")
    left = _of_sick(sick) if sick else []
    worse = [row for row in rows if "after" in row and row["after"] < row["before"] - WORSE]
    print(f"made worse by more than {WORSE}: {rate([row in worse for row in rows if 'after' in row])}")
    for name in ("healthy", "adversarial"):
        those = [row for row in rows if row["set"] == name]
        if those:
            claimed = [row for row in those if row["remedies"]]
            gains = [row.get("after", 0.0) - row.get("before", 0.0) for row in claimed]
            better = f"{sum(gain > 0 for gain in gains)} better, {sum(gain >= GAP for gain in gains)} by {GAP} and more"
            print(f"{name}, a gain claimed by treat: {rate([row in claimed for row in those])}", end="")
            print(f", of these after a whole training {better}" if claimed else "")
            print(f"{name}, brought by experiments: {rate([bool(r['brought']) for r in those])}")
    for name in ("sick", "healthy", "adversarial"):
        _cost(name, [row for row in rows if row["set"] == name])
    if failures:
        claimed = [row for row in rows if row["set"] != "sick" and (row["remedies"] or row["brought"])]
        unnamed = [row for row in sick if not row["together"][0]]
        for title, group in (("not closed", left), ("worse", worse), ("claimed", claimed), ("not named", unnamed)):
            print(f"\n{title}:", *map(shown, group), sep="\n")


def _of_sick(sick: list[dict[str, Any]]) -> list[dict[str, Any]]:
    gap = [row for row in sick if row["twin"] - row["before"] >= GAP]
    curable = [row for row in gap if row["curable"]]
    print(f"sick runs {len(sick)}, with a gap of {GAP} to the twin {len(gap)}, of a curable kind {len(curable)}")
    for name, those in (("curable", curable), ("all", gap)):
        print(f"gap closed by {CLOSED:.0%} and more, {name}: {rate([closed(row) >= CLOSED for row in those])}")
    for way in WAYS:
        first, anywhere = rate([row[way][0] for row in sick]), rate([row[way][1] for row in sick])
        print(f"named by {way}: first {first}, at all {anywhere}")
    print(f"called healthy by the checkup: {rate([row['healthy'] for row in sick])}")
    return [row for row in gap if closed(row) < CLOSED]


def closed(row: dict[str, Any]) -> float:
    return (row["after"] - row["before"]) / (row["twin"] - row["before"])


def _cost(name: str, rows: list[dict[str, Any]]) -> None:
    for who in ("treat", "checkup") if rows else ():
        steps = [row["cost"][who] for row in rows]
        many = f"{np.median(steps):.1f} trainings at the median, {np.quantile(steps, 0.9):.1f} at the 90th percentile"
        print(f"cost of {who}, {name}: {many}, {max(steps):.1f} at most")


def rate(hits: Sequence[bool]) -> str:
    return f"{sum(hits)} of {len(hits)}" + (f" ({sum(hits) / len(hits):.1%})" if hits else "")
