"""The figures as text and as Markdown, and the lists to calibrate by."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence

from .counts import numbers, of, peer_numbers, share
from .verdict import Verdict

SILENT = "(silent)"
HALVES = (("A, calibrated on", "A"), ("B, reported", "B"), ("both", None))


def markdown(verdicts: Sequence[Verdict]) -> str:
    """Everything for RESULTS.md."""
    groups = Counter((v.group, v.case.half) for v in verdicts)
    text = [
        "Runs: "
        + "; ".join(
            f"{group} {groups[group, 'A'] + groups[group, 'B']} (A {groups[group, 'A']}, B {groups[group, 'B']})"
            for group in ("healthy", "sick", "harmless", "unfit", "double")
        ),
        "",
    ]
    columns = [numbers(of(verdicts, half)) for _, half in HALVES]
    text += lines(["", *(title for title, _ in HALVES)], [[key, *(str(c[key]) for c in columns)] for key in columns[0]])
    for half in ("B", None):
        text += ["", f"Peers on the same runs, {'half B' if half else 'both halves'}:", ""]
        head = ["", "detected", "false alarms", "problem named first", "problem named anywhere"]
        text += lines(head, [[name, *map(str, row)] for name, row in peer_numbers(of(verdicts, half)).items()])
    text += ["", "By kind of fault, both halves:", "", *kinds(verdicts)]
    text += ["", "Truth (rows) against the problem named first (columns), half B:", "", *confusion(of(verdicts, "B"))]
    return "\n".join(text)


def kinds(verdicts: Sequence[Verdict]) -> list[str]:
    """One row for each kind of fault."""
    sick, harmless = of(verdicts, group="sick"), Counter(v.truths[0].kind for v in of(verdicts, group="harmless"))
    rows = []
    for kind in dict.fromkeys(v.truths[0].kind for v in [*sick, *of(verdicts, group="harmless")]):
        runs = [v for v in sick if v.truths[0].kind == kind]
        every = [v for v in [*sick, *of(verdicts, group="harmless")] if v.truths[0].kind == kind]
        hits = [
            share(runs, test).hits
            for test in (
                lambda v: bool(v.loud),
                lambda v: v.named_first,
                lambda v: v.named_acceptably,
                lambda v: v.named_anywhere,
                lambda v: v.layer_right,
                lambda v: len(v.loud) == 1,
            )
        ]
        rows.append([kind, every[0].truths[0].problem, str(len(runs)), *map(str, hits), str(harmless[kind])])
    head = ["fault", "problem", "runs", "detected", "first", "or equal", "anywhere", "layer", "one top", "harmless"]
    return lines(head, rows)


def confusion(verdicts: Sequence[Verdict]) -> list[str]:
    sick = of(verdicts, group="sick")
    pairs = Counter((v.truths[0].problem, v.first.problem if v.first else SILENT) for v in sick)
    truths = list(dict.fromkeys(v.truths[0].problem for v in sick))
    named = [*truths, *sorted({name for _, name in pairs} - {*truths, SILENT}), SILENT]
    rows = [[truth, *(str(pairs[truth, name] or "") for name in named)] for truth in truths]
    return lines(["", *(name.replace("_", " ") for name in named)], rows)


def failures(verdicts: Sequence[Verdict]) -> Iterator[str]:
    """Every false alarm, miss, misnaming, wrong layer, crash and unfit run, with the numbers behind it."""
    for v in of(verdicts, group="healthy"):
        for step, named in v.alarms:
            gone = "" if any(n.problem == named.problem for n in v.loud) else ", later gone"
            yield f"FALSE ALARM [{v.case.half}] {v.case.name} (acc {v.accuracy:.3f}) at look {step}{gone}: {named}"
    for v in of(verdicts, group="sick"):
        head = (
            f"[{v.case.half}] {v.case.name} (acc {v.accuracy:.3f}, twin {v.twin_accuracy:.3f}; "
            f"loss {v.loss:.3g}, twin {v.twin_loss:.3g}) is {v.truths[0].problem}"
        )
        if not v.loud:
            quiet = "; ".join(map(str, v.final)) or "no finding at all"
            passed = "; ".join(f"at look {step}: {named}" for step, named in v.alarms)
            yield f"MISS {head}: {quiet}{' | once ' + passed if passed else ''}"
        elif not v.named_acceptably:
            rest = f" -> {', '.join(v.first.consequences)}" if v.first and v.first.consequences else ""
            yield f"MISNAMED {head}: {v.first}{rest}{_others(v)}"
        elif not v.layer_right:
            right = ", ".join(sorted(str(layer) for layer in v.truths[0].layers))
            yield f"LAYER {head} at [{right}]: {v.first}"
        elif not v.named_first:
            yield f"EQUAL {head}: {v.first}"
        if len(v.loud) > 1:
            yield f"SEVERAL {head}: {'; '.join(map(str, v.loud))}"
    for v in verdicts:
        if v.error:
            yield f"CRASH [{v.case.half}] {v.case.name}: {v.error.strip().splitlines()[-1]}"
    for v in of(verdicts, group="unfit"):
        yield f"UNFIT [{v.case.half}] {v.case.name}: accuracy {v.accuracy:.3f}, loss {v.loss:.3g}"
    for v in of(verdicts, group="harmless"):
        said = f"; said {v.first.problem}" if v.first else ""
        yield (
            f"HARMLESS [{v.case.half}] {v.case.name}: accuracy {v.accuracy:.3f}, twin {v.twin_accuracy:.3f}; "
            f"loss {v.loss:.3g}, twin {v.twin_loss:.3g}{said}"
        )


def _others(v: Verdict) -> str:
    rest = [f"{named.severity} {named.problem} at {named.layer}" for named in v.final[1:]]
    return f" | also {'; '.join(rest)}" if rest else ""


def lines(head: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    """A Markdown table."""
    widths = [max(len(cell) for cell in column) for column in zip(head, *rows, strict=True)]
    line = lambda cells: "| " + " | ".join(c.ljust(w) for c, w in zip(cells, widths, strict=True)) + " |"  # noqa: E731
    return [line(head), "|" + "|".join("-" * (w + 2) for w in widths) + "|", *map(line, rows)]
