"""Every rule of the package, found by importing the files in rules/, and what follows from there being these."""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Collection, Iterable, Sequence
from fnmatch import fnmatchcase
from typing import Any

from lightning_tricks.diagnosis import rules as package
from lightning_tricks.diagnosis.rule import KNOWN, STAGES, Rule, Words
from lightning_tricks.model.arguments import unknown_name


def _ordered(rules: Collection[Rule]) -> tuple[Rule, ...]:
    return tuple(sorted(rules, key=lambda rule: (STAGES.index(rule.stage), rule.order)))


def _discovered() -> tuple[Rule, ...]:
    inside = f"{package.__name__}."
    for module in pkgutil.iter_modules(package.__path__, inside):
        importlib.import_module(module.name)
    return _ordered([rule for rule in KNOWN.values() if (rule.judge.__module__ or "").startswith(inside)])


RULES = _discovered()  # by stage, then by their order in it
_ROWS = sorted(RULES, key=lambda rule: rule.words.row)
PROBLEMS: tuple[str, ...] = tuple(rule.problem for rule in _ROWS)


def wording(problem: str) -> Words:
    """The words of a problem; of one that no rule here knows, its name.

    >>> wording("dead_units").clause, wording("lost_in_space").heading
    ('units are dead', 'lost in space')
    """
    plain = problem.replace("_", " ")
    return KNOWN[problem].words if problem in KNOWN else Words(plain, plain)


def as_ignored(ignore: Any) -> tuple[str, ...]:
    """Names of problems, each with a glob of layers behind a colon or none; one stands for itself.

    >>> as_ignored("overfitting")
    ('overfitting',)
    """
    names = (ignore,) if isinstance(ignore, str) else tuple(ignore) if isinstance(ignore, Iterable) else (ignore,)
    for name in names:
        if not isinstance(name, str):
            wanted = "names of problems such as ('dead_units', 'bias_shift:encoder.*')"
            raise TypeError(f"ignore must be {wanted}, got {name!r}")
    return names


def is_ignored(problem: str, layer: str | None, ignore: Collection[str]) -> bool:
    """Whether a finding is not to be shown.

    >>> is_ignored("dead_units", "encoder.0", ["dead_units:enc*"]), is_ignored("dead_units", "head", ["saturation"])
    (True, False)
    """
    pairs = [name.partition(":") for name in ignore]
    return any(problem == name and (not glob or fnmatchcase(layer or "", glob)) for name, _, glob in pairs)


def with_rules(rules: Sequence[Rule] = (), ignore: Collection[str] = ()) -> tuple[Rule, ...]:
    """The package's rules and these, in their order.

    Raises:
        TypeError: One of them is no Rule.
        ValueError: Two have one problem, or ``ignore`` names a problem of no rule.
    """
    rules = (rules,) if isinstance(rules, Rule) else tuple(rules)
    for each in rules:
        if not isinstance(each, Rule):
            raise TypeError(f"rules must be made by lightning_tricks.rule(...), got {each!r}")
    names = [*PROBLEMS, *(each.problem for each in rules)]
    twice = next((name for name in names if names.count(name) > 1), None)
    if twice is not None:
        raise ValueError(f"there is a rule for {twice} already: give the problem of yours another name")
    for name in as_ignored(ignore):
        if name.partition(":")[0] not in names:
            raise ValueError(unknown_name("problem to ignore", name.partition(":")[0], names))
    return _ordered((*RULES, *rules)) if rules else RULES


def problem_table() -> str:
    """What is found, as a Markdown table: problem, what it means, first remedy.

    >>> print(problem_table().splitlines()[3])
    | `saturation` | units sit on the flat sides of their curve | smaller initial weights, SELU, batch norm |
    """
    rows: list[tuple[list[str], Rule]] = []
    for rule in _ROWS:
        if rule.words.cure:
            rows.append(([], rule))
        rows[-1][0].append(f"`{rule.problem}`")
    lines = [f"| {', '.join(names)} | {rule.means} | {rule.words.cure} |" for names, rule in rows]
    return "\n".join(["| problem | what it means | first remedy |", "|---|---|---|", *lines])
