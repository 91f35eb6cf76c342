"""K networks as one predictor."""

from __future__ import annotations

import copy
from typing import Any

import torch
from torch import Tensor, nn

from lightning_tricks._compat.lightning_module import LowOverheadModule, scriptable
from lightning_tricks.ensemble.data.data_module import BootstrapDataModule
from lightning_tricks.ensemble.evaluation.out_of_bag import OutOfBag, out_of_bag
from lightning_tricks.ensemble.evaluation.prediction import (
    InUnits,
    MeanOfMembers,
    Prediction,
    Task,
    predict_members,
)
from lightning_tricks.model.batches import first_element
from lightning_tricks.model.isolated import keep_training_flags


class EnsemblePredictor(LowOverheadModule):
    """K members whose mean predicts: what an ensemble is when it does not train.

    Args:
        members: The LightningModules.
        task: What their ``forward`` returns: logits, or values.
    """

    def __init__(self, members: list[Any], task: Task) -> None:
        super().__init__()
        self.networks = nn.ModuleList(members)
        self.task: Task = task
        self._data: BootstrapDataModule | None = None
        self._out_of_bag: OutOfBag | None = None

    def forward(self, x: Any) -> Tensor:
        """Mean prediction ``[N, ...]``: probabilities or values."""
        return predict_members(self.networks, x, self.task, 2**62).mean(0)

    def predict(self, x: Any, *, batch_size: int = 1024) -> Prediction:
        """Predictions of all members in eval mode, without gradients; training flags stay as they are."""
        if hasattr(x, "dataset") and hasattr(x, "batch_size"):
            kind = type(x).__name__
            raise TypeError(f"x must be one batch of inputs, got {kind}: use trainer.predict(ensemble, loader)")
        with keep_training_flags(self):
            self.networks.eval()
            return Prediction(predict_members(self.networks, x, self.task, batch_size), self.task)

    def predict_step(self, batch: Any, batch_idx: int, dataloader_idx: int = 0) -> Prediction:
        return self.predict(first_element(batch))

    def members(self) -> list[Any]:
        """K ordinary LightningModules, copies with weights of their own."""
        copies = copy.deepcopy(list(self.networks))
        for member in copies:
            for value in [*member.parameters(), *member.buffers()]:
                value.data = value.data.clone(memory_format=torch.contiguous_format)
        return copies

    def as_module(self) -> MeanOfMembers:
        """One plain module that returns the mean prediction, ready for torch.export, torch.jit.script and trace."""
        members = [scriptable(member) for member in self.members()]
        if self.task == "regression":
            members = [InUnits(member) if hasattr(member, "in_units") else member for member in members]
        return MeanOfMembers(members, self.task)

    @property
    def out_of_bag(self) -> OutOfBag:
        """Each training pattern predicted by the members that never saw it; computed when first asked for."""
        if self._out_of_bag is None:
            if self._data is None or self._data.sets is None:
                raise RuntimeError("out_of_bag is there after trainer.fit(ensemble, BootstrapDataModule(...))")
            self._out_of_bag = out_of_bag(self, self._data.train_dataset, self._data.sets)
        return self._out_of_bag
