"""All runs of the set."""

from __future__ import annotations

import importlib
import pkgutil

from . import trainings
from .case import SEEDS, HealthyCase
from .kind import KINDS, HealthyKind


def all_kinds() -> dict[str, HealthyKind]:
    """Every kind by name; the files in ``trainings`` enter them."""
    for module in pkgutil.iter_modules(trainings.__path__, f"{trainings.__name__}."):
        importlib.import_module(module.name)
    return KINDS


def all_cases() -> list[HealthyCase]:
    """Every kind with every seed; all kinds first, so that an unfinished set has most of them."""
    return [HealthyCase(kind, seed) for seed in SEEDS for kind in all_kinds()]
