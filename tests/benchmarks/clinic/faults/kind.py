"""What a kind of fault is: the function that plants it, and what there is to be found."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Literal

from ..setup import Setup

Plant = Callable[[Setup, int, float], None]
# Which layers are right to be named (see truth.py).
Where = Literal[
    "place",
    "last",
    "behind",
    "behind first",
    "body",
    "input",
    "output",
    "training",
    "norms",
    "cut",
    "spare",
    "crossing",
    "plug",
    "anywhere",
]


@dataclasses.dataclass(frozen=True)
class Kind:
    """A kind of fault.

    Args:
        plant: From setup, place and strength; changes the setup.
        problem: Its name in ``Finding.problem``.
        where: Where it lies.
        in_code: A mistake in the code that counts as a fault whatever it costs in this run.
        also: Names that mean honestly the same fault, with the reason beside the kind. Counted apart.
        lost: How much accuracy, or R^2, it has to cost against the twin to count; 0: as in ``harm.py``.
    """

    plant: Plant
    problem: str
    where: Where = "place"
    in_code: bool = False
    also: tuple[str, ...] = ()
    lost: float = 0.0
