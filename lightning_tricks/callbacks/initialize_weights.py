"""InitializeWeights: a scheme for the whole network, applied once before the first step."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from typing import Any

import torch

from lightning_tricks._compat.lightning import Callback
from lightning_tricks._compat.trainer import steps_taken
from lightning_tricks.callbacks.modifying.batches import run_on_batch
from lightning_tricks.callbacks.modifying.members import (
    merge,
    own_random_numbers,
    take_weights_of_first_process,
    with_batch,
)
from lightning_tricks.init import initialize
from lightning_tricks.init.network import SCHEMES
from lightning_tricks.surgery import Report


class InitializeWeights(Callback):
    """Initialises the model in the first ``on_train_batch_start``: LSUV and the order of execution take that batch.

    Never when a training is resumed, nor when weights were loaded in ``setup`` or ``configure_model``. Weights loaded
    before the Trainer was given the model cannot be told from fresh ones: leave the callback out then. Over several
    processes all take the weights of the first. Each member of an ensemble is initialised by itself, with its own part
    of the batch and its own random numbers. Wraps :func:`lightning_tricks.init.initialize`.

    Args:
        scheme: ``"auto"``, ``"lsuv"``, ``"lecun_normal"`` ... as for ``initialize``.
        forward: ``forward(module, batch)`` runs the model on a batch; None: the module's own ``forward`` with the
            first element of the batch, or its ``training_step`` where it has none.
        verbose: Whether what was done to which layer is printed.

    Attributes:
        report: What was initialised, and what was left and why; None before.

    Raises:
        ValueError: The scheme is unknown.

    >>> InitializeWeights("lsuv").report is None
    True
    """

    def __init__(
        self, scheme: str = "auto", *, forward: Callable[[Any, Any], Any] | None = None, verbose: bool = False
    ) -> None:
        super().__init__()
        if scheme not in SCHEMES:
            raise ValueError(f"scheme must be one of {', '.join(SCHEMES)}, got {scheme!r}")
        self.scheme = scheme
        self.forward = forward
        self.verbose = verbose
        self.report: Report | None = None
        self._loaded = self._done = False
        self._handle: Any = None

    def setup(self, trainer: Any, pl_module: Any, stage: str) -> None:
        if stage == "fit":
            self._loaded = self._done = False
            self._handle = pl_module.register_load_state_dict_post_hook(self._notice)

    def on_train_batch_start(self, trainer: Any, pl_module: Any, batch: Any, batch_idx: int) -> None:
        if self._done:
            return
        self._done = True
        self._forget()
        if self._loaded or trainer.ckpt_path is not None or steps_taken(trainer) > 0:
            return
        with _not_looked_at(trainer):
            self._initialize(trainer, pl_module, batch)

    def _initialize(self, trainer: Any, pl_module: Any, batch: Any) -> None:
        self.report = Report()
        parts = with_batch(pl_module, batch)
        seed = 0 if parts[0].number is None else int(torch.randint(2**62, ()))
        for part in parts:
            own = Report()
            with trainer.precision_plugin.forward_context(), own_random_numbers(part, seed):
                initialize(part.network, self.scheme, part.data, forward=self.forward or run_on_batch, report=own)
            merge(self.report, own, part)
        take_weights_of_first_process(pl_module)
        if self.verbose and trainer.is_global_zero:
            print(self.report)

    def on_exception(self, trainer: Any, pl_module: Any, exception: BaseException) -> None:
        self._forget()

    def teardown(self, trainer: Any, pl_module: Any, stage: str) -> None:
        self._forget()

    def _notice(self, module: Any, incompatible_keys: Any) -> None:
        self._loaded = True

    def _forget(self) -> None:
        if self._handle is not None:
            self._handle.remove()
            self._handle = None


@contextlib.contextmanager
def _not_looked_at(trainer: Any) -> Iterator[None]:
    """A block that monitors do not see: one before this callback has opened its probe already."""
    shared = [getattr(callback, "_shared_probe", None) for callback in trainer.callbacks]
    probes = [probe for probe in shared if probe is not None]
    for probe in probes:
        probe.pause()
    try:
        yield
    finally:
        for probe in probes:
            probe.resume()
