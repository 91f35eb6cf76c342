"""What the rules say to stored healthy trainings, by kind."""

from __future__ import annotations

import dataclasses
import multiprocessing
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path

from ..judging.counts import Share
from ..judging.table import lines
from ..judging.verdict import Named, heard
from .case import HealthyCase
from .store import HealthyStore
from .train import UNFIT, HealthyRun


@dataclasses.dataclass(frozen=True)
class HealthyVerdict:
    """A healthy training, judged.

    Args:
        case: The run.
        measure, score, at_least: Its proving figure.
        final: All findings of the last look.
        alarms: (step of the look, finding) for every problem and layer when first raised above info, at any look.
        error: Where training, doctor or rules failed, or that the run is not healthy by its own measure.
    """

    case: HealthyCase
    measure: str
    score: float
    at_least: float
    final: tuple[Named, ...]
    alarms: tuple[tuple[int, Named], ...]
    error: str

    @property
    def counts(self) -> bool:
        """Whether it is a healthy run: one that is not says nothing about false alarms."""
        return self.score >= self.at_least and not self.error.startswith(UNFIT)

    @property
    def loud(self) -> list[Named]:
        return [named for named in self.final if named.loud]


def judge(run: HealthyRun) -> HealthyVerdict:
    final, alarms, error = heard(run)
    return HealthyVerdict(run.case, run.measure, run.score, run.at_least, final, alarms, error)  # type: ignore[arg-type]


def judge_all(
    cases: Sequence[HealthyCase], store: HealthyStore, workers: int = 1, stale: bool = False
) -> list[HealthyVerdict]:
    """The verdicts on all runs that are there."""
    paths = [path for case in cases if (path := store.find(case, stale)) is not None]  # type: ignore[arg-type]
    if len(paths) < len(cases):
        print(f"{len(cases) - len(paths)} of {len(cases)} runs are missing or of older sources: generate them first\n")
    if workers < 2:
        return [_one(path) for path in paths]
    with multiprocessing.get_context("spawn").Pool(workers) as pool:
        return pool.map(_one, paths, chunksize=4)


def _one(path: Path) -> HealthyVerdict:
    return judge(HealthyStore(path.parent).load(path))  # type: ignore[arg-type]


def markdown(verdicts: Sequence[HealthyVerdict]) -> str:
    """The figures of the whole set, then a row for each kind."""
    well = [v for v in verdicts if v.counts]
    kinds = len({v.case.kind for v in verdicts})
    text = [
        f"Kinds: {kinds}; runs: {len(verdicts)}, of them healthy by their own measure {len(well)}.",
        "",
        *lines(
            ["", "all"],
            [
                ["false alarms at any look", str(Share(sum(bool(v.alarms) for v in well), len(well)))],
                ["false alarms at the end", str(Share(sum(bool(v.loud) for v in well), len(well)))],
                ["crashes", str(Share(sum(map(_crashed, verdicts)), len(verdicts)))],
            ],
        ),
        "",
        *lines(["kind", "measure", "runs", "any look", "at the end", "named"], list(_rows(verdicts))),
    ]
    return "\n".join(text)


def _rows(verdicts: Sequence[HealthyVerdict]) -> Iterator[list[str]]:
    for kind in dict.fromkeys(v.case.kind for v in verdicts):
        own = [v for v in verdicts if v.case.kind == kind]
        well = [v for v in own if v.counts]
        named = Counter(problem for v in well for problem in {each.problem for _, each in v.alarms})
        lowest = min((v.score for v in well), default=float("nan"))
        yield [
            kind,
            f"{own[0].measure} {lowest:.2f} (needed {own[0].at_least:g})",
            str(len(well)),
            str(sum(bool(v.alarms) for v in well) or ""),
            str(sum(bool(v.loud) for v in well) or ""),
            ", ".join(f"{problem} {count}" for problem, count in named.items()),
        ]


def failures(verdicts: Sequence[HealthyVerdict]) -> Iterator[str]:
    """Every false alarm, crash and unfit run, with the numbers behind it."""
    for v in verdicts:
        for step, named in v.alarms if v.counts else ():
            gone = "" if any(n.problem == named.problem for n in v.loud) else ", later gone"
            yield f"FALSE ALARM {v.case.name} ({v.measure} {v.score:.3f}) at look {step}{gone}: {named}"
    for v in verdicts:
        if v.error:
            word = "CRASH" if _crashed(v) else "UNFIT"
            yield f"{word} {v.case.name}: {v.error.strip().splitlines()[-1]}"


def _crashed(v: HealthyVerdict) -> bool:
    return bool(v.error) and not v.error.startswith(UNFIT)
