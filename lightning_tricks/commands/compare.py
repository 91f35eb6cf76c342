"""compare: two runs, and the first layer and step at which they part"""

from __future__ import annotations

import argparse
import pathlib

from lightning_tricks.commands import output
from lightning_tricks.commands.status import OK, SICK, UNKNOWN
from lightning_tricks.comparison import compare
from lightning_tricks.report.figures.style import save


def run(options: argparse.Namespace) -> int:
    found = compare(options.a, options.b, names=tuple(options.names))
    output.show(options, found.to_dict, lambda: print(found))
    if options.html:
        found.to_html(options.html)
    if options.figure:
        save(found.figure(), pathlib.Path(options.figure))
    if found.part:
        return SICK
    return OK if found.steps is not None and found.layers else UNKNOWN
