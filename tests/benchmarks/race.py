"""Times competitors in turns, so that a disturbance of the machine hits all of them."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Mapping

import torch


def race(competitors: Mapping[str, Callable[[], object]], rounds: int, repeats: int = 1) -> dict[str, float]:
    """The median milliseconds of one call of each, over ``rounds`` rounds of ``repeats`` calls."""
    for run in competitors.values():
        for _ in range(3):
            run()
    times: dict[str, list[float]] = {name: [] for name in competitors}
    for _ in range(rounds):
        for name, run in competitors.items():
            start = _now()
            for _ in range(repeats):
                run()
            times[name].append((_now() - start) / repeats)
    return {name: 1e3 * statistics.median(values) for name, values in times.items()}


def _now() -> float:
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    return time.perf_counter()
