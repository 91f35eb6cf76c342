"""How much room each threshold and each branch of the diagnosis has: what moves when it is halved, doubled, left out.

    python -m tests.benchmarks.sensitivity --store outputs/clinic [outputs/adversarial ...] [--runs 150]

Of stored runs a sample is judged at every look, once as it is and once for every variant: each number of a rule's
``@thresholds`` and each named number of ``diagnosis/`` times a half and times two, and each ``if`` as if its condition
never held. A verdict has moved where another problem or layer is named first at the end, or where the problems that
were raised at any look are others. Only the rules that can read what was changed judge again. What was found out is
kept in ``--cache``, a file for each run and state of the rules, so that it can be interrupted, repeated, and run by
several processes at a time.
"""

from __future__ import annotations

import argparse
import functools
import hashlib
import json
import os
import sys
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import FrameType
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")

import lightning_tricks.diagnosis as package
from lightning_tricks.diagnosis import find
from lightning_tricks.diagnosis.rule import Rule
from lightning_tricks.probes import Snapshot
from tests.benchmarks.clinic.judging.verdict import histories
from tests.benchmarks.clinic.store import Store
from tests.benchmarks.variants import MODULES, Variant, branches, constants

_FOLDER = package.__path__[0]
Verdict = list[Any]  # the problem and the layer named first, then the problems raised at any look; or what failed


class Judge:
    """Judges one run again and again: rules that a variant cannot alter say what they said."""

    def __init__(self, looks: Sequence[Sequence[Snapshot]]) -> None:
        self.looks = looks
        self.said: dict[tuple[Any, ...], Any] = {}
        self.lines: set[tuple[str, int]] = set()
        sys.settrace(self._trace)
        try:
            self.plain = self.verdict()
        finally:
            sys.settrace(None)

    def _trace(self, frame: FrameType, event: str, _: Any) -> Any:
        """Note every line of the diagnosis that runs."""
        if not frame.f_code.co_filename.startswith(_FOLDER):
            return None
        if event == "line":
            self.lines.add((frame.f_code.co_filename, frame.f_lineno))
        return self._trace

    def verdict(self, altered: frozenset[str] | None = None) -> Verdict:
        """``altered`` are the problems whose rules are to judge anew; None: all, which is kept."""
        for cached in _caches():
            cached.cache_clear()
        for snapshot in {id(s): s for look in self.looks for s in look}.values() if altered != frozenset() else ():
            snapshot.remembered.clear()
        raised: set[str] = set()
        findings: Sequence[Any] = ()
        plain_call = Rule.__call__
        try:
            for index, look in enumerate(self.looks):
                Rule.__call__ = functools.partialmethod(_call, plain_call, self.said, index, altered)  # type: ignore[assignment,method-assign]
                findings = find(look)
                raised |= {finding.problem for finding in findings if finding.rank}
        except Exception as error:  # a branch was needed
            return ["failed", type(error).__name__, []]
        finally:
            Rule.__call__ = plain_call  # type: ignore[method-assign]
        first = next((finding for finding in findings if finding.rank), None)
        return [first and first.problem, first and first.layer, sorted(raised)]

    def moved(self, variant: Variant) -> list[str]:
        """What a variant moves: the first name, the alarms; nothing where the condition never held anyway."""
        if variant.line is not None and variant.line not in self.lines:
            return []
        with variant.made():
            now = self.verdict(variant.rules)
        return [
            what
            for what, changed in (("first", now[:2] != self.plain[:2]), ("alarms", now[2] != self.plain[2]))
            if changed
        ]


def _call(rule: Rule, plain: Any, said: dict[Any, Any], look: int, altered: frozenset[str] | None, history: Any) -> Any:
    key = (rule.problem, look, len(history), history[-1].step)
    if altered is None:
        said[key] = plain(rule, history)
        return said[key]
    return said[key] if rule.problem not in altered and key in said else plain(rule, history)


