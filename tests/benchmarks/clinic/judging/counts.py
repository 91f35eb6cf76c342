"""Shares with Wilson's interval, from verdicts."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Sequence

from .peers import PEERS
from .verdict import Verdict

Z = 1.959964  # 95 %


@dataclasses.dataclass(frozen=True)
class Share:
    """So many of so many."""

    hits: int
    of: int

    @property
    def value(self) -> float:
        return self.hits / self.of if self.of else math.nan

    @property
    def interval(self) -> tuple[float, float]:
        """Wilson's score interval (1927), 95 %."""
        if not self.of:
            return math.nan, math.nan
        p, n = self.value, self.of
        middle = (p + Z**2 / (2 * n)) / (1 + Z**2 / n)
        half = Z * math.sqrt(p * (1 - p) / n + Z**2 / (4 * n**2)) / (1 + Z**2 / n)
        return max(0.0, middle - half), min(1.0, middle + half)

    def __str__(self) -> str:
        if not self.of:
            return "-"
        low, high = self.interval
        return f"{100 * self.value:.1f} % ({self.hits}/{self.of}; {100 * low:.1f}-{100 * high:.1f})"


def share(verdicts: Sequence[Verdict], holds: Callable[[Verdict], bool]) -> Share:
    return Share(sum(map(holds, verdicts)), len(verdicts))


def of(verdicts: Sequence[Verdict], half: str | None = None, group: str | None = None) -> list[Verdict]:
    """The verdicts of a half and a group."""
    return [v for v in verdicts if half in (None, v.case.half) and group in (None, v.group)]


def numbers(verdicts: Sequence[Verdict]) -> dict[str, Share]:
    """All figures of one set of verdicts (a half, or both)."""
    sick, well = of(verdicts, group="sick"), of(verdicts, group="healthy")

    def about(problem: str) -> list[Verdict]:
        return [v for v in sick if v.truths[0].problem == problem]

    return {
        "detected at the end": share(sick, lambda v: bool(v.loud)),
        "detected at any look": share(sick, lambda v: bool(v.alarms)),
        "problem named first": share(sick, lambda v: v.named_first),
        "problem named first, or its equal": share(sick, lambda v: v.named_acceptably),
        "problem named anywhere": share(sick, lambda v: v.named_anywhere),
        "first faulty layer exact": share(sick, lambda v: v.layer_right),
        "problem and layer": share(sick, lambda v: v.named_acceptably and v.layer_right),
        "linearity named first": share(about("linearity"), lambda v: v.named_first),
        "linearity named anywhere": share(about("linearity"), lambda v: v.named_anywhere),
        "bias shift named first": share(about("bias_shift"), lambda v: v.named_first),
        "bias shift named anywhere": share(about("bias_shift"), lambda v: v.named_anywhere),
        "one finding at the top": share(sick, lambda v: len(v.loud) == 1),
        "false alarms on healthy runs, any look": share(well, lambda v: bool(v.alarms)),
        "false alarms on healthy runs, at the end": share(well, lambda v: bool(v.loud)),
        "crashes": share(list(verdicts), lambda v: bool(v.error)),
    }


def peer_numbers(verdicts: Sequence[Verdict]) -> dict[str, tuple[Share, Share, Share, Share]]:
    """Of us and of each peer: detected, false alarms, problem named first, problem named anywhere."""
    sick, well = of(verdicts, group="sick"), of(verdicts, group="healthy")
    found = {
        "lightning_tricks": (
            share(sick, lambda v: bool(v.alarms)),
            share(well, lambda v: bool(v.alarms)),
            share(sick, lambda v: v.named_first),
            share(sick, lambda v: v.named_anywhere),
        )
    }
    for name in PEERS:
        found[name] = (
            share(sick, lambda v, name=name: bool(v.peers[name])),
            share(well, lambda v, name=name: bool(v.peers[name])),
            share(sick, lambda v, name=name: v.peers[name][:1] == [v.truths[0].problem]),
            share(sick, lambda v, name=name: v.truths[0].problem in v.peers[name]),
        )
    return found
