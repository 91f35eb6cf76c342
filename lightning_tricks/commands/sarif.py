"""A diagnosis as SARIF 2.1.0 (OASIS), which code scanning of GitHub and others reads."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from lightning_tricks.commands.problems import explanation
from lightning_tricks.commands.status import version
from lightning_tricks.commands.target import CodeLocation
from lightning_tricks.diagnosis.diagnosis import Diagnosis
from lightning_tricks.diagnosis.finding import Finding
from lightning_tricks.diagnosis.registry import wording
from lightning_tricks.diagnosis.rule import KNOWN
from lightning_tricks.report.words import evidence
from lightning_tricks.testing import Accepted

SCHEMA = "https://json.schemastore.org/sarif-2.1.0.json"
LEVELS = {"info": "note", "warning": "warning", "critical": "error"}


def sarif(diagnosis: Diagnosis, place: CodeLocation | None = None, accepted: Accepted | None = None) -> dict[str, Any]:
    """The log: a rule for each problem that was found, a result for each finding; in it, what follows from it.

    Args:
        diagnosis: What was found.
        place: Where in the code the model is made: to where the results point, as a layer has no line.
        accepted: What is known; it is written as suppressed.
    """
    problems = list(dict.fromkeys(finding.problem for finding in diagnosis.findings))
    results = [
        _result(each, problems.index(each.problem), place, accepted or Accepted()) for each in diagnosis.findings
    ]
    properties = {"state": diagnosis.state, "verdict": diagnosis.verdict}
    made = _log({"executionSuccessful": True}, [_rule(problem) for problem in problems], results)
    made["runs"][0]["properties"] = properties
    return made


def failed(error: BaseException, said: str, status: int) -> dict[str, Any]:
    """The log of a checkup that could not be made: a run without results that tells why."""
    notification = {
        "level": "error",
        "message": {"text": said},
        "exception": {"kind": type(error).__name__, "message": str(error)},
    }
    return _log({"executionSuccessful": False, "exitCode": status, "toolExecutionNotifications": [notification]})


def _log(invocation: dict[str, Any], rules: Sequence[Any] = (), results: Sequence[Any] = ()) -> dict[str, Any]:
    driver = {"name": "lightning_tricks", "version": version(), "rules": list(rules)}
    run = {"tool": {"driver": driver}, "invocations": [invocation], "results": list(results)}
    return {"$schema": SCHEMA, "version": "2.1.0", "runs": [run]}


def _rule(problem: str) -> dict[str, Any]:
    heading = wording(problem).heading
    rule: dict[str, Any] = {"id": problem, "name": problem, "shortDescription": {"text": heading}}
    if problem in KNOWN:
        paragraphs = explanation(KNOWN[problem])
        rule |= {"fullDescription": {"text": paragraphs[0]}, "help": {"text": "\n\n".join(paragraphs)}}
    return rule


def _result(finding: Finding, index: int, place: CodeLocation | None, accepted: Accepted) -> dict[str, Any]:
    location: dict[str, Any] = {}
    if place is not None:
        location["physicalLocation"] = {
            "artifactLocation": {"uri": place.file, "uriBaseId": "%SRCROOT%"},
            "region": {"startLine": place.line},
        }
    if finding.layer is not None:
        location["logicalLocations"] = [{"fullyQualifiedName": finding.layer, "kind": "module"}]
    result = {
        "ruleId": finding.problem,
        "ruleIndex": index,
        "level": LEVELS[finding.severity],
        "message": {"text": _message(finding)},
        "partialFingerprints": {"problemAndLayer/v1": f"{finding.problem}:{finding.layer or ''}"},
        "properties": {"severity": finding.severity, "step": finding.step},
    }
    if location:
        result["locations"] = [location]
    if accepted.severities:  # to be clear about all: a result without the list may be either
        result["suppressions"] = [{"kind": "external", "status": "accepted"}] if accepted.covers(finding) else []
    return result


def _message(finding: Finding) -> str:
    where = f" at {finding.layer}" if finding.layer else ""
    parts = [f"{wording(finding.problem).heading}{where}, since step {finding.step}.", finding.explanation]
    measured = "; ".join(evidence(finding.evidence))
    parts += [f"Measured: {measured}."] if measured else []
    parts += [f"What to do: {finding.remedies[0]}."] if finding.remedies else []
    following = [
        f"{each.problem}{f' at {each.layer}' if each.layer else ''}" for each in _following(finding.consequences)
    ]
    parts += [f"From it follow: {', '.join(following)}."] if following else []
    return " ".join(part for part in parts if part)


def _following(findings: Sequence[Finding]) -> Iterator[Finding]:
    for finding in findings:
        yield finding
        yield from _following(finding.consequences)
