"""A verification: the same step with and without a probe, compared bit for bit."""

from __future__ import annotations

import copy
import dataclasses
import random
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from lightning_tricks._compat import lightning as compat
from lightning_tricks._compat.compiled import original_of
from lightning_tricks.callbacks.monitoring.monitor import Monitor
from lightning_tricks.checkup import (
    LossFunction,
    RepeatedBatches,
    check_loss_fn,
    copy_of,
    device_of,
)
from lightning_tricks.model.arguments import check_module
from lightning_tricks.model.batches import input_and_target
from lightning_tricks.model.isolated import keep_random_numbers
from lightning_tricks.probes import Probe, Snapshot
from lightning_tricks.watch.loss_history import loss_in

_MOST_NAMED = 8
State = dict[str, Any]  # what a step leaves behind, by name


@dataclasses.dataclass(frozen=True)
class Verification:
    """What :func:`verify` has found; printed, it says so in a few lines.

    Args:
        differing: What a probed step leaves otherwise than a plain one, such as ``"gradient of 0.weight"``.
        unstable: What two plain steps already leave different, so that nothing can be said about it.
        compared: How many things were compared.
        snapshot: What the probe saw of the step.
    """

    differing: tuple[str, ...]
    unstable: tuple[str, ...]
    compared: int
    snapshot: Snapshot

    @property
    def identical(self) -> bool:
        """Whether the probed step is the plain one, bit for bit, wherever two plain ones are."""
        return not self.differing

    @property
    def not_seen(self) -> Mapping[str, str]:
        """What the probe could not look at, and why."""
        return self.snapshot.not_seen

    def __str__(self) -> str:
        seen = f"{len(self.snapshot.weighted)} weighted operations and {len(self.snapshot.activations)} activations"
        lines = [f"The probed step {self._verdict()}.", f"Seen: {seen}."]
        if self.unstable:
            lines.insert(
                1, f"Two plain steps already differ in {_listed(self.unstable)}: nothing can be said of these."
            )
        if self.not_seen:
            lines += ["Not seen:", *(f"  {name}: {reason}" for name, reason in self.not_seen.items())]
        return "\n".join(lines)

    def _verdict(self) -> str:
        if not self.identical:
            return f"differs from the plain one in {_listed(self.differing)}: please report this with the model's code"
        stable = self.compared - len(self.unstable)
        return f"is the plain one, bit for bit: {stable} of {self.compared} compared"


def verify(model: nn.Module, batch: Any, loss_fn: LossFunction | None = None) -> Verification:
    """Run the same step on copies of a model, plain and probed, and compare what it leaves, bit for bit.

    Compared are the loss, every gradient, every parameter after the step of the optimiser, every buffer and the states
    of the random number generators. The plain step is run twice, as some kernels are not reproducible by themselves.
    The model stays as it was, and in the mode it is in.

    Args:
        model: A LightningModule, with its own ``training_step`` and optimisers, or any module with a ``loss_fn``, which
            is then trained by plain SGD.
        batch: One batch, ``(x, y)`` unless it goes to a ``training_step``.
        loss_fn: ``loss_fn(model(x), y)``; needed unless the model is a LightningModule, whose own step it replaces.

    Raises:
        TypeError: Not a module, no ``loss_fn`` where one is needed, or a batch of a kind that is not understood.
        RuntimeError: The model cannot be copied.

    >>> net = nn.Sequential(nn.Linear(8, 16), nn.Dropout(0.5), nn.ReLU(), nn.Linear(16, 2))
    >>> batch = torch.randn(64, 8), torch.randint(2, (64,))
    >>> print(verify(net, batch, nn.functional.cross_entropy))
    The probed step is the plain one, bit for bit: 12 of 12 compared.
    Seen: 2 weighted operations and 1 activations.
    """
    check_module(model)
    model = original_of(model)
    check_loss_fn(model, loss_fn)
    step = _lightning_step if loss_fn is None else _step_with(loss_fn)
    (plain, _), (again, _), (probed, snapshot) = (_run(step, model, batch, looking) for looking in (False, False, True))
    assert snapshot is not None
    unstable = _differing(plain, again)
    differing = tuple(name for name in _differing(plain, probed) if name not in unstable)
    return Verification(differing, unstable, len(plain), snapshot)


