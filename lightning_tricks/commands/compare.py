"""compare: two runs, and the first layer and step at which they part"""

from __future__ import annotations

import argparse
import pathlib

from lightning_tricks.commands import output
from lightning_tricks.commands.status import OK, SICK, UNKNOWN
from lightning_tricks.comparison import compare
from lightning_tricks.report.figures.style import save


def arguments(parser: argparse.ArgumentParser) -> None:
    what = "a table (to_csv), a diagnosis as JSON, or a checkpoint of a training with a doctor"
    parser.add_argument("a", metavar="A", help=f"the first run: {what}")
    parser.add_argument("b", metavar="B", help="the second run")
    parser.add_argument("--names", nargs=2, default=["run A", "run B"], metavar=("A", "B"), help="what to call them")
    output.json_argument(parser)
    parser.add_argument("--figure", metavar="FILE", help="write both side by side as PNG (matplotlib)")
    parser.epilog = "exit status: 0 they do not part, 1 they part, 2 an error, 3 nothing in common"


def run(options: argparse.Namespace) -> int:
    found = compare(options.a, options.b, names=tuple(options.names))
    output.show(options, found.to_dict, lambda: print(found))
    if options.figure:
        save(found.figure(), pathlib.Path(options.figure))
    if found.part:
        return SICK
    return OK if found.steps is not None and found.layers else UNKNOWN
