"""Trying: the experiments of a checkup one after the other, and what they change in its diagnosis."""

from __future__ import annotations

import dataclasses
import sys
import time
from collections.abc import Callable, Sequence
from typing import Any, TextIO

from torch import nn

from lightning_tricks.diagnosis.diagnosis import Diagnosis
from lightning_tricks.diagnosis.experiment import Experiment
from lightning_tricks.diagnosis.finding import Finding
from lightning_tricks.experiments.asking.asks import READINGS
from lightning_tricks.experiments.asking.registry import RegisteredExperiment, Subject
from lightning_tricks.experiments.preflight.patterns import NotAskedError
from lightning_tricks.experiments.preflight.replay import LARGEST_COPY
from lightning_tricks.experiments.training.deadline import TimeIsUpError

Judge = Callable[[Sequence[Finding]], Diagnosis]  # the rules again, with findings that experiments brought


def try_them(
    subject: Subject, wanted: Sequence[RegisteredExperiment], judge: Judge, *, auto: bool, progress: bool
) -> Diagnosis:
    """Make the experiments; what is known when Ctrl-C is pressed, or the time is over, is kept.

    Args:
        subject: The training, and what the rules say to it.
        wanted: The experiments, in their order.
        judge: Called with findings that an experiment brought, for the diagnosis with them.
        auto: Whether trainings are only tried where they are asked for.
        progress: Whether to show on a terminal what is being tried.
    """
    brought: list[Finding] = []
    bar = _Progress(sys.stderr if progress else None, len(wanted))
    try:
        for entry in wanted:
            if subject.seconds_left <= 0 or subject.deadline.steps <= 0:
                break
            if not entry.wanted(subject) or (auto and entry.cost == "trainings" and not subject.asks_for_trainings):
                continue
            bar.show(entry.name)
            made = _run(entry, subject)
            subject.done[entry.name] = made
            found = list(entry.brings(subject, made)) if made.conclusive else []
            if found:
                brought += [dataclasses.replace(finding, proof=made) for finding in found]
                subject.diagnosis = judge(brought)
            subject.diagnosis = _with(subject, wanted)
    except KeyboardInterrupt:
        pass
    finally:
        bar.clear()
    return _with(subject, wanted)


def _run(entry: RegisteredExperiment, subject: Subject) -> Experiment:
    begun, name = time.perf_counter(), entry.name
    try:
        if _is_large(subject.model):
            raise NotAskedError("the model is too large to be copied")
        made = entry.run(subject)
        return dataclasses.replace(made, reading=made.reading or READINGS.get(name, ""))
    except (NotAskedError, TimeIsUpError) as reason:
        text = str(reason)
    except Exception as error:  # a copy of someone's training may fail in any way
        text = f"{type(error).__name__}: {error}".partition("\n")[0]
    return Experiment(name, "", text, seconds=time.perf_counter() - begun, conclusive=False)


def _is_large(model: nn.Module) -> bool:
    return sum(x.numel() * x.element_size() for x in (*model.parameters(), *model.buffers())) > LARGEST_COPY


def _with(subject: Subject, wanted: Sequence[RegisteredExperiment]) -> Diagnosis:
    """The diagnosis with what was tried, and the proofs at the findings."""
    made = list(subject.done.values())
    tried = [(entry, subject.done[entry.name]) for entry in wanted if entry.name in subject.done]
    tried = [(entry, experiment) for entry, experiment in tried if experiment.conclusive]

    def judged(finding: Finding) -> Finding:
        against = next((experiment for entry, experiment in tried if entry.refutes(experiment, finding)), None)
        shown = next((experiment for entry, experiment in tried if entry.proves(experiment, finding)), against)
        changed: dict[str, Any] = {
            "proof": finding.proof or shown,
            "consequences": tuple(map(judged, finding.consequences)),
        }
        if against is not None:
            text = f"{finding.explanation} Tried, it does no harm: {against.answer}."
            changed |= {"severity": "info", "explanation": text}
        return dataclasses.replace(finding, **changed)

    findings = [judged(finding) for finding in subject.diagnosis.findings]
    return dataclasses.replace(subject.diagnosis, findings=findings, experiments=made)


class _Progress:
    """A line on a terminal that says what is being tried; elsewhere nothing."""

    def __init__(self, stream: TextIO | None, count: int) -> None:
        self._stream = stream if stream is not None and stream.isatty() else None
        self._count, self._shown = count, 0

    def show(self, name: str) -> None:
        self._shown += 1
        if self._stream is not None:
            self._stream.write(f"\r\x1b[Ktrying {name} ({self._shown} of {self._count})")
            self._stream.flush()

    def clear(self) -> None:
        if self._stream is not None and self._shown:
            self._stream.write("\r\x1b[K")
            self._stream.flush()
