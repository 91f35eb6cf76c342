"""report: what a stored training shows, from a table or a checkpoint"""

from __future__ import annotations

import argparse
import sys

from lightning_tricks.commands import output
from lightning_tricks.commands.status import OF_STATE, UNKNOWN, CommandError
from lightning_tricks.comparison import history_of
from lightning_tricks.diagnosis import diagnose
from lightning_tricks.diagnosis.diagnosis import Diagnosis
from lightning_tricks.probes import Snapshot
from lightning_tricks.report import save_all
from lightning_tricks.report.table import layers_text
from lightning_tricks.report.words import number


def run(options: argparse.Namespace) -> int:
    history = history_of(options.source)
    if options.figures:
        save_all(history, options.figures)
    if options.source.endswith(".csv"):
        return _unjudged(history, options)
    diagnosis = diagnose(history, ignore=options.ignore)
    output.show(options, diagnosis.to_dict, diagnosis.show)
    if options.html:
        diagnosis.to_html(options.html)
    if options.csv:
        diagnosis.to_csv(options.csv)
    return OF_STATE[diagnosis.state]


def _unjudged(history: list[Snapshot], options: argparse.Namespace) -> int:
    """A table has the measures and not what the rules ask beside them, so nothing of it is called healthy or sick."""
    given = [f"--{name}" for name in ("html", "csv", "json") if getattr(options, name)]
    if given:
        raise CommandError(
            f"a table cannot be judged, so there is no {given[0]}: give a checkpoint, or a diagnosis as JSON"
        )
    first, last = history[0], history[-1]
    print(f"Not judged: {options.source} is a table of measures, without all that the rules ask for.")
    losses = f"loss {number(first.loss)} to {number(last.loss)}"
    print(f"{len(history)} probed steps, from step {first.step} to {last.step}, {losses}.")
    print(layers_text(Diagnosis(history=history)))
    print("\nA checkpoint of the training, or diagnosis.to_dict() as JSON, can be judged.", file=sys.stderr)
    return UNKNOWN
