"""The command line: a training without a line of code, described in 12_cli.yaml.

    python examples/12_cli.py fit --config examples/12_cli.yaml
    python examples/12_cli.py fit --config examples/12_cli.yaml --model.learning_rate 0.01 --trainer.max_epochs 3
    python examples/12_cli.py fit --config examples/12_cli.yaml --print_config

LightningCLI needs jsonargparse, which comes with the extra "cli". With a datamodule that can be imported, this file
is not needed: ``LightningCLI()`` alone takes every class of lightning_tricks by its path.
"""

from __future__ import annotations

import lightning.pytorch as L
import torch
from lightning.pytorch.cli import LightningCLI
from sklearn.datasets import load_digits
from torch import Tensor
from torch.utils.data import DataLoader, TensorDataset

import lightning_tricks as lt


class Digits(L.LightningDataModule):
    """scikit-learn's digits, 1437 to train and 360 to validate.

    Args:
        batch_size: Patterns of a batch.
        flat: Whether an image is a row of 64 numbers.
    """

    def __init__(self, batch_size: int = 64, flat: bool = False) -> None:
        super().__init__()
        self.batch_size = batch_size
        digits = load_digits()
        x = torch.tensor(digits.images, dtype=torch.float32).unsqueeze(1)
        x, y = x.flatten(1) if flat else x, torch.tensor(digits.target)
        order = torch.randperm(len(x), generator=torch.Generator().manual_seed(0))
        self.train, self.valid = (TensorDataset(x[part], y[part]) for part in (order[:1437], order[1437:]))

    def train_dataloader(self) -> DataLoader[tuple[Tensor, ...]]:
        return DataLoader(self.train, self.batch_size, shuffle=True)

    def val_dataloader(self) -> DataLoader[tuple[Tensor, ...]]:
        return DataLoader(self.valid, 360)


def main(arguments: list[str] | None = None) -> LightningCLI:
    return LightningCLI(lt.Classifier, Digits, args=arguments, save_config_callback=None)


if __name__ == "__main__":
    main()