@functools.cache
def _caches() -> tuple[Any, ...]:
    """The cached functions of the diagnosis."""
    return tuple(
        thing for module in MODULES.values() for thing in vars(module).values() if hasattr(thing, "cache_clear")
    )


def sources() -> str:
    """A hash of the diagnosis and of this file."""
    files = [*sorted(Path(_FOLDER).rglob("*.py")), Path(__file__), Path(__file__).with_name("variants.py")]
    return hashlib.sha256(b"".join(file.read_bytes() for file in files)).hexdigest()[:10]


def sample(folders: Sequence[str], runs: int, match: str = "*") -> list[Path]:
    """So many stored runs of all folders, evenly over their names."""
    paths = [path for folder in folders for path in sorted(Path(folder).glob(f"{match}.pkl.z"))]
    return [paths[i * len(paths) // runs] for i in range(runs)] if runs < len(paths) else paths


def measure(path: Path, variants: Sequence[Variant], cache: Path) -> Mapping[str, list[str]]:
    """What each variant moves in one run, without those that move nothing."""
    chosen = hashlib.sha256("\n".join(variant.name for variant in variants).encode()).hexdigest()[:6]
    kept = cache / f"{path.parent.name}.{path.name.removesuffix('.pkl.z')}.{sources()}.{chosen}.json"
    if kept.exists():
        known: dict[str, list[str]] = json.loads(kept.read_text())
        return known
    run = Store(path.parent).load(path)
    judge = Judge([list(history) for history in histories(run)])
    moved = {variant.name: what for variant in variants if (what := judge.moved(variant))}
    cache.mkdir(parents=True, exist_ok=True)
    part = kept.with_suffix(f".part{os.getpid()}")
    part.write_text(json.dumps(moved))
    part.rename(kept)
    return moved


def table(variants: Sequence[Variant], measured: Sequence[Mapping[str, list[str]]]) -> str:
    """A line for each variant: in how many runs the first name, and the alarms, are others."""
    counts = {what: Counter(name for moved in measured for name in moved if what in moved[name]) for what in _WHAT}
    lines = [f"{'first':>6}{'alarms':>8}  of {len(measured)} runs"]
    ranked = sorted(variants, key=lambda v: (v.module, -sum(counts[what][v.name] for what in _WHAT)))
    lines += [f"{counts['first'][v.name]:>6}{counts['alarms'][v.name]:>8}  {v.name}" for v in ranked]
    still = Counter((v.module, v.what) for v in variants if not any(counts[what][v.name] for what in _WHAT))
    of = Counter((v.module, v.what) for v in variants)
    idle = [key for key, count in still.items() if count == of[key]]
    return "\n".join([*lines, f"{len(idle)} of {len(of)} move nothing"])


_WHAT = ("first", "alarms")


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--store", nargs="+", default=["outputs/clinic"], help="folders of stored runs")
    parser.add_argument("--runs", type=int, default=150, help="how many of them, evenly")
    parser.add_argument("--match", default="*", help="glob of their names: '*_-_*' are the clinic's sick ones")
    parser.add_argument("--cache", default="outputs/sensitivity", help="folder of what is known (git ignores outputs/)")
    parser.add_argument("--only", default="", help="part of the names of the variants, such as 'dead_units'")
    parser.add_argument("--part", default="1/1", help="'2/3': the second third of the runs, for several processes")
    options = parser.parse_args(arguments)
    variants = [variant for variant in (*constants(), *branches()) if options.only in variant.name]
    part, parts = map(int, options.part.split("/"))
    paths = sample(options.store, options.runs, options.match)[part - 1 :: parts]
    measured = []
    for done, path in enumerate(paths, 1):
        measured.append(measure(path, variants, Path(options.cache)))
        if done % 10 == 0:
            print(f"{done} of {len(paths)} runs", flush=True)
    print(table(variants, measured))


if __name__ == "__main__":
    main()
