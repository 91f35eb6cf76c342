"""Attach everything to a model that is not yours: torchvision's ResNet-18, and torch's transformer encoder.

Nothing in the models changes. Callbacks initialise them, augment their batches, watch every layer, take exact
statistics before validation, and say at the end how the training went.

    python examples/10_your_model.py            (a minute or two on a CPU)
    python examples/10_your_model.py --fast     (some seconds)
"""

from __future__ import annotations

import argparse
from pathlib import Path

import lightning.pytorch as L
import torch
import torchvision
from sklearn.datasets import load_digits
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

import lightning_tricks as lt
from lightning_tricks import report


class Transformer(nn.Module):
    """Reads an image row by row, as a sequence of eight tokens."""

    def __init__(self, width: int = 32, depth: int = 3) -> None:
        super().__init__()
        self.embed = nn.Linear(8, width)
        self.position = nn.Parameter(0.02 * torch.randn(8, width))
        layer = nn.TransformerEncoderLayer(width, 4, 4 * width, dropout=0.1, batch_first=True, norm_first=True)
        self.encoder = nn.TransformerEncoder(layer, depth, enable_nested_tensor=False)
        self.norm = nn.LayerNorm(width)
        self.head = nn.Linear(width, 10)

    def forward(self, x: Tensor) -> Tensor:
        tokens = self.embed(x.squeeze(1)) + self.position
        out: Tensor = self.head(self.norm(self.encoder(tokens)).mean(1))
        return out


class Upsampled(nn.Module):
    """ResNet-18 wants larger images of three channels."""

    def __init__(self) -> None:
        super().__init__()
        self.net = torchvision.models.resnet18(num_classes=10)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.net(nn.functional.interpolate(x.expand(-1, 3, -1, -1), scale_factor=4.0, mode="bilinear"))
        return out


MODELS = {"resnet18": (Upsampled, 1), "transformer": (Transformer, 12)}  # and epochs


def loaders(options: argparse.Namespace) -> tuple[DataLoader[tuple[Tensor, ...]], DataLoader[tuple[Tensor, ...]]]:
    digits = load_digits()
    x = torch.tensor(digits.images, dtype=torch.float32).unsqueeze(1)
    y = torch.tensor(digits.target)
    order = torch.randperm(len(x), generator=torch.Generator().manual_seed(0))
    train, valid = order[: options.patterns], order[1437:][: options.patterns]
    return (
        DataLoader(TensorDataset(x[train], y[train]), 32, shuffle=True),
        DataLoader(TensorDataset(x[valid], y[valid]), 180),
    )


def train(name: str, options: argparse.Namespace) -> lt.Diagnosis:
    """Any nn.Module in lt.Classifier; with a LightningModule of your own the callbacks are the same."""
    make, epochs = MODELS[name]
    L.seed_everything(0, verbose=False)
    model = lt.Classifier(make(), num_classes=10)
    doctor = lt.TrainingDoctor(on_problem="log", report=False)
    augmentation = lt.BatchAugmentation([lt.nn.RandomAffine(8, 0.05, (0.95, 1.05), 3), lt.nn.AdditiveNoise(0.5)])
    callbacks: list[L.Callback] = [
        lt.InitializeWeights("auto"),  # each layer by the activation that follows it
        augmentation,  # on the batch's device, a draw for every image
        lt.PreciseBatchNorm(num_samples=512),  # exact statistics before validation; nothing to do in the transformer
        doctor,
    ]
    if not options.fast:  # both draw pictures of every layer into the Trainer's folder
        callbacks += [lt.ActivationMonitor(), lt.GradientFlowMonitor()]
    trainer = L.Trainer(
        max_epochs=options.epochs or epochs,
        default_root_dir=options.output / name,
        accelerator=options.accelerator,
        devices=1,
        callbacks=callbacks,
        log_every_n_steps=10,
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
    )
    trainer.fit(model, *loaders(options))
    accuracy = float(trainer.callback_metrics["val_accuracy"])
    print(f"\n=== {name}: validation accuracy {accuracy:.3f} ===\n{doctor.diagnosis}")
    return doctor.diagnosis


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models", nargs="+", choices=list(MODELS), default=list(MODELS))
    parser.add_argument("--epochs", type=int, default=0, help="0: as many as suit the model")
    parser.add_argument("--patterns", type=int, default=1437)
    parser.add_argument("--accelerator", default="auto", help="auto, cpu or gpu")
    parser.add_argument("--fast", action="store_true", help="few patterns, to see that it runs")
    parser.add_argument("--output", type=Path, default=Path("outputs"))
    options = parser.parse_args(arguments)
    if options.fast:
        options.epochs, options.patterns = 1, 96
    options.output.mkdir(parents=True, exist_ok=True)
    for name in options.models:
        diagnosis = train(name, options)
        for kind, draw in (("gradient_flow", report.gradient_flow), ("ladder", report.ladder)):
            path = options.output / f"{name}_{kind}.png"
            draw(diagnosis.history).savefig(path, dpi=110)
            print(f"picture: {path}")


if __name__ == "__main__":
    main()
