"""The probe: attached for one step of any training loop, it reads forward, backward and update, and leaves no trace."""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Iterable, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim.optimizer import register_optimizer_step_pre_hook

from lightning_tricks._compat import torch_functions
from lightning_tricks._compat.compiled import eagerly
from lightning_tricks._compat.torch_optim import current_scale, unscales_itself
from lightning_tricks.model.arguments import check_count, check_module, checked_globs
from lightning_tricks.probes.build_snapshot import StepContext, build_snapshot
from lightning_tricks.probes.measure.parameters import ParameterReader
from lightning_tricks.probes.optimizers import check_optimizer, check_optimizer_of, listed
from lightning_tricks.probes.snapshot import Snapshot
from lightning_tricks.probes.watch.mode import ObserverMode
from lightning_tricks.probes.watch.observer import Observer
from lightning_tricks.probes.watch.outermost import OutermostCall, OutermostCalls

MAX_PATTERNS = 4096


class Probe:
    """Looks at one optimiser step: ``open``, run the step, ``close``, ``snapshot``.

    Use :func:`probe` as a context manager unless the step is not a block of code, as in a callback.

    Args:
        model: Any module; its module paths are the names.
        optimizer: With one, or several, the gradients are read right before a step and the updates right after.
        layers: A glob, or several, of the names to look at.
        max_patterns: The most patterns (batch x space x time) per unit that are looked at; None for all.
        step: The number that the snapshot carries.
    """

    def __init__(
        self,
        model: nn.Module,
        optimizer: torch.optim.Optimizer | Sequence[torch.optim.Optimizer] | None = None,
        *,
        layers: str | Sequence[str] = "*",
        max_patterns: int | None = MAX_PATTERNS,
        step: int = 0,
    ) -> None:
        check_module(model)
        check_count("max_patterns", max_patterns, "None for all patterns")
        self.step, self._model = step, model
        self.loss_scale: Any = 1.0  # a number, or a tensor on the device: the factor on the loss that goes backward
        self.scaler: torch.amp.GradScaler | None = None  # asked for it when the step begins
        self.hooks = True  # lie on the optimisers while it is open; else before_step and after_step are to be called
        self.ranks = 1  # the gradient is averaged over this many processes
        self.recent_losses: Sequence[Any] = ()  # numbers, or tensors that are copied with everything else
        self._optimizers = listed(optimizer)
        for one in self._optimizers:
            check_optimizer(one)
        self.stepped = False  # whether one of them has made its step
        self._observer = seen = Observer(model, checked_globs(layers), max_patterns)
        self.tallies = seen.tallies  # what is counted; its ``order`` is that of the latest call
        self.classes_wanted = seen.loss_path.classes  # where the class numbers lie that losses were told
        seen.loop.leftover.step = step
        self._mode: ObserverMode | None = None
        self._parameters = ParameterReader(model, seen.tallies, seen.guard, self._optimizers)
        seen.raw_gradients = self._parameters.raw
        self._open = self._pushed = self._attached = self._in_block = False
        self._stepped: set[int] = set()  # the optimisers that have begun a step
        self._snapshot: Snapshot | None = None
        self._exits = contextlib.ExitStack()

    def keep_call(self) -> None:
        """Before it opens: keep what the outermost call that leads to the loss is given, to be run again."""
        self._observer.outermost = OutermostCalls(self._observer.modules, self._observer.guard)

    @property
    def kept_call(self) -> OutermostCall | None:
        """That call, until the snapshot is made."""
        return None if self._observer.outermost is None else self._observer.outermost.found

    def open(self) -> Probe:
        """Attach: from here on every call is seen."""
        if self._attached:
            raise RuntimeError("a probe looks at one step only: make a new one")
        if self.scaler is not None and self.scaler.is_enabled():
            self.loss_scale = current_scale(self.scaler)
        with contextlib.ExitStack() as exits:  # whatever fails half-way is undone
            exits.enter_context(eagerly())
            for optimizer in self._optimizers if self.hooks else ():
                exits.callback(optimizer.register_step_pre_hook(self.before_step).remove)
                exits.callback(optimizer.register_step_post_hook(self.after_step).remove)
            if self._in_block and not self._optimizers:
                exits.callback(register_optimizer_step_pre_hook(self._count_step).remove)
            self._observer.attach(exits)
            self._mode = ObserverMode(self._observer)
            self._observer.modules.step_aside = self._step_aside
            exits.callback(self._unpush)
            self._push()
            self._exits = exits.pop_all()
        self._open = self._attached = True
        return self

    def enter_call(self, module: nn.Module, args: Any) -> None:
        """Right after it opened amid the call of a module, before its forward: see that call from its beginning."""
        self._observer.enter_call(module, args)

    def new_batch(self) -> None:
        """Begin a further micro-batch of the same optimiser step."""
        self._observer.modules.new_batch()

    def trained_by(self, optimizers: Sequence[torch.optim.Optimizer]) -> None:
        """Name the optimisers of a step that ``read_gradients`` and ``read_updates`` tell about."""
        self._parameters.optimizers = list(optimizers)

    def note_loss(self, loss: Tensor) -> None:
        """A loss from which nothing is going backward, such as one that needs no gradient."""
        with self._observer.guard("loss"), torch.no_grad():
            self._observer.loop.detached += not loss.requires_grad
            self._observer.tallies.loss = loss.detach().reshape(()).clone()

    def pause(self) -> None:
        """From here on nothing is looked at: an optimiser's own arithmetic, a validation amid an accumulation."""
        self._observer.pause(True)
        self._unpush()

    def resume(self) -> None:
        """The end of a pause."""
        self._observer.pause(False)
        if self._open:
            self._push()

    def read_gradients(self, parameters: Iterable[Tensor] | None = None, scale: Tensor | float = 1.0) -> None:
        """Read gradients and weights right before the optimiser step; ``scale``: what is still on the gradients."""
        stepped = None if parameters is None else list(parameters)
        with self._observer.guard("gradients"):
            self._parameters.before(stepped, scale, self.loss_scale)
        with self._observer.guard("training loop"):
            self._observer.loop.before_step(stepped, self._parameters.optimizers)

    def gradient_squares(self) -> Tensor:
        """The sum of the squares of each gradient that was read, where it is."""
        read = [tally.gradient for tally in self._parameters.read.values() if tally.gradient is not None]
        return torch.stack([torch.as_tensor(each.square).reshape(()) for each in read]) if read else torch.zeros(0)

    def read_updates(self) -> None:
        """Read the weights right after the optimiser step."""
        with self._observer.guard("updates"):
            self._parameters.after(stepped=True)
        with self._observer.guard("training loop"):
            self._observer.loop.after_step()

    def close(self) -> None:
        """Detach; nothing of the probe is left on the model, the optimiser or in torch."""
        if not self._open:
            return
        self._open = False
        try:
            self._exits.close()
        finally:
            self._observer.close()
        with self._observer.guard("training loop"):
            self._observer.loop.read_optimizers(self._parameters.optimizers)
            self._observer.loop.close()
        with self._observer.guard("parameters"):  # those that no optimiser has stepped
            self._parameters.before(scale=1.0 if self.scaler is None or self._stepped else self.loss_scale)
            self._parameters.after(stepped=False)

    def snapshot(self) -> Snapshot:
        """The frozen record of the step; everything is copied to the host at once, the first time.

        Raises:
            RuntimeError: The probe is still attached, or never was.
        """
        if self._open:
            raise RuntimeError("the step is not over: call snapshot() after the with block")
        if not self._attached:
            raise RuntimeError("the probe has seen no step: run one inside `with probe(model) as p:`, or after open()")
        if self._snapshot is None:
            read = self._parameters.read.values()
            with self._observer.guard("step"):
                context = StepContext(self.step, self.loss_scale, self.ranks, self.recent_losses)
                self._snapshot = build_snapshot(self._observer, read, context)
            if self._snapshot is None:
                self._snapshot = Snapshot(self.step, not_seen=dict(self._observer.tallies.not_seen))
            del self._parameters, self._observer, self._mode
        return self._snapshot

    def _push(self) -> None:
        if not self._pushed and self._mode is not None:
            self._mode.__enter__()
            self._pushed = True

    def _unpush(self) -> None:
        """Where another mode lies above, ours stays until the end: it costs time and sees nothing."""
        on_top = not self._open or torch_functions.top_function_mode() is self._mode
        if self._pushed and self._mode is not None and on_top:
            self._mode.__exit__(None, None, None)
            self._pushed = False

    def _step_aside(self, aside: bool) -> None:
        """Let a module run as if nothing looked on, as under any function mode torch leaves its fast path."""
        if aside:
            self._unpush()
        elif self._open and not self._observer.paused:
            self._push()

    def __enter__(self) -> Probe:
        self._in_block = True
        return self.open()

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: Any) -> None:
        self.close()

    def before_step(self, optimizer: torch.optim.Optimizer, args: Any, kwargs: Any) -> Any:
        parameters = [p for group in optimizer.param_groups for p in group["params"]]
        self._count_step(optimizer)
        scale = self.loss_scale if unscales_itself(optimizer) else 1.0
        given = (*args[1:], kwargs.get("closure"))[0]
        if torch_functions.in_backward():  # the pass goes on for the layers before: it stays looked at
            self.read_gradients(parameters, scale)
            return None
        if not callable(given):
            self.read_gradients(parameters, scale)
            self.pause()
            return None

        @functools.wraps(given)
        def closure() -> Any:  # forward and backward run inside the step: the first time counts, a line search does not
            loss = given()
            if not self._observer.paused:
                self.read_gradients(parameters, scale)
                self.pause()
            return loss

        if len(args) > 1:
            return (args[0], closure, *args[2:]), kwargs
        return args, {**kwargs, "closure": closure}

    def _count_step(self, optimizer: torch.optim.Optimizer, *given: Any) -> None:
        if self._in_block and id(optimizer) in self._stepped and not torch_functions.in_backward():
            raise RuntimeError(
                f"a probe looks at one step only, and {type(optimizer).__name__}.step() ran a second time inside of "
                "the block: open a new probe for every step"
            )
        self._stepped.add(id(optimizer))

    def after_step(self, optimizer: torch.optim.Optimizer, args: Any, kwargs: Any) -> None:
        if not torch_functions.in_backward():
            self.resume()
        self.stepped = True
        self.read_updates()


