"""A checkup looks at a copy: the model, its optimiser and all random numbers stay as they were."""

import copy
import random

import lightning.pytorch as L
import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn

import lightning_tricks as lt
from tests.callbacks.trainings import (
    AccumulatesByHand,
    Classifier,
    ConfiguredLate,
    Gan,
    Scheduled,
    batches,
    cnn,
    fit,
    lbfgs,
    mlp,
    same,
)

pytestmark = pytest.mark.usefixtures("nothing_left")


@pytest.fixture(autouse=True)
def _folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


def check(model, data=None, loss_fn=F.cross_entropy, **options):
    return lt.checkup(model, batches(3) if data is None else data, loss_fn, **options)


def steps(diagnosis):
    return [snapshot.step for snapshot in diagnosis.history]


class Drawing:
    """Batches that come from every source of random numbers."""

    def __iter__(self):
        for _ in range(3):
            noise = random.random() + np.random.rand() + torch.rand(())
            yield torch.randn(8, 6) + noise, torch.randint(3, (8,))


def states(model, optimizer=None):
    return copy.deepcopy([
        dict(model.state_dict()),
        [p.grad for p in model.parameters()],
        [part.training for part in model.modules()],
        None if optimizer is None else optimizer.state_dict(),
        torch.get_rng_state(),
        list(map(str, np.random.get_state())),
        random.getstate(),
        sorted(vars(model)),
    ])  # fmt: skip


@pytest.mark.parametrize("kind", ["module", "lightning"])
def test_everything_stays_as_it_was(kind):
    model = cnn() if kind == "module" else Classifier(cnn())
    optimizer = torch.optim.Adam(model.parameters(), lr=0.01)
    for x, y in batches(2):
        F.cross_entropy((model if kind == "module" else model.net)(x), y).backward()
        optimizer.step()
    model.eval()
    before = states(model, optimizer)
    diagnosis = check(model, Drawing(), F.cross_entropy if kind == "module" else None, optimizer=optimizer)
    assert same(states(model, optimizer), before)
    assert steps(diagnosis) == list(range(8))
    assert diagnosis.history[0].parameters[0].update > 0


def test_loaders_keep_their_own_generator():
    generator = torch.Generator().manual_seed(3)
    data = torch.utils.data.TensorDataset(torch.randn(20, 6), torch.randint(3, (20,)))
    loader = torch.utils.data.DataLoader(data, 8, shuffle=True, generator=generator)
    before = generator.get_state()
    check(mlp(), loader)
    assert torch.equal(generator.get_state(), before)


def test_model_in_evaluation_mode_is_run_in_training_mode():
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(6, 12), nn.ReLU(), nn.Dropout(0.9), nn.Linear(12, 3))
    with_dropout = check(copy.deepcopy(net).train(), num_batches=1).history[0]
    assert check(copy.deepcopy(net).eval(), num_batches=1).history[0].loss == with_dropout.loss
    net[2].eval()  # one part in evaluation mode is meant to be so
    assert check(net, num_batches=1).history[0].loss != with_dropout.loss


def by_hand(model, optimizer, count):
    """An independent loop on a copy: the losses."""
    model, losses = copy.deepcopy(model), []
    twin = type(optimizer)(model.parameters(), lr=optimizer.param_groups[0]["lr"])
    twin.load_state_dict(copy.deepcopy(optimizer.state_dict()))
    for index in range(count):
        x, y = batches(3)[index % 3]
        twin.zero_grad()
        loss = F.cross_entropy(model(x), y)
        losses.append(loss.item())
        loss.backward()
        twin.step()
    return losses


def plain():
    return nn.Sequential(nn.Linear(6, 12), nn.ReLU(), nn.Linear(12, 3))


def test_the_given_optimizer_goes_on_with_its_state():
    model = plain()
    optimizer = torch.optim.Adam(model.parameters(), lr=0.05)
    for x, y in batches(2):
        optimizer.zero_grad()
        F.cross_entropy(model(x), y).backward()
        optimizer.step()
    expected = by_hand(model, optimizer, 5)
    seen = [snapshot.loss for snapshot in check(model, optimizer=optimizer, num_batches=5).history]
    assert seen == pytest.approx(expected, rel=1e-6)  # the loader of three ended early and was started again
    module = Classifier(model)
    seen = [s.loss for s in check(module, loss_fn=None, optimizer=optimizer, num_batches=5).history]
    assert seen == pytest.approx(expected, rel=1e-6)


def test_default_optimizers():
    model = plain()
    assert [s.loss for s in check(model, num_batches=4).history] == pytest.approx(
        by_hand(model, torch.optim.Adam(model.parameters(), lr=1e-3), 4), rel=1e-6
    )
    own = Classifier(model, torch.optim.SGD)
    assert [s.loss for s in check(own, loss_fn=None, num_batches=4).history] == pytest.approx(
        by_hand(model, torch.optim.SGD(model.parameters(), lr=0.01), 4), rel=1e-6
    )


