"""problems: what can be found, and what each problem means"""

from __future__ import annotations

import argparse
import textwrap

from lightning_tricks.commands import output
from lightning_tricks.commands.status import OK, CommandError
from lightning_tricks.diagnosis.registry import PROBLEMS, RULES
from lightning_tricks.diagnosis.rule import Rule
from lightning_tricks.model.arguments import unknown_name
from lightning_tricks.report.glossary import used_in

_WIDTH = 100
_BY_NAME = {rule.problem: rule for rule in RULES}


def run(options: argparse.Namespace) -> int:
    if options.name is not None and options.name not in _BY_NAME:
        raise CommandError(unknown_name("problem", options.name, PROBLEMS))
    chosen = [_BY_NAME[name] for name in PROBLEMS if options.name in (None, name)]
    text = _explained(chosen[0]) if options.name else _listed(chosen)
    output.show(options, lambda: {rule.problem: _plain(rule) for rule in chosen}, lambda: print(text))
    return OK


def explanation(rule: Rule) -> list[str]:
    """Paragraphs: what it means, how it is found, what it hangs together with."""
    docstring = textwrap.dedent(" " * 4 + (rule.judge.__doc__ or "").strip()).strip()
    parts = [f"{rule.problem}: {rule.means}"]
    parts += [" ".join(each.split()) for each in docstring.split("\n\n")[1:]]
    parts += [f"What helps: {cure}" for cure in [_cure(rule)] if cure]
    remedies = [f"- {remedy}" for remedy in rule.remedies]
    if remedies:
        parts.append("\n".join(["What to do:", *remedies]))
    if rule.brings_about:
        parts.append(f"It can bring about: {', '.join(sorted(rule.brings_about))}")
    if rule.needs:
        parts.append(f"To judge, it has to see: {', '.join(sorted(rule.needs))}")
    return parts


def _cure(rule: Rule) -> str:
    """Of the row of the table that it stands in."""
    rows = [each for each in _BY_NAME.values() if each.words.row == rule.words.row and each.words.cure]
    return rows[0].words.cure if rows else rule.words.cure


def _explained(rule: Rule) -> str:
    parts = explanation(rule)
    words = used_in(" ".join(parts))
    if words:
        parts.append("\n".join(["The words:", *(f"  {word.term}: {word}" for word in words)]))
    return "\n\n".join("\n".join(map(_filled, each.split("\n"))) for each in parts)


def _filled(line: str) -> str:
    return textwrap.fill(line, _WIDTH, subsequent_indent="    " if line.startswith("  ") else "")


def _listed(rules: list[Rule]) -> str:
    widest = max(len(rule.problem) for rule in rules)
    lines = [
        textwrap.fill(f"{rule.problem:<{widest}}  {rule.means}", _WIDTH, subsequent_indent=" " * (widest + 2))
        for rule in rules
    ]
    return "\n".join([*lines, "", "lightning-tricks problems NAME tells more of one."])


def _plain(rule: Rule) -> dict[str, object]:
    return {
        "means": rule.means,
        "explanation": "\n\n".join(explanation(rule)[1:]),
        "stage": rule.stage,
        "remedies": [str(remedy) for remedy in rule.remedies],
        "brings_about": sorted(rule.brings_about),
        "needs": sorted(rule.needs),
    }
