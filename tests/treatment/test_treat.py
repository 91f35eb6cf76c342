"""treat changes a model only by what is proven, leaves everything else, and takes it back bit for bit."""

from __future__ import annotations

import copy
import importlib
import pickle
import random
from collections.abc import Callable
from typing import Any

import lightning.pytorch as L
import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

import lightning_tricks as lt
from lightning_tricks.experiments.arms import ARMS
from lightning_tricks.experiments.arms.rates import RATES
from lightning_tricks.treatment import treat
from lightning_tricks.treatment.saved import Saved


def digits() -> tuple[Tensor, Tensor]:
    """Ten clouds that overlap little, so that everything healthy learns them."""
    generator = torch.Generator().manual_seed(0)
    centres = 1.2 * torch.randn(10, 20, generator=generator)
    y = torch.arange(800) % 10
    return centres[y] + torch.randn(800, 20, generator=generator), y


X, Y = digits()
pytestmark = pytest.mark.usefixtures("usual_trials")
TREAT = importlib.import_module("lightning_tricks.treatment.treat")
COURSE = importlib.import_module("lightning_tricks.experiments.arms.course")
TRIALS = importlib.import_module("lightning_tricks.experiments.arms.trials")


def loader(**options: Any) -> DataLoader[Any]:
    options = {"shuffle": True, "generator": torch.Generator().manual_seed(1), **options}
    return DataLoader(TensorDataset(X, Y), 32, **options)


class Lit(L.LightningModule):
    def __init__(self, net: nn.Module, lr: float = 0.01) -> None:
        super().__init__()
        self.net, self.lr = net, lr

    def forward(self, x: Tensor) -> Tensor:
        return self.net(x)

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        loss = F.cross_entropy(self.net(batch[0]), batch[1])
        self.log("loss", loss)
        return loss

    def configure_optimizers(self) -> Any:
        return torch.optim.Adam(self.parameters(), self.lr)


def mlp(activation: Callable[[], nn.Module] = nn.ReLU, depth: int = 2) -> nn.Sequential:
    torch.manual_seed(0)
    layers: list[nn.Module] = []
    for k in range(depth):
        layers += [nn.Linear(20 if k == 0 else 32, 32), activation()]
    return nn.Sequential(*layers, nn.Linear(32, 10))


def constant(net: nn.Module) -> nn.Module:
    """All units of a layer the same: no training tells them apart."""
    with torch.no_grad():
        for parameter in net.parameters():
            parameter.fill_(0.05 if parameter.dim() > 1 else 0.0)
    return net


def lengths(monkeypatch: pytest.MonkeyPatch, sort: int, declare: int) -> None:
    monkeypatch.setattr(TRIALS, "SORT", sort)
    monkeypatch.setattr(TRIALS, "DECLARE", declare)
    monkeypatch.setattr(COURSE, "EVERY", 20)


def only(monkeypatch: pytest.MonkeyPatch, *names: str) -> None:
    """So few arms and steps, to save time."""
    lengths(monkeypatch, 20, 40)
    monkeypatch.setattr(TREAT, "ARMS", tuple(arm for arm in ARMS if arm.name in names))
    monkeypatch.setattr(TRIALS, "RATES", tuple(name for name in RATES if name in names))


def fit(module: L.LightningModule, epochs: int = 3, *callbacks: L.Callback) -> L.Trainer:
    trainer = L.Trainer(
        max_epochs=epochs,
        accelerator="cpu",
        callbacks=list(callbacks),
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
    )
    trainer.fit(module, loader())
    return trainer


def accuracy(net: nn.Module) -> float:
    with torch.no_grad():
        return float((net.eval()(X).argmax(1) == Y).float().mean())


