"""One run of a kind of healthy training."""

from __future__ import annotations

import dataclasses
import hashlib

SEEDS = (0, 1, 2)


@dataclasses.dataclass(frozen=True)
class HealthyCase:
    """A kind and a seed."""

    kind: str
    seed: int
    accumulate = 1  # steps of stored validations are the optimiser's

    @property
    def name(self) -> str:
        return f"{self.kind}, seed {self.seed}"

    @property
    def digest(self) -> str:
        return hashlib.sha256(repr(self).encode()).hexdigest()[:12]
