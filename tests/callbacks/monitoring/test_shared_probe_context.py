"""What a snapshot knows of the steps around it: losses between two probed steps, validations, rates, who is trained."""

import math

import pytest
import torch

import lightning_tricks as lt
from tests.callbacks.monitoring.test_shared_probe import plain, steps
from tests.callbacks.trainings import AccumulatesByHand, Classifier, Gan, Scheduled, Skipping, batches, fit


def recent(monitor):
    return [loss for snapshot in monitor.history for loss in snapshot.recent_losses]


@pytest.mark.parametrize("accumulate", [1, 3])
def test_recent_losses_are_those_of_every_step(accumulate):
    module, often, rarely = Classifier(plain()), *(lt.ActivationMonitor(every_n_steps=n) for n in (1, 5))
    fit(module, [often, rarely], batches(11 * accumulate), accumulate_grad_batches=accumulate)
    windows = torch.stack(module.losses).view(11, accumulate).mean(1).tolist()
    assert recent(often) == pytest.approx(windows)
    assert [s.loss for s in often.history] == pytest.approx(windows)  # on the scale of the snapshot's own loss
    assert recent(rarely) == pytest.approx(windows)
    assert [len(s.recent_losses) for s in rarely.history] == [1, 1, 1, 2, 1, 5]


def test_many_recent_losses_are_thinned():
    module, monitor = Classifier(plain()), lt.ActivationMonitor(every_n_steps=200)
    fit(module, [monitor], batches(201, size=2))
    assert steps(monitor)[-2:] == [128, 200]
    assert monitor.history[-1].recent_losses == pytest.approx(torch.stack(module.losses[129:201:2]).tolist())


def test_a_loss_that_is_nan_between_two_probed_steps_is_seen():
    data = batches(9)
    data[6][0][0, 0] = math.nan
    monitor = lt.ActivationMonitor(every_n_steps=8)
    fit(Classifier(plain()), [monitor], data)
    assert steps(monitor)[-1] == 8
    assert [math.isnan(loss) for loss in monitor.history[-1].recent_losses] == [False, True, True, True]
    back = lt.Snapshot.from_dict(monitor.history[-1].to_dict())
    assert [math.isnan(loss) for loss in back.recent_losses] == [False, True, True, True]


@pytest.mark.filterwarnings("ignore:`training_step` returned `None`")
def test_steps_without_a_loss_leave_none():
    module, monitor = Skipping(), lt.ActivationMonitor(every_n_steps=1)
    fit(module, [monitor], batches(4))
    assert [len(snapshot.recent_losses) for snapshot in monitor.history] == [1, 0, 1, 1]
    by_hand = lt.ActivationMonitor(every_n_steps=1)
    fit(Gan(), [by_hand], batches(2))  # returns nothing
    assert recent(by_hand) == []


def test_losses_returned_in_manual_optimisation():
    class Returning(AccumulatesByHand):
        def training_step(self, batch, batch_idx):
            super().training_step(batch, batch_idx)
            return {"loss": self.loss(batch), "other": 1}

    module, monitor = Returning(), lt.ActivationMonitor(every_n_steps=1)
    fit(module, [monitor], batches(3))
    assert len(recent(monitor)) == 3
    assert all(math.isfinite(loss) for loss in recent(monitor))


def test_learning_rate_of_the_step_itself():
    monitor = lt.ActivationMonitor(every_n_steps=1)
    fit(Scheduled(), [monitor], batches(6))
    assert [snapshot.learning_rate for snapshot in monitor.history] == [0.1, 0.1, 0.05, 0.05, 0.025, 0.025]
    by_hand = lt.ActivationMonitor(every_n_steps=1)
    fit(Gan(), [by_hand], batches(1))
    assert by_hand.history[0].learning_rate == 0.01


def test_who_is_trained():
    class Partly(Classifier):
        def configure_optimizers(self):
            self.net[0].requires_grad_(False)
            return torch.optim.SGD([*self.net[0].parameters(), *self.net[2].parameters()], lr=0.1)

    monitor = lt.ActivationMonitor(every_n_steps=1)
    fit(Partly(plain()), [monitor], batches(2))
    for snapshot in monitor.history:
        assert {r.layer: (r.trainable, r.optimized) for r in snapshot.parameters if r.layer} == {
            "net.0": (False, True), "net.2": (True, True), "net.4": (True, False),
        }  # fmt: skip


class Validated(Classifier):
    def __init__(self, name=None):
        super().__init__(plain(), torch.optim.SGD)
        self.name, self.seen = name, []

    def validation_step(self, batch, batch_idx):
        loss = self.loss(batch)
        self.seen.append(loss)
        if self.name is None:
            return loss
        self.log(self.name, loss, batch_size=len(batch[0]))
        return None


@pytest.mark.parametrize("name", [None, "val_loss", "valid/loss"])
def test_validation_losses(name):
    module, monitor = Validated(name), lt.TrainingDoctor(every_n_steps=4, on_problem="log", report=False)
    options = {"validation": batches(2, seed=5), "val_check_interval": 3, "num_sanity_val_steps": 2}
    fit(module, [monitor], batches(6), max_epochs=2, **options)
    losses = torch.stack(module.seen[2:]).view(4, 2).mean(1).tolist()  # after steps 2, 5, 8 and 11
    assert steps(monitor) == [0, 1, 2, 4, 8]
    known = [snapshot.validation_loss for snapshot in monitor.history]
    assert all(math.isnan(loss) for loss in known[:2])
    assert known[2:] == pytest.approx([losses[0], losses[1], losses[3]])  # the last one came after the last probed step
    assert monitor.diagnosis.history[-1].validation_loss == known[-1]
