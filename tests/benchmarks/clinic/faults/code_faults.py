"""Mistakes in the code: losses and outputs that do not fit, cut graphs, forgotten parameters, NaN makers."""

from __future__ import annotations

import warnings

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..setup import Setup
from .kind import Kind


class Detach(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x.detach()


class Log(nn.Module):
    """log of something that is sometimes zero or negative."""

    def forward(self, x: Tensor) -> Tensor:
        return torch.log(x)


class Root(nn.Module):
    """A root whose slope at zero is infinite: the output is finite, the gradient is not."""

    def forward(self, x: Tensor) -> Tensor:
        return torch.sqrt(x.relu())


class Share(nn.Module):
    """Each unit's share of the layer's sum, 0/0 where all are zero."""

    def forward(self, x: Tensor) -> Tensor:
        silent = x.relu() * (torch.rand(len(x), *[1] * (x.dim() - 1), device=x.device) > 0.02)
        return silent / silent.sum(1, keepdim=True)


def _plug(module: type[nn.Module]):
    def plant(setup: Setup, place: int, strength: float) -> None:
        setup.network.put(setup.network.places[place].plug, module())

    return plant


@torch.no_grad()
def infinite_weight(setup: Setup, place: int, strength: float) -> None:
    setup.hidden(place).weight.view(-1)[0] = float("inf")


def spare_from_optimizer(setup: Setup, place: int, strength: float) -> None:
    setup.spared.append(setup.network.places[place].weighted)


def never_used(setup: Setup, place: int, strength: float) -> None:
    """A layer that __init__ makes and forward forgets."""
    setup.network.spare = nn.Linear(32, 32)


def on_output(module: nn.Module):
    def plant(setup: Setup, place: int, strength: float) -> None:
        setup.network.put("out", module)

    return plant


@torch.no_grad()
def scale_head(setup: Setup, place: int, factor: float) -> None:
    setup.head.weight.mul_(factor)


def many_outputs(setup: Setup, place: int, count: float) -> None:
    setup.network.put(setup.network.output, nn.Linear(setup.head.in_features, int(count)))


def nll_of_logits(setup: Setup, place: int, strength: float) -> None:
    setup.loss = F.nll_loss


def mse_of_other_shape(setup: Setup, place: int, strength: float) -> None:
    """Predictions [B, 1] against targets [B]: every prediction is compared with every target."""

    def loss(output: Tensor, y: Tensor) -> Tensor:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return F.mse_loss(output, y.squeeze(1))

    setup.loss = loss


CODE_FAULTS: dict[str, Kind] = {
    "log": Kind(_plug(Log), "non_finite", "behind", in_code=True),
    "root": Kind(_plug(Root), "non_finite", "behind", in_code=True),
    "zero by zero": Kind(_plug(Share), "non_finite", "behind", in_code=True),
    "infinite weight": Kind(infinite_weight, "non_finite", in_code=True),
    "detach": Kind(_plug(Detach), "disconnected_parameters", "cut", in_code=True),
    "not in optimizer": Kind(spare_from_optimizer, "disconnected_parameters", in_code=True),
    "never used": Kind(never_used, "disconnected_parameters", "spare", in_code=True),
    "softmax before cross entropy": Kind(on_output(nn.Softmax(1)), "output_mismatch", "output", in_code=True),
    "sigmoid before logits loss": Kind(on_output(nn.Sigmoid()), "output_mismatch", "output", in_code=True),
    "relu on output": Kind(on_output(nn.ReLU()), "output_mismatch", "output", in_code=True),
    "huge output weights": Kind(scale_head, "output_mismatch", "output"),
    "too many outputs": Kind(many_outputs, "output_mismatch", "output", in_code=True),
    "nll of logits": Kind(nll_of_logits, "output_mismatch", "output", in_code=True),
    "mse of other shape": Kind(mse_of_other_shape, "output_mismatch", "output", in_code=True),
}
