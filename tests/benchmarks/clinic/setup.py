"""From a case to what is to be trained: data, network, loss, optimiser; faults are planted into it."""

from __future__ import annotations

import copy
import dataclasses
import math
from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lightning_tricks.model.layers import is_batch_norm

from . import data as datasets
from .case import Case
from .data import Data
from .networks.architectures import ARCHITECTURES
from .networks.network import Network

Loss = Callable[[Tensor, Tensor], Tensor]
LEARNING_RATES = {"adam": 2e-3, "adamw": 2e-3, "sgd": 0.1, "momentum": 0.03, "rmsprop": 1e-3}


@dataclasses.dataclass
class Setup:
    """What a fault may change before the training begins.

    Args:
        case: The settings.
        data: Patterns and targets.
        network: The network, initialised.
        loss: From output and target.
        lr: The learning rate.
        batch: The batch size.
        decay, clip, factor: Weight decay, (limit, ``"norm"`` or ``"value"``) of the gradient, schedule.
        sorted_by: What the loader goes by; None: it shuffles.
        apart: Whether every batch has the targets of other patterns.
        clears, steps: Whether gradients are cleared, and the optimiser steps.
        optimized: The module whose parameters the optimiser is given; None: the one that is trained.
        numbered: Whether the loss is made anew from its number.
        spared: Modules whose parameters no optimiser holds.
        spoiled: From the step and the patterns of a batch to what is fed; None: the patterns as they are.
    """

    case: Case
    data: Data
    network: Network
    loss: Loss
    lr: float
    batch: int
    decay: float = 0.0
    clip: tuple[float, str] = (0.0, "norm")
    factor: Callable[[int], float] | None = None
    sorted_by: Tensor | None = None
    apart: bool = False
    clears: bool = True
    steps: bool = True
    optimized: nn.Module | None = None
    numbered: bool = False
    spared: list[str] = dataclasses.field(default_factory=list)
    spoiled: Callable[[int, Tensor], Tensor] | None = None

    def hidden(self, place: int) -> nn.Module:
        """The module with the weights of a place."""
        return self.network.get_submodule(self.network.places[place].weighted)

    @property
    def head(self) -> nn.Module:
        return self.network.get_submodule(self.network.output)

    @property
    def norms(self) -> list[nn.Module]:
        return [module for module in self.network.modules() if is_batch_norm(module)]


def healthy(case: Case) -> Setup:
    """The setup of a case before any fault is planted."""
    torch.manual_seed(case.seed)
    data = datasets.load(case.data)
    if case.imbalance < 1.0:
        data = datasets.imbalanced(data, case.imbalance, case.seed)
    if case.patterns:
        data = datasets.first(data, case.patterns)
    architecture = ARCHITECTURES[case.architecture]
    outputs = 1 if case.loss == "bce" and data.y.dim() == 1 else data.classes or 1
    network = architecture.build(data.features, outputs, case.activation)
    start = case.start or architecture.start
    if start == "sparse":
        make_sparse(network, data.x)
    else:
        initialize(network, start, case.activation)
    if case.dropout:
        for place in network.places:
            network.put(place.plug, nn.Dropout(case.dropout))
    factor = architecture.lr.get(case.optimizer, architecture.lr.get("", 1.0))
    lr = LEARNING_RATES[case.optimizer] * factor * case.lr
    setup = Setup(case, data, network, loss_of(case, data), lr, case.batch, case.weight_decay, (case.clip, "norm"))
    setup.factor = schedule_of(case)
    if case.pretrained:
        pretrain(setup)
    return setup


def loss_of(case: Case, data: Data) -> Loss:
    weights = rarity(data) if case.loss == "weighted" else None
    if case.loss == "bce" or (data.classes == 2 and data.y.dim() > 1):
        return binary_loss(None if weights is None else weights[1] / weights[0])
    if not data.classes:
        return F.mse_loss
    return class_loss(weights, case.smoothing)


def rarity(data: Data) -> Tensor:
    """A weight for each class by how rare it is among the training targets."""
    return data.y.numel() / (data.classes * torch.bincount(data.y.flatten(), minlength=data.classes))


def binary_loss(positive: Tensor | None = None) -> Loss:
    return lambda output, y: F.binary_cross_entropy_with_logits(output, y.float().view_as(output), pos_weight=positive)


def class_loss(weights: Tensor | None = None, smoothing: float = 0.0) -> Loss:
    """Of one target for each pattern, or for each of its positions."""
    return lambda output, y: F.cross_entropy(
        output.flatten(0, -2), y.flatten(), weight=weights, label_smoothing=smoothing
    )


def initialize(network: nn.Module, start: str, activation: str) -> None:
    """Weights that fit the activation (He et al. 2015 for rectifiers, LeCun's and Glorot's else), biases 0."""
    if start in ("", "default"):
        return
    if start != "fitting":
        raise ValueError(f"unknown start {start!r}")
    rectifier = activation in ("relu", "leaky_relu", "gelu", "silu", "elu", "mish")
    for module in network.modules():
        if isinstance(module, (nn.Linear, nn.Conv2d)):
            fan_in = module.weight[0].numel()
            nn.init.normal_(module.weight, std=math.sqrt((2.0 if rectifier else 1.0) / fan_in))
            nn.init.zeros_(module.bias)


@torch.no_grad()
def make_sparse(network: Network, x: Tensor) -> None:
    """Biases that leave every hidden unit active on about one pattern in six, each on others."""
    for place in network.places:
        layer = network.get_submodule(place.weighted)
        seen: list[Tensor] = []
        handle = layer.register_forward_hook(lambda module, inputs, output, seen=seen: seen.append(output))
        network(x)
        handle.remove()
        layer.bias.sub_(seen[0].mean(0) + seen[0].std(0))


def pretrain(setup: Setup, steps: int = 200) -> None:
    """Train on the first half of the patterns; then a new head, and a frozen body where the case says so."""
    network, half = setup.network, datasets.first(setup.data, len(setup.data.x) // 2)
    optimizer = torch.optim.Adam(network.parameters(), 2e-3)
    for x, y in datasets.batches(half, 64, steps, seed=1):
        optimizer.zero_grad()
        setup.loss(network(x), y).backward()
        optimizer.step()
    optimizer.zero_grad()
    if setup.case.pretrained == "frozen":
        network.requires_grad_(False)
        fresh = copy.deepcopy(setup.head)
        fresh.reset_parameters()
        network.put(network.output, fresh.requires_grad_(True))


def optimizer_of(case: Case, parameters: list[nn.Parameter], lr: float, decay: float) -> torch.optim.Optimizer:
    if case.optimizer == "adam":
        return torch.optim.Adam(parameters, lr, weight_decay=decay)
    if case.optimizer == "adamw":
        return torch.optim.AdamW(parameters, lr, weight_decay=decay or 0.01)
    if case.optimizer == "rmsprop":
        return torch.optim.RMSprop(parameters, lr, weight_decay=decay)
    return torch.optim.SGD(parameters, lr, momentum=0.9 if case.optimizer == "momentum" else 0.0, weight_decay=decay)


def schedule_of(case: Case) -> Callable[[int], float] | None:
    """The factor on the learning rate at an optimiser step."""
    if not case.schedule:
        return None
    warm = 50 if "warmup" in case.schedule else 0

    def factor(step: int) -> float:
        if step < warm:
            return step / warm
        if "cosine" not in case.schedule:
            return 1.0
        return 0.5 * (1.0 + math.cos(math.pi * min((step - warm) / (case.steps - warm), 1.0)))

    return factor
