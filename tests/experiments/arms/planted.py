"""What is planted in a training, a fault for every change that takes one away, and trials of these changes."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import lightning.pytorch as L
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

from lightning_tricks.experiments.arms.arm import Arm
from lightning_tricks.experiments.arms.prepared import prepared
from lightning_tricks.experiments.arms.trial import Trial
from lightning_tricks.experiments.arms.trials import Trials
from lightning_tricks.experiments.training import Training
from lightning_tricks.experiments.training.deadline import Deadline

GENERATOR = torch.Generator().manual_seed(0)
CENTRES = 1.2 * torch.randn(6, 12, generator=GENERATOR)
Y = torch.arange(768) % 6
X = CENTRES[Y] + torch.randn(768, 12, generator=GENERATOR)


class Lit(L.LightningModule):
    def __init__(self, net: nn.Module, **changes: Any) -> None:
        super().__init__()
        self.net = net
        self.lr, self.decay, self.rate_now, self.held = 0.01, 0.0, None, None
        for name, value in changes.items():
            setattr(self, name, value)

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        output = self.net(batch[0])
        return F.mse_loss(output, batch[1]) if batch[1].is_floating_point() else F.cross_entropy(output, batch[1])

    def configure_optimizers(self) -> Any:
        parameters = [p for n, p in self.named_parameters() if p.requires_grad and (not self.held or self.held in n)]
        optimizer = torch.optim.Adam(parameters, self.lr, weight_decay=self.decay)
        if self.rate_now is None:
            return optimizer
        schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: self.rate_now)
        return [optimizer], [{"scheduler": schedule, "interval": "step"}]


class Accumulating(Lit):
    def optimizer_zero_grad(self, *args: Any) -> None:
        pass


class Clipping(Lit):
    def configure_gradient_clipping(self, optimizer: Any, *args: Any) -> None:
        for parameter in self.parameters():
            parameter.grad.mul_(0.0)


def mlp(*behind: nn.Module, activation: Callable[[], nn.Module] = nn.ReLU, outputs: int = 6) -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Linear(12, 24), *behind, activation(), nn.Linear(24, 24), activation(), nn.Linear(24, outputs)
    )


def loader(x: Tensor = X, y: Tensor = Y, *, shuffle: bool = True) -> DataLoader[Any]:
    return DataLoader(TensorDataset(x, y), 32, shuffle=shuffle, generator=torch.Generator().manual_seed(0))


def evaluation(net: nn.Module) -> nn.Module:
    for module in net.modules():
        if isinstance(module, nn.BatchNorm1d):
            module.running_var.fill_(1e-6)
            module.eval()
    return net


def with_bias(net: nn.Module, value: float, layer: int = 0) -> nn.Module:
    nn.init.constant_(net[layer].bias, value)
    return net


def frozen(net: nn.Module) -> nn.Module:
    """But for one bias."""
    net.requires_grad_(False)
    net[4].bias.requires_grad_(True)
    return net


class WithFunction(nn.Module):
    """Calls the softmax in front of its loss as a function, behind others that belong there."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.first, self.gate, self.last = nn.Linear(12, 24), nn.Linear(24, 24), nn.Linear(24, 6)

    def forward(self, x: Tensor) -> Tensor:
        hidden = F.relu(self.first(x))
        return self.last(24 * hidden * torch.softmax(self.gate(hidden), 1)).softmax(dim=-1)


class Sequences(nn.Module):
    """Four steps of three numbers for each pattern, and a layer that takes the first axis for that of the steps."""

    def __init__(self, layer: nn.Module, units: int) -> None:
        super().__init__()
        self.first, self.layer, self.last = nn.Linear(3, units), layer, nn.Linear(units, 6)

    def forward(self, x: Tensor) -> Tensor:
        hidden = self.layer(self.first(x.view(len(x), 4, 3)))
        return self.last((hidden[0] if isinstance(hidden, tuple) else hidden)[:, -1])


def recurrent() -> nn.Module:
    torch.manual_seed(0)
    return Sequences(nn.LSTM(24, 24), 24)


def transformer() -> nn.Module:
    torch.manual_seed(0)
    layer = nn.TransformerEncoderLayer(24, 2, 48, dropout=0.0)
    return Sequences(nn.TransformerEncoder(layer, 1, enable_nested_tensor=False), 24)


def constant(net: nn.Module) -> nn.Module:
    with torch.no_grad():
        for parameter in net.parameters():
            parameter.fill_(0.05 if parameter.dim() > 1 else 0.0)
    return net


PLANTED: dict[str, tuple[Callable[[], Lit], Callable[[], Any]]] = {
    "no_clipping": (lambda: Clipping(mlp()), loader),
    "no_decay": (lambda: Lit(mlp(), decay=3.0), loader),
    "no_dropout": (lambda: Lit(mlp(nn.Dropout(0.99))), loader),
    "no_schedule": (lambda: Lit(mlp(), rate_now=1e-5), loader),
    "zero_grad": (lambda: Accumulating(mlp(), lr=0.05), loader),
    "train_mode": (lambda: Lit(evaluation(mlp(nn.BatchNorm1d(24)))), loader),
    "all_parameters": (lambda: Lit(mlp(), held="net.0.bias"), loader),
    "unfreeze": (lambda: Lit(frozen(mlp())), loader),
    "batch_first": (lambda: Lit(recurrent()), loader),
    "shuffle": (lambda: Lit(mlp(nn.BatchNorm1d(24))), lambda: loader(X[Y.argsort()], Y.sort().values, shuffle=False)),
    "standardize_input": (lambda: Lit(mlp(), lr=1e-3), lambda: loader(1e-3 * X + 1.0)),
    "standardize_targets": (lambda: Lit(mlp(outputs=1)), lambda: loader(X, X[:, :1] * 4 + 300.0)),
    "no_last_activation": (lambda: Lit(with_bias(mlp().append(nn.ReLU()), -10.0, 4)), loader),
    "no_last_function": (lambda: Lit(WithFunction()), loader),
    "reset_biases": (lambda: Lit(with_bias(mlp(), -30.0)), loader),
    "initialize": (lambda: Lit(constant(mlp())), loader),
}


def run(name: str, *arms: Arm) -> tuple[Trials, Trial]:
    make, data = PLANTED[name]
    trials = prepared(Training.of(make()), data(), False, Deadline(60))
    trials.run(arms, (), always=True)
    return trials, next(trial for trial in trials.trials if trial.arm.name == name)
