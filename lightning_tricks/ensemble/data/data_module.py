"""BootstrapDataModule: training batches in which each member finds its own bootstrap draws."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal

import torch
from torch import Tensor
from torch.utils.data import DataLoader

from lightning_tricks._compat import lightning as _lightning
from lightning_tricks._compat.lightning_module import overrides
from lightning_tricks.ensemble.data.bootstrap import Bootstrap, bootstrap
from lightning_tricks.ensemble.data.loader import MemberLoader, MemberOrder, tensors_of


class BootstrapDataModule(_lightning.LightningDataModule):
    """Batches ``[K, B, ...]`` for K members: each epoch goes once through every member's fixed bootstrap set.

    The sets are drawn once by :func:`bootstrap` and stay the same in every epoch and after a resume, also in the
    middle of an epoch. Tensors (a ``TensorDataset``) are gathered on the training's device; of other datasets each
    pattern is loaded once for all members that share it in a batch, and all members go through the patterns in about
    the same random order, so that they share most of them.

    Args:
        train_dataset: A dataset with a length, or a LightningDataModule whose training dataset is taken.
        num_members: K.
        batch_size: B, patterns of one member in one step (over all devices).
        max_samples: Draws per member, as a number or as a share of the patterns.
        bootstrap: False: without replacement; every member gets every pattern once if ``max_samples`` is 1.0.
        seed: Of the draws and of the order.
        val_dataset: Validation patterns in ordinary batches ``[B, ...]``, the same for all members.
        shuffle: A new order in every epoch.
        drop_last: Leave out a last batch that is smaller.
        num_workers: Processes that load patterns (not used for tensors).
        parallel: With several devices ``"data"`` splits each member's batch, ``"members"`` the members; the same
            word goes to :class:`BaggingEnsemble`.

    Attributes:
        sets: The :class:`Bootstrap`, from the start for a dataset, after ``setup`` for a data module.

    >>> from torch.utils.data import TensorDataset
    >>> data = BootstrapDataModule(TensorDataset(torch.randn(100, 4)), num_members=3, batch_size=20)
    >>> next(iter(data.train_dataloader()))[0].shape
    torch.Size([3, 20, 4])
    """

    def __init__(
        self,
        train_dataset: Any,
        num_members: int,
        batch_size: int = 64,
        *,
        max_samples: int | float = 1.0,
        bootstrap: bool = True,
        seed: int = 0,
        val_dataset: Any = None,
        shuffle: bool = True,
        drop_last: bool = False,
        num_workers: int = 0,
        collate: Callable[[list[Any]], Any] | None = None,
        parallel: Literal["data", "members"] = "data",
    ) -> None:
        super().__init__()
        if hasattr(train_dataset, "dataset") and hasattr(train_dataset, "batch_size"):
            raise TypeError(f"train_dataset must be a dataset, got {type(train_dataset).__name__}: give its dataset")
        if batch_size < 1:
            raise ValueError(f"batch_size must be at least 1, got {batch_size}")
        if parallel not in ("data", "members"):
            raise ValueError(f'parallel must be "data" or "members", got {parallel!r}')
        self.num_members, self.batch_size, self.seed = num_members, batch_size, seed
        self.max_samples, self.replace = max_samples, bootstrap
        self.val_dataset, self.shuffle, self.drop_last = val_dataset, shuffle, drop_last
        self.num_workers, self.collate, self.parallel = num_workers, collate, parallel
        self.source = train_dataset if isinstance(train_dataset, _lightning.LightningDataModule) else None
        self.train_dataset = None if self.source else train_dataset
        self.sets: Bootstrap | None = None
        self._loader: MemberLoader | None = None
        self._position: dict[str, int] | None = None
        if val_dataset is None and (self.source is None or not overrides(self.source, "val_dataloader")):
            self.val_dataloader = super().val_dataloader  # type: ignore[method-assign]  # as if it were not defined
        if self.source is None:
            self._draw()

    def _draw(self) -> None:
        self.sets = bootstrap(
            self.train_dataset, self.num_members, self.seed, max_samples=self.max_samples, replace=self.replace
        )

    def prepare_data(self) -> None:
        if self.source is not None:
            self.source.prepare_data()

    def setup(self, stage: str) -> None:
        if self.source is None or self.sets is not None:
            return
        self.source.setup("fit")
        loader = self.source.train_dataloader()
        if not isinstance(loader, DataLoader):
            raise TypeError(
                f"{type(self.source).__name__}.train_dataloader() returned a {type(loader).__name__}: "
                "bootstrap sets need one DataLoader, whose dataset they are drawn from"
            )
        self.train_dataset, self.num_workers = loader.dataset, loader.num_workers
        if tensors_of(self.train_dataset) is None:
            self.collate = self.collate or loader.collate_fn
        self._draw()

    def train_dataloader(self) -> MemberLoader:
        if self.sets is None:
            self.setup("fit")
        assert self.sets is not None
        rank, world = _lightning.rank_and_world(self.trainer)
        own = members_of_process(self.num_members, rank, world) if self.parallel == "members" else None
        order = MemberOrder(
            self.sets,
            self.batch_size,
            self.seed,
            shuffle=self.shuffle,
            drop_last=self.drop_last,
            shared=self.collate is not None or tensors_of(self.train_dataset) is None,
            members=own,
            part=(0, 1) if self.parallel == "members" else (rank, world),
        )
        device = torch.device("cpu") if self.trainer is None else self.trainer.strategy.root_device
        loader = MemberLoader(
            self.train_dataset, order, device=device, num_workers=self.num_workers, collate=self.collate
        )
        if self._position is not None:
            loader.load_state_dict(self._position)
            self._position = None
        self._loader = loader
        return loader

    def transfer_batch_to_device(self, batch: Any, device: torch.device, dataloader_idx: int) -> Any:
        if type(batch) is tuple and all(isinstance(part, Tensor) and part.device == device for part in batch):
            return batch  # as most are; the search through whatever a batch can be takes longer than a small layer
        return super().transfer_batch_to_device(batch, device, dataloader_idx)

    def val_dataloader(self) -> Any:
        if self.val_dataset is not None:
            return DataLoader(self.val_dataset, batch_size=self.batch_size, num_workers=self.num_workers)
        return [] if self.source is None else self.source.val_dataloader()

    def state_dict(self) -> dict[str, Any]:
        """The position goes with the data module: the Trainer restores that of a loader only if nobody asked before."""
        position = None if self._loader is None else self._loader.state_dict()
        return {"seed": self.seed, "num_members": self.num_members, "position": position}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        for name in ("seed", "num_members"):
            if state_dict[name] != getattr(self, name):
                raise ValueError(
                    f"the checkpoint was trained with {name}={state_dict[name]}, this BootstrapDataModule has "
                    f"{getattr(self, name)}: the members would go on with other bootstrap sets"
                )
        self._position = state_dict["position"]


def members_of_process(num_members: int, rank: int, world: int) -> range:
    """The members that a process trains when the members are distributed over processes."""
    return range(num_members * rank // world, num_members * (rank + 1) // world)
