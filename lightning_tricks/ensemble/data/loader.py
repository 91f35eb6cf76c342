"""Batches that carry each member's own patterns: [K, B, ...]."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, Subset, TensorDataset, default_collate

from lightning_tricks._compat.trees import tree_map
from lightning_tricks.ensemble.data.bootstrap import Bootstrap, seeds


class MemberOrder:
    """Which patterns each member sees at each step of an epoch: ``[K, B]`` indices, shuffled anew in each epoch.

    With ``shared=True`` all members go through the patterns in about the same random order, so that a pattern is
    loaded for all of them at nearly the same time; else every member shuffles its own draws.
    """

    def __init__(
        self,
        sets: Bootstrap,
        batch_size: int,
        seed: int,
        *,
        shuffle: bool = True,
        drop_last: bool = False,
        shared: bool = False,
        members: range | None = None,
        part: tuple[int, int] = (0, 1),
    ) -> None:
        self.sets, self.batch_size, self.seed = sets, batch_size, seed
        self.shuffle, self.drop_last, self.shared = shuffle, drop_last, shared
        self.members, self.part = members, part
        self.epoch = 0
        self.position = 0

    def __len__(self) -> int:
        size, parts = self.sets.indices.shape[1], self.part[1]
        full, rest = divmod(size, self.batch_size)
        return full + (rest >= parts and not self.drop_last)  # a rest of fewer patterns than processes is left out

    def set_epoch(self, epoch: int) -> None:
        if epoch != self.epoch:
            self.epoch, self.position = epoch, 0

    def indices(self) -> Tensor:
        """``[K, S]``: the draws of all members in the order of this epoch."""
        draws = self.sets.indices
        if not self.shuffle:
            return draws
        generator = torch.Generator().manual_seed(seeds(self.seed, 1)[0] ^ self.epoch)
        if self.shared:
            rank = torch.rand(self.sets.num_patterns, generator=generator)
            return draws.gather(1, rank[draws].argsort(1))
        order = [torch.randperm(draws.shape[1], generator=generator) for _ in range(len(draws))]
        return draws.gather(1, torch.stack(order))

    def __iter__(self) -> Iterator[Tensor]:
        order = self.indices()
        if self.members is not None:
            order = order[self.members.start : self.members.stop]
        rank, parts = self.part
        for step in range(self.position, len(self)):
            block = order[:, step * self.batch_size : (step + 1) * self.batch_size]
            yield block.tensor_split(parts, dim=1)[rank]


class MemberLoader:
    """Iterates over batches ``[K, B, ...]``; its position is saved and restored in the middle of an epoch."""

    def __init__(
        self,
        dataset: Any,
        order: MemberOrder,
        *,
        device: torch.device | str = "cpu",
        num_workers: int = 0,
        collate: Callable[[list[Any]], Any] | None = None,
    ) -> None:
        self.sampler = order  # the Trainer calls its set_epoch
        self.tensors = None if collate is not None else tensors_of(dataset)
        self._whole: DataLoader[Any] | None = None
        if self.tensors is not None:
            self.tensors = tuple(tensor.to(device) for tensor in self.tensors)
        else:
            self._whole = DataLoader(
                _Blocks(dataset, collate or default_collate),
                batch_size=None,
                sampler=order,
                num_workers=num_workers,
            )

    def __len__(self) -> int:
        return len(self.sampler)

    def __iter__(self) -> Iterator[Any]:
        start = self.sampler.position
        source = self._whole if self._whole is not None else self._gathered()
        for done, batch in enumerate(source, start + 1):
            self.sampler.position = done
            yield batch
        self.sampler.position = 0

    def _gathered(self) -> Iterator[tuple[Tensor, ...]]:
        assert self.tensors is not None
        order, device = self.sampler, self.tensors[0].device
        steps = max(1, _MOVED // (len(order.sets.indices) * order.batch_size))
        for block in moved(order, device, steps):
            rows, shape = block.reshape(-1), block.shape
            yield tuple(tensor.index_select(0, rows).view(*shape, *tensor.shape[1:]) for tensor in self.tensors)

    def state_dict(self) -> dict[str, int]:
        return {"epoch": self.sampler.epoch, "position": self.sampler.position}

    def load_state_dict(self, state: dict[str, int]) -> None:
        self.sampler.epoch = state["epoch"]
        self.sampler.position = state["position"] % max(1, len(self))


_MOVED = 1 << 20  # indices that are moved to the device at once: 8 MB


def moved(blocks: Iterable[Tensor], device: torch.device, steps: int) -> Iterator[Tensor]:
    """Blocks ``[K, B]`` on a device, so many steps in one copy: before each of them a GPU's queue runs empty."""
    source = iter(blocks)
    while some := list(itertools.islice(source, steps)):
        yield from torch.cat(some, 1).to(device).split([block.shape[1] for block in some], 1)


class MemberBatches:
    """One member's training set in ordinary batches ``[B, ...]``, in a fixed order, as often as asked for.

    Args:
        draws: ``[S]``: the patterns of its set; several processes get parts of it.
        data: The BootstrapDataModule that they are drawn from.
        trainer: The Trainer, which knows process and device.
    """

    def __init__(self, draws: Tensor, data: Any, trainer: Any) -> None:
        self.draws, self.data, self.trainer = draws, data, trainer

    def __iter__(self) -> Iterator[Any]:
        own = self.draws[self.trainer.global_rank :: self.trainer.world_size].tolist()
        patterns = Subset(self.data.train_dataset, own)
        for batch in DataLoader(patterns, self.data.batch_size, collate_fn=self.data.collate):
            yield self.trainer.strategy.batch_to_device(batch)


class MemberRows:
    """One member's part of batches ``[K, B, ...]``, as often as asked for."""

    def __init__(self, batches: Iterable[Any], row: int) -> None:
        self.batches, self.row = batches, row

    def __iter__(self) -> Iterator[Any]:
        return (rows(batch, self.row) for batch in self.batches)


def rows(batch: Any, which: Any) -> Any:
    """One member's part of a batch ``[K, B, ...]``, or several members' parts: a row, or a list or tensor of rows."""
    return tree_map(lambda value: value[which] if isinstance(value, Tensor) else value, batch)


class _Blocks(Dataset[Any]):
    """A block of indices in, a batch out; a pattern that several members share is loaded once."""

    def __init__(self, dataset: Any, collate: Callable[[list[Any]], Any]) -> None:
        self.dataset, self.collate = dataset, collate

    def __getitem__(self, block: Tensor) -> Any:
        unique, back = block.unique(return_inverse=True)
        batch = self.collate([self.dataset[int(index)] for index in unique])
        return rows(batch, back)


def tensors_of(dataset: Any) -> tuple[Tensor, ...] | None:
    """The tensors of a TensorDataset, or of a Subset of one; None for other datasets."""
    if type(dataset) is TensorDataset:
        return dataset.tensors
    if type(dataset) is Subset and (inner := tensors_of(dataset.dataset)) is not None:
        return tuple(tensor[torch.as_tensor(dataset.indices)] for tensor in inner)
    return None
