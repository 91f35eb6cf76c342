"""The numbers of every layer at every look that is shown: what the pictures of the page are drawn from."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Collection, Sequence

from lightning_tricks.probes import Snapshot
from lightning_tricks.report.figures.style import ticks
from lightning_tricks.report.layers import Row, layer_rows
from lightning_tricks.report.names import distinct, shared_path

MEASURES = 10  # pictures of a page
_MOST_CELLS, _MOST_LAYERS, _MOST_LOOKS, _FEWEST_LOOKS = 110_000, 400, 48, 8
_WIDTH = 26  # letters of a layer's name


@dataclasses.dataclass(frozen=True)
class Grid:
    """Layers by looks.

    Args:
        layers: One row per layer in the order of execution, with its names and what it computes.
        labels: Their names in little room, no two alike.
        under: What all names begin with.
        steps: The looks that are shown, by their steps.
        values: Of every measure, per layer, the number at each look; NaN where it does not apply.
        broken: Layer and look with NaN or Inf.
        constant: Layer and look where an activation gave the same for every pattern.
        looks: How many looks there are.
        all_layers: How many layers there are.
    """

    layers: list[Row]
    labels: list[str]
    under: str
    steps: list[int]
    values: dict[str, list[list[float]]]
    broken: frozenset[tuple[int, int]]
    constant: frozenset[tuple[int, int]]
    looks: int
    all_layers: int

    @property
    def thinned(self) -> str:
        """What was left out, in a sentence; empty where all is shown."""
        left = []
        if len(self.steps) < self.looks:
            left.append(f"{len(self.steps)} of {self.looks} probed steps")
        if len(self.layers) < self.all_layers:
            left.append(f"{len(self.layers)} of {self.all_layers} rows")
        if not left:
            return ""
        return (
            f"Shown are {' and '.join(left)}, evenly chosen, with the first, the last and those that findings name. "
            "All numbers: diagnosis.to_csv(path)."
        )


def grid_of(
    history: Sequence[Snapshot],
    globs: Sequence[str] = ("*",),
    steps: Collection[int] = (),
    faulty: Collection[str] = (),
) -> Grid:
    """The layers of a history whose name matches; of long ones so many looks and layers as a page holds.

    Args:
        history: The snapshots.
        globs: Of the layers to show.
        steps: Looks that are to be shown.
        faulty: Names of layers that are to be shown.
    """
    ends = [layer_rows(history[i], globs) for i in {0, len(history) - 1}] if history else [[]]
    count = max(map(len, ends))
    most = min(max(_MOST_CELLS // (MEASURES * max(min(count, _MOST_LAYERS), 1)), _FEWEST_LOOKS), _MOST_LOOKS)
    looks = [history[i] for i in _looks(history, steps, most)]
    layers, cells, broken, constant = _collect([layer_rows(snapshot, globs) for snapshot in looks])
    shown = _shown(layers, faulty)
    names = list(dict.fromkeys(key for row in cells for key in row))
    values = {
        name: [[cells[j].get(name, {}).get(i, math.nan) for i in range(len(looks))] for j in shown] for name in names
    }
    kept = [layers[j] for j in shown]
    under = shared_path(name for row in kept for name in row.names) if len(kept) > 1 else ""
    whole = [row.label(under) for row in kept]
    labels = distinct(whole, _WIDTH, _WIDTH) if whole else []
    place = {j: k for k, j in enumerate(shown)}
    nan, same = (frozenset((place[j], i) for j, i in at if j in place) for at in (broken, constant))
    return Grid(kept, labels, under, [s.step for s in looks], values, nan, same, len(history), len(layers))


def _collect(
    looks: Sequence[Sequence[Row]],
) -> tuple[list[Row], list[dict[str, dict[int, float]]], set[tuple[int, int]], set[tuple[int, int]]]:
    """The layers of all looks, each once, their numbers by measure and look, where NaN was met, what was constant.

    A layer whose numbers are NaN is not told by them to take the output of the weights before it, so it is found again
    by its name.
    """
    fullest = max(looks, key=lambda rows: (sum(not row.nonfinite for row in rows), len(rows)), default=[])
    layers, place = list(fullest), {name: j for j, row in enumerate(fullest) for name in row.names}
    cells: list[dict[str, dict[int, float]]] = [{} for _ in layers]
    broken: set[tuple[int, int]] = set()
    constant: set[tuple[int, int]] = set()
    for i, rows in enumerate(looks):
        for row in rows:
            j = next((place[name] for name in row.names if name in place), len(layers))
            if j == len(layers):
                layers.append(row)
                cells.append({})
                place |= dict.fromkeys(row.names, j)
            for name, value in row.values.items():
                cells[j].setdefault(name, {})[i] = value
            for at, holds in ((broken, row.nonfinite), (constant, row.constant)):
                at |= {(j, i)} if holds else set()
    return layers, cells, broken, constant


def _looks(history: Sequence[Snapshot], steps: Collection[int], most: int) -> list[int]:
    place = {snapshot.step: i for i, snapshot in enumerate(history)}
    asked = [place[step] for step in dict.fromkeys(steps) if step in place][: most - 2]  # the first and the last too
    return sorted({*ticks(len(history), max(most - len(asked), 2)), *asked})


def _shown(layers: Sequence[Row], faulty: Collection[str]) -> list[int]:
    named = [j for j, row in enumerate(layers) if any(name in faulty for name in row.names)][: _MOST_LAYERS // 4]
    return sorted({*ticks(len(layers), _MOST_LAYERS - len(named)), *named})