def test_same_findings_as_the_callback():
    torch.manual_seed(0)
    module = Classifier(nn.Sequential(*(part for _ in range(8) for part in (nn.Linear(6, 6), nn.Sigmoid()))))
    diagnosis = lt.checkup(copy.deepcopy(module), batches(6), num_batches=6, experiments="none")
    doctor = lt.TrainingDoctor(every_n_steps=1, on_problem="log", report=False)
    fit(module, [doctor], batches(6))
    assert diagnosis.findings == doctor.diagnosis.findings
    assert diagnosis.findings
    assert lt.diagnose(diagnosis.history).findings == diagnosis.findings


class UsesTheTrainer(Classifier):
    """What real modules do: log, ask the Trainer for the length of the training, touch the logger."""

    def __init__(self):
        super().__init__(plain())
        self.seen = []

    def training_step(self, batch, batch_idx):
        self.logger.experiment.add_scalar("x", 1.0)
        self.seen.append(self.global_step)
        return {"loss": super().training_step(batch, batch_idx), "more": 3}

    def configure_optimizers(self):
        optimizer = torch.optim.SGD(self.parameters(), lr=0.1)
        return [optimizer], [torch.optim.lr_scheduler.OneCycleLR(optimizer, 1, self.trainer.estimated_stepping_batches)]

    def configure_callbacks(self):
        return [L.callbacks.ModelCheckpoint("must_not_be_written")]


@pytest.mark.parametrize(
    "make",
    [Classifier, UsesTheTrainer, Gan, ConfiguredLate, Scheduled, lambda: Classifier(plain(), lbfgs)],
    ids=["logs", "trainer", "gan", "configure_model", "scheduler", "lbfgs"],
)
def test_lightning_modules(make, tmp_path, capsys):
    module = make()
    diagnosis = lt.checkup(module, batches(2), num_batches=4)
    assert steps(diagnosis) == [0, 1, 2, 3]
    assert any(record.update > 0 for record in diagnosis.history[0].parameters)
    assert module.losses == []  # all of it happened to the copy
    assert module._trainer is None
    assert list(tmp_path.iterdir()) == []
    assert capsys.readouterr() == ("", "")


def test_accumulation_by_hand_is_one_step():
    assert len(lt.checkup(AccumulatesByHand(), batches(3), num_batches=6).history) == 2


def test_a_module_that_has_been_trained():
    module = Classifier(plain())
    trainer = fit(module)
    before = states(module)
    assert steps(lt.checkup(module, batches(2), num_batches=2)) == [0, 1]
    assert module.trainer is trainer
    assert same(states(module), before)


def test_inside_a_training():
    class ChecksItself(Classifier):
        def on_train_epoch_end(self):
            if self.trainer.max_epochs == 2 and self.current_epoch == 0:
                found.append(lt.checkup(self, batches(2), num_batches=2))

    found = []
    trainer = fit(ChecksItself(plain()), [lt.ActivationMonitor(every_n_steps=1)], max_epochs=2)
    assert steps(found[0]) == [0, 1]
    assert trainer.global_step == 12


def test_compiled_models():
    assert steps(check(torch.compile(plain(), backend="eager"), num_batches=2)) == [0, 1]
    assert steps(lt.checkup(torch.compile(Classifier(), backend="eager"), batches(2), num_batches=2)) == [0, 1]


def test_a_model_with_nothing_to_train():
    model = plain().requires_grad_(False)
    diagnosis = check(model, num_batches=2)
    assert steps(diagnosis) == [0, 1]
    assert diagnosis.history[0].activations[0].patterns == 8


def test_ignore():
    net = nn.Sequential(nn.Linear(6, 6), nn.Tanh(), nn.Linear(6, 3))
    nn.init.constant_(net[0].weight, 0.1)
    assert "symmetric_weights" in {finding.problem for finding in check(net).findings}
    assert "symmetric_weights" not in {finding.problem for finding in check(net, ignore=["symmetric_weights"]).findings}


@pytest.mark.parametrize("loss_fn", [F.cross_entropy, nn.CrossEntropyLoss(), None], ids=["function", "module", "own"])
def test_losses_and_normalisations_are_seen(loss_fn):
    model = Classifier(cnn()) if loss_fn is None else cnn()
    diagnosis = check(model, batches(3), loss_fn, num_batches=2)
    assert [r.name for r in diagnosis.history[0].losses] == ["cross_entropy"]
    (layer,) = {r.weighted for snapshot in diagnosis.history for r in snapshot.losses}
    assert layer.endswith("8")
    assert [r.name[-1] for r in diagnosis.history[1].normalizations] == ["2"]
    assert diagnosis.history[1].losses[0].value == pytest.approx(diagnosis.history[1].loss)
    assert all(r.optimized and r.trainable for r in diagnosis.history[1].parameters)
    assert diagnosis.history[0].learning_rate == (0.01 if loss_fn is None else 1e-3)