def probe(
    model: nn.Module,
    optimizer: torch.optim.Optimizer | None = None,
    *,
    layers: str | Sequence[str] = "*",
    max_patterns: int | None = MAX_PATTERNS,
    scaler: torch.amp.GradScaler | None = None,
) -> Probe:
    """Look at one step of any training loop.

    Every weighted operation and every activation that runs inside the block is seen, whether a module or a function
    call ran it; error signals during ``backward()``; gradients and updates when ``optimizer.step()`` runs in the block.
    The step itself stays bit for bit what it would have been.

    Args:
        model: Any module; its module paths are the names.
        optimizer: The optimiser, for updates; without it the gradients are read at the end of the block.
        layers: A glob, or several, of the names to look at.
        max_patterns: The most patterns (batch x space x time) per unit that are looked at; None for all.
        scaler: The GradScaler whose scale is on the loss that goes backward, so that all is told without it.

    Raises:
        TypeError: ``model`` is no module, ``optimizer`` no optimiser, or ``scaler`` no GradScaler.
        RuntimeError: The block is entered twice, or an optimiser makes a second step inside of it.
        ValueError: ``max_patterns`` is under 1, or the optimiser holds no parameter of the model.

    >>> net = nn.Sequential(nn.Linear(4, 8), nn.Tanh(), nn.Linear(8, 1))
    >>> with probe(net) as p:
    ...     net(torch.randn(32, 4)).square().mean().backward()
    >>> [(r.name, r.function) for r in p.snapshot().activations]
    [('1', 'tanh')]
    >>> [(r.name, r.operation) for r in p.snapshot().weighted]
    [('0', 'linear'), ('2', 'linear')]
    """
    made = Probe(model, optimizer, layers=layers, max_patterns=max_patterns)
    for one in listed(optimizer):
        check_optimizer_of(model, one)
    if scaler is not None:
        if not hasattr(scaler, "get_scale"):
            raise TypeError(f"scaler must be a torch.amp.GradScaler, got {type(scaler).__name__}")
        made.scaler = scaler
    return made
