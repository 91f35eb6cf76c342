"""Training: module, loss, optimiser and schedules of one training, which is copied and gone on with at will."""

from __future__ import annotations

import contextlib
import copy
import math
from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor, nn

from lightning_tricks._compat import lightning as compat
from lightning_tricks._compat.compiled import original_of
from lightning_tricks._compat.lightning_module import is_running, trainer_of
from lightning_tricks.experiments.preflight.patterns import NotAskedError
from lightning_tricks.experiments.training.copied import Copied
from lightning_tricks.experiments.training.deadline import Deadline, TimeIsUpError
from lightning_tricks.experiments.training.optimizers import (
    Schedule,
    adam_of,
    begin_with,
    configured,
    scale_rates,
    schedule_of,
)
from lightning_tricks.experiments.training.plan import PLANNED, clipping_of
from lightning_tricks.experiments.training.stand_in import attach
from lightning_tricks.experiments.training.steps import (
    begin,
    cloned,
    lightning_step,
    loss_of_step,
    mean_loss,
    on_device,
    plain_step,
)
from lightning_tricks.model.batches import input_and_target
from lightning_tricks.model.isolated import isolated
from lightning_tricks.probes.optimizers import check_optimizer_of

LossFunction = Callable[[Any, Any], Tensor]


class Training:
    """One training on copies: nothing of the user's moves while it goes on.

    A LightningModule is trained by its own ``training_step``, optimiser and hooks, with something that stands in for
    the Trainer: what it logs goes nowhere. Any other module by ``loss_fn(module(x), y)``.

    Random numbers are those of the global streams: keep and seed them around (``keep_random_numbers``).

    Attributes:
        module, loss_fn, optimizer: The copies; ``loss_fn`` None for a LightningModule's own step.
        schedules: Schedulers, each with when it steps.
        clip: Limit and algorithm (``"norm"``, ``"value"``) of gradient clipping; limit 0 for none.
        accumulate: Batches to an optimiser step.
        lr_factor: What the learning rates were multiplied with; see ``scale_lr``.
        clears: Whether gradients are cleared whatever the module's own hook does.
        prepare: From a batch to the one that is trained on; evaluation sees it as it is.
        around: What every loss is computed within.
        steps, planned_steps: Batches so far; optimiser steps that the schedules are made for.
        deadline: After which no loss is computed any more, in this one and its copies.

    >>> net = nn.Linear(4, 1)
    >>> training = Training.of(net, nn.functional.mse_loss, torch.optim.SGD(net.parameters(), 0.1))
    >>> batch = torch.ones(8, 4), torch.zeros(8, 1)
    >>> other = training.copy()
    >>> before = training.evaluate([batch])
    >>> for _ in range(50):
    ...     _ = other.step(batch)
    >>> training.evaluate([batch]) == before, other.evaluate([batch]) < 1e-3
    (True, True)
    """

    def __init__(self, module: Any, loss_fn: LossFunction | None, optimizer: Any) -> None:
        self.module, self.loss_fn, self.optimizer = module, loss_fn, optimizer
        self.schedules: list[Schedule] = []
        self.clip: tuple[float, str] = (0.0, "norm")
        self.accumulate = 1
        self.clears = False
        self.lr_factor = 1.0
        self.prepare: Callable[[Any], Any] | None = None
        self.steps, self.planned_steps = 0, PLANNED
        self.around: Callable[[], Any] = contextlib.nullcontext
        self.deadline = Deadline(math.inf)
        self._real: Any = None  # the Trainer whose numbers the stand-in hands on
        self._copied: Copied | None = None  # until the first loss has shown that the copy stands alone
        self._differentiates = False  # whether its loss asks for gradients itself
        self._configured = False  # whether the module itself gave the optimiser
        self._known = {id(p) for p in module.parameters()}

    @classmethod
    def of(
        cls,
        model: nn.Module,
        loss_fn: LossFunction | None = None,
        optimizer: Any = None,
        *,
        planned_steps: int = PLANNED,
    ) -> Training:
        """A copy of the training of this model, from where it stands.

        Args:
            model: A LightningModule, or any module with a ``loss_fn``. In the middle of a fit the Trainer's optimiser
                and schedules are taken, with their states.
            loss_fn: ``loss_fn(model(x), y)``; in a LightningModule it replaces its step.
            optimizer: One that holds parameters of the model. Default: the LightningModule's own, else Adam with a
                learning rate of 1e-3.
            planned_steps: How long the whole training is meant to be, for schedules that ask.

        Raises:
            NotAskedError: It is no training that can be copied: it optimises by hand or with several optimisers, or
                holds what has no copy. The message says which.
        """
        model = original_of(model)
        is_lightning = compat.is_lightning_module(model)
        own_step = is_lightning and loss_fn is None
        if not own_step and loss_fn is None:
            raise TypeError(f"{type(model).__name__} is no LightningModule: give a loss_fn(output, target)")
        if own_step and not model.automatic_optimization:
            raise NotAskedError("it optimises by hand (automatic_optimization=False)")
        real = trainer_of(model) if is_lightning else None
        schedules: list[Schedule] = []
        if optimizer is not None:
            optimizer = getattr(optimizer, "optimizer", optimizer)
            check_optimizer_of(model, optimizer)
        elif real is not None and is_running(real):
            optimizer, _ = configured(list(real.optimizers))
            schedules = [schedule_of(each) for each in real.lr_scheduler_configs]
        copied = Copied((model, loss_fn, optimizer, schedules), [] if real is None else [real])
        module, loss_fn, optimizer, schedules = copied.parts
        training = cls(module, loss_fn, optimizer)
        training.schedules, training._copied, training._real = schedules, copied, real
        training.planned_steps = planned_steps
        if real is not None:
            training.clip, training.accumulate = clipping_of(real), int(real.accumulate_grad_batches)
        for parameter in module.parameters():
            parameter.grad = None
        if not module.training:
            module.train()
        if is_lightning:
            attach(training, real)
        if optimizer is None:
            training.configure()
        if own_step and (real is None or not is_running(real)):
            begin(module)
        return training

    def configure(self) -> None:
        """A new optimiser for the parameters that the module has now, with its schedules: the module's own, or Adam."""
        if compat.is_lightning_module(self.module) and compat.configures_optimizers(self.module):
            try:
                answer = self.module.configure_optimizers()
            except Exception as error:
                raise NotAskedError(f"configure_optimizers fails without a Trainer: {error}") from error
            optimizer, schedules = configured(answer)
            if optimizer is not None and self._copied is not None:
                optimizer, schedules = self._copied.also(optimizer, schedules)
            self.optimizer, self.schedules, self._configured = optimizer, schedules, True
            return
        self.optimizer, self.schedules = adam_of(self.module), []

    def renew(self) -> None:
        """After the module has got other parameters or other values: an optimiser that begins with those.

        One that the module configures is configured again; of a given one the groups stay, parameters that are gone
        leave it and new ones join its first group.
        """
        if self._configured or self.optimizer is None:
            factor, self.lr_factor, before = self.lr_factor, 1.0, self.optimizer
            self.configure()
            if before is not None and self.optimizer is before:  # one that the module made when it was made
                factor = 1.0
                begin_with(before, list(self.module.parameters()), self._known)
            self.scale_lr(factor)
        else:
            begin_with(self.optimizer, list(self.module.parameters()), self._known)
        self._known = {id(p) for p in self.module.parameters()}

    def scale_lr(self, factor: float) -> None:
        """Multiply the learning rates of all groups, and what schedules take them from."""
        self.lr_factor *= factor
        if self.optimizer is not None and factor != 1.0:
            scale_rates(self.optimizer, self.schedules, factor)

    def copy(self) -> Training:
        """Another one at the same point; module, loss, optimiser and schedules in one deep copy."""
        copied = Copied((self.module, self.loss_fn, self.optimizer, self.schedules), [self.stand_in], hooks=True)
        module, loss_fn, optimizer, schedules = copied.parts
        other = copy.copy(self)
        other._known = {id(p) for p in module.parameters()}
        other.module, other.loss_fn, other.optimizer, other.schedules = module, loss_fn, optimizer, schedules
        if compat.is_lightning_module(module):
            attach(other, self._real)
        return other

    @property
    def stand_in(self) -> Any:
        """What stands in for its Trainer; None where it asks none."""
        return trainer_of(self.module) if compat.is_lightning_module(self.module) else None

    @property
    def begun(self) -> int:
        """Optimiser steps of the user's own training so far, as far as Trainer or optimiser tell."""
        states = [] if self.optimizer is None else list(self.optimizer.state.values())
        counts = [int(state["step"]) for state in states if isinstance(state, dict) and "step" in state]
        return max([0 if self._real is None else int(self._real.global_step), *counts])

    @property
    def uses_own_step(self) -> bool:
        """Whether the loss is that of a LightningModule's ``training_step``."""
        return self.loss_fn is None

    @property
    def device(self) -> torch.device:
        return next((p.device for p in self.module.parameters()), torch.device("cpu"))

    def loss(self, batch: Any) -> Tensor:
        """The loss of a batch, in the mode that the module is in; the batch stays as it is.

        Raises:
            NotAskedError: The copy runs modules of the original or reads its parameters; the step fails, or returns
                no loss.
        """
        found = self.loss_or_none(batch)
        if found is None:
            raise NotAskedError("its training_step returns no loss")
        return found

    def loss_or_none(self, batch: Any) -> Tensor | None:
        """The same; None where the step skips the batch."""
        if self._copied is None:
            return self._run(batch)
        with self._copied.alone(), torch.enable_grad():
            found = self._run(batch)
        if found is not None:
            self._copied.refuse_gradients_of(found)
            self._copied = None
        return found

    def _run(self, batch: Any) -> Tensor | None:
        self.deadline.check()
        batch = cloned(batch)
        try:
            with self.around():
                if self.loss_fn is None:
                    found = loss_of_step(self.module, on_device(self.module, batch, self.device), self.steps)
                else:
                    x, y = input_and_target(compat.move_data_to_device(batch, self.device))
                    found = self.loss_fn(self.module(x), y)
        except NotAskedError:
            raise
        except Exception as error:
            raise NotAskedError(f"a copy of its step fails: {type(error).__name__}: {error}") from error
        if found is not None and (not isinstance(found, Tensor) or found.numel() != 1):
            raise NotAskedError(f"its loss is no single number but {getattr(found, 'shape', type(found).__name__)}")
        return found if found is None else found.reshape(())

    def step(self, batch: Any) -> float:
        """Train on a batch; its loss before the update, NaN where the step skips it.

        Raises:
            NotAskedError: As ``loss``.
            TimeIsUpError: It is; the update may be missing.
        """
        self.deadline.step()
        batch = batch if self.prepare is None else self.prepare(batch)
        if self.clears and self.steps % self.accumulate == 0:
            for parameter in self.module.parameters():
                parameter.grad = None
        try:
            found = lightning_step(self, batch) if self.uses_own_step else plain_step(self, batch)
        except (NotAskedError, TimeIsUpError):
            raise
        except Exception as error:
            raise NotAskedError(f"a copy of its step fails: {type(error).__name__}: {error}") from error
        self.steps += 1
        for each in self.schedules if self.steps % self.accumulate == 0 else []:
            if each.interval == "step" and not each.waits_for_metric and self.steps % each.frequency == 0:
                each.scheduler.step()
        return math.nan if found is None else float(found.detach())

    def evaluate(self, batches: Iterable[Any]) -> float:
        """Mean loss over all patterns in evaluation mode, always with the same random numbers; nothing is changed."""
        with isolated(self.module):
            torch.manual_seed(0)
            return mean_loss(batches, self._evaluated)

    def _evaluated(self, batch: Any) -> Tensor | None:
        if not self._differentiates:
            try:
                return self.loss_or_none(batch)
            except NotAskedError as error:
                if "does not require grad" not in str(error):
                    raise
                self._differentiates = True
        with torch.enable_grad():
            return self.loss_or_none(batch)