Step = Callable[[Any, Any, bool], tuple[Any, "Snapshot | None"]]  # a model's copy, a batch, whether probed


def _run(step: Step, model: nn.Module, batch: Any, probed: bool) -> tuple[State, Snapshot | None]:
    with keep_random_numbers(), torch.enable_grad():
        own, _ = copy_of(model, None)
        loss, snapshot = step(own, copy.deepcopy(batch), probed)
        state: State = {"loss": loss}
        for name, parameter in own.named_parameters():
            state[f"gradient of {name}"], state[name] = parameter.grad, parameter
        state |= dict(own.named_buffers())
        streams = [torch.get_rng_state()]
        if torch.cuda.is_available():
            streams += torch.cuda.get_rng_state_all()
        return {**state, **_random_numbers(streams)}, snapshot


def _random_numbers(streams: Iterable[Tensor]) -> State:
    named: State = {f"random numbers of torch ({i})": state for i, state in enumerate(streams)}
    own = {"random numbers of NumPy": str(np.random.get_state()), "random numbers of Python": str(random.getstate())}
    return {**named, **own}


def _step_with(loss_fn: LossFunction) -> Step:
    def step(model: nn.Module, batch: Any, probed: bool) -> tuple[Any, Snapshot | None]:
        x, y = input_and_target(compat.move_data_to_device(batch, device_of(model)))
        trained = [p for p in model.parameters() if p.requires_grad]
        optimizer = torch.optim.SGD(trained, lr=0.01) if trained else None
        probe = Probe(model, optimizer)
        if probed:
            probe.open()
        try:
            loss = loss_fn(model(x), y)
            if loss.requires_grad:
                loss.backward()
            if optimizer is not None:
                optimizer.step()
        finally:
            probe.close()
        return loss.detach(), probe.snapshot() if probed else None

    return step


def _lightning_step(model: Any, batch: Any, probed: bool) -> tuple[Any, Snapshot | None]:
    losses: list[Any] = []

    class Recorder(compat.Callback):
        def on_train_batch_end(self, trainer: Any, module: Any, outputs: Any, batch: Any, batch_idx: int) -> None:
            losses.append(loss_in(outputs))

    monitor = Monitor(every_n_steps=1)
    callbacks = [Recorder(), monitor] if probed else [Recorder()]
    compat.fit_quietly(model, RepeatedBatches([batch], 1), 1, device_of(model), *callbacks)
    return losses[0] if losses else None, (monitor.history or [Snapshot()])[0]


def _differing(one: State, other: State) -> tuple[str, ...]:
    names = dict.fromkeys((*one, *other))
    return tuple(name for name in names if not _same(one.get(name), other.get(name)))


def _same(one: Any, other: Any) -> bool:
    """Bit for bit: NaN equals NaN, and 0 does not equal -0."""
    if not (isinstance(one, Tensor) and isinstance(other, Tensor)):
        return type(one) is type(other) and bool(one == other)
    if (one.dtype, one.shape, one.layout) != (other.dtype, other.shape, other.layout):
        return False
    return torch.equal(_bytes(one), _bytes(other))


def _bytes(tensor: Tensor) -> Tensor:
    dense = tensor.detach() if tensor.layout == torch.strided else tensor.detach().to_dense()
    return dense.contiguous().reshape(-1).view(torch.uint8)


def _listed(names: tuple[str, ...]) -> str:
    shown = ", ".join(names[:_MOST_NAMED])
    return f"{shown} and {len(names) - _MOST_NAMED} more" if len(names) > _MOST_NAMED else shown
