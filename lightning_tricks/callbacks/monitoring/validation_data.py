"""What the network receives in its first validation, counted on the way, beside what it received in training."""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils.data import BatchSampler, DataLoader, DistributedSampler, RandomSampler, SequentialSampler

from lightning_tricks._compat.torch_modules import strip_wrappers
from lightning_tricks.diagnosis.history.layers import input_layer
from lightning_tricks.model.batches import tensors_in
from lightning_tricks.probes import ChannelMoments, Snapshot, ValidationRecord, WeightedRecord
from lightning_tricks.probes.measure.loss_and_norm_sums import MOST_COUNTED
from lightning_tricks.probes.probe import MAX_PATTERNS
from lightning_tricks.probes.watch.loss_path import ClassTarget
from lightning_tricks.stats import MomentSums, Sums, sample, to_host, unreadable
from lightning_tricks.watch.errors import MonitorErrors

LOOKS = 3  # at the training, before a validation is compared with it
CHANNELS = 64  # are compared: of many, some that are spread evenly
_AXES = {
    **dict.fromkeys(("linear", "lstm", "gru", "rnn"), -1),
    **{f"conv{kind}{space}d": -1 - space for kind in ("", "_transpose") for space in (1, 2, 3)},
}
_EVEN = (SequentialSampler, RandomSampler, DistributedSampler)


@dataclass(frozen=True)
class ValidationSums(Sums):
    """Of one process: moments of the first layer's input, and how often each class was wanted; None where unknown."""

    moments: MomentSums | None = None
    counts: Any = None


