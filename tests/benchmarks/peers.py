"""What others look at in every step of a training, each as a callback, to be measured beside ours where installed.

python -m pip install tensorboard wandb torchmortem    # nothing here needs any of them
"""

from __future__ import annotations

import importlib.util
import tempfile
from collections.abc import Callable, Mapping
from typing import Any

import lightning.pytorch as L
import torch
from torch import nn


class Histograms(L.Callback):
    """TensorBoard's: a histogram of every activation, weight and gradient."""

    def on_fit_start(self, trainer: Any, module: Any) -> None:
        from torch.utils.tensorboard import SummaryWriter

        self.writer = SummaryWriter(tempfile.mkdtemp())
        for name, layer in _leaves(module):
            layer.register_forward_hook(lambda layer, args, out, name=name: self._add(trainer, name, out))

    def on_before_optimizer_step(self, trainer: Any, module: Any, optimizer: Any) -> None:
        for name, parameter in module.named_parameters():
            self._add(trainer, name, parameter)
            if parameter.grad is not None:
                self._add(trainer, f"{name}.grad", parameter.grad)

    def _add(self, trainer: Any, name: str, values: Any) -> None:
        self.writer.add_histogram(name, values.detach(), trainer.global_step)


class Statistics(L.Callback):
    """fastai's ActivationStats: mean, std, share near zero and histogram of every layer's output, copied one by one."""

    def on_fit_start(self, trainer: Any, module: Any) -> None:
        self.kept: list[Any] = []
        for _, layer in _leaves(module):
            layer.register_forward_hook(self._keep)

    def _keep(self, layer: nn.Module, args: Any, out: torch.Tensor) -> None:
        values = out.detach().float()
        shares = (values.mean().item(), values.std().item(), (values <= 0.05).long().sum().item() / values.numel())
        self.kept.append((*shares, values.cpu().histc(40, 0, 10)))


class Watch(L.Callback):
    """wandb.watch of weights and gradients, offline."""

    def on_fit_start(self, trainer: Any, module: Any) -> None:
        import wandb

        self.run = wandb.init(mode="offline", dir=tempfile.mkdtemp(), settings=wandb.Settings(silent=True))
        self.run.watch(module, log="all", log_freq=1)

    def on_train_batch_end(self, trainer: Any, module: Any, *given: Any) -> None:
        self.run.log({"step": trainer.global_step})

    def on_fit_end(self, trainer: Any, module: Any) -> None:
        self.run.finish()


class Autopsy(L.Callback):
    """torchmortem, as it samples by default."""

    def on_train_start(self, trainer: Any, module: Any) -> None:
        import torchmortem

        self.autopsy = torchmortem.Autopsy(module, trainer.optimizers[0])
        self.autopsy.attach()

    def on_train_batch_end(self, trainer: Any, module: Any, outputs: Any, *given: Any) -> None:
        self.autopsy.step(loss=outputs["loss"].item())

    def on_train_end(self, trainer: Any, module: Any) -> None:
        self.autopsy.detach()


_ALL: Mapping[str, tuple[str, Callable[[], L.Callback]]] = {
    "TensorBoard histograms": ("tensorboard", Histograms),
    "wandb.watch": ("wandb", Watch),
    "torchmortem": ("torchmortem", Autopsy),
    "fastai-like statistics": ("torch", Statistics),
}


def installed() -> dict[str, Callable[[], L.Callback]]:
    """Those whose library is here."""
    return {name: make for name, (library, make) in _ALL.items() if importlib.util.find_spec(library)}


def _leaves(module: nn.Module) -> list[tuple[str, nn.Module]]:
    return [(name, layer) for name, layer in module.named_modules() if not list(layer.children())]
