"""What the members logged, handed on to the loggers as a mean, and kept per member for the epoch."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor

from lightning_tricks._compat.lightning_module import overrides
from lightning_tricks._compat.torchmetrics import last_value
from lightning_tricks.ensemble.mapping.logged_values import (
    LoggedMetric,
    LoggedValues,
    MemberValues,
    StackedLoggedValues,
    as_number,
    capture_logging,
    merge,
)


class MemberLogger:
    """Replays what members logged through ``ensemble.log`` and keeps each member's mean over the epoch.

    Args:
        ensemble: The LightningModule that logs; its ``networks`` are the members.
        per_member: Log ``"{name}/member_{k}"`` for each member, too.
    """

    def __init__(self, ensemble: Any, per_member: bool = False) -> None:
        self.ensemble, self.per_member = ensemble, per_member
        self.values: dict[str, dict[int, float | Tensor]] = {}
        # Of training and of validation, which ends in the middle of a training epoch.
        self._sums: dict[bool, dict[str, dict[tuple[int, ...], tuple[Any, int]]]] = {True: {}, False: {}}
        self._metrics: dict[bool, dict[str, tuple[dict[int, str], dict[str, Any]]]] = {True: {}, False: {}}

    def replay(
        self, all_logged: dict[int, LoggedValues] | StackedLoggedValues, batch_size: int, training: bool
    ) -> None:
        """Log one step of the members who logged this."""
        for entry in merge(all_logged, list(self.ensemble.networks)):
            if any(isinstance(value, LoggedMetric) for value in entry.values.values()):
                self._replay_metric(entry, batch_size, training)
                continue
            members, numbers = entry.numbers()
            size = entry.options.pop("batch_size", None) or batch_size
            sums = self._sums[training].setdefault(entry.name, {})
            total, weight = sums.get(members, (0.0, 0))
            sums[members] = (total + numbers * size, weight + size)
            self._log(entry.name, members, numbers, {**entry.options, "batch_size": size})

    def call_hook(self, hook: str) -> None:
        """Call a hook of every member that has its own, and log what it logs."""
        all_logged = {}
        for number, member in enumerate(self.ensemble.networks):
            if overrides(member, hook):
                all_logged[number] = LoggedValues()
                with capture_logging(member, all_logged[number]):
                    getattr(member, hook)()
        if any(logged.entries for logged in all_logged.values()):
            self.replay(all_logged, 1, "train" in hook)

    def _log(self, name: str, members: Iterable[int], numbers: Tensor, options: dict[str, Any]) -> None:
        distributed = self.ensemble.trainer.world_size > 1
        self.ensemble.log(name, numbers.mean(), **{"sync_dist": distributed, **options})
        if self.per_member:
            for member, number in zip(members, numbers.unbind(0), strict=True):
                own = {**options, "prog_bar": False}
                self.ensemble.log(f"{name}/member_{member}", number, **own)

    def _replay_metric(self, entry: MemberValues, batch_size: int, training: bool) -> None:
        """A logged metric object: its value of this batch at once, what it has gathered at the end of the epoch."""
        options = dict(entry.options)
        on_step = training if options.get("on_step") is None else options["on_step"]
        on_epoch = (not training) if options.get("on_epoch") is None else options["on_epoch"]
        paths = {member: tracked.path for member, tracked in entry.values.items()}
        if on_step:
            last = {m: last_value(self.ensemble.networks[m].get_submodule(p)) for m, p in paths.items()}
            known = {member: as_number(value) for member, value in last.items() if value is not None}
            step_options = {**options, "on_step": True, "on_epoch": False, "batch_size": batch_size}
            if known:
                name = f"{entry.name}_step" if on_epoch else entry.name
                self._log(name, known, torch.stack(list(known.values())), step_options)
        if on_epoch:
            name = f"{entry.name}_epoch" if on_step else entry.name
            before = self._metrics[training].setdefault(name, ({}, options))[0]
            before.update(paths)

    def end_epoch(self, training: bool) -> dict[str, dict[int, Any]]:
        """Log the metric objects of an epoch and reset them; every name's value per member."""
        values = {name: _means(sums) for name, sums in self._sums[training].items()}
        for name, (paths, options) in self._metrics[training].items():
            computed = {}
            for member, path in paths.items():
                metric = self.ensemble.networks[member].get_submodule(path)
                computed[member] = as_number(metric.compute())
                metric.reset()
            together = torch.stack(list(computed.values()))
            self._log(name, computed, together, {**options, "on_step": False, "on_epoch": True, "batch_size": 1})
            values[name] = dict(computed)
            if name.endswith("_epoch") and options.get("on_step"):  # as the Trainer does, also under the plain name
                plain = name.removesuffix("_epoch")
                values[plain] = dict(computed)
                hidden = {"logger": False, "prog_bar": False, "on_step": False, "on_epoch": True, "batch_size": 1}
                self.ensemble.log(plain, together.mean(), **hidden)
        self._sums[training], self._metrics[training] = {}, {}
        self.values.update(values)
        return values


def _means(sums: dict[tuple[int, ...], tuple[Tensor, int]]) -> dict[int, Any]:
    """Each member's mean; members that left amid the epoch have theirs among more members."""
    totals: dict[int, Any] = {}
    for members, (total, weight) in sums.items():
        for member, own in zip(members, total.unbind(0), strict=True):
            before = totals.get(member, (0.0, 0))
            totals[member] = (before[0] + own, before[1] + weight)
    return {member: total / weight for member, (total, weight) in totals.items()}
