"""RESULTS.md of the zoo: sums by group, and a line for each model."""

from __future__ import annotations

import statistics
from collections import Counter
from collections.abc import Sequence
from importlib import metadata

from .harness import Row

PACKAGES = ("torch", "lightning", "torchvision", "timm", "transformers", "diffusers", "peft")
HEAD = """# The zoo

Each model makes one step by a Trainer plain and one with all three monitors, from the same random numbers. *equal*:
how many things are the same bit for bit: losses, gradients, parameters after the step, buffers, states of the random
number generators; in brackets those that two plain steps leave different already. Calls of activations and of
weighted operations: those in the snapshot, of those that torch's dispatcher counts in a forward pass of its own. A
model is green where nothing differs, all calls are seen (or what is not is listed, with the reason), names are
unique, every rule has run, and JSON gives the snapshot again. *time*:
processor time of a probed step as a multiple of a plain one, medians of three that take turns; empty where it was not
taken (a model that takes long, a busy machine). *memory*: MB that its peak is higher by.

Every model has a process of its own, forked from one that has used one thread only. A process that is forked after
torch has computed on several threads waits for ever in its first operation on several, with the probe or without it
(`torch.set_num_threads(2)`, a convolution, a fork, DETR without the probe: it hung in its first convolution, in 2 of
2). So DETR hung once. Without a fork it ended in 15 of 15 runs of two steps each, plain and probed, on one thread and
on two.

Made by `python -m tests.zoo`, with {versions}.
"""


def markdown(rows: Sequence[Row], why: dict[tuple[str, str], str], missing: Sequence[tuple[str, str]]) -> str:
    versions = ", ".join(f"{name} {metadata.version(name)}" for name in PACKAGES if _there(name))
    text = [HEAD.format(versions=versions), *_sums(rows), "", *_notes(rows, why), *_left(missing)]
    for group in dict.fromkeys(row.group for row in rows):
        text += [
            "",
            f"## {group}",
            "",
            "| model | equal | activations | weighted | time | memory | |",
            "|---|---|---|---|---|---|---|",
        ]
        text += [_line(row, why) for row in rows if row.group == group]
    return "\n".join(text) + "\n"


def _sums(rows: Sequence[Row]) -> list[str]:
    lines = [
        "| group | models | green | not run | activations | weighted | time, median |",
        "|---|---|---|---|---|---|---|",
    ]
    groups = [
        (group, [row for row in rows if row.group == group]) for group in dict.fromkeys(row.group for row in rows)
    ]
    for name, some in [*groups, ("**all**", list(rows))]:
        calls = [f"{sum(row.seen[i] for row in some)} of {sum(row.counted[i] for row in some)}" for i in (0, 1)]
        ratios = [row.ratio for row in some if row.ratio is not None]
        ratio = f"{statistics.median(ratios):.2f}" if ratios else ""
        left = sum(bool(row.not_run) for row in some)
        green = sum(not row.wrong for row in some) - left
        lines.append(f"| {name} | {len(some)} | {green} | {left or ''} | {calls[0]} | {calls[1]} | {ratio} |")
    return lines


def _left(missing: Sequence[tuple[str, str]]) -> list[str]:
    groups = Counter(group for group, _ in missing)
    listed = ", ".join(f"{count} of {group}" for group, count in groups.items())
    return ["", f"In the table of models and not run yet: {listed}."] if groups else []


def _notes(rows: Sequence[Row], why: dict[tuple[str, str], str]) -> list[str]:
    ended = [f"- {row.name} ({row.group}): not run, {row.not_run}" for row in rows if row.not_run]
    red = [f"- **{row.name}** ({row.group}): {'; '.join(row.wrong)}" for row in rows if row.wrong]
    text = ["Not green:", "", *red] if red else ["All that ran are green." if ended else "All are green."]
    text += ["", "Begun and ended by a limit:", "", *ended] if ended else []
    told = [row for row in rows if (row.group, row.name) in why and row.seen != row.counted and not row.wrong]
    if told:
        text += ["", "Where the counts differ, and why:", ""]
        text += [f"- {row.name}: {why[row.group, row.name]}{_listed(row)}" for row in told]
    return text


def _listed(row: Row) -> str:
    reasons = list(dict.fromkeys(row.not_seen.values()))
    return f"; listed: {'; '.join(reasons)[:240]}" if reasons else ""


def _line(row: Row, why: dict[tuple[str, str], str]) -> str:
    if row.not_run:
        return f"| {row.name} |  |  |  |  |  | not run: {row.not_run} |"
    calls = [f"{seen} of {there}" for seen, there in zip(row.seen, row.counted, strict=True)]
    equal = f"{row.compared - row.unstable}" + (f" ({row.unstable})" if row.unstable else "")
    ratio = "" if row.ratio is None else f"{row.ratio:.2f}"
    memory = "" if row.memory is None else f"{max(row.memory, 0.0):.0f}"
    return f"| {row.name} | {equal} | {calls[0]} | {calls[1]} | {ratio} | {memory} | {'**no**' if row.wrong else ''} |"


def _there(name: str) -> bool:
    try:
        metadata.version(name)
    except metadata.PackageNotFoundError:
        return False
    return True
