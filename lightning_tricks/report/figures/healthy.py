"""How far the error signal of healthy networks is from that at the last layer, by kind of network and by depth."""

from __future__ import annotations

from typing import Literal

import numpy as np

from lightning_tricks.probes import Snapshot
from lightning_tricks.report.figures import depth

Kind = Literal["plain", "repeated", "other"]
NAMES: dict[Kind, str] = {
    "plain": "plain stacks",
    "repeated": "networks that use weights again",
    "other": "networks with branches or norms",
}
# Of each kind: layers before the last one, and log10 of the error signal over that at the last layer, between which
# 90 % of all looks at healthy networks lie; it never narrows on its way. Measured on 1439 healthy runs of the clinic,
# each of one weight: ``python -m tests.benchmarks.healthy_signals FOLDER ...`` prints this table from stored runs.
QUANTILES: dict[Kind, tuple[tuple[int, float, float], ...]] = {
    "plain": (  # 711 runs
        (1, -0.49, 0.09),
        (2, -0.9, 0.27),
        (3, -1.28, 0.43),
        (4, -1.64, 0.49),
        (6, -1.64, 0.6),
        (10, -1.64, 0.68),
        (12, -1.64, 0.79),
    ),
    "repeated": (  # 66 runs
        (1, -0.48, 0.12),
        (2, -1.01, 0.12),
        (3, -1.19, 0.12),
        (4, -2.25, 1.63),
        (8, -2.61, 1.63),
        (12, -2.89, 1.63),
        (16, -3.14, 1.63),
        (20, -3.37, 1.63),
        (24, -3.65, 1.63),
        (32, -4.06, 1.63),
    ),
    "other": (  # 662 runs
        (1, -0.97, 0.27),
        (2, -1.09, 0.51),
        (3, -1.09, 0.7),
        (4, -1.21, 0.72),
        (6, -1.38, 0.72),
        (8, -1.73, 0.72),
        (11, -1.94, 0.81),
    ),
}


def kind_of(snapshot: Snapshot) -> Kind:
    """By what was seen: a stack of weights and activations, weights used again after an activation, or neither.

    Parts of one weight that are used side by side, as an attention's for queries, keys and values, are no such use.
    """
    if depth.is_plain(snapshot):
        return "plain"
    first: dict[str, int] = {}
    for record in snapshot.weighted:
        began = first.setdefault(record.weight or "", record.order)
        if record.weight is not None and any(began < each.order < record.order for each in snapshot.activations):
            return "repeated"
    return "other"


def band(kind: Kind, layers: int) -> tuple[depth.Values, depth.Values]:
    """Between what 90 % of healthy networks of a kind lie, from the first of so many layers on to the last one.

    NaN further from the last layer than any network that was measured.

    >>> low, high = band("plain", 3)
    >>> bool(low[0] < low[1] < 1.0 < high[1] < high[0]), float(low[2]), float(high[2])
    (True, 1.0, 1.0)
    """
    away = np.arange(layers - 1, -1, -1.0)
    at, low, high = np.array([(0, 0.0, 0.0), *QUANTILES[kind]]).T
    return tuple(10.0 ** np.interp(away, at, logs, right=np.nan) for logs in (low, high))
