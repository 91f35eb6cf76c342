"""The diagnosis as a text table: one layout, shown plain or, by rich, in colour."""

from __future__ import annotations

import math
import shutil
import textwrap
from collections.abc import Collection, Iterator, Sequence
from typing import Any, NamedTuple, TextIO

from lightning_tricks.diagnosis.diagnosis import Diagnosis, at, view
from lightning_tricks.diagnosis.finding import Finding
from lightning_tricks.diagnosis.registry import wording
from lightning_tricks.report.glossary import WORDS
from lightning_tricks.report.layers import COLUMNS, LEAST_NEEDED, Row, choose, layer_rows
from lightning_tricks.report.names import distinct, shared_path
from lightning_tricks.report.way import Way
from lightning_tricks.report.words import evidence, number, percent, words

NARROW, WIDE = 40, 100
_INDENT = 14
_LEAST_NAME, _LEAST_FUNCTION = 24, 12
_HEADING = len("layer")
_NAN = " NaN/Inf"
_CONST = "const"
_TIE = "\N{NO-BREAK SPACE}"
_MOST_FINDINGS, _MOST_CONSEQUENCES, _MOST_NOT_SEEN = 12, 8, 6
_STYLES = {"critical": "bold red", "warning": "yellow", "info": "cyan", "healthy": "bold green", "quiet": "dim"}


class Line(NamedTuple):
    """A line of the table: the first ``emphasis`` characters in a style, the rest plain; None: the whole line."""

    text: str
    style: str = ""
    emphasis: int | None = None


@view("text")
def text(diagnosis: Diagnosis, width: int | None = None) -> str:
    """The table as plain text, as wide as the terminal within 60 to 100 columns, or as told."""
    if width is None:
        width = min(max(shutil.get_terminal_size((80, 24)).columns, 60), WIDE)
    return "\n".join(line.text for line in lines_of(diagnosis, width))


def layers_text(diagnosis: Diagnosis, width: int = WIDE) -> str:
    """The layers alone, as plain text: of a history that cannot be judged."""
    return "\n".join(line.text for line in _layers(diagnosis, {}, width)).lstrip("\n")


@view("rich")
def rich_lines(diagnosis: Diagnosis, width: int) -> Iterator[Any]:
    """The same lines for rich, coloured by severity."""
    from rich.text import Text

    for line in lines_of(diagnosis, width):
        shown = Text(line.text, no_wrap=True, overflow="ellipsis")
        if line.style:
            shown.stylize(_STYLES[line.style], 0, len(line.text) if line.emphasis is None else line.emphasis)
        yield shown


@view("show")
def show(diagnosis: Diagnosis, file: TextIO) -> None:
    """Print to a stream: with rich where installed, as plain text elsewhere."""
    try:
        from rich.console import Console
    except ImportError:
        whole = text(diagnosis)
        encoding = getattr(file, "encoding", None) or "utf-8"  # a terminal of another code page must not end a training
        file.write(whole.encode(encoding, "replace").decode(encoding) + "\n")
    else:
        Console(file=file, highlight=False, soft_wrap=False).print(diagnosis)


def lines_of(diagnosis: Diagnosis, width: int) -> Iterator[Line]:
    """All of the table."""
    width = min(max(width, NARROW), WIDE + 20)
    style = {"healthy": "healthy", "unknown": "info"}.get(diagnosis.state) or _worst(diagnosis.findings)
    yield from (Line(part, style) for part in _wrap(diagnosis.verdict, width))
    if diagnosis.history:
        yield from (Line(part, "quiet") for part in _wrap(f"Seen: {diagnosis.coverage}.", width))
    for i, finding in enumerate(diagnosis.findings[:_MOST_FINDINGS], 1):
        yield Line("")
        yield from _finding(i, finding, width)
    if len(diagnosis.findings) > _MOST_FINDINGS:
        yield Line("")
        yield Line(f"... and {len(diagnosis.findings) - _MOST_FINDINGS} more, in diagnosis.findings", "quiet")
    yield from _tried(diagnosis, width)
    if diagnosis.history:
        named = [finding for finding in _all(diagnosis.findings) if finding.layer]
        faulty: dict[str, str] = {str(finding.layer): finding.severity for finding in reversed(named)}
        yield from _layers(diagnosis, faulty, width)
        yield from _not_seen(diagnosis, width)
    if diagnosis.treatment is not None:
        for line in ("", *str(diagnosis.treatment).splitlines()):
            yield from map(Line, _wrap(line, width, subsequent_indent=" " * 6) or [""])


