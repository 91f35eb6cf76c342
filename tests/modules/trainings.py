"""Small data for modules that are trained, and a quiet Trainer."""

import lightning.pytorch as L
import torch
from sklearn.datasets import load_breast_cancer, load_diabetes, load_digits
from torch import nn
from torch.utils.data import DataLoader, TensorDataset


def digits(batch_size=64):
    x, y = load_digits(return_X_y=True)
    x, y = torch.tensor(x, dtype=torch.float32), torch.tensor(y)
    return loaders(x, y, batch_size)


def diabetes(batch_size=32, offset=0.0, scale=1.0):
    x, y = load_diabetes(return_X_y=True)
    return loaders(
        torch.tensor(x, dtype=torch.float32), torch.tensor(y, dtype=torch.float32) * scale + offset, batch_size
    )


def breast_cancer(batch_size=32):
    x, y = load_breast_cancer(return_X_y=True)
    return loaders(torch.tensor(x, dtype=torch.float32), torch.tensor(y), batch_size)


def loaders(x, y, batch_size=64):
    order = torch.randperm(len(x), generator=torch.Generator().manual_seed(0))
    train, test = order[: int(0.8 * len(x))], order[int(0.8 * len(x)) :]
    return (
        DataLoader(TensorDataset(x[train], y[train]), batch_size, shuffle=True),
        DataLoader(TensorDataset(x[test], y[test]), 256),
    )


def mlp(inputs, outputs, width=32):
    return {
        "class_path": "torch.nn.Sequential",
        "args": [
            {"class_path": "Linear", "init_args": {"in_features": inputs, "out_features": width}},
            {"class_path": "ReLU"},
            {"class_path": "Linear", "init_args": {"in_features": width, "out_features": outputs}},
        ],
    }


def plain(inputs, outputs, width=32):
    return nn.Sequential(nn.Linear(inputs, width), nn.ReLU(), nn.Linear(width, outputs))


def trainer(*callbacks, **options):
    return L.Trainer(
        callbacks=[*callbacks], logger=False, enable_progress_bar=False, enable_model_summary=False,
        **{"accelerator": "cpu", "max_epochs": 3, "enable_checkpointing": False, **options},
    )  # fmt: skip
