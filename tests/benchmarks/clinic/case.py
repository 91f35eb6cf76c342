"""One training run of the clinic, described."""

from __future__ import annotations

import dataclasses
import hashlib
from typing import Any

from .networks.architectures import ARCHITECTURES, Half

ADDED = ("loop",)  # settings that stored runs do not have


@dataclasses.dataclass(frozen=True)
class Fault:
    """A planted fault.

    Args:
        kind: A name in ``faults.KINDS``.
        place: The hidden layer, counted from 0; negative from the last; None where the kind needs none.
        strength: What the kind makes of it: a factor, a number of patterns ...
    """

    kind: str
    place: int | None = None
    strength: float = 1.0

    def __str__(self) -> str:
        at = "" if self.place is None else f" @{self.place}"
        return f"{self.kind} {self.strength:g}{at}"


@dataclasses.dataclass(frozen=True)
class Case:
    """The settings of a run; two cases with the same settings are the same case.

    Args:
        architecture, activation, data, optimizer: Names.
        lr: Factor on the usual learning rate of this optimiser for this architecture.
        batch, steps, seed, look: Batch size, optimiser steps, seed, the monitor's every_n_steps.
        start: Initialisation: the architecture's own where empty.
        loss: ``""`` (by the data), ``"bce"`` (one logit for two classes), ``"weighted"`` (classes by their rarity).
        schedule: ``""``, ``"cosine"`` to zero, ``"warmup"`` from zero, ``"warmup cosine"``.
        clip, accumulate, weight_decay, smoothing: As in the Trainer, the optimiser and the loss.
        dropout: p of a dropout behind every hidden layer.
        pretrained: ``"frozen"`` (all but the head stays as it was trained before) or ``"tuned"``.
        imbalance: Share of the patterns kept of half of the classes.
        patterns: The most training patterns.
        loop: ``""`` (one epoch of drawn batches), ``"epochs"`` (a loader, pass after pass), ``"manual"`` (by hand).
        faults: What is planted.
        twin_changes: What else the healthy twin has differently, where the fault lies in such a setting.
    """

    architecture: str
    activation: str
    data: str = "digits"
    optimizer: str = "adam"
    lr: float = 1.0
    batch: int = 64
    steps: int = 300
    seed: int = 0
    look: int = 50
    start: str = ""
    loss: str = ""
    schedule: str = ""
    clip: float = 0.0
    accumulate: int = 1
    weight_decay: float = 0.0
    smoothing: float = 0.0
    dropout: float = 0.0
    pretrained: str = ""
    imbalance: float = 1.0
    patterns: int = 0
    loop: str = ""
    faults: tuple[Fault, ...] = ()
    twin_changes: tuple[tuple[str, Any], ...] = ()

    @property
    def name(self) -> str:
        """Everything that is not as usual."""
        parts = [f"{self.architecture}-{self.activation}", self.data, self.optimizer]
        for field in dataclasses.fields(self)[4:-2]:
            value = getattr(self, field.name)
            if value != field.default:
                parts.append(value if isinstance(value, str) else f"{field.name} {value:g}")
        return " ".join(parts) + "".join(f" | {fault}" for fault in self.faults)

    @property
    def half(self) -> Half:
        if self.architecture == "gan":
            return "A" if self.seed % 2 == 0 else "B"
        return ARCHITECTURES[self.architecture].half

    @property
    def sick(self) -> bool:
        return bool(self.faults)

    @property
    def twin(self) -> Case:
        """The same run without the fault."""
        return dataclasses.replace(self, faults=(), twin_changes=(), **dict(self.twin_changes))

    @property
    def digest(self) -> str:
        """Of the settings; one that came later counts only where it is used, so that stored runs keep their names."""
        text = repr(self)
        for name in ADDED:
            field = next(each for each in dataclasses.fields(self) if each.name == name)
            text = text.replace(f", {name}={field.default!r}", "")
        return hashlib.sha256(text.encode()).hexdigest()[:12]
