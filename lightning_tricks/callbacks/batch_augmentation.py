"""BatchAugmentation: training batches augmented on their device, each sample by a draw of its own."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from lightning_tricks._compat.lightning import Callback
from lightning_tricks.callbacks.modifying.columns import KINDS, BatchEntry, columns_of, leaves, put
from lightning_tricks.callbacks.modifying.transforms import (
    apply_each,
    apply_own,
    apply_to_samples,
    apply_whole,
    flattened,
    is_torchvisions,
    mixes_samples,
    seeded,
)
from lightning_tricks.nn.augment import Augmentation


class BatchAugmentation(Callback):
    """Augments every training batch, after its transfer to the device; what is validated or tested stays as it is.

    The training step, other callbacks and monitors get the augmented batch. Modules of ours (``lt.nn.RandomAffine``,
    ``ElasticDeformation``, ``AdditiveNoise``) take a batch at once with a draw for every sample. Those of torchvision
    draw once a call and are called for every sample, MixUp and CutMix excepted. Any other function is given the batch's
    images, and is to draw for each by itself.

    Masks, boxes and key points move along with their images: tensors of ``torchvision.tv_tensors`` wherever they are,
    others where ``entries`` names them. Random numbers come from a generator of the callback's own, different on every
    process and in every batch, which goes on where a checkpoint left it. In an ensemble every sample of every member
    has its own draw. One Trainer takes one such callback; several transforms are a list.

    Args:
        transform: A module, a function, or a list of them, applied in turn.
        entries: What is what in the batch: ``{0: "image", 1: "mask"}`` by position, ``{"x": "image", "target.boxes":
            "boxes"}`` by keys; "image", "mask", "boxes" (x1, y1, x2, y2) or "keypoints" (x, y), in pixels. None: the
            first floating-point tensor is the image.
        per_sample: Whether a function is called for every sample; None: those of torchvision that do not mix samples.
        mask_fill: What masks get from outside of the image, where a module of ours moves them.
        seed: Of the generator; None: torch's, as ``seed_everything`` sets it.

    Raises:
        TypeError: What cannot be called as a transform; integer images for a module of ours.
        ValueError: An unknown kind of entry; in training, an entry that is not in the batch.
        RuntimeError: A ``training_step`` that takes ``dataloader_iter`` fetches its batches by itself.

    >>> from lightning_tricks.nn import AdditiveNoise, RandomAffine
    >>> augmentation = BatchAugmentation([RandomAffine(flip=0.5), AdditiveNoise(0.05)], entries={0: "image", 1: "mask"})
    >>> augmentation.entries
    {'0': 'image', '1': 'mask'}
    """

    def __init__(
        self,
        transform: nn.Module | Callable[..., Any] | Sequence[nn.Module | Callable[..., Any]],
        *,
        entries: Mapping[str | int, str] | None = None,
        per_sample: bool | None = None,
        mask_fill: int = 0,
        seed: int | None = None,
    ) -> None:
        super().__init__()
        self.transforms = flattened(transform)
        self.entries = None if entries is None else {str(name): kind for name, kind in entries.items()}
        for name, kind in (self.entries or {}).items():
            if kind not in KINDS:
                raise ValueError(f"entries[{name!r}] has to be one of {', '.join(map(repr, KINDS))}, not {kind!r}")
        self.per_sample = per_sample
        self.mask_fill = mask_fill
        self.seed = seed
        self._seed, self._drawn = seed or 0, 0
        self._rank, self._open, self._augmented, self._members = 0, False, False, False
        self._transfer: _Transfer | None = None

    def augment(self, batch: Any, generator_seed: Sequence[int] = (0,)) -> Any:
        """A batch of one network, augmented; the batch that was given stays as it is.

        Args:
            batch: A tensor, or tensors in tuples, lists and mappings.
            generator_seed: Numbers that the draws come from.
        """
        for place, transform in enumerate(self.transforms):
            seed = int(np.random.SeedSequence([*generator_seed, place]).generate_state(1, np.uint64)[0]) >> 1
            if is_torchvisions(transform) and mixes_samples(transform):  # these need the labels too
                with seeded(seed):
                    batch = transform(batch)
                continue
            columns = columns_of(batch, self.entries)
            if not columns[0].stacked and is_torchvisions(transform) and self._is_called_for_each(transform):
                with seeded(seed):
                    batch = apply_to_samples(transform, batch, columns)
            else:
                batch = put(batch, _places(self._apply(transform, columns, seed)))
        return batch

    def _apply(self, transform: Any, columns: list[BatchEntry], seed: int) -> list[BatchEntry]:
        if isinstance(transform, Augmentation):
            generator = torch.Generator(columns[0].values[0].device).manual_seed(seed)
            return apply_own(transform, columns, generator, self.mask_fill)
        apply = apply_each if self._is_called_for_each(transform) else apply_whole
        with seeded(seed):
            return apply(transform, columns)

    # --- in a Trainer

    def setup(self, trainer: Any, pl_module: Any, stage: str) -> None:
        if stage == "fit":  # a checkpoint is loaded after this
            self._seed, self._drawn = torch.initial_seed() if self.seed is None else self.seed, 0

    def on_fit_start(self, trainer: Any, pl_module: Any) -> None:
        self._rank = int(trainer.global_rank)
        self._members = hasattr(pl_module, "member_parts")
        self._open = self._augmented = False
        self._transfer = _Transfer(trainer.strategy, self)

    def on_train_start(self, trainer: Any, pl_module: Any) -> None:
        # An epoch that is taken up amid begins without a hook of its own; Lightning 2.4 begins it anew.
        self._open = bool(getattr(trainer.fit_loop, "restarted_mid_epoch", False))

    def on_train_epoch_start(self, trainer: Any, pl_module: Any) -> None:
        self._open = True

    def on_train_epoch_end(self, trainer: Any, pl_module: Any) -> None:
        self._open = False

    def on_train_batch_start(self, trainer: Any, pl_module: Any, batch: Any, batch_idx: int) -> None:
        if not self._augmented:
            raise RuntimeError(
                "BatchAugmentation never saw this batch: a training_step that takes dataloader_iter fetches its "
                "batches by itself; give it (batch, batch_idx), or call BatchAugmentation.augment(batch) there"
            )
        self._augmented = False

    def on_exception(self, trainer: Any, pl_module: Any, exception: BaseException) -> None:
        self._close()

    def teardown(self, trainer: Any, pl_module: Any, stage: str) -> None:
        self._close()

    def _close(self) -> None:
        self._open = False
        if self._transfer is not None:
            self._transfer.remove()
            self._transfer = None

    def transferred(self, batch: Any, training: bool) -> Any:
        """A batch that has arrived on the device: augmented if it is one to train on."""
        if not (self._open and training):
            return batch
        seed = (self._seed, self._rank, self._drawn)
        self._drawn += 1
        self._augmented = True
        with torch.no_grad():
            return self._augment_members(batch, seed) if self._members else self.augment(batch, seed)

    def _augment_members(self, batch: Any, seed: tuple[int, ...]) -> Any:
        """A batch ``[K, B, ...]``: all samples at once, but where a transform might mix those of several members."""
        stacked = dict(leaves(batch))
        if all(isinstance(step, Augmentation) or self._is_called_for_each(step) for step in self.transforms):
            flat = put(batch, {path: leaf.flatten(0, 1) for path, leaf in stacked.items()})
            sizes = {path: leaf.shape[:2] for path, leaf in stacked.items()}
            found = leaves(self.augment(flat, seed))
            return put(batch, {path: leaf.unflatten(0, sizes[path]) for path, leaf in found})
        parts: list[dict[Any, Tensor]] = []
        for number in range(len(next(iter(stacked.values())))):
            own = put(batch, {path: leaf[number] for path, leaf in stacked.items()})
            parts.append(dict(leaves(self.augment(own, (*seed, number)))))
        return put(batch, {path: torch.stack([part[path] for part in parts]) for path in stacked})

    def _is_called_for_each(self, transform: Any) -> bool:
        if is_torchvisions(transform) and mixes_samples(transform):
            return False
        return is_torchvisions(transform) if self.per_sample is None else self.per_sample

    def state_dict(self) -> dict[str, Any]:
        return {"seed": self._seed, "drawn": self._drawn}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self._seed, self._drawn = int(state_dict["seed"]), int(state_dict["drawn"])


class _Transfer:
    """Stands for a strategy's ``batch_to_device`` during a fit, and augments what it brings."""

    def __init__(self, strategy: Any, callback: BatchAugmentation) -> None:
        self.strategy, self.callback = strategy, callback
        self.original = strategy.batch_to_device
        self.others = vars(strategy).get("batch_to_device")
        strategy.batch_to_device = self

    def remove(self) -> None:
        if vars(self.strategy).get("batch_to_device") is self:
            del self.strategy.batch_to_device
            if self.others is not None:
                self.strategy.batch_to_device = self.others

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        batch = self.original(*args, **kwargs)
        return self.callback.transferred(batch, bool(self.strategy.lightning_module.trainer.training))


def _places(columns: list[BatchEntry]) -> dict[tuple[Any, ...], Tensor]:
    """Each tensor of some columns by its path."""
    found: dict[tuple[Any, ...], Tensor] = {}
    for column in columns:
        values = [column.values] if isinstance(column.values, Tensor) else column.values
        found.update(zip(column.paths, values, strict=True))
    return found