class Whole:
    """Everything of a model and the streams around it, to be compared."""

    def __init__(self, model: nn.Module, *loaders: Any) -> None:
        self.model, self.loaders = model, loaders
        self.before = self.now()

    def now(self) -> list[Any]:
        modules = list(self.model.named_modules())
        tensors = [(n, id(t), t.detach().clone(), t.requires_grad, t.grad) for n, t in self.model.named_parameters()]
        tensors += [(n, id(t), t.clone(), t.requires_grad, t.grad) for n, t in self.model.named_buffers()]
        return [
            [(name, id(module), module.training, sorted(vars(module))) for name, module in modules],
            [(name, len(m._forward_hooks), len(m._forward_pre_hooks)) for name, m in modules],
            tensors,
            [getattr(module, "p", None) for _, module in modules],
            [random.getstate(), np.random.get_state()[1].tolist(), torch.get_rng_state()],
            [each.generator.get_state() for each in self.loaders],
        ]

    def check(self) -> None:
        assert same(self.before, self.now())


def same(one: Any, other: Any) -> bool:
    if isinstance(one, Tensor):
        return (
            isinstance(other, Tensor)
            and torch.equal(one.isnan(), other.isnan())
            and one.nan_to_num().equal(other.nan_to_num())
        )
    if isinstance(one, (list, tuple)):
        return len(one) == len(other) and all(same(a, b) for a, b in zip(one, other, strict=True))
    return bool(one == other)


@pytest.mark.filterwarnings("ignore")
def test_a_cured_module_comes_back_bit_for_bit(monkeypatch: pytest.MonkeyPatch) -> None:
    only(monkeypatch, "initialize", "leaky_relu")
    module = Lit(constant(mlp(nn.Tanh)))
    data = loader()
    whole = Whole(module, data)
    treatment = treat(module, None, data)
    assert [remedy.action for remedy in treatment.applied] == ["initialize"]
    assert treatment.remedies[0].gain > 0.5
    assert "initialize *" in str(treatment)
    assert not same(whole.before[2], whole.now()[2])
    assert same(whole.before[4:], whole.now()[4:])
    treatment.undo()
    whole.check()
    treatment.undo()  # twice is once
    whole.check()


@pytest.mark.filterwarnings("ignore")
def test_after_a_structural_change_a_fit_trains_the_new_parameters(monkeypatch: pytest.MonkeyPatch) -> None:
    module = Lit(mlp(nn.Sigmoid, 6), lr=0.02)
    only(monkeypatch, "insert_batch_norm")
    whole = Whole(module)
    treatment = treat(module, None, loader())
    assert [remedy.action for remedy in treatment.applied] == ["insert_batch_norm"]
    norm = module.net[0].batch_norm
    before = norm.weight.detach().clone()
    fit(module, epochs=3)
    assert not torch.equal(norm.weight, before)
    assert accuracy(module) > 0.9
    treatment.undo()
    assert same(whole.before[2], whole.now()[2])
    assert [type(layer).__name__ for layer in module.net[:2]] == ["Linear", "Sigmoid"]


class Built(Lit):
    """Has its optimiser from the start."""

    def __init__(self, net: nn.Module, lr: float = 0.01) -> None:
        super().__init__(net, lr)
        self.adam = torch.optim.Adam(self.parameters(), lr)

    def configure_optimizers(self) -> Any:
        return self.adam


@pytest.mark.filterwarnings("ignore")
def test_an_optimizer_that_was_there_before_takes_part(monkeypatch: pytest.MonkeyPatch) -> None:
    only(monkeypatch, "insert_batch_norm")
    module = Built(mlp(nn.Sigmoid, 6), lr=0.02)
    held = [id(p) for p in module.adam.param_groups[0]["params"]]
    treatment = treat(module, None, loader())
    assert [remedy.action for remedy in treatment.applied] == ["insert_batch_norm"]
    now = {id(p) for p in module.adam.param_groups[0]["params"]}
    assert now == set(map(id, module.parameters()))
    norm = module.net[0].batch_norm
    before = norm.weight.detach().clone()
    fit(module, epochs=1)
    assert not torch.equal(norm.weight, before)
    treatment.undo()
    assert [id(p) for p in module.adam.param_groups[0]["params"]] == held
    assert not module.adam.state


class TreatsItself(L.Callback):
    def __init__(self) -> None:
        self.treatment: Any = None

    def on_train_batch_start(self, trainer: Any, pl_module: Any, batch: Any, batch_idx: int) -> None:
        if batch_idx == 2 and self.treatment is None:
            self.treatment = treat(pl_module, None, loader())


