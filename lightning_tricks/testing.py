"""assert_healthy: a checkup as a test, with a file of the findings that are accepted."""

from __future__ import annotations

import dataclasses
import json
import pathlib
import random
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, Literal, get_args

import numpy as np
import torch
from torch import nn

from lightning_tricks.checkup import LossFunction, checkup
from lightning_tricks.diagnosis.diagnosis import Diagnosis, State
from lightning_tricks.diagnosis.finding import SEVERITIES, Finding
from lightning_tricks.model.arguments import unknown_name
from lightning_tricks.model.isolated import keep_random_numbers
from lightning_tricks.report.files import replaced

FailOn = Literal["warning", "critical"]
FAIL_ON: tuple[str, ...] = get_args(FailOn)
VERSION = 1  # of the file of accepted findings


@dataclasses.dataclass(frozen=True)
class Accepted:
    """Findings that are known and accepted: by problem and layer the severity up to which they are.

    >>> accepted = Accepted.of(Diagnosis([Finding("dead_units", "net.1", "warning", 3)]))
    >>> accepted.covers(Finding("dead_units", "net.1", "info", 0))
    True
    >>> accepted.covers(Finding("dead_units", "net.1", "critical", 0)), accepted.covers(
    ...     Finding("dead_units", "net.3", "warning", 0)
    ... )
    (False, False)
    """

    severities: Mapping[tuple[str, str | None], str] = dataclasses.field(default_factory=dict)

    @classmethod
    def of(cls, diagnosis: Diagnosis) -> Accepted:
        """All findings of a diagnosis above "info"."""
        return cls({(each.problem, each.layer): each.severity for each in _tree(diagnosis.findings) if each.rank})

    @classmethod
    def read(cls, path: str | pathlib.Path) -> Accepted:
        """The file that ``write`` wrote.

        Raises:
            OSError: There is no such file.
            ValueError: It is another file.
        """
        try:
            entries = json.loads(pathlib.Path(path).read_text(encoding="utf-8"))["accepted"]
            severities = {(each["problem"], each["layer"]): each["severity"] for each in entries}
        except (json.JSONDecodeError, KeyError, TypeError) as error:
            raise ValueError(f"{path} is no file of accepted findings ({type(error).__name__}: {error})") from error
        unknown = [each for each in severities.values() if each not in SEVERITIES]
        if unknown:
            raise ValueError(f"{path}: {unknown_name('severity', unknown[0], SEVERITIES)}")
        return cls(severities)

    def write(self, path: str | pathlib.Path) -> None:
        """As JSON: a list of problem, layer and severity."""
        entries = [
            {"problem": problem, "layer": layer, "severity": severity}
            for (problem, layer), severity in sorted(self.severities.items(), key=lambda item: str(item[0]))
        ]
        with replaced(path) as part:
            part.write_text(json.dumps({"version": VERSION, "accepted": entries}, indent=2) + "\n", encoding="utf-8")

    def covers(self, finding: Finding) -> bool:
        """Whether it is accepted, at its severity."""
        severity = self.severities.get((finding.problem, finding.layer))
        return severity is not None and finding.rank <= SEVERITIES.index(severity)

    def without(self, findings: Iterable[Finding]) -> list[Finding]:
        """Those that are not accepted; what follows from an accepted one is accepted with it."""
        return [each for each in findings if not self.covers(each)]

    def gone(self, diagnosis: Diagnosis) -> list[str]:
        """What is accepted and was not found: it can leave the file."""
        found = {(each.problem, each.layer) for each in _tree(diagnosis.findings)}
        names = (f"{problem}{f' at {layer}' if layer else ''}" for problem, layer in self.severities.keys() - found)
        return sorted(names)


def judged(
    diagnosis: Diagnosis, accepted: Accepted | None = None, fail_on: FailOn = "warning"
) -> tuple[State, list[Finding]]:
    """The state that is left without what is accepted and what is less severe than asked for, and what makes it so."""
    if fail_on not in FAIL_ON:
        raise ValueError(unknown_name("fail_on", fail_on, FAIL_ON))
    least, known = SEVERITIES.index(fail_on), accepted or Accepted()
    kept = [
        root
        for root in known.without(diagnosis.findings)
        if any(each.rank >= least for each in known.without(_tree([root])))
    ]
    state = dataclasses.replace(diagnosis, findings=kept).state
    return state, kept


def assert_healthy(
    model: nn.Module,
    data: Any,
    loss_fn: LossFunction | None = None,
    *,
    fail_on: FailOn = "warning",
    accepted: str | pathlib.Path | None = None,
    accept: bool = False,
    seed: int = 0,
    **options: Any,
) -> Diagnosis:
    """A checkup for a test: an AssertionError with the table unless the model trains in health.

    Args:
        model: As in :func:`lightning_tricks.checkup`, which stays as it was.
        data: As there.
        loss_fn: As there.
        fail_on: The least severity that fails, ``"warning"`` or ``"critical"``.
        accepted: A JSON file of findings that do not fail: problem, layer and the severity up to which it is so. A file
            that is not there yet accepts nothing.
        accept: Write what is found into that file, and do not fail.
        seed: Of the random numbers of the checkup, so that a test gives the same answer twice; what others draw goes on
            as if it had not been.
        options: Anything else that a checkup takes: ``num_batches=``, ``val_data=``, ``experiments=``, ``ignore=`` ...

    Returns:
        The diagnosis.

    Raises:
        AssertionError: A finding is as severe and not accepted, or so little was seen that nothing can be said.
        ValueError: ``accept`` without a file to write to, a file that is another, or what a checkup raises.

    >>> net = nn.Sequential(nn.Linear(8, 16), nn.ReLU(), nn.Linear(16, 2))
    >>> batch = torch.randn(64, 8), torch.randint(2, (64,))
    >>> assert_healthy(net, batch, nn.functional.cross_entropy).healthy
    True
    """
    __tracebackhide__ = True  # pytest shows the line of the test
    if accept and accepted is None:
        raise ValueError("accept=True writes what is found to the file accepted=: give one")
    judged(Diagnosis(), fail_on=fail_on)  # an unknown name is an error before the work
    known = Accepted.read(accepted) if accepted is not None and pathlib.Path(accepted).exists() and not accept else None
    with keep_random_numbers():
        for begin in (random.seed, np.random.seed, torch.manual_seed):
            begin(seed)
        diagnosis = checkup(model, data, loss_fn, **{"progress": False, **options})
    if accept and accepted is not None:
        Accepted.of(diagnosis).write(accepted)
        return diagnosis
    state, left = judged(diagnosis, known, fail_on)
    if state != "healthy":
        raise AssertionError(_message(diagnosis, left, accepted))
    return diagnosis


def _message(diagnosis: Diagnosis, left: list[Finding], accepted: str | pathlib.Path | None) -> str:
    names = [f"{each.severity}: {each.problem}{f' at {each.layer}' if each.layer else ''}" for each in left]
    hidden = len(diagnosis.findings) - len(left)
    lines = [", ".join(names) or diagnosis.verdict]
    if hidden:
        lines.append(f"({hidden} further finding{'s' if hidden > 1 else ''} in the table: accepted, or less severe)")
    if left and accepted is not None:
        lines.append(f"(accept=True writes them to {accepted})")
    return "\n".join([*lines, "", str(diagnosis)])


def _tree(findings: Iterable[Finding]) -> Iterator[Finding]:
    for finding in findings:
        yield finding
        yield from _tree(finding.consequences)
