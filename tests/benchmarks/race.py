"""Times competitors in turns, so that a disturbance of the machine hits all of them.

By default glibc gives large freed blocks back to the system and fetches them again page by page: 3 ms for 16 MB, more
than the arithmetic of a batch norm, and charged to whoever comes after. So the race keeps what was freed, as other
allocators do; LT_RACE_DEFAULT_MALLOC=1 leaves the allocator as it is.
"""

from __future__ import annotations

import ctypes
import os
import statistics
import sys
import time
from collections.abc import Callable, Mapping

import torch


def race(competitors: Mapping[str, Callable[[], object]], rounds: int, repeats: int = 1) -> dict[str, float]:
    """The median milliseconds of one call of each, over ``rounds`` rounds of ``repeats`` calls."""
    keep_freed_memory()
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


def keep_freed_memory() -> None:
    if sys.platform == "linux" and not os.environ.get("LT_RACE_DEFAULT_MALLOC"):
        mallopt = getattr(ctypes.CDLL(None), "mallopt", None)  # glibc has it, musl has not
        if mallopt is not None:
            mallopt(-4, 0)  # M_MMAP_MAX: nothing is mapped by itself
            mallopt(-1, 2**31 - 1)  # M_TRIM_THRESHOLD: the heap does not shrink


def _now() -> float:
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    return time.perf_counter()
