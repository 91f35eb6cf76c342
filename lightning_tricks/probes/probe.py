"""The probe: attached for one step of any training loop, it reads forward, backward and update, and leaves no trace."""

from __future__ import annotations

import contextlib
import dataclasses
import sys
from collections.abc import Iterable, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from lightning_tricks.probes import packing
from lightning_tricks.probes.mode import ObserverMode
from lightning_tricks.probes.observer import Observer
from lightning_tricks.probes.parameters import ParameterReader, ParameterTally
from lightning_tricks.probes.records import ActivationRecord, ParameterRecord, WeightedRecord
from lightning_tricks.probes.snapshot import Snapshot
from lightning_tricks.stats import SquareSums, Sums

MAX_PATTERNS = 4096


class Probe:
    """Looks at one optimiser step: ``open``, run the step, ``close``, ``snapshot``.

    Use :func:`probe` as a context manager unless the step is not a block of code, as in a callback.

    Args:
        model: Any module; its module paths are the names.
        optimizer: With one, its gradients are read right before its step and its updates right after.
        layers: A glob, or several, of the names to look at.
        max_patterns: The most patterns (batch x space x time) per unit that are looked at; None for all.
        step: The number that the snapshot carries.
    """

    def __init__(
        self,
        model: nn.Module,
        optimizer: torch.optim.Optimizer | None = None,
        *,
        layers: str | Sequence[str] = "*",
        max_patterns: int | None = MAX_PATTERNS,
        step: int = 0,
    ) -> None:
        if not isinstance(model, nn.Module):
            raise TypeError(f"model must be a torch.nn.Module, got {type(model).__name__}")
        if max_patterns is not None and max_patterns < 1:
            raise ValueError(f"max_patterns must be at least 1, or None for all patterns, got {max_patterns}")
        globs = [layers] if isinstance(layers, str) else list(layers)
        self.step = step
        self.loss_scale: Any = 1.0  # a number, or a tensor on the device: the factor on the loss that goes backward
        self.ranks = 1  # the gradient is averaged over this many processes
        self._model = model
        self._optimizer = optimizer
        self._observer = Observer(model, globs, max_patterns)
        self._mode = ObserverMode(self._observer)
        self._parameters = ParameterReader(model, self._observer.tallies)
        self._open = False
        self._stepped = False
        self._snapshot: Snapshot | None = None
        self._exits = contextlib.ExitStack()

    def open(self) -> Probe:
        """Attach: from here on every call is seen."""
        if self._open or self._snapshot is not None:
            raise RuntimeError("a probe looks at one step only: make a new one")
        self._open = True
        if "torch._dynamo" in sys.modules:  # compiled code would not show its calls; nothing is compiled otherwise
            self._exits.enter_context(torch.compiler.set_stance("force_eager"))
        if self._optimizer is not None:
            before = self._optimizer.register_step_pre_hook(self._before_step)
            after = self._optimizer.register_step_post_hook(self._after_step)
            self._exits.callback(before.remove)
            self._exits.callback(after.remove)
        self._observer.frames.attach()
        self._exits.callback(self._observer.frames.detach)
        self._exits.enter_context(self._mode)
        return self

    def new_batch(self) -> None:
        """Begin a further micro-batch of the same optimiser step."""
        self._observer.frames.new_batch()

    def read_gradients(self, parameters: Iterable[Tensor] | None = None) -> None:
        """Read gradients and weights right before the optimiser step."""
        with self._observer.careful("gradients"):
            self._parameters.before(parameters)

    def read_updates(self) -> None:
        """Read the weights right after the optimiser step."""
        self._stepped = True
        with self._observer.careful("updates"):
            self._parameters.after(stepped=True)

    def close(self) -> None:
        """Detach; nothing of the probe is left on the model, the optimiser or in torch."""
        if not self._open:
            return
        self._open = False
        self._exits.close()
        self._observer.close()

    def snapshot(self) -> Snapshot:
        """The frozen record of the step; everything is copied to the host at once, the first time.

        Raises:
            RuntimeError: The probe is still attached.
        """
        if self._open:
            raise RuntimeError("the step is not over: call snapshot() after the with block")
        if self._snapshot is None:
            self._snapshot = self._read()
            del self._parameters, self._observer, self._mode
        return self._snapshot

    def __enter__(self) -> Probe:
        return self.open()

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: Any) -> None:
        self.close()

    def _before_step(self, optimizer: torch.optim.Optimizer, args: Any, kwargs: Any) -> None:
        self.read_gradients([p for group in optimizer.param_groups for p in group["params"]])

    def _after_step(self, optimizer: torch.optim.Optimizer, args: Any, kwargs: Any) -> None:
        self.read_updates()

    def _read(self) -> Snapshot:
        tallies = self._observer.tallies
        with self._observer.careful("parameters"):
            self._parameters.before()
            self._parameters.after(stepped=False)
        self._list_silent()
        parameters = [tally for tally in self._parameters.read.values() if tally.sums is not None]
        layers: list[Any] = [*tallies.activations.values(), *tallies.weighted.values()]
        signals = [tally.signal for tally in layers]
        heard = list({id(signal): signal for signal in signals if signal.sums is not None}.values())
        activations = [tally for tally in tallies.activations.values() if tally.sums is not None]
        weighted = [tally for tally in tallies.weighted.values() if tally.sums is not None]
        trees: list[Any] = [t.sums for t in (*activations, *weighted, *parameters, *heard)]
        loss = [] if tallies.loss is None else [tallies.loss]
        scale = [self.loss_scale] if isinstance(self.loss_scale, Tensor) else []
        arrays = iter(packing.to_host([*loss, *scale, *(array for tree in trees for array in tree.arrays())]))
        loss_value = float(next(arrays)) if loss else float("nan")
        loss_scale = float(next(arrays) if scale else self.loss_scale)
        on_host = iter([tree.with_arrays(arrays) for tree in trees])
        activation_sums = [next(on_host) for _ in activations]
        weighted_sums = [next(on_host) for _ in weighted]
        parameter_sums = [next(on_host) for _ in parameters]
        heard_sums = {id(signal): _scaled(next(on_host), 1.0 / (loss_scale * self.ranks)) for signal in heard}
        return Snapshot(
            self.step,
            loss_value / loss_scale,
            loss_scale,
            tuple(
                ActivationRecord.of(t.name, t.function, t.order, t.gate, sums, heard_sums.get(id(t.signal)))
                for t, sums in zip(activations, activation_sums, strict=True)
            ),
            tuple(
                WeightedRecord.of(
                    t.name,
                    t.operation,
                    t.order,
                    t.weight,
                    t.follows,
                    t.fan_in,
                    t.elements,
                    sums,
                    heard_sums.get(id(t.signal)),
                )
                for t, sums in zip(weighted, weighted_sums, strict=True)
            ),
            tuple(_parameter_record(t, sums) for t, sums in zip(parameters, parameter_sums, strict=True)),
            dict(tallies.not_seen),
        )

    def _list_silent(self) -> None:
        observer = self._observer
        frames, not_seen = observer.frames, observer.tallies.not_seen
        used = {tally.weight for tally in observer.tallies.weighted.values()}
        for path, module in frames.leaves():
            if isinstance(module, torch.jit.ScriptModule):
                not_seen[path] = "scripted module: nothing inside it is seen"
            elif path in frames.opaque:
                not_seen[path] = "it ran, but no torch function was called inside that can be seen"
            elif path not in frames.ran and frames.ran:
                own = [f"{path}.{name}" for name, _ in module.named_parameters(recurse=False)]
                if own and not used.intersection(own):
                    not_seen[path] = "it did not run in this step"