@pytest.mark.filterwarnings("ignore")
def test_in_the_middle_of_a_fit(monkeypatch: pytest.MonkeyPatch) -> None:
    only(monkeypatch, "insert_batch_norm")
    module, callback = Lit(mlp(nn.Sigmoid, 6), lr=0.02), TreatsItself()
    fit(module, 2, callback)
    assert [remedy.action for remedy in callback.treatment.applied] == ["insert_batch_norm"]
    assert float((module.net[0].batch_norm.weight - 1).abs().max()) > 0.01


@pytest.mark.filterwarnings("ignore")
def test_nothing_gained_is_nothing_changed() -> None:
    module = Lit(mlp())
    data = loader()
    whole = Whole(module, data)
    treatment = treat(module, None, data)
    whole.check()
    assert treatment.applied == treatment.remedies == []
    assert str(treatment).startswith("Nothing gained: nothing changed")


@pytest.mark.filterwarnings("ignore")
def test_what_is_not_in_the_model_is_advice(monkeypatch: pytest.MonkeyPatch) -> None:
    only(monkeypatch, "raise_learning_rate")
    module = Lit(mlp(), lr=1e-6)
    whole = Whole(module)
    treatment = treat(module, None, loader())
    whole.check()
    assert treatment.applied == []
    assert 1e-4 <= treatment.advice["lr"] <= 0.3
    assert treatment.gains["lr"] > 0.5


@pytest.mark.filterwarnings("ignore")
def test_a_dry_run_changes_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    only(monkeypatch, "initialize")
    module = Lit(constant(mlp(nn.Tanh)))
    whole = Whole(module)
    treatment = treat(module, None, loader(), dry_run=True)
    whole.check()
    assert treatment.applied == []
    assert [remedy.action for remedy in treatment.remedies] == ["initialize"]
    assert "would be" in str(treatment)


@pytest.mark.filterwarnings("ignore")
def test_a_treatment_that_fails_midway_leaves_the_model(monkeypatch: pytest.MonkeyPatch) -> None:
    only(monkeypatch, "initialize")
    module = Lit(constant(mlp(nn.Tanh)))
    whole = Whole(module)
    monkeypatch.setattr(TREAT, "hand_over", fails)
    module.adam = torch.optim.Adam(module.parameters())
    with pytest.raises(RuntimeError, match="on purpose"):
        treat(module, None, loader())
    del module.adam
    whole.check()


def fails(*args: Any, **kwargs: Any) -> None:
    raise RuntimeError("on purpose")


@pytest.mark.filterwarnings("ignore")
def test_ruins_begin_anew(monkeypatch: pytest.MonkeyPatch) -> None:
    only(monkeypatch)
    module = Lit(mlp(), lr=0.003)
    fit(module, 1)
    with torch.no_grad():
        module.net[0].weight.fill_(float("nan"))
    treatment = treat(module, None, loader())
    assert treatment.applied[0].action == "initialize"
    assert all(p.isfinite().all() for p in module.parameters())
    treatment.undo()
    assert module.net[0].weight.isnan().all()


def test_what_cannot_be_judged_says_so() -> None:
    module = Lit(mlp())
    module.automatic_optimization = False
    treatment = treat(module, None, loader())
    assert "not judged: it optimises by hand" in str(treatment)


def test_time_and_ctrl_c_end_it() -> None:
    module = Lit(constant(mlp(nn.Tanh)))
    whole = Whole(module)
    assert treat(module, None, loader(), max_seconds=1e-9).note == "cut short"
    seen: list[str] = []

    def press(text: str) -> None:
        seen.append(text)
        if len(seen) == 5:
            raise KeyboardInterrupt

    treatment = treat(module, None, loader(), notice=press)
    assert treatment.note == "cut short"
    assert len(treatment.trials) >= 2
    whole.check()


