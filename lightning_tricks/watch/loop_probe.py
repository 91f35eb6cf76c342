"""How a loop that nobody wrote for it is looked at: told by the optimisers' steps, backward passes and forwards."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Sequence
from typing import Any, Protocol

import torch
from torch import nn
from torch.nn.modules.module import register_module_forward_pre_hook

from lightning_tricks._compat import torch_functions
from lightning_tricks._compat.compiled import has_compiled_parts
from lightning_tricks.model.processes import process_count
from lightning_tricks.probes import Probe, Snapshot
from lightning_tricks.watch.backward import hear_backward
from lightning_tricks.watch.errors import MonitorErrors
from lightning_tricks.watch.first_step import FirstStep
from lightning_tricks.watch.loss_history import LossHistory
from lightning_tricks.watch.step_loss import LossScale, StepLoss, trained_by


class Watcher(Protocol):
    """Who wants to know.

    Attributes:
        max_patterns: The most patterns per unit that are read; None for all.
        errors: Of everything that is done for it.
        loss_history: Where the losses of all steps go until the next snapshot.
    """

    max_patterns: int | None
    errors: MonitorErrors
    loss_history: LossHistory

    def should_probe(self, step: int) -> bool:
        """Whether this step is to be looked at."""

    def on_snapshot(self, snapshot: Snapshot) -> None:
        """What was seen of it."""

    def act(self) -> None:
        """A step is over, and nothing is attached any more: what is raised here ends the training."""


class LoopProbe:
    """Counts the steps of a loop and looks at those that are asked for.

    A step is over when every optimiser has made its own, or one begins another. A look begins at the first forward with
    gradients, so that a validation between two steps is not seen, and ends with the step. In between lie two hooks on
    each optimiser, and backward passes are heard.

    Args:
        model: The model.
        optimizers: All that are to be told of.
        loader: What the training's batches come from, for their size; None where nobody says.
        preflight: Whether the first step is run again, to ask whose output depends on what.
    """

    def __init__(
        self, model: nn.Module, optimizers: Sequence[torch.optim.Optimizer], *, loader: Any, preflight: bool
    ) -> None:
        self.step = 0
        self._model, self._optimizers, self._loader = model, list(optimizers), loader
        self._watcher: Callable[[], Watcher | None] = lambda: None
        self._loss = StepLoss(trained_by(model, self._optimizers))
        self._preflight = preflight
        self._first_step = FirstStep(preflight)
        self._probe: Probe | None = None
        self._waiting: Callable[[], None] | None = None  # ends the waiting for a forward
        self._modules: set[int] = set()
        self._training: bool | None = None  # the model's mode in its latest step
        self._stepped: set[int] = set()
        self._stepping = False  # an optimiser is, and may call a closure
        self._went_back = False  # a loss has, in this look
        self._attached = self._has_stepped = False
        self._is_owed = False  # a look that its step did not allow; the next one is looked at in its place
        self._is_spoilt = False  # a look saw more than its step
        self._opened_in = True
        self._is_over = False  # but a backward pass still runs
        self._loss_scale = LossScale()
        self._exits = contextlib.ExitStack()

    def attach(self, watcher: Callable[[], Watcher | None]) -> None:
        """From here on steps count; ``watcher()``: None once it is gone, which ends the looking."""
        self._watcher = watcher
        with contextlib.ExitStack() as exits:
            exits.callback(self._stop_looking)
            for optimizer in self._optimizers:
                exits.callback(optimizer.register_step_pre_hook(self._before_step).remove)
                exits.callback(optimizer.register_step_post_hook(self._after_step).remove)
            exits.callback(hear_backward(self))
            self._wait()
            self._exits = exits.pop_all()
        self._attached = True

    def detach(self) -> None:
        """Nothing is left on the optimisers, the model or in torch; a step that is not over is not looked at."""
        if self._is_over:
            with self._errors():
                self._end_step()
        self._attached = False
        self._exits.close()
        self._loss.take()
        self._stepped.clear()
        self._is_over = False

    def begin_at(self, step: int) -> None:
        """The next step is this one, as of a training that is taken up again."""
        self._stop_waiting()
        self._close()
        self._stepped.clear()
        self._first_step = FirstStep(self._preflight and step == 0)
        self.step = step
        if self._attached:
            self._wait()

    # --- what the loop does --------------------------------------------------------------------------------------

    def before_backward(self, losses: Any, *given: Any, **more: Any) -> None:
        if torch_functions.in_backward() or self._alive() is None:  # checkpointing goes backward inside a backward
            return
        with self._errors(), torch_functions.unseen():
            # A mode that is telling of this very call cannot be taken away: the look ends with its step.
            self._is_spoilt = self._is_spoilt or (self._is_given_up() and not self._is_owed)
            self._loss.before(losses, goes_on=bool(self._stepped))

    def after_backward(self) -> None:
        if torch_functions.in_backward() or self._alive() is None:
            return
        with self._errors():
            with torch_functions.unseen():
                self._loss.after()
            if self._probe is not None:
                self._went_back = True
                self._probe.new_batch()
            if self._is_over and self._probe is None:
                self._end_step()
        self._act()

    def _before_step(self, optimizer: torch.optim.Optimizer, args: Any, kwargs: Any) -> Any:
        if self._alive() is None:
            return None
        with self._errors():
            if not torch_functions.in_backward() and (self._is_over or id(optimizer) in self._stepped):
                self._end_step()
            self._stepping = True
            if not self._has_stepped or self._probe is not None:
                self._loss_scale.find()
            if self._waiting is not None and callable((*args[1:], kwargs.get("closure"))[0]):
                self._open()  # forward and backward are to come inside of the step
            if self._probe is not None:
                self._probe.loss_scale = self._loss_scale.now
                return self._probe.before_step(optimizer, args, kwargs)
        return None

    def _after_step(self, optimizer: torch.optim.Optimizer, args: Any, kwargs: Any) -> None:
        if self._alive() is None:
            return
        with self._errors():
            self._has_stepped, self._stepping = True, False
            self._training = self._model.training
            self._stepped.add(id(optimizer))
            if self._probe is not None:
                self._probe.after_step(optimizer, args, kwargs)
            if len(self._stepped) == len(self._optimizers):
                if torch_functions.in_backward():  # that the layers before are still waiting for, on whichever thread
                    self._is_over = True
                    self._hear_forwards()
                else:
                    self._end_step()
        self._act()

    def _before_forward(self, module: nn.Module, args: Any) -> None:
        """A module is called while a look is due, or has begun; nothing may be made of what torch compiles."""
        if torch.compiler.is_compiling() or torch_functions.in_backward() or id(module) not in self._modules:
            return
        if self._is_over:
            with self._errors():
                self._end_step()
            self._act()
        if self._waiting is None or not torch.is_grad_enabled() or self._training not in (None, self._model.training):
            return
        with self._errors():
            if self._is_given_up() or self._is_other_mode():
                self._close()
                self._first_step = FirstStep(self._preflight and self.step == 0)
            if self._probe is None and self._alive() is not None:
                self._open()
                if self._probe is not None:
                    self._probe.enter_call(module, args)

    # --- one look ------------------------------------------------------------------------------------------------

    def _wait(self) -> None:
        """For the next forward, if it belongs to a step that is to be looked at."""
        watcher = self._alive()
        if watcher is None or not (self._is_owed or watcher.should_probe(self.step)):
            return
        self._hear_forwards()

    def _hear_forwards(self) -> None:
        if self._waiting is not None:
            return
        if has_compiled_parts(self._model):  # a hook for all modules would make torch compile them again
            self._modules = {id(self._model)}
            self._waiting = self._model.register_forward_pre_hook(self._before_forward).remove
        else:
            self._modules = {id(module) for module in self._model.modules()}
            self._waiting = register_module_forward_pre_hook(self._before_forward).remove

    def _open(self) -> None:
        watcher = self._alive()
        if watcher is None:
            return
        probe = Probe(self._model, self._optimizers, max_patterns=watcher.max_patterns, step=self.step)
        probe.hooks = False
        probe.ranks = process_count()
        probe.loss_scale = self._loss_scale.now
        self._first_step.begin(probe, None, self._loader, process_count())
        self._went_back = self._is_spoilt = False
        self._opened_in = self._model.training
        self._probe = probe.open()

    def _is_given_up(self) -> bool:
        """Whether gradients were cleared before any step: a scaler left it out, or they were those of another network.

        What is looked at then is none of the step.
        """
        if self._probe is None or not self._went_back or self._stepping or self._stepped:
            return False
        return self._loss.is_cleared

    def _is_other_mode(self) -> bool:
        """Whether what was looked at before the first step was a validation."""
        return self._probe is not None and self._training is None and self._model.training and not self._opened_in

    def _stop_waiting(self) -> None:
        end, self._waiting = self._waiting, None
        if end is not None:
            end()

    def _close(self) -> None:
        probe, self._probe = self._probe, None
        if probe is not None:
            probe.close()

    def _stop_looking(self) -> None:
        self._stop_waiting()
        self._close()

    def _end_step(self) -> None:
        self._is_over = False
        self._stepped.clear()
        watcher = self._alive()
        if watcher is None:
            return
        loss = self._loss.take()
        if loss is not None:
            watcher.loss_history.add(self.step, self._loss_scale.taken_off(loss))
        probe, snapshot = self._probe, None
        self._is_owed = self._is_spoilt or (probe is None and self._waiting is not None)
        self._stop_looking()
        if self._is_spoilt:
            self._first_step = FirstStep(self._preflight and self.step == 0)
        elif probe is not None:
            snapshot = self._finish(probe, watcher)
        self.step += 1
        self._wait()
        if snapshot is not None:
            watcher.on_snapshot(snapshot)

    def _finish(self, probe: Probe, watcher: Watcher) -> Snapshot:
        probe.recent_losses = list(watcher.loss_history.losses)
        watcher.loss_history.clear()
        self._first_step.run(probe)
        return self._first_step.enter(probe.snapshot())

    # --- the watcher ---------------------------------------------------------------------------------------------

    def _alive(self) -> Watcher | None:
        """Who wants to know, and has met no error."""
        watcher = self._watcher()
        return None if watcher is None or watcher.errors.failed else watcher

    def _errors(self) -> contextlib.AbstractContextManager[Any]:
        watcher = self._watcher()
        return contextlib.nullcontext() if watcher is None else watcher.errors

    def _act(self) -> None:
        watcher = self._watcher()
        if watcher is not None:
            if watcher.errors.failed:
                with self._errors():
                    self._stop_looking()
            watcher.act()
