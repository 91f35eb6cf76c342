"""What an ensemble says about patterns: the mean of its members, and how much they disagree."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Literal

import torch
from torch import Tensor, nn

Task = Literal["classification", "regression"]


@dataclass(frozen=True)
class Prediction:
    """Predictions of K members for N patterns.

    Attributes:
        members: ``[K, N, ...]``: class probabilities ``[K, N, C]``, or values.
        task: ``"classification"`` or ``"regression"``.

    >>> sure = torch.tensor([[[1.0, 0.0]], [[0.0, 1.0]]])            # two members that contradict each other
    >>> prediction = Prediction(sure, "classification")
    >>> prediction.mean.tolist(), f"{prediction.mutual_information.item():.4f}"
    ([[0.5, 0.5]], '0.6931')
    """

    members: Tensor
    task: Task

    def to(self, *args: Any, **kwargs: Any) -> Prediction:
        """On another device or in another dtype, as ``Tensor.to``; ``Trainer.predict`` moves what it collects."""
        return Prediction(self.members.to(*args, **kwargs), self.task)

    @cached_property
    def mean(self) -> Tensor:
        """``[N, ...]``: the ensemble's prediction; probabilities are averaged, not logits."""
        return self.members.mean(0)

    @cached_property
    def variance(self) -> Tensor:
        """``[N, ...]``: ``1/K sum_k (f_k - mean)^2``, the ambiguity of Krogh & Vedelsby 1995."""
        return self.members.var(0, unbiased=False)

    @cached_property
    def entropy(self) -> Tensor | None:
        """``[N]``: entropy of the mean in nats, the whole uncertainty; None for regression."""
        return _entropy(self.mean) if self.task == "classification" else None

    @cached_property
    def mutual_information(self) -> Tensor | None:
        """``[N]``: entropy of the mean less mean entropy, what members disagree about; None for regression."""
        if self.entropy is None:
            return None
        return (self.entropy - _entropy(self.members).mean(0)).clamp_min(0.0)


def _entropy(probabilities: Tensor) -> Tensor:
    return torch.special.entr(probabilities).sum(-1)


def as_prediction(output: Tensor, task: str) -> Tensor:
    """A network's output as what is averaged: softmax of logits ``[N, C]`` (one logit: two classes), or values.

    Raises:
        TypeError: The output is no tensor.
    """
    if not isinstance(output, Tensor):
        raise TypeError(f"forward of a member returned a {type(output).__name__}: predictions need one tensor")
    if task == "regression":
        return output
    if output.dim() == 1 or output.shape[-1] == 1:
        one = torch.sigmoid(output if output.dim() == 1 else output.squeeze(-1))
        return torch.stack([1 - one, one], -1)
    if output.dim() > 2:
        raise ValueError(f"logits of shape {list(output.shape)}: classes have to be the last of two dimensions")
    return torch.softmax(output, -1)


def predict_by(network: Any, x: Any, task: str) -> Tensor:
    """What a member predicts: its output as what is averaged, values in the units of the data where it scales them."""
    output = network(x)
    in_units = getattr(network, "in_units", None)
    return as_prediction(output if in_units is None or task != "regression" else in_units(output), task)


def predict_members(forwards: Iterable[Callable[[Any], Tensor]], x: Any, task: Task, batch_size: int) -> Tensor:
    """``[K, N, ...]``: run each forward over the patterns in batches, without gradients."""
    with torch.no_grad():
        chunks = x.split(batch_size) if isinstance(x, Tensor) else [x]
        return torch.stack([torch.cat([predict_by(forward, chunk, task) for chunk in chunks]) for forward in forwards])


class InUnits(nn.Module):
    """A member that scales its targets, as a module whose output is in the units of the data."""

    def __init__(self, member: Any) -> None:
        super().__init__()
        self.member = member

    def forward(self, x: Tensor) -> Tensor:
        values: Tensor = self.member.in_units(self.member(x))
        return values


class MeanOfMembers(nn.Module):
    """The mean prediction of K modules, as one module without training code.

    >>> MeanOfMembers([nn.Linear(2, 1), nn.Linear(2, 1)], "regression")(torch.zeros(4, 2)).shape
    torch.Size([4, 1])
    """

    def __init__(self, members: list[nn.Module], task: Task) -> None:
        super().__init__()
        self.members = nn.ModuleList(members).eval()
        self.task: str = task

    def forward(self, x: Tensor) -> Tensor:
        """``[N, ...]``: probabilities or values."""
        predictions = []
        for member in self.members:  # no comprehension: torch.jit.script knows none over modules
            predictions.append(as_prediction(member(x), self.task))
        return torch.stack(predictions).mean(0)
