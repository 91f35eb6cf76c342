"""See the package."""

from __future__ import annotations

import argparse
import math
from collections.abc import Sequence
from pathlib import Path

from . import __doc__ as description
from .report import report
from .runs import run

SEED_SHIFT = 20


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("command", choices=["run", "report"])
    parser.add_argument("--set", choices=["sick", "healthy", "adversarial"], default="sick")
    parser.add_argument("--every", type=int, default=1, help="only every n-th case")
    parser.add_argument("--offset", type=int, default=0)
    parser.add_argument("--seed-shift", type=int, default=SEED_SHIFT, help="added to the seeds of the clinic")
    parser.add_argument("--only", default="", help="part of a case's name")
    parser.add_argument("--seconds", type=float, default=math.inf, help="begin no further case after so many")
    parser.add_argument("--max-seconds", type=float, default=600.0, help="of one checkup or treatment")
    parser.add_argument("--store", type=Path, default=Path("outputs/treatment.jsonl"))
    parser.add_argument("--failures", action="store_true")
    options = parser.parse_args(arguments)
    run(options) if options.command == "run" else report(options.store, options.failures)


if __name__ == "__main__":
    main()
