"""Training of members that need an optimiser each: what the Trainer does for one module, for K of them."""

from __future__ import annotations

from typing import Any

from torch import Tensor
from torch.optim import Optimizer, lr_scheduler

from lightning_tricks.ensemble.data.loader import rows
from lightning_tricks.ensemble.mapping.logged_values import LoggedValues, capture_logging
from lightning_tricks.ensemble.mapping.steps import loss_of
from lightning_tricks.ensemble.training.optimizers import clip, optimizers_and_schedulers


class SeparateOptimizers:
    """K members with the optimisers and schedulers that each one configured.

    Args:
        ensemble: The LightningModule that trains them; it optimises by hand.
        configured: For each member what its ``configure_optimizers`` returned.
    """

    def __init__(self, ensemble: Any, configured: dict[int, Any]) -> None:
        self.ensemble = ensemble
        taken = {number: optimizers_and_schedulers(item) for number, item in configured.items()}
        self.optimizers: dict[int, list[Optimizer]] = {number: item[0] for number, item in taken.items()}
        self.schedulers: dict[int, list[dict[str, Any]]] = {number: item[1] for number, item in taken.items()}

    def for_trainer(self) -> tuple[list[Optimizer], list[Any]]:
        """All of them in one list, which the Trainer saves and restores."""
        optimizers = [optimizer for own in self.optimizers.values() for optimizer in own]
        return optimizers, [entry["scheduler"] for own in self.schedulers.values() for entry in own]

    def wrapped(self, number: int) -> list[Any]:
        """One member's optimisers as the Trainer wraps them."""
        wrapped = self.ensemble.optimizers(use_pl_optimizer=True)
        wrapped = wrapped if isinstance(wrapped, list) else [wrapped]
        by_optimizer = {id(item.optimizer): item for item in wrapped}
        return [by_optimizer[id(optimizer)] for optimizer in self.optimizers[number]]

    def step(
        self, active: list[int], batch: Any, batch_idx: int, window_ends: bool, settings: dict[str, Any]
    ) -> dict[int, LoggedValues]:
        """One training step of each active member on its part of the batch; what they logged.

        The Trainer counts the first member's optimiser steps, so that ``global_step`` means what it means for one.
        """
        all_logged = {number: LoggedValues() for number in active}
        for row, number in enumerate(active):
            member = self.ensemble.networks[number]
            part = rows(batch, row)
            if not member.automatic_optimization:
                self._by_hand(number, part, batch_idx, all_logged[number])
                continue
            self._automatic(number, part, batch_idx, all_logged, window_ends, settings, counted=row == 0)
        if window_ends:
            self.step_schedulers(active, "step", batch_idx // settings["accumulate"] + 1, {})
        return all_logged

    def _by_hand(self, number: int, batch: Any, batch_idx: int, logged: LoggedValues) -> None:
        member = self.ensemble.networks[number]
        own, plans = self.wrapped(number), [entry["scheduler"] for entry in self.schedulers[number]]
        member.__dict__["optimizers"] = lambda use_pl_optimizer=True: own[0] if len(own) == 1 else own
        member.__dict__["lr_schedulers"] = lambda: plans[0] if len(plans) == 1 else (plans or None)
        try:
            with capture_logging(member, logged):
                member.training_step(batch, batch_idx)
        finally:
            del member.__dict__["optimizers"], member.__dict__["lr_schedulers"]

    def _automatic(
        self,
        number: int,
        batch: Any,
        batch_idx: int,
        all_logged: dict[int, LoggedValues],
        window_ends: bool,
        settings: dict[str, Any],
        counted: bool,
    ) -> None:
        member, optimizer = self.ensemble.networks[number], self.wrapped(number)[0]
        starts = batch_idx % settings["accumulate"] == 0

        def closure() -> Tensor | None:
            all_logged[number] = LoggedValues()
            with (
                self.ensemble.trainer.precision_plugin.train_step_context(),
                capture_logging(member, all_logged[number]),
            ):
                loss = loss_of(member.training_step(batch, batch_idx))
            if starts:
                optimizer.optimizer.zero_grad()
            if loss is None:
                return None
            self.ensemble.manual_backward(loss / settings["accumulate"])
            if window_ends and settings["clip"]:
                gradients = [
                    value.grad.unsqueeze(0)
                    for group in optimizer.optimizer.param_groups
                    for value in group["params"]
                    if value.grad is not None
                ]
                clip(gradients, settings["clip"], settings["algorithm"])
            return loss

        if not window_ends:
            closure()
        elif counted:
            optimizer.step(closure=closure)
        else:
            plugin = self.ensemble.trainer.precision_plugin
            plugin.optimizer_step(optimizer.optimizer, model=self.ensemble, closure=closure)

    def step_schedulers(self, active: list[int], interval: str, count: int, values: dict[str, dict[int, Any]]) -> None:
        """Step the schedulers of an interval; ReduceLROnPlateau by the member's own value of what it monitors."""
        for number in active:
            if not self.ensemble.networks[number].automatic_optimization:
                continue
            for entry in self.schedulers[number]:
                if entry["interval"] != interval or count % entry["frequency"]:
                    continue
                scheduler = entry["scheduler"]
                if not isinstance(scheduler, lr_scheduler.ReduceLROnPlateau):
                    scheduler.step()
                elif number in values.get(entry["monitor"], {}):
                    scheduler.step(float(values[entry["monitor"]][number]))
                elif entry["strict"]:
                    known = ", ".join(sorted(values)) or "nothing"
                    raise ValueError(
                        f"ReduceLROnPlateau monitors {entry['monitor']!r}, but the members logged {known} in this epoch"
                    )