def _tried(diagnosis: Diagnosis, width: int) -> Iterator[Line]:
    """Every experiment with its answer, and behind them those without one."""
    if diagnosis.experiments:
        yield Line("")
        title = "What was tried, with network and data as they were given"
        yield from (Line(part, "quiet") for part in _wrap(title, width))
    for each in diagnosis.experiments:
        if each.conclusive:
            yield from map(Line, _wrap(f"{words(each.name)}: {each.answer}", width, "   ", "      "))
    silent = [each for each in diagnosis.experiments if not each.conclusive]
    for reason in dict.fromkeys(each.answer for each in silent):
        names = ", ".join(words(each.name) for each in silent if each.answer == reason)
        text = f"not judged: {names} ({reason})"
        yield from (Line(part, "quiet") for part in _wrap(text, width, "   ", "      "))


def _finding(i: int, finding: Finding, width: int) -> Iterator[Line]:
    for k, part in enumerate(
        _wrap(f"{i}. {_heading(finding)}, since step {finding.step}", width, subsequent_indent="   ")
    ):
        yield Line(part, finding.severity, None if k == 0 else 0)
    numbers = evidence(finding.evidence)
    if numbers:
        yield from _entry("measured", "; ".join(numbers), width)
    if finding.explanation:
        yield from _entry("why", finding.explanation, width)
    for k, remedy in enumerate(finding.remedies, 1):
        where = f" (at {remedy.layer})" if remedy.layer and remedy.layer not in str(remedy) else ""
        yield from _entry("what to do" if k == 1 else "", f"{k}. {remedy}{where}", width, hang=3)
    following = list(_all(finding.consequences))
    for k, consequence in enumerate(following[:_MOST_CONSEQUENCES]):
        line = _in_one_line(consequence, width - _INDENT)
        yield Line(f"   {'it causes' if k == 0 else '':<{_INDENT - 3}}{line}", consequence.severity)
    if len(following) > _MOST_CONSEQUENCES:
        yield Line(f"{'':<{_INDENT}}- and {len(following) - _MOST_CONSEQUENCES} more", "quiet")


def _heading(finding: Finding) -> str:
    where = at(finding.layer) or " in the whole model"
    return f"{finding.severity}: {wording(finding.problem).heading}{where}"


def _in_one_line(finding: Finding, width: int) -> str:
    """The heading and as many of the measured numbers as fit."""
    line, shown = f"- {_heading(finding)}", 0
    for item in evidence(finding.evidence):
        if len(line) + 2 + len(item) <= width:
            line += f"{'; ' if shown else ': '}{item}"
            shown += 1
    return _clip(line, width)


def _entry(label: str, content: str, width: int, hang: int = 0) -> Iterator[Line]:
    first, others = f"   {label:<{_INDENT - 3}}", " " * (_INDENT + hang)
    yield from map(Line, _wrap(content, width, initial_indent=first, subsequent_indent=others))


def _layers(diagnosis: Diagnosis, faulty: dict[str, str], width: int) -> Iterator[Line]:
    last = diagnosis.history[-1]
    rows = layer_rows(last, diagnosis.layers)
    if not rows:
        return
    columns = [name for name in COLUMNS if any(name in row.values for row in rows)]
    shown = choose(rows, faulty)
    labels = _Labels.of([row for row in shown if isinstance(row, Row)], width)
    hidden = []
    for name in LEAST_NEEDED:
        if name in columns and labels.least + sum(1 + COLUMNS[c].width for c in columns) > width:
            columns.remove(name)
            hidden.append(COLUMNS[name].heading)
    names, function_width = labels.fit(width - sum(1 + COLUMNS[c].width for c in columns))
    name_width = max(_HEADING, *map(len, names))
    by_row = iter(names)
    yield Line("")
    yield from map(Line, _wrap(f"The layers at step {last.step}{_loss(diagnosis)}, in the order of execution:", width))
    if labels.under:
        yield from (Line(part, "quiet") for part in _wrap(f"  full names begin with {labels.under}.", width))
    head = "".join(f" {COLUMNS[name].heading:>{COLUMNS[name].width}}" for name in columns)
    yield Line(f"  {'layer':<{name_width}} {'what it is':<{function_width}}{head}"[:width], "quiet")
    for row in shown:
        if isinstance(row, int):
            yield Line(f"  ... {row} more layers ..." if row > 1 else "  ... 1 more layer ...", "quiet")
            continue
        cells = "".join(f" {_cell(row, name):>{COLUMNS[name].width}}" for name in columns)
        severity = next((faulty[name] for name in row.names if name in faulty), "")
        mark = "!" if severity or row.nonfinite else " "
        label, function = next(by_row), _clip(row.function, function_width)
        line = f"{mark} {label:<{name_width}} {function:<{function_width}}{cells}{_NAN if row.nonfinite else ''}"
        yield Line(line.rstrip(), severity or ("critical" if row.nonfinite else ""))
    if faulty:
        yield Line("  !       a finding names this layer", "quiet")
    legend = {COLUMNS[name].heading: _legend(name) for name in columns}
    if "linearity" in columns and any(isinstance(row, Row) and _cell(row, "linearity") == _CONST for row in shown):
        legend[_CONST] = str(WORDS[_CONST])
    for heading, meaning in legend.items():
        lines = _wrap(f"  {heading:<7} {meaning}", width, subsequent_indent=" " * 10)
        yield from (Line(part, "quiet") for part in lines)
    if hidden:
        note = f"  (hidden here: {', '.join(hidden)}; a wider terminal shows {'them' if len(hidden) > 1 else 'it'})"
        yield from (Line(part, "quiet") for part in _wrap(note, width, subsequent_indent="  "))


