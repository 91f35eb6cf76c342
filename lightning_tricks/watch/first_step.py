"""The preflight of a training: after the first step that is probed, the call that led to its loss is run again."""

from __future__ import annotations

import dataclasses
from typing import Any

from lightning_tricks.experiments.preflight.preflight import (
    Collation,
    NotAskedError,
    PreflightRecord,
    has_one_target,
    preflight,
)
from lightning_tricks.probes import Probe, Snapshot

_KEY = "preflight"


class FirstStep:
    """Prepares the first probe of a training for a preflight, and makes it when the step is over.

    Args:
        wanted: Whether anybody asks for it.
    """

    def __init__(self, wanted: bool) -> None:
        self._wanted = wanted
        self._collation: Collation | None = None
        self._loader: Any = None
        self._record: PreflightRecord | None = None
        self._reason = ""

    def begin(self, probe: Probe, batch: Any, loader: Any, world_size: int) -> None:
        """Before the probe opens; of several processes that would have to do the same, none does it.

        ``batch``: None where nobody knows it; then it is taken to be what the call and its losses are given.
        """
        wanted, self._wanted = self._wanted, False
        if wanted and world_size > 1:
            self._reason = "not asked: several processes train together"
        elif wanted:
            probe.keep_call()
            self._loader = loader
            self._collation = Collation.of(batch, loader)

    def run(self, probe: Probe) -> None:
        """After the update, when the probe is closed."""
        collation, self._collation = self._collation, None
        if collation is None:
            return
        call = probe.kept_call
        try:
            if call is None:
                raise NotAskedError("no call of the model was seen that leads to the loss")
            same_target = has_one_target(call, collation)
            if not collation.tensors:
                given = (call.args, call.kwargs, [targets.numbers for targets in call.targets])
                collation = Collation.of(given, self._loader)
            self._record = dataclasses.replace(preflight(call, collation), same_target=same_target)
        except NotAskedError as reason:
            self._reason = f"not asked: {reason}"
        except Exception as error:  # a forward may do anything
            self._reason = f"could not be run again: {type(error).__name__}: {error}"

    def enter(self, snapshot: Snapshot) -> Snapshot:
        """The snapshot of that step, with what was found, or why nothing was."""
        record, reason, self._record, self._reason = self._record, self._reason, None, ""
        not_seen = {**snapshot.not_seen, _KEY: reason} if reason else snapshot.not_seen
        return dataclasses.replace(snapshot, preflight=record, not_seen=not_seen) if record or reason else snapshot