CHANGED: list[tuple[str, Callable[[], nn.Module]]] = [
    ("no_dropout", lambda: nn.Sequential(nn.Linear(20, 8), nn.Dropout(0.9), nn.Linear(8, 10))),
    ("train_mode", lambda: nn.Sequential(nn.Linear(20, 8), nn.BatchNorm1d(8).eval(), nn.Linear(8, 10))),
    ("unfreeze", lambda: nn.Sequential(nn.Linear(20, 8).requires_grad_(False), nn.Linear(8, 10))),
    ("raise_momentum", lambda: nn.Sequential(nn.Linear(20, 8), nn.BatchNorm1d(8, momentum=1e-4), nn.Linear(8, 10))),
    ("standardize_input", mlp),
    ("no_last_activation", lambda: nn.Sequential(nn.Linear(20, 10), nn.ReLU())),
    ("reset_biases", mlp),
    ("group_norm", lambda: nn.Sequential(nn.Linear(20, 8), nn.BatchNorm1d(8), nn.Linear(8, 10))),
    ("initialize", mlp),
    ("lsuv", mlp),
    ("relu", lambda: mlp(nn.Tanh)),
    ("leaky_relu", mlp),
    ("self_normalize", mlp),
    ("insert_batch_norm", mlp),
]


@pytest.mark.parametrize(("name", "make"), CHANGED, ids=[name for name, _ in CHANGED])
def test_every_change_of_a_model_is_undone(name: str, make: Callable[[], nn.Module]) -> None:
    from lightning_tricks.experiments.arms.batches import Batches
    from lightning_tricks.experiments.arms.course import Deadline
    from lightning_tricks.experiments.arms.trials import prepared
    from lightning_tricks.experiments.training import Training

    arm = next(arm for arm in ARMS if arm.name == name)
    model = make()
    model.register_forward_hook(lambda module, args, output: None)
    copied = copy.deepcopy(model)
    copied._forward_hooks.clear()
    batches = Batches.of([(5 + X[i : i + 32], Y[i : i + 32]) for i in range(0, 320, 32)])
    setting = prepared(Training.of(copied, F.cross_entropy), batches, False, Deadline(60)).setting
    whole, saved = Whole(model), Saved(model)
    described = repr(model)
    assert arm.on_model is not None
    state = torch.get_rng_state()
    arm.on_model(model, setting)
    torch.set_rng_state(state)
    changed = repr(model) != described or not same(whole.before, whole.now())
    saved.put_back()
    whole.check()
    assert repr(model) == described
    assert changed or name in ("no_dropout", "raise_momentum")


def test_a_standardised_input_is_part_of_the_model() -> None:
    """Of a Sequential too, which calls whatever is registered in it; in a copy, a pickle and a state dict."""
    from lightning_tricks.experiments.training import Training
    from lightning_tricks.nn.standardize import standardize_before

    model = mlp()
    names = list(dict(model.named_parameters()))
    plain = model(X)
    standardize_before(model, torch.full((1, 20), 3.0), torch.full((1, 20), 2.0))
    assert torch.allclose(model(2.0 * X + 3.0), plain, atol=1e-5)
    assert list(dict(model.named_parameters())) == names
    copies = [
        copy.deepcopy(model),
        pickle.loads(pickle.dumps(model)),
        Training.of(model, F.cross_entropy).copy().module,
    ]
    for other in copies:
        assert torch.equal(other(X), model(X))
        assert float(other.state_dict()["input_scale"][0, 0]) == 2.0


def test_every_change_of_a_model_is_in_the_list() -> None:
    assert sorted(arm.name for arm in ARMS if arm.on_model) == sorted(
        [*(name for name, _ in CHANGED), "standardize_both"]
    )


def test_it_is_public() -> None:
    assert lt.treat is treat


@pytest.mark.filterwarnings("ignore")
def test_a_checkup_may_end_with_it(monkeypatch: pytest.MonkeyPatch) -> None:
    only(monkeypatch, "initialize")
    module = Lit(constant(mlp(nn.Tanh)))
    whole = Whole(module)
    diagnosis = lt.checkup(module, loader(), treat=True, experiments="none", progress=False)
    assert [remedy.action for remedy in diagnosis.treatment.applied] == ["initialize"]
    assert "changed: start every layer" in str(diagnosis)
    diagnosis.treatment.undo()
    whole.check()
