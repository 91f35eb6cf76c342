"""``python -m tests.zoo``: checks every model whose library is installed, and writes RESULTS.md."""

from __future__ import annotations

import argparse
import os
from collections.abc import Sequence
from fnmatch import fnmatch
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")

import torch

from . import all_entries
from .run import load, run
from .table import markdown


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="python -m tests.zoo", description=__doc__)
    parser.add_argument("--only", nargs="*", default=["*"], help="globs of 'group/name', in the order to run them")
    parser.add_argument("--store", type=Path, default=Path("outputs/zoo.jsonl"), help="what is in it is not run again")
    parser.add_argument("--limit", type=float, default=300.0, help="seconds for one model")
    parser.add_argument("--report", action="store_true", help="only write RESULTS.md from the store")
    options = parser.parse_args(arguments)
    torch.set_num_threads(1)
    entries, store = all_entries(), options.store.absolute()
    if not options.report:
        chosen = [entry for glob in options.only for entry in entries if fnmatch(f"{entry.group}/{entry.name}", glob)]
        run(chosen, store, options.limit)
    order = {(entry.group, entry.name): i for i, entry in enumerate(entries)}
    known = [row for row in load(store) if (row.group, row.name) in order]
    rows = sorted(known, key=lambda row: order[row.group, row.name])
    missing = sorted(set(order) - {(row.group, row.name) for row in rows}, key=lambda entry: order[entry])
    why = {(entry.group, entry.name): entry.differs for entry in entries if entry.differs}
    Path(__file__).with_name("RESULTS.md").write_text(markdown(rows, why, missing))


if __name__ == "__main__":
    main()
