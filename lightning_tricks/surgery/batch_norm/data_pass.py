"""One look at the data: what every batch-norm layer meets when the batches go through the network."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from lightning_tricks.model.batches import Forward, first_element, number_of_samples
from lightning_tricks.model.processes import any_process, gather_objects, is_distributed, process_count
from lightning_tricks.nn.batch_norm import BatchNorm
from lightning_tricks.stats.moments import MomentSums
from lightning_tricks.surgery.batch_norm.batch_statistics import BatchStatistics, join_processes

__all__ = ["DataPass"]


class _Reached(BaseException):
    """Ends a forward pass at the layer that it was made for; no error, so that ``except Exception`` lets it pass."""


class DataPass:
    """Runs the data through the network and collects what the layers meet, over all processes.

    Args:
        network: The network, in eval mode but for the layers that shall normalise by their own batch.
        loader: The batches.
        forward: ``forward(network, batch)``, or None: the first element of a tuple or list, or the batch, goes in.
        num_samples: Stop after the batch that completes so many, over all processes; None takes all.
        singles: Whether a batch with one value per channel can be used.
    """

    def __init__(
        self,
        network: nn.Module,
        loader: Iterable[Any],
        forward: Forward | None = None,
        num_samples: int | None = None,
        singles: bool = False,
    ) -> None:
        self.network, self.loader, self.singles = network, loader, singles
        self.forward = forward or self._on_its_device
        self.limit = None if num_samples is None else -(-num_samples // process_count())
        tensors = [*network.parameters(), *network.buffers()]
        self.device = tensors[0].device if tensors else torch.device("cpu")

    def calls(self, layers: Mapping[str, BatchNorm]) -> dict[str, int]:
        """The layers in the order of their first call, and how often the first batch calls each."""
        calls: dict[str, int] = {}

        def count(name: str) -> Callable[..., None]:
            return lambda *_: calls.__setitem__(name, calls.get(name, 0) + 1)

        def run() -> None:
            for batch in self.loader:
                self.forward(self.network, batch)
                break

        with contextlib.ExitStack() as stack:
            for name, module in layers.items():
                stack.callback(module.register_forward_pre_hook(count(name)).remove)
            self._together(run)
        # The first process with data decides, so that all go through the layers in one order.
        calls = next((entry for entry in gather_objects(calls) if entry), {})
        if not calls:
            raise ValueError("the loader is empty, or its first batch reaches no batch-norm layer")
        return calls

    def collect(
        self,
        layers: Mapping[str, BatchNorm],
        stop_at: tuple[str, int] | None = None,
        on_batch: Callable[[BatchNorm, MomentSums], None] | None = None,
    ) -> dict[str, BatchStatistics]:
        """The :class:`BatchStatistics` of the layers that were reached, by name.

        Args:
            layers: The layers to collect from.
            stop_at: ``(name, n)`` ends each forward pass at the n-th call of this layer.
            on_batch: Called before a layer runs, with what it is about to get.

        Raises:
            ValueError: There were no batches, or a batch has too few values, or some that are NaN or Inf.
        """
        statistics = {name: _empty(module) for name, module in layers.items()}
        order: dict[str, None] = {}  # of the first calls
        # Layers that talk to each other across processes need as many batches on each; then the shortest one decides.
        in_step = is_distributed() and any(_synchronizes(module) for module in layers.values())

        def gather(name: str) -> Callable[..., None]:
            def hook(module: BatchNorm, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
                order[name] = None
                input = args[0] if args else next(iter(kwargs.values()))
                if input.numel() == module.num_features and not self.singles:
                    raise ValueError(
                        f"layer {name!r} met a batch of shape {tuple(input.shape)}, one value per channel, which has "
                        "no variance; use larger batches, drop_last=True, or consistent=True"
                    )
                met = statistics[name].add(input)
                if on_batch is not None and met.count:
                    on_batch(module, met)

            return hook

        def run() -> None:
            for batch in self._batches(in_step):
                if stop_at is None:
                    self.forward(self.network, batch)
                else:
                    self._until(layers[stop_at[0]], stop_at[1], batch)

        with contextlib.ExitStack() as stack:
            for name, module in layers.items():
                stack.callback(module.register_forward_pre_hook(gather(name), with_kwargs=True).remove)
            if in_step:
                run()
            else:
                self._together(run)
        joined = dict(zip(statistics, join_processes(list(statistics.values())), strict=True))
        joined = {name: entry for name, entry in joined.items() if entry.moments.count > 0}
        _refuse_not_finite(joined, {name: statistics[name] for name in (*order, *layers)})
        if not joined:
            raise ValueError("the loader is empty, or its batches reach no batch-norm layer")
        for name, entry in joined.items():
            if entry.moments.count < 2:
                raise ValueError(f"layer {name!r} met one value per channel in all the data; a variance needs two")
        return joined

    def _until(self, layer: nn.Module, calls: int, batch: Any) -> None:
        left = calls

        def stop(*_: Any) -> None:
            nonlocal left
            left -= 1
            if left == 0:
                raise _Reached

        handle = layer.register_forward_pre_hook(stop)
        try:
            self.forward(self.network, batch)
        except _Reached:
            pass
        finally:
            handle.remove()

    def _batches(self, in_step: bool) -> Iterator[Any]:
        seen = 0
        for batch in self.loader:
            if self.limit is not None and seen >= self.limit:
                break
            if in_step and any_process(False, self.device):
                return
            yield batch
            seen += number_of_samples(batch)
        if in_step:
            any_process(True, self.device)

    def _on_its_device(self, network: nn.Module, batch: Any) -> Any:
        input = first_element(batch)
        if isinstance(input, Mapping):
            raise TypeError("the batches are mappings; pass forward=lambda model, batch: model(batch['...'])")
        return network(input.to(self.device) if isinstance(input, Tensor) else input)

    def _together(self, run: Callable[[], None]) -> None:
        """Fails on all processes if it fails on one: the others would wait for it for ever."""
        failure: Exception | None = None
        try:
            run()
        except Exception as error:
            if not is_distributed():
                raise
            failure = error
        failed = any_process(failure is not None, self.device)
        if failure is not None:
            raise failure
        if failed:
            raise RuntimeError("another process failed in its pass over the data; nothing was changed")


def _empty(layer: BatchNorm) -> BatchStatistics:
    assert isinstance(layer.running_mean, Tensor)
    return BatchStatistics(layer.num_features, layer.running_mean.device)


def _refuse_not_finite(joined: Mapping[str, BatchStatistics], own: Mapping[str, BatchStatistics]) -> None:
    """Raises for the first layer, in the order of execution, whose statistics would not be numbers."""
    for name, statistics in own.items():
        if name not in joined or joined[name].is_finite():
            continue
        batch = statistics.first_not_finite()
        where = "values too large for their squares" if batch is None else f"NaN or Inf in batch {batch}"
        if batch is None and is_distributed():
            where = "NaN or Inf in a batch of another process"
        raise ValueError(f"layer {name!r} met {where} (counted from 0); nothing was changed")


def _synchronizes(module: nn.Module) -> bool:
    return module.training and (isinstance(module, nn.SyncBatchNorm) or bool(getattr(module, "synchronize", False)))
