"""How far two seeds of one healthy training are apart, by measure: what the thresholds of ``lt.compare`` rest on.

    python -m tests.benchmarks.two_seeds            # those that they were set on, about six minutes on one core
    python -m tests.benchmarks.two_seeds --held     # those that had no part in it

Each line names the largest distance that holds for three looks, beside what is ordinary from one look to the next.
"""

from __future__ import annotations

import argparse
import dataclasses
import itertools
from collections.abc import Iterator, Sequence
from unittest.mock import patch

import numpy as np

import lightning_tricks as lt
from lightning_tricks.comparison import comparison
from lightning_tricks.comparison.measured import MEASURES, Compared

from .clinic.case import Case
from .clinic.train import train

CALIBRATED = """
mlp3-tanh-circles-sgd sequential4-gelu-digits-momentum mlp6-relu-digits-sgd functional5-relu-digits-adam
mlp10-relu-digits-adam lenet-relu-digits-adam cnn_bn-relu-digits-momentum res_mlp-relu-digits-adam
transformer_pre-gelu-digits-adam lstm-tanh-digits-adam mlp_ln-gelu-digits-adamw selu12-selu-digits-momentum
mlp6-relu-moons-momentum mlp_bn-relu-wine-rmsprop functional5-tanh-friedman-momentum attention1-relu-digits-adamw
linear-none-digits-adam next_conv-gelu-words-adam
"""
HELD = """
sequential4-relu-digits-sgd mlp3-relu-digits-rmsprop cnn-relu-digits-adam res_cnn_gn-relu-digits-rmsprop
attention4-gelu-digits-adamw gru-tanh-digits-adam mlp_bn_behind-relu-digits-momentum functional5-relu-moons-adam
highway-relu-digits-rmsprop swiglu-silu-digits-adam transformer_post-gelu-digits-adam mlp6-relu-cancer-sgd
selu6-selu-wine-sgd next_gru-tanh-words-adam
"""


def runs(names: Sequence[str], seeds: Sequence[int]) -> Iterator[tuple[str, list[list[lt.Snapshot]]]]:
    """Each training from every seed."""
    for name in names:
        architecture, activation, data, optimizer = name.split("-")
        cases = [
            Case(architecture, activation, data, optimizer, seed=seed, look=20, steps=240) for seed in seeds
        ]  # fmt: skip
        yield name, [[snapshot.light() for snapshot in train(case).snapshots] for case in cases]


def needed(one: list[lt.Snapshot], other: list[lt.Snapshot]) -> dict[str, float]:
    """By measure the smallest threshold with which the two do not part, to one part in a hundred."""
    found: dict[str, float] = {}
    for measure in MEASURES:
        low, high = (1.0, 1e3) if measure.scale == "factor" else (0.0, 10.0)
        for _ in range(12):
            middle = (low * high) ** 0.5 if measure.scale == "factor" else (low + high) / 2
            with patch.object(comparison, "MEASURES", (replaced(measure, middle),)):
                low, high = (middle, high) if lt.compare(one, other).part else (low, middle)
        found[measure.name] = high
    return found


def replaced(measure: Compared, apart: float) -> Compared:
    return dataclasses.replace(measure, apart=apart)


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tests.benchmarks.two_seeds", description=__doc__)
    parser.add_argument("--held", action="store_true", help="trainings that had no part in setting the thresholds")
    held = parser.parse_args().held
    needs: list[dict[str, float]] = []
    parted: list[str] = []
    for name, histories in runs((HELD if held else CALIBRATED).split(), (5, 6) if held else (0, 1, 2)):
        for one, other in itertools.combinations(histories, 2):
            needs.append(needed(one, other))
            found = lt.compare(one, other)
            parted += [f"{name}: {found.verdict}"] if found.part else []
    print(f"{len(needs)} pairs, of which part: {len(parted)}", *parted, sep="\n")
    for measure in MEASURES:
        values = [need[measure.name] for need in needs]
        print(f"{measure.name:16} threshold {measure.apart:4.3g}  largest {max(values):.3g}", end="  ")
        print(f"95 % {np.quantile(values, 0.95):.3g}  median {np.median(values):.3g}")


if __name__ == "__main__":
    main()