def _scaled(signal: SquareSums, factor: float) -> SquareSums:
    return dataclasses.replace(signal, square=signal.square * factor**2)


def _parameter_record(tally: ParameterTally, sums: Sums) -> ParameterRecord:
    layer = tally.layer
    name, fan_in = (None, 0) if layer is None else (layer.name, layer.fan_in)
    return ParameterRecord.of(tally.name, name, tuple(tally.parameter.shape), fan_in, sums)  # type: ignore[arg-type]


def probe(
    model: nn.Module,
    optimizer: torch.optim.Optimizer | None = None,
    *,
    layers: str | Sequence[str] = "*",
    max_patterns: int | None = MAX_PATTERNS,
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

    Raises:
        TypeError: ``model`` is no module.
        ValueError: ``max_patterns`` is under 1.

    >>> net = nn.Sequential(nn.Linear(4, 8), nn.Tanh(), nn.Linear(8, 1))
    >>> with probe(net) as p:
    ...     net(torch.randn(32, 4)).square().mean().backward()
    >>> [(r.name, r.function) for r in p.snapshot().activations]
    [('1', 'tanh')]
    >>> [(r.name, r.operation) for r in p.snapshot().weighted]
    [('0', 'linear'), ('2', 'linear')]
    """
    return Probe(model, optimizer, layers=layers, max_patterns=max_patterns)
