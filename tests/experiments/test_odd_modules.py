"""Nothing of the user's moves, whatever they have built: by no experiment, no checkup, and no treatment taken back."""

from __future__ import annotations

import contextlib
import random
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import lightning.pytorch as L
import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils import prune
from torch.optim.swa_utils import AveragedModel
from torch.utils.data import DataLoader, Sampler, TensorDataset

import lightning_tricks as lt
from lightning_tricks._compat.compiled import original_of
from lightning_tricks.experiments.arms import ARMS
from lightning_tricks.experiments.arms.batches import Batches
from lightning_tricks.experiments.arms.prepared import prepared
from lightning_tricks.experiments.asking.asks import without_a_trace
from lightning_tricks.experiments.preflight.patterns import NotAskedError
from lightning_tricks.experiments.training import Training
from lightning_tricks.experiments.training.deadline import Deadline
from lightning_tricks.treatment.saved import Saved
from tests.experiments.asked import ask

pytestmark = pytest.mark.filterwarnings("ignore")
NAMES = [name for name in lt.experiments.__all__ if name not in ("share", "rate")]  # rates are among the changes


def net() -> nn.Sequential:
    return nn.Sequential(nn.Linear(6, 8), nn.BatchNorm1d(8), nn.ReLU(), nn.Dropout(0.5), nn.Linear(8, 3))


class Module(L.LightningModule):
    def __init__(self, model: nn.Module | None = None) -> None:
        super().__init__()
        self.net = net() if model is None else model

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        loss = F.cross_entropy(self.net(batch[0]), batch[1])
        self.log("loss", loss)
        return loss

    def configure_optimizers(self) -> Any:
        return torch.optim.Adam(self.parameters(), 0.01)


class OwnOptimizer(Module):
    """Makes its optimiser when it is made, and has stepped."""

    def __init__(self) -> None:
        super().__init__()
        self.optimizer = torch.optim.Adam(self.parameters(), 0.01)
        self.net(torch.randn(4, 6)).sum().backward()
        self.optimizer.step()

    def configure_optimizers(self) -> Any:
        return self.optimizer


class KeepsGraph(Module):
    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        self.kept = super().training_step(batch, batch_idx)
        return self.kept


class AsksLength(Module):
    def configure_optimizers(self) -> Any:
        optimizer = torch.optim.SGD(self.parameters(), 0.01)
        schedule = torch.optim.lr_scheduler.OneCycleLR(
            optimizer, 0.1, total_steps=self.trainer.estimated_stepping_batches
        )
        return [optimizer], [{"scheduler": schedule, "interval": "step"}]


class Averaged(Module):
    """With an average of its weights that every step brings up to date."""

    def __init__(self) -> None:
        super().__init__()
        self.average = AveragedModel(self.net).requires_grad_(False)

    def on_train_batch_end(self, *args: Any) -> None:
        self.average.update_parameters(self.net)


class Two(Module):
    def configure_optimizers(self) -> Any:
        return [torch.optim.SGD(self.net[0].parameters(), 0.1), torch.optim.SGD(self.net[4].parameters(), 0.1)]


class Writes(Module):
    """Logs to a file, a list that is the class's, and a tensor outside."""

    seen: list[int] = []  # noqa: RUF012
    folder = Path()

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        self.log_dict({"a": 1.0})
        self.print("nothing")
        return super().training_step(batch, batch_idx)


class Locked(Module):
    def __init__(self) -> None:
        super().__init__()
        self.lock, self.stream = threading.Lock(), iter(range(10_000))
        self.numbers = (number for number in range(10_000))

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        with self.lock:
            return super().training_step(batch, batch_idx) + 0 * next(self.numbers)


class Filed(Module):
    def __init__(self) -> None:
        super().__init__()
        self.file = open("steps.txt", "w")  # noqa: SIM115

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        self.file.write("step\n")
        return super().training_step(batch, batch_idx)


class Stateful(Sampler[int]):
    """Goes on where it was."""

    def __init__(self) -> None:
        self.drawn, self.generator = 0, torch.Generator().manual_seed(5)

    def __iter__(self) -> Iterator[int]:
        for index in torch.randperm(64, generator=self.generator).tolist():
            self.drawn += 1
            yield index

    def __len__(self) -> int:
        return 64


def weight_normed() -> nn.Module:
    model = net()
    model[0] = nn.utils.weight_norm(model[0])
    model[4] = nn.utils.spectral_norm(model[4])
    return model


def pruned() -> nn.Module:
    """Whose weights have a graph until the next forward."""
    model = net()
    prune.l1_unstructured(model[0], "weight", 0.3)
    return model


SHARED = nn.Linear(6, 8)


def shared() -> nn.Module:
    """Its first layer is another model's, too."""
    return nn.Sequential(SHARED, nn.ReLU(), nn.Linear(8, 3))


def watched() -> nn.Module:
    """A hook of the user's notes what it sees."""
    model = net()
    model.noted = []
    model[0].register_forward_hook(lambda module, args, output: model.noted.append(len(output)))
    return model


class Closure:
    """A loss with a penalty on weights of the network that it holds."""

    def __init__(self, model: nn.Module) -> None:
        self.model = model

    def __call__(self, output: Tensor, target: Tensor) -> Tensor:
        return F.cross_entropy(output, target) + 1e-3 * sum(p.square().sum() for p in self.model.parameters())


def with_closure() -> tuple[nn.Module, Any]:
    model = net()
    weights = list(model.parameters())
    return model, lambda output, y: F.cross_entropy(output, y) + 1e-3 * weights[0].square().sum()


def with_held_network() -> tuple[nn.Module, Any]:
    model = net()
    return model, Closure(model)