class ValidationData:
    """Counts the first validation that follows three looks at the training; its first loader only.

    For as long as it runs a hook lies on the layer that reads the data, and the batches' class numbers are counted.
    Nothing is computed again, and nothing is copied before its end.
    """

    def __init__(self) -> None:
        self.errors = MonitorErrors()  # end the counting, nothing else
        self._looks = 0
        self._layer: tuple[str, int] | None = None  # and the number of its input channels
        self._axis = -1
        self._training: MomentSums | None = None
        self._target: ClassTarget | None = None
        self._place = 0  # of the targets among the batch's tensors
        self._batch: tuple[Any, ...] = ()  # what these are like
        self._whole, self._resampled = True, False
        self._hook: Any = None
        self._running = self._done = False
        self._loader = 0
        self._moments: MomentSums | None = None
        self._counts: Tensor | None = None

    # --- training ----------------------------------------------------------------------------------------------

    def learn(self, snapshot: Snapshot, classes: Mapping[str, ClassTarget], batch: Any) -> None:
        """After a look: what came in, and where in the batch its class numbers lie."""
        if self._done or self.errors.failed:
            return
        with self.errors:
            self._looks += 1
            self._learn_input(_reads_data(snapshot))
            target = classes.get(snapshot.losses[0].name) if snapshot.losses else None
            self._learn_target(target, list(tensors_in(batch)))

    def _learn_input(self, record: WeightedRecord | None) -> None:
        if record is None or record.sums is None or record.sums.input is None:
            return
        layer, moments = (record.name, len(record.sums.input.mean)), record.sums.input
        if layer != self._layer:
            self._layer, self._axis, self._training = layer, _AXES[record.operation], None
        kept = slice(None, None, _stride(layer[1]))
        moments = MomentSums(moments.count, np.asarray(moments.mean)[kept], np.asarray(moments.m2)[kept])
        self._training = moments if self._training is None else self._training.merge(moments)

    def _learn_target(self, target: ClassTarget | None, tensors: Sequence[Tensor]) -> None:
        self._target = None
        if target is not None and 1 < target.outputs <= MOST_COUNTED:
            places = [i for i, t in enumerate(tensors) if not t.is_floating_point() and _address(t) == target.place]
            if places:
                self._target, self._place, self._batch = target, places[0], _kinds(tensors)

    # --- validation --------------------------------------------------------------------------------------------

    def begin(self, trainer: Any, module: nn.Module) -> None:
        """A validation begins."""
        if self._done or self.errors.failed or self._looks < LOOKS or trainer.sanity_checking:
            return
        self._running, self._loader = True, 0
        with self.errors:
            limit = trainer.limit_val_batches
            self._whole = isinstance(limit, float) and limit == 1.0
            self._resampled = not _draws_evenly(trainer.train_dataloader)
            layer = None if self._layer is None else _module(module, self._layer[0])
            if layer is not None:
                self._hook = layer.register_forward_pre_hook(self._receive, with_kwargs=True)

    def add(self, batch: Any, loader: int) -> None:
        """A batch of the validation is about to run."""
        self._loader = loader
        if not self._running or loader or self._target is None or self.errors.failed:
            return
        with self.errors:
            tensors = list(tensors_in(batch))
            if _kinds(tensors) != self._batch:
                self._target = self._counts = None  # another kind of batch: nobody knows where its classes are
                return
            found = tensors[self._place].reshape(-1)
            found = found[:: max(1, -(-len(found) // MAX_PATTERNS))]
            classes = torch.arange(self._target.outputs, device=found.device)
            counts = (found == classes.unsqueeze(1)).sum(1)  # needs no look at the numbers, as torch.bincount does
            self._counts = counts if self._counts is None else self._counts + counts

    def finish(self) -> ValidationSums | None:
        """The sums of the validation that is over, on the host; None where it was not counted."""
        running = self._running and not self.errors.failed
        self.stop()
        if not running:
            return None
        self._done = True
        sums = ValidationSums(self._moments, self._counts)
        return sums.with_arrays(iter(to_host(sums.arrays())))

    def stop(self) -> None:
        """Take the hook away, at any time."""
        self._running = False
        if self._hook is not None:
            self._hook.remove()
            self._hook = None

    def record(self, sums: Sequence[ValidationSums | None]) -> ValidationRecord | None:
        """The record of the sums of all processes; None where they counted nothing."""
        known = [each for each in sums if each is not None]
        if not known:
            return None
        whole, target = functools.reduce(ValidationSums.merge, known), self._target
        counts: list[int] = [] if whole.counts is None else whole.counts.astype(int).tolist()
        if target is not None and 0 <= target.ignored < len(counts):
            counts[target.ignored] = 0
        seen = self._layer is not None and whole.moments is not None
        return ValidationRecord(
            self._layer[0] if self._layer is not None and seen else None,
            tuple(range(0, self._layer[1], _stride(self._layer[1]))) if self._layer is not None and seen else (),
            self._looks,
            _moments(self._training if seen else None),
            _moments(whole.moments),
            tuple(counts),
            self._whole,
            self._resampled or (target is not None and target.balanced),
        )

    def _receive(self, module: nn.Module, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> None:
        """The layer is about to read its input; what is being compiled is to stay as it is without."""
        if torch.compiler.is_compiling() or self._loader or self.errors.failed or self._layer is None:
            return
        with self.errors, torch.no_grad():
            x = args[0] if args else next(iter(kwargs.values()))
            x = getattr(x, "data", x)  # of sequences that are packed, too
            if unreadable(x) is not None or x.shape[self._axis] != self._layer[1] or not x.numel():
                return
            kept = slice(None, None, _stride(self._layer[1]))
            x = x[(..., kept) + (slice(None),) * (-1 - self._axis)]
            sums = MomentSums.of(*sample(x, self._axis, MAX_PATTERNS))
            self._moments = sums if self._moments is None else self._moments.merge(sums)


def _reads_data(snapshot: Snapshot) -> WeightedRecord | None:
    """The layer that receives the data as they are: no batch norm, whose statistics are the training's, before it."""
    record = input_layer(snapshot)
    if record is None or record.operation not in _AXES:
        return None
    return None if any(norm.order < record.order for norm in snapshot.normalizations) else record


def _module(model: nn.Module, name: str) -> nn.Module | None:
    """The module of this name if it is one of torch's own, which hands its input to its weights as it is."""
    found = next((module for path, module in model.named_modules() if strip_wrappers(path) == name), None)
    own = found is not None and type(found).forward.__module__.startswith("torch.nn.modules.")
    return found if own else None


def _stride(channels: int) -> int:
    """The step that leaves at most 64; odd, or it would meet the same columns of an image only."""
    return 1 if channels <= CHANNELS else -(-channels // CHANNELS) | 1


def _address(tensor: Tensor) -> tuple[int, int]:
    return tensor.data_ptr(), tensor.numel()


def _kinds(tensors: Sequence[Tensor]) -> tuple[Any, ...]:
    return tuple((tensor.dtype, tensor.dim()) for tensor in tensors)


def _draws_evenly(loader: Any) -> bool:
    """Whether a loader is known to give every pattern as often."""
    if not isinstance(loader, DataLoader) or not isinstance(loader.sampler, _EVEN):
        return False
    return loader.batch_sampler is None or type(loader.batch_sampler) is BatchSampler


def _moments(sums: MomentSums | None) -> ChannelMoments:
    if sums is None:
        return ChannelMoments()
    return ChannelMoments(sums.count, tuple(np.asarray(sums.mean).tolist()), tuple(np.asarray(sums.std).tolist()))
