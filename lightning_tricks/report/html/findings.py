"""What was found: the cause first, with its numbers, what decided, what to do, and what follows from it."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Collection, Iterator, Sequence

from lightning_tricks.diagnosis.diagnosis import Diagnosis, at
from lightning_tricks.diagnosis.experiment import Experiment
from lightning_tricks.diagnosis.finding import Finding
from lightning_tricks.diagnosis.registry import wording
from lightning_tricks.report.glossary import used_in
from lightning_tricks.report.html.markup import Markup, join, tag
from lightning_tricks.report.html.tried import experiment
from lightning_tricks.report.words import evidence, rounded

SIGNS = {"critical": "✕", "warning": "!", "info": "i"}
MOST = 40  # causes that are shown
# A call with what is in its brackets, a name with dots or underscores inside, an argument.
_CODE = re.compile(
    r"((?:[A-Za-z_][\w.]*\((?:[^()]|\([^()]*\))*\))|(?:[A-Za-z]\w+(?:[._]\w+)+)|(?:[A-Za-z_]\w*=[\w.'\"]+))"
)


def section(diagnosis: Diagnosis) -> list[Markup]:
    """One article per finding."""
    if not diagnosis.findings:
        return [tag("p", _nothing(diagnosis))]
    treatment = diagnosis.treatment
    proven = frozenset[str]() if treatment is None else frozenset(remedy.action for remedy in treatment.remedies)
    shown = [_article(i, finding, proven) for i, finding in enumerate(diagnosis.findings[:MOST], 1)]
    left = len(diagnosis.findings) - MOST
    shown = [*_next_step(diagnosis), *shown]
    return [*shown, *([tag("p", f"And {left} more, in diagnosis.findings.")] if left > 0 else [])]


def _nothing(diagnosis: Diagnosis) -> str:
    """What a page without findings says of it, and what to do next."""
    if not diagnosis.history:
        return "Nothing was looked at yet."
    if not diagnosis.healthy:
        return "No rule found anything, but that is not enough to call the training healthy: the verdict says why."
    early = diagnosis.verdict.startswith("Healthy so far")
    return "No rule found anything so far: train on, and look again." if early else "No rule found anything to mend."


def _next_step(diagnosis: Diagnosis) -> list[Markup]:
    """What to do with all of them; of one alone its remedies say it."""
    whole = list(tree(diagnosis.findings))
    if diagnosis.healthy:
        return [tag("p", "Nothing has to be mended: what stands here is worth knowing.")]
    proven = [] if diagnosis.treatment is None else diagnosis.treatment.remedies
    if proven:
        said = "Begin with what is proven by trials on copies of the network as it was given, whichever finding it "
        said += "belongs to: "
        rest = ". Then train again: of the rest nothing is proven yet, and some of it will be gone."
        each = [join([_code(remedy.text), f" (a gain of {rounded(remedy.gain)} of the way)"]) for remedy in proven]
        return [tag("p", said, join(each, "; then "), rest)]
    if len(whole) == 1 or not any(finding.rank for finding in whole):
        return []
    said = "Mend the first one and train again: what follows from it mostly goes with it, and what stays is next."
    return [tag("p", said)]


def tree(findings: Sequence[Finding]) -> Iterator[Finding]:
    """Findings and what follows from them."""
    for finding in findings:
        yield finding
        yield from tree(finding.consequences)


def proofs(diagnosis: Diagnosis) -> list[tuple[Experiment, int]]:
    """The experiments that prove a finding, with the number of its article."""
    numbered = [(i, finding) for i, root in enumerate(diagnosis.findings[:MOST], 1) for finding in tree([root])]
    return [(finding.proof, i) for i, finding in numbered if finding.proof is not None]


def heading(finding: Finding) -> str:
    """The problem and where it is."""
    return f"{wording(finding.problem).heading}{at(finding.layer) or ' in the whole model'}"


def badge(severity: str) -> Markup:
    """The severity as a sign and a word: not by colour alone."""
    return tag("span", tag("span", SIGNS[severity], aria_hidden="true"), f" {severity}", class_=f"badge {severity}")


def _article(i: int, finding: Finding, proven: Collection[str]) -> Markup:
    parts = [
        tag("h3", f"{i}. ", badge(finding.severity), f" {heading(finding)}"),
        tag("p", f"Since step {finding.step}. {finding.explanation}"),
        *_remedies(finding, proven),
        *_numbers(finding),
        *_why(finding),
        *([] if finding.proof is None else [tag("h4", "Proof"), experiment(finding.proof)]),
    ]
    following = list(finding.consequences)
    if following:
        parts += [tag("h4", "What follows from it"), tag("ul", [_consequence(each) for each in following])]
    terms = [part for word in used_in(_said(finding)) for part in (tag("dt", word.term), tag("dd", str(word)))]
    parts.append(tag("details", tag("summary", "The words used here"), tag("dl", terms)))
    return tag("article", parts, id=f"finding-{i}", class_=f"finding {finding.severity}", tabindex="-1")


def _said(finding: Finding) -> str:
    """All that an article says, for the words in it."""
    whole = (part for each in tree([finding]) for part in (each.explanation, *evidence(each.evidence), each.why()))
    return " ".join(["severity, since step", *whole])


def _remedies(finding: Finding, proven: Collection[str]) -> Iterator[Markup]:
    if finding.remedies:
        tried = tag("b", " (proven by a trial)")
        lines = [(_code(str(each)), _where(each.layer, str(each))) for each in finding.remedies]
        signs = [tried if each.action in proven else None for each in finding.remedies]
        yield tag("h4", "What to do, the best first")
        yield tag("ol", [tag("li", line, sign) for line, sign in zip(lines, signs, strict=True)])


def _where(layer: str | None, text: str) -> str:
    return f" (at {layer})" if layer and layer not in text else ""


def _code(text: str) -> Markup:
    """Advice with its calls and names set as code."""
    return join(tag("code", piece) if i % 2 else piece for i, piece in enumerate(_CODE.split(text)))


def _numbers(finding: Finding) -> Iterator[Markup]:
    known = {key: value for key, value in finding.evidence.items() if value is not None}
    if known:
        rows = []
        for key, value in known.items():
            name = str(key).replace("_", " ")
            rows.append(tag("div", tag("dt", name), tag("dd", evidence({key: value})[0].removeprefix(f"{name} "))))
        yield tag("h4", "Measured")
        yield tag("dl", rows, class_="numbers")


def _why(finding: Finding) -> Iterator[Markup]:
    if finding.decided_by or finding.traits:
        yield tag("h4", "What decided, and how far it is from the threshold")
        yield _criteria(finding)


def _criteria(finding: Finding) -> Markup:
    """What ``why()`` tells; the proof stands below it with its curves."""
    lines = dataclasses.replace(finding, proof=None).why().splitlines()[1:]
    return tag("ul", [tag("li", line.removeprefix("- ")) for line in lines], class_="why")


def _consequence(finding: Finding) -> Markup:
    numbers = "; ".join(evidence(finding.evidence))
    more = [tag("p", text) for text in (numbers, finding.explanation) if text]
    more += [_criteria(finding)] if finding.decided_by or finding.traits else []
    more += [] if finding.proof is None else [experiment(finding.proof)]
    if finding.remedies:
        more.append(tag("p", "What to do if it stays: ", _code(str(finding.remedies[0]))))
    inner = [tag("ul", [_consequence(each) for each in finding.consequences])] if finding.consequences else []
    head = tag("summary", badge(finding.severity), f" {heading(finding)}, since step {finding.step}")
    return tag("li", tag("details", head, more), inner)