Make = Callable[[], tuple[nn.Module, Any]]
KINDS: dict[str, Make] = {
    "optimiser of its own": lambda: (OwnOptimizer(), None),
    "kept graph": lambda: (KeepsGraph(), None),
    "asks for the length": lambda: (AsksLength(), None),
    "average of its weights": lambda: (Averaged(), None),
    "several optimisers": lambda: (Two(), None),
    "writes": lambda: (Writes(), None),
    "lock and generators": lambda: (Locked(), None),
    "open file": lambda: (Filed(), None),
    "weight norm of old": lambda: (weight_normed(), F.cross_entropy),
    "pruned": lambda: (pruned(), F.cross_entropy),
    "shared with another": lambda: (shared(), F.cross_entropy),
    "hook of the user's": lambda: (watched(), F.cross_entropy),
    "compiled": lambda: (torch.compile(net(), backend="eager"), F.cross_entropy),
    "loss over weights": with_closure,
    "loss over the network": with_held_network,
    "parametrised": lambda: (nn.utils.parametrizations.weight_norm(nn.Linear(6, 3)), F.cross_entropy),
    "scripted part": lambda: (nn.Sequential(torch.jit.script(nn.Linear(6, 8)), nn.Linear(8, 3)), F.cross_entropy),
}


def data_of(kind: str) -> DataLoader[Any]:
    patterns = TensorDataset(torch.randn(64, 6, generator=torch.Generator().manual_seed(3)), torch.arange(64) % 3)
    if kind in ("kept graph", "weight norm of old"):
        return DataLoader(patterns, 8, sampler=Stateful())
    workers = 1 if kind == "shared with another" else 0
    return DataLoader(patterns, 8, shuffle=True, generator=torch.Generator().manual_seed(4), num_workers=workers)


def everything(model: nn.Module, data: Any, folder: Path) -> list[Any]:
    """All that is the user's."""
    optimizers = [value for part in model.modules() for value in vars(part).values() if hasattr(value, "param_groups")]
    hooks = ("_forward_hooks", "_forward_pre_hooks", "_backward_hooks")
    shown = [
        [(name, id(p), p, p.grad, p.requires_grad) for name, p in model.named_parameters()],
        dict(model.named_buffers()),
        [(sorted(vars(part)), part.training, type(part), id(part)) for part in model.modules()],
        [[len(getattr(part, name)) for name in hooks] for part in model.modules()],
        [(dict(each.state_dict()), [list(map(id, g["params"])) for g in each.param_groups]) for each in optimizers],
        [getattr(model, name, None) for name in ("noted", "kept")],
        [SHARED.weight, SHARED.weight.grad],
        [random.getstate(), np.random.get_state()[1].tolist(), torch.get_rng_state()],
        [torch.is_grad_enabled(), torch.is_inference_mode_enabled(), torch.get_default_dtype()],
        [getattr(getattr(data, "generator", None), "get_state", lambda: None)()],
        [(each.drawn, each.generator.get_state()) for each in [data.sampler] if isinstance(each, Stateful)],
        sorted(str(path) for path in folder.rglob("*")),
        [Writes.seen, getattr(getattr(model, "stream", None), "__length_hint__", lambda: None)()],
    ]
    return [copied(each) for each in shown]


def copied(tree: Any) -> Any:
    if isinstance(tree, Tensor):
        return tree.detach().clone()
    if isinstance(tree, dict):
        return {key: copied(value) for key, value in tree.items()}
    return [copied(value) for value in tree] if isinstance(tree, (list, tuple)) else tree


def same(one: Any, other: Any) -> bool:
    if isinstance(one, Tensor):
        return isinstance(other, Tensor) and torch.equal(one, other)
    if isinstance(one, dict):
        return one.keys() == other.keys() and all(same(one[key], other[key]) for key in one)
    if isinstance(one, list):
        return isinstance(other, list) and len(one) == len(other) and all(map(same, one, other))
    return bool(one == other)


def check(before: list[Any], after: list[Any]) -> None:
    for index, (one, other) in enumerate(zip(before, after, strict=True)):
        assert same(one, other), f"part {index} of everything"


@pytest.mark.parametrize("kind", KINDS)
def test_nothing_moves(kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    model, loss_fn = KINDS[kind]()
    data = data_of(kind)
    before = everything(model, data, tmp_path)
    for name in NAMES:
        ask(name, model, data, loss_fn)
        check(before, everything(model, data, tmp_path))
    lt.treat(model, None, data, loss_fn, dry_run=True)
    check(before, everything(model, data, tmp_path))


@pytest.mark.parametrize("kind", KINDS)
def test_changes_of_the_model_are_taken_back(kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    model, loss_fn = KINDS[kind]()
    model, data = original_of(model), data_of(kind)
    before = everything(model, data, tmp_path)
    with without_a_trace():
        try:
            setting = prepared(Training.of(model, loss_fn), Batches.of(data), False, Deadline(60)).setting
        except NotAskedError:
            setting = None
        for arm in ARMS if setting is not None else ():
            saved = Saved(model)
            with contextlib.suppress(NotAskedError):
                if arm.on_model is not None:
                    arm.on_model(model, setting)
            saved.put_back()
    check(before, everything(model, data, tmp_path))


def test_a_checkup_takes_what_keeps_a_graph() -> None:
    module = KeepsGraph()
    module.kept = module.net(torch.randn(8, 6)).sum()
    for model, loss_fn in ((module, None), (pruned(), F.cross_entropy)):
        assert lt.checkup(model, data_of("plain"), loss_fn, num_batches=2, experiments="none").history
    assert module.kept.grad_fn is not None
