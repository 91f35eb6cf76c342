"""A deep network that does not learn: find out why, cure it, and see that the cure worked.

Twenty layers of logistic units with PyTorch's default initialisation on raw pixels: every piece is ordinary, and the
network stays at chance. The TrainingDoctor says which layer is sick and why. Then the same network with the classical
cure: normalised input, SELU units, LeCun initialisation.

    python examples/01_diagnose_a_deep_network.py                          # scikit-learn's digits, about half a minute
    python examples/01_diagnose_a_deep_network.py --data fashion_mnist     # downloaded by torchvision
"""

from __future__ import annotations

import argparse
import math
from pathlib import Path

import lightning.pytorch as L
import torch
import torch.nn.functional as F
from lightning.pytorch.loggers import TensorBoardLogger
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

import lightning_tricks as lt
from lightning_tricks import report


class Network(L.LightningModule):
    """A classifier as anybody would write it; nothing in it knows of the doctor."""

    def __init__(self, layers: nn.Sequential, learning_rate: float) -> None:
        super().__init__()
        self.layers = layers
        self.learning_rate = learning_rate
        self.accuracies: list[float] = []

    def training_step(self, batch: tuple[Tensor, Tensor], batch_idx: int) -> Tensor:
        x, y = batch
        loss = F.cross_entropy(self.layers(x), y)
        self.log("loss", loss, prog_bar=True)
        return loss

    def validation_step(self, batch: tuple[Tensor, Tensor], batch_idx: int) -> None:
        x, y = batch
        self.log("accuracy", (self.layers(x).argmax(1) == y).float().mean(), prog_bar=True)

    def on_validation_epoch_end(self) -> None:
        if not self.trainer.sanity_checking:
            self.accuracies.append(float(self.trainer.callback_metrics["accuracy"]))

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.Adam(self.parameters(), lr=self.learning_rate)


def sick(inputs: int, width: int, depth: int, classes: int) -> nn.Sequential:
    """Logistic units, default initialisation, raw inputs."""
    layers: list[nn.Module] = [nn.Flatten()]
    for index in range(depth):
        layers += [nn.Linear(inputs if index == 0 else width, width), nn.Sigmoid()]
    return nn.Sequential(*layers, nn.Linear(width, classes))


def cured(inputs: int, width: int, depth: int, classes: int, images: Tensor) -> nn.Sequential:
    """The same depth and width with the lecture's cure."""
    layers: list[nn.Module] = [lt.nn.Standardize.fit(images), nn.Flatten()]  # input: mean 0, std 1
    for index in range(depth):
        layers.append(lt.nn.SELULinear(inputs if index == 0 else width, width))  # SELU, LeCun initialisation
    output = nn.Linear(width, classes)
    lt.init.lecun_normal_(output.weight)
    nn.init.zeros_(output.bias)
    return nn.Sequential(*layers, output)


def load(name: str, folder: str) -> tuple[TensorDataset, TensorDataset]:
    """Training and validation patterns with raw pixels."""
    if name == "digits":
        from sklearn.datasets import load_digits

        digits = load_digits()
        images = torch.tensor(digits.images, dtype=torch.float32).unsqueeze(1)
        labels = torch.tensor(digits.target)
        order = torch.randperm(len(labels), generator=torch.Generator().manual_seed(0))
        train, valid = order[:1437], order[1437:]
        return TensorDataset(images[train], labels[train]), TensorDataset(images[valid], labels[valid])
    import torchvision.datasets

    dataset = {
        "mnist": torchvision.datasets.MNIST,
        "fashion_mnist": torchvision.datasets.FashionMNIST,
        "cifar10": torchvision.datasets.CIFAR10,
    }[name]
    parts = []
    for train in (True, False):
        loaded = dataset(folder, train=train, download=True)
        images = torch.as_tensor(loaded.data).float()
        images = images.permute(0, 3, 1, 2) if images.dim() == 4 else images.unsqueeze(1)
        parts.append(TensorDataset(images, torch.as_tensor(loaded.targets)))
    return parts[0], parts[1]


def train(
    network: Network, data: tuple[TensorDataset, TensorDataset], name: str, options: argparse.Namespace
) -> lt.Diagnosis:
    """Train with the doctor attached; the doctor prints its table at the end."""
    print(f"\n=== {name} ===")
    doctor = lt.TrainingDoctor(on_problem="log")
    trainer = L.Trainer(
        max_epochs=options.epochs,
        accelerator=options.accelerator,
        callbacks=[doctor],
        logger=TensorBoardLogger(options.output, name=name),
        log_every_n_steps=20,
        enable_checkpointing=False,
        enable_model_summary=False,
    )
    loaders = [DataLoader(part, batch_size=64, shuffle=part is data[0]) for part in data]
    trainer.fit(network, *loaders)
    return doctor.diagnosis


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", choices=["digits", "mnist", "fashion_mnist", "cifar10"], default="digits")
    parser.add_argument("--data-folder", default="data", help="where torchvision keeps what it downloads")
    parser.add_argument("--depth", type=int, default=20, help="hidden layers")
    parser.add_argument("--width", type=int, default=64, help="units per hidden layer")
    parser.add_argument("--epochs", type=int, default=10)
    parser.add_argument("--learning-rate", type=float, default=1e-3)
    parser.add_argument("--accelerator", default="auto", help="auto, cpu or gpu")
    parser.add_argument("--output", type=Path, default=Path("outputs"), help="where pictures and logs go")
    options = parser.parse_args(arguments)

    data = load(options.data, options.data_folder)
    images, labels = data[0].tensors
    shape = math.prod(images.shape[1:]), options.width, options.depth, int(labels.max()) + 1

    L.seed_everything(0, verbose=False)
    before = Network(sick(*shape), options.learning_rate)
    found = train(before, data, "logistic_default_raw", options)

    L.seed_everything(0, verbose=False)
    after = Network(cured(*shape, images), options.learning_rate)
    left = train(after, data, "selu_lecun_normalised", options)

    figure = report.comparison(
        found.history,
        left.history,
        before.accuracies,
        after.accuracies,
        names=("logistic units, default initialisation, raw input", "SELU, LeCun initialisation, normalised input"),
        title=f"One network of {options.depth} layers on {options.data}, before and after the cure",
        chance=1.0 / shape[-1],
    )
    picture = options.output / "diagnose_a_deep_network.png"
    figure.savefig(picture)

    print(f"\n{'':48}before   after")
    print(f"{'validation accuracy':45}{before.accuracies[-1]:9.3f}{after.accuracies[-1]:8.3f}")
    print(f"{'diagnosis':45}{'sick' if not found.healthy else 'healthy':>9}{'healthy' if left.healthy else 'sick':>8}")
    print(f"Picture: {picture}")


if __name__ == "__main__":
    main()