def _legend(name: str) -> str:
    """What a column shows, from the glossary; with the word itself where the heading shortens it."""
    heading, _, _, word = COLUMNS[name]
    return str(word) if heading in (word.term, word.term.split()[0]) else f"{word.term}: {word}"


def _not_seen(diagnosis: Diagnosis, width: int) -> Iterator[Line]:
    missed = {name: why for snapshot in diagnosis.history for name, why in snapshot.not_seen.items()}
    if not missed:
        return
    yield Line("")
    yield Line("Not seen, so nothing is said about it:")
    for name, why in list(missed.items())[:_MOST_NOT_SEEN]:
        yield from map(Line, _wrap(f"- {name}: {why}", width, initial_indent="  ", subsequent_indent="    "))
    if len(missed) > _MOST_NOT_SEEN:
        yield Line(f"  - and {len(missed) - _MOST_NOT_SEEN} more, in diagnosis.history[-1].not_seen", "quiet")


def _loss(diagnosis: Diagnosis) -> str:
    """The latest loss beside that of a guess, and where the floor is known how much of the way it has gone."""
    last, way = diagnosis.history[-1], Way.of(diagnosis)
    if math.isnan(last.loss):
        return ", loss NaN" if last.nonfinite_loss else ""
    loss = f", loss {number(last.loss)}"
    if way.known and math.isfinite(way.floor):
        gone = percent(max(way.share(last.loss), 0.0))
        return f"{loss} (a guess has {number(way.guess)}, the floor is {number(way.floor)}: {gone} of the way)"
    return loss if math.isnan(way.guess) else f"{loss} (a guess has {number(way.guess)})"


class _Labels(NamedTuple):
    """The two text columns, which share what width the numbers leave."""

    rows: Sequence[Row]
    under: str
    names: Sequence[str]
    function: int
    rest: int

    @classmethod
    def of(cls, rows: Sequence[Row], width: int) -> _Labels:
        """The rows' labels within ``width``: without the modules that all are under, no two alike."""
        under = shared_path(name for row in rows for name in row.names) if len(rows) > 1 else ""
        rest = 3 + (len(_NAN) if any(row.nonfinite for row in rows) else 0)  # the mark, two spaces, the last word
        names = distinct([row.first(under) for row in rows], _LEAST_NAME, max(width - rest - _LEAST_FUNCTION, _HEADING))
        return cls(rows, under, names, max(10, *(len(row.function) for row in rows)), rest)

    @property
    def least(self) -> int:
        """The width that these columns take before a column of numbers gets any."""
        return self.rest + max(_HEADING, *map(len, self.names)) + min(self.function, _LEAST_FUNCTION)

    def fit(self, room: int) -> tuple[list[str], int]:
        """The names, wider where there is room, with the activation's where that fits too, and the other's width."""
        room -= self.rest
        whole = [row.label(self.under) for row in self.rows]
        function = min(self.function, max(_LEAST_FUNCTION, room - max(map(len, whole))))
        most = room - function
        widest = max(most, *map(len, self.names))
        names = distinct([row.first(self.under) for row in self.rows], widest, widest)
        longer = [long if len(long) <= most else short for long, short in zip(whole, names, strict=True)]
        return (longer if len(set(longer)) == len(set(names)) else names), function


def _wrap(content: str, width: int, initial_indent: str = "", subsequent_indent: str = "") -> list[str]:
    """Lines of whole words; neither ``1d / 2d`` nor ``25 %`` nor a hyphenated word is parted."""
    tied = content.replace(" / ", f"{_TIE}/{_TIE}").replace(" %", f"{_TIE}%")
    lines = textwrap.wrap(
        tied, width, initial_indent=initial_indent, subsequent_indent=subsequent_indent, break_on_hyphens=False
    )
    return [line.replace(_TIE, " ") for line in lines]


def _cell(row: Row, name: str) -> str:
    column = COLUMNS[name]
    if name not in row.values:
        return _CONST if name == "linearity" and row.constant and not row.nonfinite else ""
    value = row.values[name]
    return column.write(value) if abs(value) != float("inf") else "inf" if value > 0 else "-inf"


def _clip(line: str, width: int) -> str:
    return line if len(line) <= width else line[: max(width - 3, 0)] + "..."


def _all(findings: Collection[Finding]) -> Iterator[Finding]:
    for finding in findings:
        yield finding
        yield from _all(finding.consequences)


def _worst(findings: Collection[Finding]) -> str:
    return max(_all(findings), key=lambda finding: finding.rank).severity
